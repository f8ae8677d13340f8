"""Zip archives from elsewhere: are they what they should be, and their volumes unpacked.

A published archive can be damaged, replaced by a page, or blown up. Its volumes are written under this
project's own names, whatever the members are called, and put into place only when all of them are whole.
"""

import errno
import hashlib
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_RATIO = 200  # bytes out for a byte in: .nii.gz hardly shrinks again; masks as .nii may, a hundredfold
SPARE = 16 * 2**20  # bytes that may come out of an archive however small
Select = Callable[[str], str | None]


class ArchiveError(ValueError):
    """An archive that cannot be had or used; `got` is the sha256 of a whole file that is not the one."""

    def __init__(self, message: str, *, got: str | None = None) -> None:
        super().__init__(message)
        self.got = got


def check_archive(path: Path, sha256: str | None, *, select: Select, expected: set[str]) -> str:
    """The file's sha256, if it is `sha256` or, where none is known, if `unpack` could use the file.

    Raises:
        ArchiveError: with both sums, or with what is wrong with the archive.
    """
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        if sha256 is None:
            with _opened(path, select, expected) as (archive, _):
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {damaged}")
        elif got != sha256:
            raise ArchiveError(f"wrong checksum: expected sha256 {sha256}, got {got}")
    except ArchiveError as error:
        raise ArchiveError(str(error), got=got) from error
    return got


def unpack(path: Path, target: Path, *, select: Select, expected: set[str]) -> dict[str, tuple[Path, int]]:
    """Unpack the expected volumes of a zip below `target`; all of them, or none.

    Args:
        path: a zip file.
        target: folder; what stands there under the volumes' names is replaced.
        select: from a member's name to the volume it holds, None to leave it out.
        expected: what must be there, each once, without suffix: `ct/coronacases_001`.
            It is written below `target` with the member's own suffix, `.nii.gz` or `.nii`.

    Returns:
        For each of `expected` its file and the CRC-32 of its bytes.

    Raises:
        ArchiveError: the archive is damaged, encrypted, too large inside, or lacks a volume.
        OSError: the disk is full or cannot be written.
    """
    scratch = target / ".unpacking"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        with _opened(path, select, expected) as (archive, members):
            scratch.mkdir(parents=True)
            room_for(target, sum(member.file_size for member in members.values()))
            files = {}
            for name, member in members.items():
                files[name] = file = f"{name}.nii.gz" if member.filename.endswith(".gz") else f"{name}.nii"
                (scratch / file).parent.mkdir(exist_ok=True)
                with archive.open(member) as source, open(scratch / file, "wb") as out:
                    shutil.copyfileobj(source, out, 2**20)  # zipfile checks the CRC
        for file in files.values():
            (target / file).parent.mkdir(exist_ok=True)
            os.replace(scratch / file, target / file)
        return {name: (target / file, members[name].CRC) for name, file in files.items()}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _opened(
    path: Path, select: Select, expected: set[str]
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The archive, and the member of each expected volume; zipfile's many ways to say damage become one."""
    try:
        with zipfile.ZipFile(path) as archive:
            chosen: dict[str, zipfile.ZipInfo] = {}
            for info in archive.infolist():
                if (name := select(info.filename)) in chosen:
                    raise ArchiveError(f"{name} is there twice; expected one")
                if name in expected:
                    chosen[name] = info
            if absent := sorted(expected - set(chosen)):
                raise ArchiveError(
                    f"lacks {len(absent)} of {len(expected)} volumes ({', '.join(absent[:5])}); is it another release?"
                )
            # More than its claimed size never comes out of a member.
            size, limit = sum(m.file_size for m in chosen.values()), MAX_RATIO * path.stat().st_size + SPARE
            if size > limit:
                raise ArchiveError(
                    f"unpacks to {size / 1e6:.0f} MB, as a zip bomb does; expected at most {limit / 1e6:.0f} MB "
                    "of CT volumes or masks"
                )
            yield archive, chosen
    except ArchiveError as error:
        raise ArchiveError(f"{path.name}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, RuntimeError, ValueError,
            OSError) as error:  # fmt: skip
        # zipfile asks for positions before the file's begin (EINVAL); other OSErrors are the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ArchiveError(f"{path.name}: the archive is damaged ({error})") from error


def room_for(folder: Path, size: int) -> None:
    """OSError if the disk below `folder` has less than `size` bytes free (and a little spare)."""
    free = shutil.disk_usage(folder).free
    if free < size + 2**20:
        raise OSError(
            f"{folder}: {free / 1e6:.0f} MB are free, {size / 1e6:.0f} MB are needed; make room, then "
            "run again (archives that are unpacked may be deleted)"
        )
