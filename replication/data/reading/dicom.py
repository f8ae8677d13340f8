"""A folder of DICOM files -> one CT series as a NIfTI image in memory.

pydicom reads the files, highdicom sorts and checks the slices and gives the geometry. What is left
to do here is to choose: which series of a folder is the scan. Localisers, dose reports and whatever
is no CT are left out; of what remains one must stand alone, or be named.
"""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

FEWEST = 3  # slices of a series that can be a scan
# What tells which series a file belongs to, and whether it is a CT slice.
TELLING = [
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "PatientID", "StudyInstanceUID",
    "NumberOfFrames",
]  # fmt: skip


@dataclass
class Series:
    """One series of a folder: its files in no order, and what names it."""

    uid: str
    number: str
    description: str
    patient: str
    files: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        return f"number {self.number} ({self.description or 'no description'}, {len(self.files)} slices, {self.uid})"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_series(folder: str | os.PathLike) -> tuple[list[Series], list[str]]:
    """The CT series below a folder that can be scans, by number, and notes on what was left out."""
    import pydicom

    found: dict[str, Series] = {}
    left_out: defaultdict[str, int] = defaultdict(int)
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name[0] != "."):
        if not is_dicom(path):
            left_out["no DICOM"] += path.name != "DICOMDIR"
            continue
        try:
            head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TELLING)
            reason, series = _of(head)
        except Exception as error:  # pydicom's parsers raise many kinds on damaged files
            left_out[f"not readable ({type(error).__name__})"] += 1
            continue
        if reason:
            left_out[reason] += 1
            continue
        found.setdefault(series.uid, series).files.append(path)
    for uid in [uid for uid, series in found.items() if len(series.files) < FEWEST]:
        left_out[f"of series with fewer than {FEWEST} slices"] += len(found.pop(uid).files)
    notes = [f"{n} files left out: {why}" for why, n in sorted(left_out.items()) if n]
    return sorted(found.values(), key=lambda s: (s.number.zfill(8), s.uid)), notes


def _of(head: Any) -> tuple[str, Series]:
    kinds = [str(kind).upper() for kind in head.get("ImageType") or []]
    series = Series(
        uid=str(head.get("SeriesInstanceUID", "")), number=str(head.get("SeriesNumber", "") or ""),
        description=str(head.get("SeriesDescription", "") or ""), patient=str(head.get("PatientID", "") or ""),
    )  # fmt: skip
    if str(head.get("Modality", "")) != "CT":
        return f"modality {head.get('Modality') or 'not given'}", series
    if "LOCALIZER" in kinds or "SCOUT" in kinds:
        return "localisers", series
    if not series.uid:
        return "without a series", series
    return ("multi-frame CT" if int(head.get("NumberOfFrames") or 1) > 1 else ""), series


def choose(series: list[Series], folder: Path, wanted: str | None, notes: list[str]) -> Series:
    """The series that is asked for, or the only one.

    Raises:
        ValueError: none, no such one, or several; the message lists them.
    """
    listed = "\n".join(f"  {one}" for one in series)
    if not series:
        raise ValueError(f"{folder}: no CT series of {FEWEST} slices or more ({'; '.join(notes) or 'empty'})")
    if wanted is not None:
        chosen = [one for one in series if wanted in (one.uid, one.number)]
        if len(chosen) != 1:
            raise ValueError(
                f"{folder}: {len(chosen)} series are called {wanted!r}; expected a number or UID of\n{listed}"
            )
        return chosen[0]
    if len(series) > 1:
        raise ValueError(
            f"{folder}: {len(series)} CT series; name one by --series NUMBER or UID, or take the others out:\n{listed}"
        )
    return series[0]


def read_dicom(folder: str | os.PathLike, *, series: str | None = None) -> tuple[nib.Nifti1Image, list[str]]:
    """One CT series as an image in its own voxel order, int16 or float32, Hounsfield units by its rescale tags.

    Raises:
        ValueError: no series, several and none named, slices missing or doubled or at uneven
            distances, a tilted gantry, or pixels that cannot be decoded; each with the cure.
    """
    import highdicom
    import pydicom

    folder = Path(folder)
    found, notes = find_series(folder)
    chosen = choose(found, folder, series, notes)
    try:
        slices = [pydicom.dcmread(path) for path in chosen.files]
        unscaled = sum("RescaleIntercept" not in one for one in slices)
        volume = highdicom.get_volume_from_series(
            slices, dtype=np.float32, apply_real_world_transform=False, rtol=0.05
        )
    except (
        Exception
    ) as error:  # of pydicom, highdicom and the decoders: all name the trouble, none the series
        raise ValueError(
            f"{folder}: series {chosen} is no volume ({type(error).__name__}: {error}). Expected slices of one size, one "
            "direction and even distances, each position once, and no tilted gantry. Missing slices: export the series "
            "again; a tilt: resample it, dcm2niix does; compressed pixels: pip install pylibjpeg[all]"
        ) from error
    if unscaled:
        notes.append(f"{unscaled} slices without a rescale intercept: taken as stored")
    image = volume.to_nibabel()
    voxels = np.asarray(image.dataobj, np.float32)
    if np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all() and np.abs(voxels).max() < 2**15:
        voxels = voxels.astype(np.int16)
    out = nib.Nifti1Image(voxels, image.affine)
    out.header.set_xyzt_units("mm")
    return out, notes
