"""What lies on this disk: the volumes of a data folder and whence they came, and what may be taken from elsewhere.

`archives/unpacked.json` remembers, for each unpacked volume, the archive's sha256 and the file's
CRC-32; `archives/checksums.json` the sums of archives whose publisher gives none. A sum that
stands there is also taken in place of a declared one: so a replaced archive is accepted.
A volume that stands without a note (linked, or put there by hand) counts as whole.
"""

import os
import shutil
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from replication.data.getting.sources import Archive
from replication.data.names import canonical, stem
from replication.files import read_json, write_json

SUFFIXES = (".nii.gz", ".nii")
# Folder name in lower case -> part. Zenodo's, MedSeg's, the Kaggle mirror's, and ours.
FOLDERS = {
    "covid-19-ct-seg_20cases": "ct", "lung_mask": "lung", "infection_mask": "infection",
    "rp_im": "ct", "rp_lung_msk": "lung", "rp_msk": "infection",
    "ct_scans": "ct",
    "ct": "ct", "lung": "lung", "infection": "infection",
}  # fmt: skip
NUMBERED = ("rp_im", "rp_lung_msk", "rp_msk")  # MedSeg's volumes are called 1 to 9
LEVELS = ("*", "*/*", "*/*/*")  # the Kaggle mirror is <input>/covid19-ct-scans/ct_scans


class Inventory:
    """The state of one data folder, which holds, or will hold, `archives` and `volumes`."""

    def __init__(self, folder: Path) -> None:
        self.archives, self.volumes = folder / "archives", folder / "volumes"
        self.sums, self._notes = self.archives / "checksums.json", self.archives / "unpacked.json"
        self._sum_of, self._note_of = read_json(self.sums), read_json(self._notes)

    def expected(self, archive: Archive) -> str | None:
        """The sha256 that an archive must have; None before the first use of one without."""
        known = self._sum_of.get(archive.name) or archive.sha256
        return known and known.lower()

    def stored(self, name: str) -> Path | None:
        """The file of `ct/coronacases_001`, packed or not; None if there is none."""
        return next((p for s in SUFFIXES if (p := self.volumes / f"{name}{s}").is_file()), None)

    def whole(self, name: str, sha256: str | None) -> bool:
        """Whether a volume is there, unchanged, and from the archive that is now expected."""
        path, note = self.stored(name), self._note_of.get(name)
        if path is None or note is None:
            return path is not None
        return sha256 in (None, note["sha256"]) and _crc32(path) == note["crc32"]

    def link(self, name: str, source: Path) -> None:
        """Make a volume the same file as `source`, or a copy where the disks differ; whole or not at all."""
        place = self.volumes / f"{name}{'.nii.gz' if source.name.endswith('.gz') else '.nii'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        waiting = place.with_name(f".{place.name}.part")
        waiting.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), waiting)  # a hard link to a symbolic link would be one, too
        except OSError:
            shutil.copyfile(source, waiting)
        os.replace(waiting, place)
        if self._note_of.pop(name, None):  # it no longer comes from an archive
            write_json(self._notes, self._note_of)

    def record(self, archive: Archive, sha256: str, unpacked: Mapping[str, tuple[Path, int]]) -> None:
        """Note the unpacked volumes, and the archive's sum if none was declared.

        A twin with the other suffix goes: the new file replaces it.
        """
        for name, (path, crc32) in unpacked.items():
            for twin in (self.volumes / f"{name}{suffix}" for suffix in SUFFIXES):
                if twin != path:
                    twin.unlink(missing_ok=True)
            self._note_of[name] = {"archive": archive.name, "sha256": sha256, "crc32": crc32}
        write_json(self._notes, self._note_of)
        if archive.sha256 is None:
            self._sum_of[archive.name] = sha256
            write_json(self.sums, self._sum_of)


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while data := file.read(2**20):
            crc = zlib.crc32(data, crc)
    return crc


def volume_of(filename: str, *, numbered: bool = False) -> str | None:
    """`medseg_3` of `3.nii.gz` if numbered, `coronacases_001` of any name it has; else None."""
    name = stem(filename)
    if name is None or (name.isdigit() and not numbered):
        return None
    try:
        return canonical(f"medseg_{name}" if name.isdigit() else name)
    except ValueError:
        return None


def find_local(
    folders: Iterable[str | os.PathLike], archives: Collection[str]
) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Look through folders, two levels deep, for volumes and for archives of the given names.

    Returns:
        The places of each archive, by name, and the first place of each volume, by `ct/medseg_3`.

    Raises:
        FileNotFoundError: one of the folders does not exist.
    """
    held: dict[str, list[Path]] = {}
    volumes: dict[str, Path] = {}
    for folder in (Path(f).expanduser() for f in folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; `local` lists folders that hold data")
        root = folder.resolve()  # the full path, because the folder named may itself be `rp_im`
        for path in (path for level in LEVELS for path in sorted(root.glob(level))):
            below = path.relative_to(root).parts
            if path.is_dir() or any(name.startswith(".") for name in below):
                continue
            # Some unpackers make a folder of each file: ct_scans/x.nii/x.nii.
            above = [name.lower() for name in (root.name, *below[:-1])][::-1]
            known = next((name for name in above if name in FOLDERS), None)
            if path.name in archives:
                held.setdefault(path.name, []).append(path)
            elif known and (volume := volume_of(path.name, numbered=known in NUMBERED)):
                volumes.setdefault(f"{FOLDERS[known]}/{volume}", path)
    return held, volumes
