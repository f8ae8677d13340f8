"""What was found in a scan, in millilitres and shares, with what it rests on: a JSON file without a time in it."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chslib
from replication.data.reading.kinds import files_below
from replication.data.reading.scan import Scan
from replication.scans.density import densities, hardly_differ, quartiles
from replication.scans.segment import Found
from replication.scans.steps import Cleaning

NOT_CLINICAL = "Research software. Not a medical device; not for diagnosis or treatment."


def fingerprint(path: Path) -> str:
    """sha256 of a file; of a folder, over its files' own, in the order of their contents; results in it aside."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    own = sorted(fingerprint(p) for p in files_below(path))
    return hashlib.sha256("".join(own).encode()).hexdigest()


def between_the_lungs(lungs: NDArray) -> int:
    """Plane of x, towards the patient's left, that parts the lungs: the one with the least lung in the middle third."""
    across = lungs.sum((1, 2), dtype=np.int64)
    held = np.flatnonzero(across)
    if not len(held):
        return len(across) // 2
    third = (held[-1] - held[0] + 1) // 3
    low, high = held[0] + third, max(held[-1] - third, held[0] + third) + 1
    return int(low + across[low:high].argmin())


def _stretched(scan: Scan, weights: dict[str, Any]) -> str | None:
    """Between which ends this scan's slices lie, and those that the weights learnt from; None where both are the same."""
    learnt = weights.get("ends")
    if (
        scan.intensity is None
        or "minmax-clahe" not in weights.get("preparation", "")
        or learnt == list(scan.intensity.ends)
        or learnt
        and scan.intensity.windowed
    ):
        return None
    theirs = "{:g} and {:g} HU".format(*learnt) if learnt else "each one's own darkest and brightest voxel"
    low, high = scan.intensity.ends
    return f"slices are stretched between {low:g} and {high:g}; the weights learnt from slices stretched between {theirs} (register row 70)"


def report(
    scan: Scan, found: Found, *, sha256: str, cleaning: Cleaning, weights: dict[str, Any]
) -> dict[str, Any]:
    """Everything about one segmentation, of JSON types.

    Args:
        sha256: `fingerprint` of the input.
        weights: `name`, `size` of the slices, `sha256` of each file.
    """
    voxel = float(np.prod(scan.spacing)) if scan.affine is None else abs(np.linalg.det(scan.affine[:3, :3]))
    middle = between_the_lungs(found.lungs)
    sides = {"right": slice(None, middle), "left": slice(middle, None)}

    def amounts(part: slice) -> dict[str, float | None]:
        lungs, infection = (
            float(mask[part].sum(dtype=np.int64)) * voxel / 1000 for mask in (found.lungs, found.infection)
        )
        return {
            "lungs_ml": round(lungs, 2), "infection_ml": round(infection, 2),
            "infected_share": round(infection / lungs, 4) if lungs else None,
        }  # fmt: skip

    density = quartiles(densities(scan, found.lungs, found.infection))
    return {
        "use": NOT_CLINICAL,
        "scan": {
            "name": scan.path.name, "sha256": sha256, "axes": scan.axes,
            "shape": list(scan.shape), "spacing_mm": [round(mm, 4) for mm in scan.spacing],
            "intensity": scan.intensity.kind,
        },
        "found": amounts(slice(None)) | {"slices": int(scan.shape[2])} | {
            f"slices_with_{name}": int(mask.any((0, 1)).sum())
            for name, mask in (("lungs", found.lungs), ("infection", found.infection))
        },
        "sides": {side: amounts(part) for side, part in sides.items()},
        "density": density,
        "warnings": [*found.warnings, *hardly_differ(density)],
        "stretched": _stretched(scan, weights),
        "cleaning": {"steps": asdict(cleaning), "voxels_taken": found.taken},
        "weights": weights,
        "version": chslib.__version__,
    }  # fmt: skip
