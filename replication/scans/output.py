"""Scans in a folder, results in another: each scan's folder appears whole, or not at all."""

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib

from replication.data.names import stem
from replication.data.reading.dicom import find_series, is_dicom
from replication.data.reading.scan import Scan
from replication.scans.preview import preview
from replication.scans.report import fingerprint, report
from replication.scans.segment import Bar, segment
from replication.scans.steps import Cleaning
from replication.scans.weights import Cascade

LUNGS, INFECTION, REPORT, PREVIEW = "lungs.nii.gz", "infection.nii.gz", "report.json", "preview.png"


def scans_of(path: str | os.PathLike) -> dict[str, Path]:
    """Name of each scan's results -> the scan: one file, one DICOM folder, or a folder of such. The one is called "".

    Raises:
        FileNotFoundError: nothing there, or nothing that is a scan.
        ValueError: two scans that would write to one folder.
    """
    path = Path(path)
    if path.is_file():
        return {"": path}
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such file or folder; expected a NIfTI file, a DICOM folder or a folder of such"
        )
    below = sorted(p for p in path.iterdir() if p.name[0] != ".")
    if any(p.is_file() and is_dicom(p) for p in below):
        return {"": path}
    found: dict[str, Path] = {}
    for entry in below:
        name = (
            stem(entry.name)
            if entry.is_file()
            else entry.name
            if entry.is_dir() and find_series(entry)[0]
            else None
        )
        if name is None:
            continue
        if name in found:
            raise ValueError(f"{found[name]} and {entry} would both be written to {name}/; rename one")
        found[name] = entry
    if not found:
        raise FileNotFoundError(
            f"{path}: holds no .nii or .nii.gz file and no folder with a CT series of DICOM files"
        )
    return found


def write_segmentation(
    path: Path,
    out: Path,
    *,
    cascade: Cascade,
    cleaning: Cleaning,
    strict: bool = False,
    batch_size: int = 4,
    bar: Bar | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Segment one scan into the folder `out`; returns its report.

    A folder that holds the results of the same scan, weights and steps is left as it is, and its
    report returned. The same call gives the same bytes.

    Args:
        cascade: trained; its `weights` are part of the report.
        strict: refuse where there is any warning about how the scan lies or what its numbers are.
        reading: `axes`, `intensity`, `series`, see `Scan`.

    Raises:
        ValueError, FileNotFoundError: see `Scan`; `out` holds something else; warnings, if strict.
    """
    sha256 = fingerprint(path)
    asked = {"sha256": sha256, "weights": cascade.weights, "cleaning": cleaning.__dict__, "reading": reading}
    if out.exists():
        return _standing(out, asked)
    scan = Scan(path, **reading)
    found = segment(scan, cascade, cleaning=cleaning, batch_size=batch_size, bar=bar)
    told = report(scan, found, sha256=sha256, cleaning=cleaning, weights=cascade.weights) | {"asked": asked}
    if strict and (doubts := found.doubts):
        raise ValueError(f"{path}: refused, because warnings are errors here: {'; '.join(doubts)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a call that was killed
    part.mkdir()
    for name, mask in ((LUNGS, found.lungs), (INFECTION, found.infection)):
        (part / name).write_bytes(packed(scan.image(mask)))
    ml = {of: told["found"][f"{of}_ml"] for of in ("lungs", "infection")}
    preview(scan, found, weights=cascade.weights["name"], ml=ml).save(part / PREVIEW)
    (part / REPORT).write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.rename(part, out)
    return told


def packed(image: nib.Nifti1Image) -> bytes:
    """A .nii.gz whose bytes depend on the image alone."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(image.to_bytes())
    return out.getvalue()


def _standing(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        told = json.loads((out / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    if told.get("asked") != json.loads(json.dumps(asked)):
        raise ValueError(
            f"{out}: stands already, with {'the results of another scan, weights or options' if told else 'other things in it'}; "
            "choose another folder, or take it away. Nothing was overwritten"
        )
    return told


def segment_all(
    scans: dict[str, Path], out: Path, *, say: Callable[[str], None], **how: Any
) -> dict[str, dict[str, Any]]:
    """Every scan in turn; one that fails does not keep the others.

    Raises:
        ValueError: at the end, each that failed and why.
    """
    told, failed = {}, {}
    for name, path in scans.items():
        try:
            told[name] = write_segmentation(path, out / name if name else out, **how)
            say(summary(path, told[name]))
        except (ValueError, OSError) as error:
            if not name:
                raise
            failed[name] = error
            say(f"{path}: failed")
    if failed:
        lines = "\n".join(f"  {error}" for error in failed.values())
        raise ValueError(
            f"{len(failed)} of {len(scans)} scans could not be segmented; the others are done:\n{lines}"
        )
    return told


def summary(path: Path, told: dict[str, Any]) -> str:
    """A report in a few lines, for a terminal."""
    found = told["found"]
    share = "" if found["infected_share"] is None else f" ({found['infected_share']:.1%} of the lungs)"
    lines = [
        f"{path}: lungs {found['lungs_ml']:.0f} ml, called infected {found['infection_ml']:.0f} ml{share}"
    ]
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in told["warnings"])])
