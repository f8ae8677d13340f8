"""The two folders of a fusion: which volumes lie in one, and how the other is written.

Every file is written whole or not at all, and by one fusion at a time.
"""

import gzip
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from replication.data.names import PARTS, canonical, stem
from replication.files import write_whole


def find_volumes(volumes: str | os.PathLike) -> dict[str, dict[str, Path]]:
    """Canonical names and files of the volumes in a folder, sorted; see `fusion.fuse` for the errors."""
    folder = Path(volumes)
    if not (folder / "ct").is_dir():
        raise FileNotFoundError(
            f"{folder / 'ct'}: no such folder; expected ct, lung and infection with one .nii.gz "
            "per volume (chs-net data phantom writes such a folder)"
        )
    files = {part: _files_in(folder / part, strict=part == "ct") for part in PARTS}
    if not files["ct"]:
        raise FileNotFoundError(f"{folder / 'ct'}: holds no .nii.gz or .nii file")
    missing = [
        f"{name}: the {part} mask {folder / part / name}.nii.gz is missing; "
        f"put it there, or take {scan.name} out of {scan.parent}"
        for name, scan in files["ct"].items() for part in PARTS[1:] if name not in files[part]
    ]  # fmt: skip
    if missing:
        raise ValueError("\n".join(missing))
    return {name: {part: files[part][name] for part in PARTS} for name in files["ct"]}


def _files_in(folder: Path, *, strict: bool) -> dict[str, Path]:
    """Canonical name -> file; `strict`: a name that tells no source is an error, not ignored."""
    found: dict[str, Path] = {}
    # A leading dot marks a file that somebody is still writing.
    paths = [p for p in folder.iterdir() if stem(p.name) and p.name[0] != "."] if folder.is_dir() else []
    for path in sorted(paths):
        try:
            name = canonical(stem(path.name) or "")
        except ValueError as error:
            if strict:
                raise ValueError(f"{path}: {error}") from error
            continue
        if not path.is_file():
            raise ValueError(f"{path}: expected a file, not a folder or a broken link; put the volume there")
        if name in found:
            raise ValueError(
                f"{folder}: {name} lies there twice, as {found[name].name} and {path.name}; keep one of them"
            )
        found[name] = path
    return dict(sorted(found.items()))


def is_drawn(path: Path) -> bool:
    """Whether a volume says of itself that it is a phantom's, as `replication.data.phantom` writes it."""
    if path.is_dir():
        return False
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as file:
        return b'"phantom"' in file.read(348)[148:228]  # NIfTI's descrip


@contextmanager
def alone(memory: Path) -> Iterator[None]:
    """Refuse a second fusion into one store. The system drops the lock of a process that dies."""
    writer = memory / "writer"
    try:
        with FileLock(memory / "lock", timeout=0):
            write_whole(writer, f"process {os.getpid()} on {socket.gethostname()}")
            yield
    except Timeout:
        told = writer.read_text() if writer.exists() else "just begun"
        raise ValueError(
            f"{memory.parent}: another fusion writes here ({told}); wait for its end, or choose another folder"
        ) from None
