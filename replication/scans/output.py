"""Scans in a folder, results in another: each scan's folder appears whole, or not at all."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from replication.data.names import RESULTS
from replication.data.reading.scan import Scan
from replication.files import write_json
from replication.scans.dicom_seg import Source
from replication.scans.folders import Folder
from replication.scans.place import RESERVE, is_taken, own_folder, settle
from replication.scans.preview import preview
from replication.scans.report import fingerprint, report
from replication.scans.segment import Bar, segment
from replication.scans.steps import Cleaning
from replication.scans.weights import Cascade

LUNGS, INFECTION, REPORT = RESULTS
PREVIEW, SEG = "preview.png", "segmentation.dcm"


def write_segmentation(
    path: Path,
    out: Path,
    *,
    cascade: Cascade,
    cleaning: Cleaning,
    strict: bool = False,
    dicom_seg: bool = False,
    batch_size: int = 1,
    bar: Bar | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Segment one scan into the folder `out`; returns its report.

    A folder that holds the results of the same scan, weights and steps is left as it is, and its
    report returned. The same call gives the same bytes, but for a DICOM SEG, which has UIDs and a time of its own.

    Args:
        cascade: trained; its `weights` are part of the report.
        strict: refuse where there is any warning about how the scan lies or what its numbers are.
        dicom_seg: write the masks as a DICOM SEG, too; needs a DICOM scan.
        reading: `axes`, `intensity`, `series`, see `Scan`.

    Raises:
        ValueError, FileNotFoundError: see `Scan`; `out` holds something else; warnings, if strict.
        OSError: `out` cannot be written, or has no room; found before the networks run.
    """
    out, sha256 = out.resolve(), fingerprint(path)
    asked: dict[str, Any] = {
        "sha256": sha256,
        "weights": cascade.weights,
        "cleaning": cleaning.__dict__,
        "reading": reading,
    }
    asked |= {"dicom_seg": True} if dicom_seg else {}
    if is_taken(out):
        return _standing(out, asked)
    scan = Scan(path, **reading)
    source = Source(scan) if dicom_seg else None
    with own_folder(out, room=int(np.prod(scan.shape)) // 8 + (1 << 22)) as part:
        found = segment(scan, cascade, cleaning=cleaning, batch_size=batch_size, bar=bar)
        told = report(scan, found, sha256=sha256, cleaning=cleaning, weights=cascade.weights)
        told |= {"asked": asked}
        if strict and (doubts := found.doubts):
            raise ValueError(f"{path}: refused, because warnings are errors here: {'; '.join(doubts)}")
        (part / RESERVE).unlink()  # its room is for what follows
        for name, mask in ((LUNGS, found.lungs), (INFECTION, found.infection)):
            (part / name).write_bytes(packed(scan.image(mask)))
        if source:
            source.write(part / SEG, found, weights=cascade.weights["name"])
        ml = {of: told["found"][f"{of}_ml"] for of in ("lungs", "infection")}
        preview(scan, found, weights=cascade.weights["name"], ml=ml).save(part / PREVIEW)
        write_json(part / REPORT, told)
        if not settle(part, out, last=REPORT):
            return _standing(out, asked)
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
    folder: Folder, out: Path, *, say: Callable[[str], None], warn: Callable[[str], None], **how: Any
) -> dict[str, dict[str, Any]]:
    """Every scan in turn; one that fails does not keep the others.

    Args:
        say, warn: take the lines about what was done, and about what was not.

    Raises:
        ValueError: at the end, each that failed and why, and how many things were left out.
    """
    told, failed = {}, {}
    for one in (*folder.left_out, *folder.notes):
        warn(str(one))
    for name, path in folder.scans.items():
        try:
            told[name] = write_segmentation(path, out / name if name else out, **how)
            say(summary(path, told[name]))
        except (ValueError, OSError) as error:
            if not name:
                raise
            failed[name] = error
            warn(f"{path}: failed")
    amiss = sum(one.amiss for one in folder.left_out)
    if failed or amiss:
        lines = "".join(f"\n  {error}" for error in failed.values())
        others = f"; {amiss} more were left out, see above" if amiss else ""
        raise ValueError(
            f"{len(failed)} of {len(folder.scans)} scans could not be segmented; the others are done{others}"
            f"{':' if lines else ''}{lines}"
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
