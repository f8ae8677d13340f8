"""One NIfTI file, read plane by plane: errors that name the file, memory of one plane.

nibabel parses the header and reads the planes. Around it stand checks that must come first: the
declared size is held against the file's before anything is allocated, and a gzip is read to the
checksum at its end. A packed file is unpacked once, into a nameless temporary file, because planes
are needed more than once; where the disk has no room, it is unpacked again for every pass.
"""

import gzip
import os
import shutil
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from numpy.typing import NDArray

HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
MOST_PACKED = 1032  # deflate never packs more bytes than this into one
SPARE = 1 << 28  # bytes of disk that unpacking leaves free
CHUNK = 1 << 20
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")


class Volume:
    """The planes of one file; use it as a context manager.

    Attributes:
        path: the file.
        shape: (x, y, slices). A fourth axis of length 1 is dropped, with a note.
        header: as nibabel parses it.
        affine: (4, 4), or None where the header's cannot be computed.
        notes: what was odd, but no error.

    Raises:
        ValueError: not a NIfTI, cut short, damaged, or of a shape or type that is no CT or mask.
    """

    def __init__(self, path: str | os.PathLike, *, scratch: str | os.PathLike | None = None) -> None:
        """Open, check, and unpack into the folder `scratch` (None: unpack again for every pass)."""
        self.path = Path(path)
        self.notes: list[str] = []
        self._packed: gzip.GzipFile | None = None
        self._open: list[Any] = []
        try:
            with self._named():
                self._read(scratch)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Volume":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and with it delete what was unpacked."""
        while self._open:
            self._open.pop().close()

    def plane(self, k: int, *, finite: bool = True) -> NDArray:
        """Plane k, (x, y), scaled by the header's slope and intercept; finite numbers only, unless told."""
        with self._named(), np.errstate(all="ignore"):
            plane = np.asanyarray(self._proxy[:, :, k])
            plane = plane.astype(plane.dtype.newbyteorder("="), copy=False)
        if finite and plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise ValueError(
                f"{self.path}: slice {k} holds NaN or infinite voxels; expected finite "
                "intensities, replace them (for air: -1000 HU) or fetch the file again"
            )
        return plane

    def mask(self, k: int, *, labels: int) -> NDArray:
        """Plane k of a mask as uint8, whose values must be 0..labels."""
        plane = self.plane(k)
        strange = (plane < 0) | (plane > labels)
        if plane.dtype.kind == "f":
            strange |= plane != np.rint(plane)
        if strange.any():
            values = np.unique(plane[strange])[:5].tolist()
            raise ValueError(
                f"{self.path}: slice {k} holds the values {values}; expected only "
                f"{', '.join(map(str, range(labels + 1)))}; is this another kind of mask?"
            )
        return plane.astype(np.uint8, copy=False)

    def finish(self) -> None:
        """After a pass over all planes: read what follows, up to the checksum of a packed file."""
        if self._packed is not None:
            with self._named():
                while self._packed.read(CHUNK):
                    pass

    # ---- opening -----------------------------------------------------------------------------
    def _read(self, scratch: str | os.PathLike | None) -> None:
        raw = open(self.path, "rb")  # noqa: SIM115  (closed by close)
        self._open.append(raw)
        size = os.fstat(raw.fileno()).st_size
        packed = raw.read(2) == b"\x1f\x8b"  # a browser may have unpacked a .nii.gz on the way
        raw.seek(0)
        file: Any = raw
        if packed:
            self._packed = file = gzip.GzipFile(fileobj=raw)
            self._open.append(file)
        header, start = self._header(file.read(544))
        spec, declared = self._layout(header, start)
        if declared > (size * MOST_PACKED if packed else size):
            raise ValueError(
                f"the header declares {declared} bytes, {'packed ' if packed else ''}in a file of {size}"
            )
        if packed:
            file.seek(0)
            if scratch is not None and shutil.disk_usage(scratch).free > declared + SPARE:
                file = self._unpack(file, declared, scratch)
        elif size > declared:
            self.notes.append(f"{self.path.name}: {size - declared} bytes beyond the declared end ignored")
        self._proxy = ArrayProxy(file, spec, mmap=False)
        self.header, self.affine = header, self._affine(header)

    def _unpack(self, packed: gzip.GzipFile, declared: int, scratch: str | os.PathLike) -> Any:
        out = tempfile.TemporaryFile(dir=str(scratch))  # noqa: SIM115  (closed by close)
        self._open.append(out)
        left = declared
        while chunk := packed.read(CHUNK):  # to the end, where the checksum is
            out.write(chunk[:left])
            left = max(left - len(chunk), 0)
        if left:
            raise ValueError(f"the header declares {declared} bytes, but {declared - left} are there")
        out.flush()
        self._packed = None
        return out

    def _header(self, block: bytes) -> tuple[Any, int]:
        order = next((o for o in ORDERS if int.from_bytes(block[:4], o) in HEADERS), None)
        size = int.from_bytes(block[:4], order) if order else 348
        if order is None or len(block) < size:
            raise ValueError(f"it begins with {block[:8]!r}, which is no NIfTI header")
        kind = HEADERS[size]
        header = kind(block[:size], endianness="<" if order == "little" else ">", check=False)
        if (magic := header["magic"].item()) != kind.single_magic:
            raise ValueError(
                f"its magic is {magic!r}; expected {kind.single_magic!r}, one file with its voxels"
            )
        if header["pixdim"][0] not in (-1, 1):  # the axes' sign, of which NIfTI takes 0 as 1
            header["pixdim"][0] = 1
        return header, kind.single_vox_offset

    def _layout(self, header: Any, start: int) -> tuple[tuple, int]:
        """Shape, type, offset, slope and intercept; and the bytes that they need."""
        axes = int(header["dim"][0])
        shape = tuple(int(n) for n in header["dim"][1 : 1 + max(axes, 0)])
        if axes == 4 and shape[3] == 1:
            shape = shape[:3]
            self.notes.append(f"{self.path.name}: 4 dimensions, the last of length 1, taken as 3")
        if axes > 7 or len(shape) != 3:
            raise ValueError(
                f"{self.path}: shape {shape}; expected 3 dimensions (x, y, slice), "
                "or a fourth of length 1; split a series into volumes"
            )
        if min(shape) < 1:
            raise ValueError(f"{self.path}: shape {shape}; expected at least 1 voxel along every axis")
        try:
            dtype = header.get_data_dtype()
        except (KeyError, nib.spatialimages.HeaderDataError):
            raise ValueError(f"its datatype code {header['datatype']} is unknown") from None
        if dtype.kind not in "iuf" or dtype.itemsize > 8:  # longer floats are not portable
            raise ValueError(
                f"{self.path}: voxels of type {dtype}; expected integers or real numbers of up to 64 bits"
            )
        if header["bitpix"] != dtype.itemsize * 8:
            raise ValueError(f"the header gives {header['bitpix']} bits to voxels of type {dtype}")
        offset = float(header["vox_offset"])
        if not (start <= offset <= 2**53 and offset == int(offset)):
            raise ValueError(f"the header puts the voxels at byte {offset:g}; expected {start} or more")
        slope, inter = header.get_slope_inter()
        spec = (
            shape, dtype, int(offset), 1.0 if slope is None else slope, 0.0 if inter is None else inter
        )  # fmt: skip
        return spec, int(offset) + shape[0] * shape[1] * shape[2] * dtype.itemsize

    @staticmethod
    def _affine(header: Any) -> NDArray | None:
        with np.errstate(all="ignore"):
            try:
                return header.get_best_affine()
            except (ValueError, ArithmeticError, nib.spatialimages.HeaderDataError):
                return None

    @property
    def packed(self) -> bool:
        """Whether a plane costs the unpacking of all before it."""
        return self._packed is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._proxy.shape

    @contextmanager
    def _named(self):
        """Whatever goes wrong with the bytes becomes a ValueError that names the file."""
        try:
            yield
        except (IsADirectoryError, PermissionError) as error:
            raise ValueError(
                f"{self.path}: cannot be read ({error.strerror}); expected a file that you may read"
            ) from error
        except ValueError as error:
            if str(self.path) in str(error):  # ours, and more precise than "damaged"
                raise
            raise self._damaged(error) from error
        except (EOFError, OSError, zlib.error, nib.filebasedimages.ImageFileError,
                nib.spatialimages.HeaderDataError) as error:  # fmt: skip
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path}: cannot be read to its end ({error}); the file is damaged, cut short or no "
            "NIfTI volume, fetch it again"
        )
