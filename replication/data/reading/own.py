"""Annotated scans of one's own: which files belong together, whose they are, and which labels count.

    volumes/ct/<patient>/<scan>.nii.gz          or volumes/ct/<scan>.nii.gz, or a DICOM folder in its place
    volumes/lung/<patient>/<scan>.nii.gz        the same names
    volumes/infection/<patient>/<scan>.nii.gz

A scan may have any name. Its header says how it lies (`replication.data.reading.scan`), a folder or a table whose
it is, and options which labels count.
"""

import csv
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replication.data.names import PARTS, canonical, stem
from replication.data.reading.kinds import BY_SIMPLEITK, is_dicom, kind_of
from replication.data.reading.orientation import Turn, judge
from replication.data.reading.scan import Scan

SOURCE = "own"  # in `slices.csv`
SAFE = re.compile(
    r"\w[\w .,+()-]*"
)  # letters of any script; nothing that a path or a pattern of paths means otherwise


@dataclass(frozen=True, kw_only=True)
class Own:
    """How scans of one's own are read.

    Attributes:
        patients: CSV with the columns `scan` and `patient`; None: the folder is the patient, or each scan its own.
        lung_labels, infection_labels: which count; None: 1 and 2 (of infection also 3, an effusion, is allowed
            and does not count), or 255 where a mask holds 0 and 255 alone.
        axes, intensity: see `Scan`.
        strict: refuse where the pixels contradict the header, or anything else puts a scan in doubt.
    """

    patients: str | None = None
    lung_labels: tuple[int, ...] | None = None
    infection_labels: tuple[int, ...] | None = None
    axes: str | None = None
    intensity: str = "auto"
    strict: bool = False

    def settings(self) -> dict[str, Any]:
        """Of JSON types, for the store's memory; the table of patients by what it says."""
        told = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return told | {"patients": read_patients(self.patients) if self.patients else None}


def read_patients(path: str | os.PathLike) -> dict[str, str]:
    """Scan -> patient, of a CSV.

    Raises:
        FileNotFoundError: no such file.
        ValueError: without the columns, an empty cell, or a scan twice.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"scan", "patient"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: columns {rows.fieldnames}; expected scan and patient")
        told: dict[str, str] = {}
        for row in rows:
            scan, patient = ((row[column] or "").strip() for column in ("scan", "patient"))
            if not scan or not patient or told.setdefault(scan, patient) != patient:
                raise ValueError(
                    f"{path}, line {rows.line_num}: {scan!r}, {patient!r}; expected each scan once, with its patient"
                )
    return told


def find_scans(volumes: str | os.PathLike, *, published: bool = False) -> dict[str, dict[str, Path]]:
    """Name and files of each scan below `volumes`, sorted; see `named_scans` for the names.

    Raises:
        FileNotFoundError: no ct folder, or none in it.
        ValueError: a mask is missing, a name comes twice or cannot be what it should; each with the cure.
    """
    folder = Path(volumes)
    if not (folder / "ct").is_dir():
        raise FileNotFoundError(
            f"{folder / 'ct'}: no such folder; expected ct, lung and infection with the same names "
            "(chs-net data phantom writes such a folder)"
        )
    files = {part: named_scans(folder / part, published=published, strict=part == "ct") for part in PARTS}
    if not files["ct"]:
        raise FileNotFoundError(f"{folder / 'ct'}: holds no .nii.gz or .nii file and no DICOM folder")
    missing = [
        f"{name}: the {part} mask {folder / part / scan.relative_to(folder / 'ct').parent / _name(scan)}.nii.gz "
        f"is missing; put it there, or take {scan.name} out of {scan.parent}"
        for name, scan in files["ct"].items() for part in PARTS[1:] if name not in files[part]
    ]  # fmt: skip
    if missing:
        raise ValueError("\n".join(missing))
    return {name: {part: files[part][name] for part in PARTS} for name in sorted(files["ct"])}


def named_scans(folder: Path, *, published: bool = False, strict: bool = True) -> dict[str, Path]:
    """Name and path of each scan in one of the three folders of annotated scans.

    Args:
        published: files side by side, under any name that `names.canonical` knows, which makes it one; otherwise
            any scans in any folders: `<patient>/<scan>` becomes `<patient>-<scan>`.
        strict: a name that cannot be is an error; else it is left out.

    Raises:
        ValueError: a name comes twice, or cannot be; or, of the published, something that is no file.
    """
    found: dict[str, Path] = {}
    for scan in _scans_in(folder, published=published):
        name = "-".join([*scan.relative_to(folder).parent.parts, _name(scan)])
        try:
            name = canonical(name) if published else _safe(name)
        except ValueError as error:
            if strict:
                raise ValueError(f"{scan}: {error}") from error
            continue
        if name in found:
            raise ValueError(
                f"{folder}: {name} lies there twice, as {found[name].name} and {scan.name}; keep one of them"
            )
        found[name] = scan
    return found


def _safe(name: str) -> str:
    if not SAFE.fullmatch(name):
        raise ValueError(
            f"the name {name!r}; expected letters, digits, blanks and .,_+-(), as of a file; rename it"
        )
    return name


def _scans_in(folder: Path, *, published: bool) -> list[Path]:
    scans: list[Path] = []
    # A leading dot marks a file that somebody is still writing.
    for path in sorted(p for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else ():
        if published and stem(path.name):
            if not path.is_file():
                raise ValueError(
                    f"{path}: expected a file, not a folder or a broken link; put the volume there"
                )
            scans.append(path)
        elif path.is_dir() and not published:
            holds_dicom = any(p.is_file() and is_dicom(p) for p in path.iterdir())
            scans += [path] if holds_dicom else _scans_in(path, published=False)
        elif not published and _is_scan(path):
            scans.append(path)
    return scans


def _is_scan(path: Path) -> bool:
    """Whether a file is one that `Scan` reads, or means to be one."""
    return path.is_file() and path.name[0] != "." and (
        bool(stem(path.name)) or kind_of(path) in ("nifti", *BY_SIMPLEITK)
    )  # fmt: skip


def _name(path: Path) -> str:
    """A scan's name without what tells its format; of a DICOM folder, the folder's."""
    return path.name if path.is_dir() else stem(path.name) or path.name.split(".")[0]


def patient_of(name: str, path: Path, volumes: Path, patients: dict[str, str] | None) -> str:
    """Whose a scan is: by the table, else by its folder below `ct`, else its own.

    Raises:
        ValueError: the table does not name it.
    """
    if patients is not None:
        for key in (name, stem(path.name) or path.name):
            if key in patients:
                return patients[key]
        raise ValueError(f"{name}: the table of patients does not name it; add a line {name},PATIENT")
    where = path.relative_to(volumes / "ct").parent
    return where.parts[0] if where.parts else name


class Mask(Scan):
    """A mask whose planes hold 1 where a label counts."""

    def __init__(self, path: Path, *, of: Scan, counted: list[int] | None, axes: str | None) -> None:
        super().__init__(path, axes=axes, intensity=None)
        self.counted = counted
        if self.shape != of.shape:
            raise ValueError(
                f"{path}: shape {self.shape}, but {of.path} has {of.shape} (both turned to the same axes)"
            )
        if axes is None and not np.allclose(
            np.asarray(self.affine), np.asarray(of.affine), atol=0.1 * min(of.spacing)
        ):
            raise ValueError(
                f"{path}: its header puts it elsewhere than {of.path}; expected the same space. If both are stored alike, "
                "copy the scan's header, or name how they are stored: --axes"
            )

    def mask(self, k: int, *, labels: int) -> NDArray[np.uint8]:
        """Plane k: 1 where a label counts, else 0; without an option 1 up to `labels`, less an effusion.

        Raises:
            ValueError: values that are no labels, or that no option names.
        """
        plane = self.plane(k)
        values = np.unique(plane)
        if self.counted is not None:
            if not np.array_equal(values, np.rint(values)):
                raise ValueError(
                    f"{self.path}: slice {k} holds {values[:5].tolist()}; expected whole numbers"
                )
            return np.isin(plane, self.counted).astype(np.uint8)
        if set(values.tolist()) <= {0, 255}:
            return (plane > 0).astype(np.uint8)
        if not set(values.tolist()) <= set(range(labels + 1)):
            raise ValueError(
                f"{self.path}: slice {k} holds the labels {values[:8].tolist()}; expected 0 to {labels}, or 0 and 255. "
                "Name those that count: --lung-labels or --infection-labels, such as 10-14"
            )
        return plane.astype(np.uint8)


def open_parts(paths: dict[str, Path], own: dict[str, Any]) -> dict[str, Scan]:
    """CT and masks of one scan; `own` as `Own.settings` gives it."""
    ct = Scan(paths["ct"], axes=own["axes"], intensity=own["intensity"])
    masks = {
        part: Mask(paths[part], of=ct, counted=own[f"{part}_labels"], axes=own["axes"])
        for part in ("lung", "infection")
    }
    return {"ct": ct, **masks}


def orient_own(ct: Scan, slices: Any, *, strict: bool) -> tuple[Turn, dict[str, Any]]:
    """The header has decided; what the pixels say to it is noted, or, where strict, refused.

    Raises:
        ValueError: strict, and in doubt.
    """
    verdict = judge(slices)
    doubts = list(ct.doubts)
    if verdict.says == "upside down":
        doubts.append(
            f"the pixels show it upside down, against its header ({ct.axes}); the header was followed: --axes decides"
        )
    if strict and doubts:
        raise ValueError(f"{ct.path}: refused, because warnings are errors here: {'; '.join(doubts)}")
    return Turn(), {
        "header": ct.axes, "by_name": None, "anatomy": verdict.says, "margin": verdict.margin, "spine": verdict.spine,
        "table": verdict.table, "slices": verdict.slices, "turned": f"{ct.axes} to LAS, rot90", "because": "header",
        "notes": doubts,
    }  # fmt: skip
