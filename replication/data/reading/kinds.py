"""What a file is, by its first bytes and never by its name; and how to go on where it is no scan that can be read."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, cast

from replication.data.names import RESULTS

# First bytes, at an offset, and what begins so.
MAGIC = (
    (128, b"DICM", "dicom"), (0, b"PK\x03\x04", "zip"), (0, b"PK\x05\x06", "zip"), (257, b"ustar", "tar"),
    (0, b"7z\xbc\xaf'\x1c", "7z"), (0, b"Rar!", "rar"), (0, b"BZh", "bzip2"), (0, b"\xfd7zXZ", "xz"), (0, b"(\xb5/\xfd", "zstd"), (0, b"\x1f\x8b", "gzip"), (0, b"\x89PNG", "picture"), (0, b"\xff\xd8\xff", "picture"),
    (0, b"GIF8", "picture"), (0, b"BM", "picture"), (0, b"II*\0", "tiff"), (0, b"MM\0*", "tiff"), (0, b"%PDF", "pdf"), (0, b"NRRD", "nrrd"),
    (0, b"\x89HDF", "hdf5"), (0, b"CDF", "minc"), (0, b"\x93NUMPY", "numpy"), (344, b"n+1\0", "nifti"), (4, b"n+2\0", "nifti"),
    (344, b"ni1\0", "pair"), (4, b"ni2\0", "pair"),
)  # fmt: skip
META = (b"ObjectType", b"NDims", b"Comment", b"BinaryData", b"CompressedData", b"TransformMatrix")
BY_SIMPLEITK = {"metaimage": "a MetaImage (.mha, .mhd)", "nrrd": "an NRRD file"}
UNPACK = "a {} archive; unpack it, and give the folder"
OTHERS = {
    "zip": UNPACK.format("zip"), "tar": UNPACK.format("tar"), "7z": UNPACK.format("7z"), "rar": UNPACK.format("rar"),
    **{kind: f"packed by {kind}; unpack it" for kind in ("bzip2", "xz", "zstd")}, "gzip": "packed twice by gzip; unpack it once",
    "picture": "a picture: its grey values are no Hounsfield units, and it has no spacing; export the scan as DICOM or NIfTI",
    "tiff": "a TIFF picture without the scan's geometry; export the scan as DICOM or NIfTI",
    "pdf": "a PDF, no scan", "numpy": "a NumPy array without spacing and axes; save it as NIfTI with its affine",
    "hdf5": "an HDF5 file (MINC, .mat or .h5); convert it to NIfTI", "minc": "a MINC file; mnc2nii makes a NIfTI of it",
    "pair": "one half of a NIfTI or Analyze pair (.hdr, .img); save it as one .nii or .nii.gz file",
    "empty": "an empty file", "text": "a text, no scan", "unknown": "no scan in a format that is known here, or damaged; export it as DICOM or NIfTI",
}  # fmt: skip


def kind_of(path: Path) -> str:
    """`dicom`, `nifti`, `metaimage`, `nrrd`, or a key of `OTHERS`; of a packed file, what is in it.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        with unpacked(path) as file:
            return _begins(file.read(1024))
    except (gzip.BadGzipFile, EOFError, zlib.error):  # cut or damaged: its reader says where
        return "nifti"


def unpacked(path: Path) -> IO[bytes]:
    """A file to read; of a gzip, what is in it."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else open(path, "rb")


def _begins(head: bytes) -> str:
    if not head:
        return "empty"
    for at, magic, kind in MAGIC:
        if head[at : at + len(magic)] == magic:
            return kind
    if any(head.lstrip().startswith(key) for key in META):
        return "metaimage"
    if int.from_bytes(head[:4], "little") in (348, 540) or int.from_bytes(head[:4], "big") in (348, 540):
        return "nifti" if len(head) > 540 else "pair"
    if _bare_dicom(head):
        return "dicom"
    return "text" if b"\0" not in head and _decodes(head) else "unknown"


def _bare_dicom(head: bytes) -> bool:
    """A data set without preamble: it begins with an element of group 2 or 8, of sensible length."""
    order: Literal["little", "big"] = "little" if head[1:2] == b"\0" else "big"
    group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
    if group not in (2, 8) or len(head) < 64:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    length = int.from_bytes(head[6:8] if explicit else head[4:8], order)
    return element < 0x3000 and length < (1 << 16)


def _decodes(head: bytes) -> bool:
    try:
        head[:1000].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > 990
    return True


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with their preamble or without."""
    try:
        return kind_of(path) == "dicom"
    except OSError:
        return False


def is_result(folder: Path) -> bool:
    """Whether a folder holds what `chs-net segment` wrote."""
    return all((folder / name).is_file() for name in RESULTS)


def files_below(folder: str | os.PathLike) -> Iterator[Path]:
    """Every file below a folder, sorted, links followed, each folder once; hidden ones and results are none of it."""
    seen: set[str] = set()
    for here, folders, names in os.walk(str(folder), followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(n for n in folders if n[0] != "." and not is_result(Path(here, n)))
        yield from (path for n in sorted(names) if n[0] != "." and (path := Path(here, n)).is_file())
