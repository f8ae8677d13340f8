"""From the published archives to volumes: find on this disk -> fetch -> check -> unpack -> note.

download("data")
data/archives/   the archives, checksums.json (sums recorded on first use), unpacked.json
data/volumes/    {ct,lung,infection}/<volume>.nii.gz, what `chs-net data fuse` reads
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from replication.data.getting.archives import ArchiveError, check_archive, unpack
from replication.data.getting.inventory import Inventory, find_local, volume_of
from replication.data.getting.sources import SOURCES, Archive, Source
from replication.data.getting.transfer import fetch
from replication.data.names import PARTS
from replication.data.reading.nifti import Volume


def download(
    folder: str | os.PathLike,
    *,
    datasets: Sequence[str] = ("zenodo", "medseg"),
    offline: bool = False,
    local: Iterable[str | os.PathLike] = (),
    sources: Mapping[str, Source] = SOURCES,
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
        tries, timeout, progress: of `transfer.fetch`.

    Returns:
        `volumes` (folder), `datasets` (volumes and slices of each), `fetched`, `unpacked` (archive
        names) and `linked` (number of files).

    Raises:
        ValueError: an argument is not one that is expected.
        FileNotFoundError: volumes are missing; names each archive that could not be had or used,
            its addresses, checksum, and what to do by hand.
        OSError: the disk is full or cannot be written.
    """
    if isinstance(datasets, str) or not datasets or set(datasets) - set(sources):
        raise ValueError(f"datasets {datasets!r}: expected a list from {', '.join(sources)}")
    inventory = Inventory(Path(folder).expanduser())
    needed = [(sources[key], a) for key in datasets for a in sources[key].archives if a.part]
    archives, volumes = find_local(local, {a.name for _, a in needed})
    how: dict[str, Any] = {"offline": offline, "tries": tries, "timeout": timeout, "progress": progress}
    told: dict[str, Any] = {"fetched": [], "unpacked": [], "linked": 0}
    problems = []
    for source, archive in needed:
        names, expected = (
            {f"{archive.part}/{volume}" for volume in source.depths},
            inventory.expected(archive),
        )
        wanted = {name for name in names if not inventory.whole(name, expected)}
        for name in [n for n in wanted if n in volumes and not inventory.stored(n)]:
            inventory.link(name, volumes[name])
            wanted.remove(name)
            told["linked"] += 1
        if not wanted:
            continue
        try:
            elsewhere = archives.get(archive.name, [])
            fetched = _bring(source, archive, wanted, inventory, elsewhere, **how)
        except ArchiveError as error:
            problems.append(_by_hand(source, archive, inventory, error))
            continue
        told["fetched"] += [archive.name] if fetched else []
        told["unpacked"].append(archive.name)
    if problems:
        raise FileNotFoundError(
            f"{len(problems)} of {len(needed)} archives could not be had"
            f"{' offline' if offline else ''}; what is there is kept, a second call goes on from it:\n"
            + "\n".join(problems)
        )
    told["datasets"] = {key: _survey(sources[key], inventory) for key in datasets}
    return {"volumes": str(inventory.volumes), **told}


def _bring(
    source: Source, archive: Archive, wanted: set[str], inventory: Inventory, elsewhere: Sequence[Path], *,
    offline: bool, **how: Any,
) -> bool:  # fmt: skip
    """Find or fetch an archive that passes its check, and unpack it; whether it was fetched.

    Raises:
        ArchiveError: it is not right, or not there, or could not be fetched.
    """
    place, expected, select = (
        inventory.archives / archive.name,
        inventory.expected(archive),
        _selector(source, archive),
    )

    def check(path: Path) -> str:
        return check_archive(path, expected, select=select, expected=wanted)

    got, wrong = None, None
    for path in (p for p in (place, *elsewhere) if p.is_file()):
        try:
            got = check(path)
            break
        except ArchiveError as error:
            wrong = wrong or ArchiveError(f"{path}: {error}", got=error.got)
    if fetched := got is None:
        if offline:
            raise wrong or ArchiveError("not there, and nothing is fetched offline")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_file():
            os.replace(place, place.with_name(f"{place.name}.wrong"))
        path, got = place, fetch(archive.urls, place, check=check, **how)
    inventory.record(archive, got, unpack(path, inventory.volumes, select=select, expected=wanted))
    return fetched


def _selector(source: Source, archive: Archive) -> Callable[[str], str | None]:
    """From a member's name to `ct/coronacases_001`: flat, or in one folder."""

    def select(member: str) -> str | None:
        above, _, base = member.rpartition("/")
        volume = None if "/" in above or above == "__MACOSX" else volume_of(base, numbered=source.numbered)
        return f"{archive.part}/{volume}" if volume in source.depths else None

    return select


def _by_hand(source: Source, archive: Archive, inventory: Inventory, error: ArchiveError) -> str:
    """The paragraph of the error about one archive."""
    place, expected = inventory.archives / archive.name, inventory.expected(archive)
    lines = [
        f"- {archive.name} ({source.reference}, {archive.part}): {error}",
        f"    from      {', '.join(archive.urls)}",
        f"    sha256    {expected or 'not published; recorded on first use'}",
        f"    by hand   open {source.page} in a browser, fetch {archive.name}, put it at {place}, run again",
    ]
    if (aside := place.with_name(f"{place.name}.wrong")).exists():
        lines.append(f"    kept      what came is at {aside}; it was not unpacked")
    if error.got and expected:
        accept = f'{{"{archive.name}": "{error.got}"}}'
        lines.append(
            f"    changed?  if the publisher replaced the file and you trust it, put it at {place}, "
            f"and {accept} into {inventory.sums}; run again"
        )
    return "\n".join(lines)


def _survey(source: Source, inventory: Inventory) -> dict[str, int]:
    """Count volumes and slices from the headers; missing and unreadable files are one error."""
    bad, odd, slices = [], [], 0
    for name, depth in ((f"{part}/{v}", d) for v, d in source.depths.items() for part in PARTS):
        path = inventory.stored(name)
        if path is None:
            bad.append(f"{inventory.volumes / name}.nii.gz: missing")
            continue
        try:
            with Volume(path) as volume:
                found = volume.shape[2]
        except ValueError as error:
            bad.append(f"{error}; or delete it and run again")
            continue
        if depth and found != depth:
            odd.append(f"{path}: {found} slices, expected {depth}")
        slices += found if name.startswith("ct/") else 0
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
