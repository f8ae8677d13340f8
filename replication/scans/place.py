"""Where results are written: a hidden folder of a run's own, moved to its place when it is whole."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESERVE = ".room"  # a file that keeps the room for the results while the networks run


def is_taken(out: Path) -> bool:
    """Whether something stands there; an empty folder is free, and hidden files count for nothing."""
    return os.path.lexists(out) and not (out.is_dir() and all(p.name[0] == "." for p in out.iterdir()))


@contextmanager
def own_folder(out: Path, *, room: int) -> Iterator[Path]:
    """A new hidden folder beside `out`, or in it where only that can be written, with a file `RESERVE` of `room` bytes.

    It is locked while this run lives, so that two runs cannot mix, and what a killed run left is swept up by
    the next. It is gone at the end, unless `settle` moved it.

    Raises:
        OSError: the place cannot be written, or has no room; names it.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        where = out if out.is_dir() and not os.access(out.parent, os.W_OK) else out.parent
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".new", dir=where))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: results cannot be written there", str(out)) from error
    held = os.open(new, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    part = new.rename(new.with_suffix(".part"))  # whatever bears this name is, or was, locked
    try:
        _sweep(part, f".{out.name}.*.part")
        _fill(part / RESERVE, room, out)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(held)


def settle(part: Path, out: Path, *, last: str) -> bool:
    """Move a whole folder to its place; False where another run was faster.

    Args:
        last: the file whose presence says that the results are whole.
    """
    (part / RESERVE).unlink(missing_ok=True)
    try:
        os.rename(part, out)
        return True
    except OSError:
        if not out.is_dir():
            raise
    held = os.open(out, os.O_RDONLY)  # a mount, or a folder with hidden files: file by file
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        if is_taken(out):
            return False
        for path in sorted(part.iterdir(), key=lambda p: (p.name == last, p.name)):
            os.rename(path, out / path.name)
        return True
    finally:
        os.close(held)


def _fill(path: Path, room: int, out: Path) -> None:
    """Write zeros: a disk says only then that it is full."""
    try:
        with open(path, "wb") as file:
            for _ in range(0, room, 1 << 20):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    except OSError as error:
        told = f"{error.strerror}: the results may need {-(-room >> 20)} MiB"
        raise OSError(error.errno, told, str(out)) from error


def _sweep(own: Path, pattern: str) -> None:
    """Take away what killed runs left: folders that nobody holds."""
    for left in own.parent.glob(pattern):
        try:
            held = os.open(left, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:  # a run that lives, this one too
            pass
        finally:
            os.close(held)
