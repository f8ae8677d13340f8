"""What stands in a data folder: which volumes are whole, and from which archive they came.

`archives/unpacked.json` remembers, for each unpacked volume, the archive's sha256 and the file's
size, time and CRC-32; `archives/checksums.json` the sums of archives whose publisher gives none, and
of those accepted in place of the declared ones.
A volume that stands there without a note (linked, or put there by hand) counts as whole.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replication.files import write_whole

PARTS = ("ct", "lung", "infection")
SUFFIXES = (".nii.gz", ".nii")


def stored_file(volumes: Path, name: str) -> Path | None:
    """The file of `ct/coronacases_001`, packed or not; None if there is none."""
    return next((p for s in SUFFIXES if (p := volumes / f"{name}{s}").is_file()), None)


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

    def expected(self, archive: str, declared: str | None) -> str | None:
        """The sha256 that an archive must have; None before the first use of one without."""
        return self._given.get(archive) or self._sums.get(archive) or declared

    def stands(self, name: str) -> bool:
        return stored_file(self.volumes, name) is not None

    def whole(self, name: str, sha256: str | None) -> bool:
        """Whether a volume is there, unchanged, and from the archive that is now expected."""
        path, note = stored_file(self.volumes, name), self._notes.get(name)
        if path is None or note is None:
            return path is not None
        if sha256 not in (None, note["sha256"]) or path.stat().st_size != note["size"]:
            return False
        # A copied folder has other times: then the bytes decide.
        return path.stat().st_mtime_ns == note["mtime_ns"] or _crc32(path) == note["crc32"]

    def note(self, name: str, path: Path, *, archive: str, sha256: str, crc32: int) -> None:
        """Remember an unpacked volume; a twin with the other suffix goes, the new one replaces it."""
        for suffix in SUFFIXES:
            if (twin := self.volumes / f"{name}{suffix}") != path:
                twin.unlink(missing_ok=True)
        stat = path.stat()
        self._notes[name] = {
            "archive": archive, "sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns,
            "crc32": crc32,
        }  # fmt: skip

    def forget(self, name: str) -> None:
        """The volume no longer comes from an archive."""
        if self._notes.pop(name, None):
            _write(self.archives / "unpacked.json", self._notes)

    def record(self, archive: str, sha256: str, *, first_use: bool) -> None:
        """Write the notes; and the archive's sum, if none was declared or another was accepted."""
        _write(self.archives / "unpacked.json", self._notes)
        if first_use or archive in self._given:
            self._sums[archive] = sha256
            _write(self.archives / "checksums.json", self._sums)


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while data := file.read(2**20):
            crc = zlib.crc32(data, crc)
    return crc


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); mend it or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; mend it or delete it")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
