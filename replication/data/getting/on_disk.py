"""Archives and volumes that already lie on a disk, recognised by the names they commonly have."""

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from replication.data.names import canonical, stem

# Folder name in lower case -> part. Zenodo's, MedSeg's, the Kaggle mirror's, and ours.
FOLDERS = {
    "covid-19-ct-seg_20cases": "ct", "lung_mask": "lung", "infection_mask": "infection",
    "rp_im": "ct", "rp_lung_msk": "lung", "rp_msk": "infection",
    "ct_scans": "ct",
    "ct": "ct", "lung": "lung", "infection": "infection",
}  # fmt: skip
NUMBERED = ("rp_im", "rp_lung_msk", "rp_msk")  # MedSeg's volumes are called 1 to 9
LEVELS = 2  # folders below the one named: the Kaggle mirror is <input>/covid19-ct-scans/ct_scans


@dataclass
class Found:
    """`archives`: file name -> places; `volumes`: `ct/medseg_3` -> place, the first one found."""

    archives: dict[str, list[Path]] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)


def volume_of(filename: str, *, numbered: bool = False) -> str | None:
    """`medseg_3` of `3.nii.gz` if numbered, `coronacases_001` of any name it has; else None."""
    name = stem(filename)
    if name is None or (name.isdigit() and not numbered):
        return None
    try:
        return canonical(f"medseg_{name}" if name.isdigit() else name)
    except ValueError:
        return None


def find_local(folders: Iterable[str | os.PathLike], archives: Collection[str]) -> Found:
    """Look through folders, two levels deep, for volumes and for archives of the given names.

    Raises:
        FileNotFoundError: one of the folders does not exist.
    """
    found = Found()
    for folder in (Path(f).expanduser() for f in folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; `local` lists folders that hold data")
        # The full path, because the folder named may itself be `rp_im`.
        level: list[tuple[Path, str | None]] = [(folder.resolve(), None)]
        for _ in range(LEVELS + 1):
            level = [below for here, known in level for below in _look(here, known, archives, found)]
    return found


def _look(
    folder: Path, known: str | None, archives: Collection[str], found: Found
) -> list[tuple[Path, str | None]]:
    """Note what one folder holds; returns its subfolders and the known name they lie under."""
    own = folder.name.lower()
    known = own if own in FOLDERS else known
    below = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            # Some unpackers make a folder of each file: ct_scans/x.nii/x.nii. Masks of another
            # kind (lung_and_infection_mask) are not inside one of these folders.
            below.append((path, known))
        elif path.name in archives:
            found.archives.setdefault(path.name, []).append(path)
        elif known and (volume := volume_of(path.name, numbered=known in NUMBERED)):
            found.volumes.setdefault(f"{FOLDERS[known]}/{volume}", path)
    return below


def link(source: Path, place: Path) -> None:
    """Make `place` the same file, or a copy where the disks differ; whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    waiting = place.with_name(f".{place.name}.part")
    waiting.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), waiting)  # a hard link to a symbolic link would be one, too
    except OSError:
        shutil.copyfile(source, waiting)
    os.replace(waiting, place)
