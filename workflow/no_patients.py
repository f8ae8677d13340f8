"""Refuse to commit what may show a patient: scans, arrays, archives, pictures and notebooks that are not the project's own.

    python workflow/no_patients.py FILE ...

A file's bytes decide, whatever it is called. pre-commit gives it what is about to be committed, a test every file that is.
"""

import gzip
import sys
import zlib
from pathlib import Path

OWN_PICTURES = ("book/_static/preview.png",)
OWN_NOTEBOOKS = "notebooks"
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"RIFF")
ARRAYS = {
    b"\x93NUMPY": "a numpy array",
    b"PK\x03\x04": "an archive",
    b"NRRD": "an NRRD volume",
    b"ObjectType": "a MetaImage",
}


def kind_of(path: Path) -> str | None:
    """What a file is, if it may show a patient; None: it may not."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                content = file.read(1024)
        except (OSError, EOFError, zlib.error):
            return "a damaged gzip file"
    head = content[:1024]
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "a NIfTI volume"
    # Without the preamble, it begins with an element of group 2 or 8.
    if head[128:132] == b"DICM" or head[:2] in (b"\2\0", b"\x08\0") and head[3:4] == b"\0" and len(head) > 8:
        return "a DICOM file"
    for magic, kind in ARRAYS.items():
        if head.startswith(magic):
            return kind
    if head.startswith(PICTURES) or head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return None if path.as_posix() in OWN_PICTURES else "a picture that is not the project's"
    if (
        content.lstrip()[:1] == b"{"
        and b'"nbformat"' in content[-2000:]
        and path.parent.as_posix() != OWN_NOTEBOOKS
    ):
        return "a notebook that is no chapter"
    return None


def main(paths: list[str]) -> int:
    """1 if any of the paths, relative to the repository, is refused; each with its kind on stderr."""
    found = {path: kind for path in paths if Path(path).is_file() and (kind := kind_of(Path(path)))}
    for path, kind in found.items():
        print(f"{path}: {kind}; patients stay out of git (book/limits.md)", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
