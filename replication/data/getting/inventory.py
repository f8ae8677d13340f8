"""What stands in a data folder: which volumes are whole, and from which archive they came.

`archives/unpacked.json` remembers, for each unpacked volume, the archive's sha256 and the file's
CRC-32; `archives/checksums.json` the sums of archives whose publisher gives none, and
of those accepted in place of the declared ones.
A volume that stands there without a note (linked, or put there by hand) counts as whole.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replication.data.getting.sources import Archive
from replication.files import write_json

SUFFIXES = (".nii.gz", ".nii")


class Inventory:
    """The state of one data folder.

    Args:
        folder: holds, or will hold, `archives` and `volumes`.
        checksums: sums that stand above recorded and declared ones; recorded when used.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, str]) -> None:
        self.archives, self.volumes = folder / "archives", folder / "volumes"
        self._given = checksums
        self._sums = _read(self.archives / "checksums.json")
        self._notes = _read(self.archives / "unpacked.json")

    def place(self, archive: Archive) -> Path:
        return self.archives / archive.name

    def expected(self, archive: Archive) -> str | None:
        """The sha256 that an archive must have; None before the first use of one without."""
        return self._given.get(archive.name) or self._sums.get(archive.name) or archive.sha256

    def stored(self, name: str) -> Path | None:
        """The file of `ct/coronacases_001`, packed or not; None if there is none."""
        return next((p for s in SUFFIXES if (p := self.volumes / f"{name}{s}").is_file()), None)

    def whole(self, name: str, sha256: str | None) -> bool:
        """Whether a volume is there, unchanged, and from the archive that is now expected."""
        path, note = self.stored(name), self._notes.get(name)
        if path is None or note is None:
            return path is not None
        return sha256 in (None, note["sha256"]) and _crc32(path) == note["crc32"]

    def forget(self, name: str) -> None:
        """The volume no longer comes from an archive."""
        if self._notes.pop(name, None):
            write_json(self.archives / "unpacked.json", self._notes)

    def record(self, archive: Archive, sha256: str, unpacked: Mapping[str, tuple[Path, int]]) -> None:
        """Note the unpacked volumes, and the archive's sum if none was declared or another was accepted.

        A twin with the other suffix goes: the new file replaces it.
        """
        for name, (path, crc32) in unpacked.items():
            for suffix in SUFFIXES:
                if (twin := self.volumes / f"{name}{suffix}") != path:
                    twin.unlink(missing_ok=True)
            self._notes[name] = {"archive": archive.name, "sha256": sha256, "crc32": crc32}
        write_json(self.archives / "unpacked.json", self._notes)
        if archive.sha256 is None or archive.name in self._given:
            self._sums[archive.name] = sha256
            write_json(self.archives / "checksums.json", self._sums)


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while data := file.read(2**20):
            crc = zlib.crc32(data, crc)
    return crc


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); mend it or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; mend it or delete it")
    return content
