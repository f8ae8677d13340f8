"""One archive on its way to volumes: found or fetched, checked, unpacked; and what to do if not."""

import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib

from replication.data.archives import BadArchive, WrongFile, check_archive, check_members, unpack
from replication.data.inventory import PARTS, Standing, standing_file
from replication.data.on_disk import volume_of
from replication.data.transfer import beside, fetch

if TYPE_CHECKING:
    from replication.data.sources import Archive, Source

_UNREADABLE = (
    OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)  # fmt: skip


def obtain(
    source: "Source", archive: "Archive", wanted: set[str], standing: Standing, elsewhere: Sequence[Path], *,
    offline: bool, **options: Any,
) -> tuple[Path, str, bool]:  # fmt: skip
    """An archive that passes its check: file, sha256, and whether it was fetched.

    Raises:
        WrongFile, FileNotFoundError: offline, and it is not right or not there.
        DownloadError: it could not be fetched.
    """
    expected = standing.expected(archive.name, archive.sha256)
    file = standing.archives / archive.name

    def check(path: Path) -> str:
        got = check_archive(path, expected)
        if expected is None:  # no sum vouches for it: the members' names must
            try:
                check_members(path, select=_selector(source, archive), expected=wanted)
            except BadArchive as error:
                raise WrongFile(f"{error} (sha256 {got})", got=got) from error
        return got

    wrong: list[WrongFile] = []
    for path in (file, *elsewhere):
        if path.is_file():
            try:
                return path, check(path), False
            except WrongFile as error:
                wrong.append(WrongFile(f"{path}: {error}", got=error.got))
    if offline:
        raise wrong[0] if wrong else FileNotFoundError("not there, and nothing is fetched offline")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        os.replace(file, beside(file, ".wrong"))
    fetch(archive.urls, file, sha256=expected, check=check, **options)
    return file, expected or check(file), True  # a known sum was checked on the way


def place(
    source: "Source", archive: "Archive", path: Path, got: str, wanted: set[str], standing: Standing
) -> None:
    """Unpack the wanted volumes; a damaged archive that no checksum vouches for is set aside."""
    try:
        unpacked = unpack(path, standing.volumes, select=_selector(source, archive), expected=wanted)
    except BadArchive:
        if path.parent == standing.archives and standing.expected(archive.name, archive.sha256) is None:
            os.replace(path, beside(path, ".wrong"))
        raise
    for name, (file, crc) in unpacked.items():
        standing.note(name, file, archive=archive.name, sha256=got, crc32=crc)


def _selector(source: "Source", archive: "Archive") -> Callable[[str], str | None]:
    """From a member's name to `ct/coronacases_001`: flat, or in one folder."""

    def select(member: str) -> str | None:
        above, _, base = member.rpartition("/")
        volume = None if "/" in above else volume_of(base, numbered=source.numbered)
        return f"{archive.part}/{volume}" if volume in source.depths else None

    return select


def by_hand(source: "Source", archive: "Archive", standing: Standing, error: Exception) -> str:
    """The paragraph of the error about one archive."""
    place, expected = standing.archives / archive.name, standing.expected(archive.name, archive.sha256)
    lines = [
        f"- {archive.name} ({source.reference}, {archive.part}): {error}",
        f"    from      {', '.join(archive.urls)}",
        f"    sha256    {expected or 'not published; recorded on first use'}",
        f"    by hand   open {source.page} in a browser, fetch {archive.name}, put it at {place}, run again",
    ]
    if (aside := beside(place, ".wrong")).exists():
        lines.append(f"    kept      what came is at {aside}; it was not unpacked")
    if (got := getattr(error, "got", None)) and expected:
        accept = f'checksums={{"{archive.name}": "{got}"}}'
        lines.append(
            f"    changed?  if the publisher replaced the file and you trust it, put it at {place} "
            f"and run again with {accept}"
        )
    return "\n".join(lines)


def survey(source: "Source", volumes: Path) -> dict[str, int]:
    """Count volumes and slices from the headers; missing and unreadable files are one error."""
    bad, odd, slices = [], [], 0
    for volume, depth in source.depths.items():
        for part in PARTS:
            name = f"{part}/{volume}"
            path = standing_file(volumes, name)
            if path is None:
                bad.append(f"{volumes / name}.nii.gz: missing")
                continue
            try:
                shape = nib.load(path).shape
            except _UNREADABLE as error:
                bad.append(f"{path}: not a readable NIfTI file ({error}); delete it and run again")
                continue
            if len(shape) != 3 or (depth and shape[2] != depth):
                odd.append(f"{path}: shape {shape}, expected {depth or 'some'} slices")
            slices += shape[-1] if part == "ct" else 0
    if bad:
        raise FileNotFoundError(
            f"{len(bad)} of {3 * len(source.depths)} volumes of {source.reference} are missing or "
            "unreadable:\n" + "\n".join(bad)
        )
    if slices != source.slices and not odd:
        odd.append(f"{slices} slices, expected {source.slices}")
    if odd:
        warnings.warn(f"{source.reference} differs from what is published: {'; '.join(odd)}", stacklevel=3)
    return {"volumes": len(source.depths), "slices": slices}
