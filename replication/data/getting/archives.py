"""Zip archives from elsewhere: are they what they should be, and unpacking them without trust.

A published archive can be damaged, replaced by a page, or made to do harm. `check_archive` looks
at the whole file; `unpack` looks at every member's name and type before it writes, counts bytes
while it writes, and moves the files into place only when all of them are there.
"""

import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAGIC = b"PK\x03\x04"
MAX_BYTES = 16 * 2**30  # the largest archive of the two sources holds about 1.1 GB
MAX_RATIO = 200.0  # .nii.gz hardly shrinks again; masks stored as .nii may, a hundredfold
FREE_RATIO = 16 * 2**20  # below this size no ratio is suspicious
_CHUNK = 2**20
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError,
    RuntimeError, ValueError,
)  # fmt: skip


class BadArchive(ValueError):
    """A zip archive that is not unpacked, and why."""


class WrongFile(ValueError):
    """A whole file that is not the one expected; `got` is its sha256."""

    def __init__(self, message: str, *, got: str) -> None:
        super().__init__(message)
        self.got = got


def check_archive(path: Path, sha256: str | None) -> str:
    """The file's sha256, if it is `sha256` or, where none is known, if it looks like a whole zip.

    Raises:
        WrongFile: with both sums, or with what the file lacks of a zip.
    """
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and got != sha256.lower():
        raise WrongFile(f"wrong checksum: expected sha256 {sha256}, got {got}", got=got)
    # The directory of a zip stands at its end: a file cut short has none.
    if sha256 is None and not zipfile.is_zipfile(path):
        raise WrongFile(f"not a whole zip archive ({path.stat().st_size} bytes, sha256 {got})", got=got)
    return got


def check_members(archive: Path, *, select: Callable[[str], str | None], expected: set[str]) -> None:
    """BadArchive where `unpack` would refuse by the names and types of the members alone."""
    _guarded(archive, lambda opened: _choose(opened.infolist(), select, expected, archive.name))


def unpack(
    archive: Path,
    target: Path,
    *,
    select: Callable[[str], str | None],
    expected: set[str],
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
) -> dict[str, tuple[Path, int]]:
    """Unpack the expected files of a zip below `target`; all of them, or none.

    Args:
        archive: a zip file.
        target: folder; the files go to a temporary folder in it, then to their places, where
            they replace what stands there.
        select: from a member's name (parts joined by `/`) to what it holds, None to leave it out.
        expected: what must be there, each once, without suffix: `ct/coronacases_001`.
            It is written below `target` with the member's own suffix, `.nii.gz` or `.nii`.
        max_bytes: most bytes that may come out.
        max_ratio: most bytes that may come out for each byte of the archive.

    Returns:
        For each of `expected` its file and the CRC-32 of its bytes.

    Raises:
        BadArchive: the archive is damaged, encrypted, unsafe, too large inside, or lacks a file.
        OSError: the disk is full or cannot be written.
    """

    def work(opened: zipfile.ZipFile) -> dict[str, tuple[Path, int]]:
        members = _choose(opened.infolist(), select, expected, archive.name)
        limit = int(min(max_bytes, max(max_ratio * archive.stat().st_size, FREE_RATIO)))
        target.mkdir(parents=True, exist_ok=True)
        room_for(target, min(sum(m.file_size for m in members.values()), limit))
        remove_stale(target)
        with tempfile.TemporaryDirectory(dir=target, prefix=".unpacking-") as scratch:
            written, files, sums = 0, {}, {}
            for number, (name, member) in enumerate(sorted(members.items())):
                suffix = ".nii.gz" if member.filename.endswith(".gz") else ".nii"
                waiting = Path(scratch) / f"{number}{suffix}"
                written, sums[name] = _write(opened, member, waiting, written, limit, archive.name)
                files[name] = waiting, target / f"{name}{suffix}"
            for waiting, file in files.values():
                file.parent.mkdir(parents=True, exist_ok=True)
                os.replace(waiting, file)
        return {name: (file, sums[name]) for name, (_, file) in files.items()}

    return _guarded(archive, work)


def _guarded(archive: Path, work: Callable[[zipfile.ZipFile], Any]) -> Any:
    """What `work` makes of the opened archive; zipfile's many ways to say damage become one."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return work(opened)
    except BadArchive:
        raise
    except (*_DAMAGE, OSError) as error:
        # zipfile asks for positions before the file's begin (EINVAL); other OSErrors are the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise BadArchive(f"{archive.name}: the archive is damaged ({error})") from error


def room_for(folder: Path, size: int) -> None:
    """OSError if the disk below `folder` has less than `size` bytes free (and a little spare)."""
    free = shutil.disk_usage(folder).free
    if free < size + 2**20:
        raise OSError(
            f"{folder}: {free / 1e6:.0f} MB are free, {size / 1e6:.0f} MB are needed; make room, then "
            "run again (archives that are unpacked may be deleted)"
        )


def remove_stale(folder: Path, *, seconds: float = 86400.0) -> None:
    """Delete what a killed run left; younger folders may belong to a run that is at work."""
    for path in folder.glob(".unpacking-*"):
        if time.time() - path.stat().st_mtime > seconds:
            shutil.rmtree(path, ignore_errors=True)


def _choose(
    infos: list[zipfile.ZipInfo], select: Callable[[str], str | None], expected: set[str], archive: str
) -> dict[str, zipfile.ZipInfo]:
    """The member of each expected file; every member is looked at, also those left out."""
    chosen: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        shown = info.orig_filename
        name = shown.replace("\\", "/")
        parts = name.rstrip("/").split("/")
        if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
            raise BadArchive(f"{archive}: unsafe, member {shown!r} points out of its folder")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadArchive(f"{archive}: unsafe, member {shown!r} is a link or a device, not a file")
        if name.endswith("/") or any(p == "__MACOSX" or p.startswith(".") for p in parts):
            continue
        volume = select(name)
        if volume is None:
            continue
        if info.flag_bits & 1:
            raise BadArchive(f"{archive}: member {shown!r} is encrypted; expected an open archive")
        if volume in chosen:
            raise BadArchive(
                f"{archive}: {volume} is there twice ({chosen[volume].filename!r}, {shown!r}); expected one"
            )
        chosen[volume] = info
    if absent := sorted(expected - set(chosen)):
        raise BadArchive(
            f"{archive}: lacks {len(absent)} of {len(expected)} volumes ({', '.join(absent[:5])}); is it "
            "another release?"
        )
    return {name: info for name, info in chosen.items() if name in expected}


def _write(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, written: int, limit: int, archive: str
) -> tuple[int, int]:
    """Unpack one member; the bytes written so far, of all members, and this one's CRC-32."""
    crc = 0
    # The sizes in a header are claims: count what really comes out.
    with opened.open(member) as source, open(path, "wb") as out:
        while data := source.read(_CHUNK):
            written += len(data)
            if written > limit:
                raise BadArchive(
                    f"{archive}: unpacks to more than {limit / 1e6:.0f} MB, as a zip bomb does; expected "
                    "CT volumes or masks"
                )
            crc = zlib.crc32(data, crc)
            out.write(data)
    return written, crc
