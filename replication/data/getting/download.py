"""From the published archives to volumes: find on this disk -> fetch -> check -> unpack -> note.

download("data")
data/archives/   the archives, checksums.json (sums recorded on first use), unpacked.json
data/volumes/    {ct,lung,infection}/<volume>.nii.gz, what `chs-net data fuse` reads
"""

import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib

from replication.data.getting.archives import WrongFile, check_archive, unpack
from replication.data.getting.inventory import Inventory
from replication.data.getting.on_disk import find_local, link, volume_of
from replication.data.getting.sources import SOURCES, Archive, Source
from replication.data.getting.transfer import DownloadError, fetch
from replication.data.names import PARTS

_UNREADABLE = (
    OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)  # fmt: skip


def download(
    folder: str | os.PathLike,
    *,
    datasets: Sequence[str] = ("zenodo", "medseg"),
    offline: bool = False,
    local: Iterable[str | os.PathLike] = (),
    sources: Mapping[str, Source] = SOURCES,
    base_urls: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | None = None,
    tries: int = 4,
    timeout: float = 30.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Get the volumes of the sources below `folder`, from the network or from this disk.

    Call it again after an error or an interruption: what is there and whole is not fetched,
    linked or unpacked again. A set whose volumes are all there needs no archive.

    Args:
        folder: gets `archives` and `volumes`.
        datasets: keys of `sources`.
        offline: fetch nothing; take what lies in `folder/archives` or in `local`.
        local: folders with archives, or with unpacked volumes in Zenodo's, MedSeg's or the Kaggle
            mirror's folders; searched two levels deep. Volumes are linked, else copied.
        sources: the table; another one for other data or mirrors.
        base_urls: for a dataset, where its archives lie under their own names:
            `{"zenodo": "https://mirror.example/covid/"}`.
        checksums: sha256 by archive name, in place of the declared or recorded ones.
        tries, timeout, progress: of `transfer.fetch`.

    Returns:
        `volumes` (folder), `datasets` (volumes and slices of each), `fetched`, `unpacked` (archive
        names), `linked` (number of files) and `checksums` (of the archives used here).

    Raises:
        ValueError: an argument is not one that is expected.
        FileNotFoundError: volumes are missing; names each archive that could not be had or used,
            its addresses, checksum, and what to do by hand.
        OSError: the disk is full or cannot be written.
    """
    chosen = _chosen(sources, datasets, base_urls or {}, checksums or {})
    inventory = Inventory(Path(folder).expanduser(), checksums or {})
    needed = [(s, a) for s in chosen.values() for a in s.archives if a.part]
    found = find_local(local, {a.name for _, a in needed})
    how: dict[str, Any] = {"offline": offline, "tries": tries, "timeout": timeout, "progress": progress}
    told: dict[str, Any] = {"fetched": [], "unpacked": [], "linked": 0, "checksums": {}}
    problems = []
    for source, archive in needed:
        wanted, linked = _link(source, archive, inventory, found.volumes)
        told["linked"] += linked
        if not wanted:
            continue
        try:
            elsewhere = found.archives.get(archive.name, [])
            got, fetched = _bring(source, archive, wanted, inventory, elsewhere, **how)
        except (ValueError, DownloadError, FileNotFoundError) as error:
            problems.append(by_hand(source, archive, inventory, error))
            continue
        told["fetched"] += [archive.name] if fetched else []
        told["unpacked"].append(archive.name)
        told["checksums"][archive.name] = got
    if problems:
        raise FileNotFoundError(
            f"{len(problems)} of {len(needed)} archives could not be had"
            f"{' offline' if offline else ''}; what is there is kept, a second call goes on from it:\n"
            + "\n".join(problems)
        )
    told["datasets"] = {key: survey(source, inventory) for key, source in chosen.items()}
    return {"volumes": str(inventory.volumes), **told}


def _chosen(
    sources: Mapping[str, Source], datasets: Sequence[str], base_urls: Mapping[str, str],
    checksums: Mapping[str, str],
) -> dict[str, Source]:  # fmt: skip
    """The sources asked for, with other addresses where given."""
    if isinstance(datasets, str) or not datasets or set(datasets) - set(sources):
        raise ValueError(f"datasets {datasets!r}: expected a list from {', '.join(sources)}")
    names = {a.name for s in sources.values() for a in s.archives}
    if strange := sorted((set(base_urls) - set(sources)) | (set(checksums) - names)):
        raise ValueError(f"base_urls or checksums name {strange}: expected datasets, and archives of theirs")
    chosen = {}
    for key in datasets:
        source = sources[key]
        if key in base_urls:
            base = base_urls[key].rstrip("/")
            moved = tuple(replace(a, urls=(f"{base}/{a.name}",)) for a in source.archives)
            source = replace(source, archives=moved)
        chosen[key] = source
    return chosen


def _link(
    source: Source, archive: Archive, inventory: Inventory, volumes: Mapping[str, Path]
) -> tuple[set[str], int]:
    """Link what lies on this disk; returns the volumes that the archive itself must give, and how many were linked."""
    wanted, linked = set(), 0
    for name in (f"{archive.part}/{volume}" for volume in source.depths):
        if inventory.whole(name, inventory.expected(archive)):
            continue
        if name in volumes and not inventory.stored(name):
            suffix = ".nii.gz" if volumes[name].name.endswith(".gz") else ".nii"
            link(volumes[name], inventory.volumes / f"{name}{suffix}")
            inventory.forget(name)
            linked += 1
        else:
            wanted.add(name)
    return wanted, linked


def _bring(
    source: Source, archive: Archive, wanted: set[str], inventory: Inventory, elsewhere: Sequence[Path], *,
    offline: bool, **how: Any,
) -> tuple[str, bool]:  # fmt: skip
    """Find or fetch an archive that passes its check, and unpack it; its sha256, and whether it was fetched.

    Raises:
        WrongFile, FileNotFoundError: offline, and it is not right or not there.
        DownloadError: it could not be fetched.
    """
    select = _selector(source, archive)
    place, expected = inventory.place(archive), inventory.expected(archive)

    def check(path: Path) -> str:
        return check_archive(path, expected, select=select, expected=wanted)

    path, got, wrong = None, "", None
    for there in (place, *elsewhere):
        if path is None and there.is_file():
            try:
                path, got = there, check(there)
            except WrongFile as error:
                path, wrong = None, wrong or WrongFile(f"{there}: {error}", got=error.got)
    fetched = path is None
    if path is None:
        if offline:
            raise wrong or FileNotFoundError("not there, and nothing is fetched offline")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_file():
            os.replace(place, place.with_name(f"{place.name}.wrong"))
        fetch(archive.urls, place, check=check, **how)
        path, got = place, expected or check(place)  # a known sum was checked on the way
    inventory.record(archive, got, unpack(path, inventory.volumes, select=select, expected=wanted))
    return got, fetched


def _selector(source: Source, archive: Archive) -> Callable[[str], str | None]:
    """From a member's name to `ct/coronacases_001`: flat, or in one folder."""

    def select(member: str) -> str | None:
        above, _, base = member.rpartition("/")
        volume = None if "/" in above or above == "__MACOSX" else volume_of(base, numbered=source.numbered)
        return f"{archive.part}/{volume}" if volume in source.depths else None

    return select


def by_hand(source: Source, archive: Archive, inventory: Inventory, error: Exception) -> str:
    """The paragraph of the error about one archive."""
    place, expected = inventory.place(archive), inventory.expected(archive)
    lines = [
        f"- {archive.name} ({source.reference}, {archive.part}): {error}",
        f"    from      {', '.join(archive.urls)}",
        f"    sha256    {expected or 'not published; recorded on first use'}",
        f"    by hand   open {source.page} in a browser, fetch {archive.name}, put it at {place}, run again",
    ]
    if (aside := place.with_name(f"{place.name}.wrong")).exists():
        lines.append(f"    kept      what came is at {aside}; it was not unpacked")
    if (got := getattr(error, "got", None)) and expected:
        accept = f'checksums={{"{archive.name}": "{got}"}}'
        lines.append(
            f"    changed?  if the publisher replaced the file and you trust it, put it at {place} "
            f"and run again with {accept}"
        )
    return "\n".join(lines)


def survey(source: Source, inventory: Inventory) -> dict[str, int]:
    """Count volumes and slices from the headers; missing and unreadable files are one error."""
    bad, odd, slices = [], [], 0
    for volume, depth in source.depths.items():
        for part in PARTS:
            name = f"{part}/{volume}"
            path = inventory.stored(name)
            if path is None:
                bad.append(f"{inventory.volumes / name}.nii.gz: missing")
                continue
            try:
                shape = nib.Nifti1Image.from_filename(path).shape
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
