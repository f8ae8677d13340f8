"""Density of what is called infected beside the rest of the lungs: where the two hardly differ, nothing tells them apart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from replication.data.reading.scan import Scan

AERATED = -700.0  # HU: well-aerated lung lies below, after Colombi et al. 2020, doi 10.1148/radiol.2020201433
QUARTILES = (25, 50, 75)


def densities(scan: Scan, lungs: NDArray, infection: NDArray) -> dict[str, NDArray[np.float32]] | None:
    """HU of each voxel called infected, and of the rest of the lungs; None where a scan has no Hounsfield units.

    Args:
        lungs, infection: (x, y, slices) of the turned scan, nonzero where they are.
    """
    if scan.intensity is None or scan.intensity.windowed:
        return None
    found: dict[str, list[NDArray]] = {"infection": [], "rest_of_lungs": []}
    for k in np.flatnonzero(lungs.any((0, 1)) | infection.any((0, 1))):
        plane, infected = scan.plane(int(k)), infection[:, :, k] > 0
        found["infection"].append(plane[infected])
        found["rest_of_lungs"].append(plane[(lungs[:, :, k] > 0) & ~infected])
    return {name: np.concatenate([*parts, np.empty(0, np.float32)]) for name, parts in found.items()}


def quartiles(of: dict[str, NDArray] | None) -> dict[str, Any] | None:
    """Of JSON types: HU at 25, 50 and 75 %; None where there is no voxel, or no unit."""
    if of is None:
        return None
    return {
        f"{name}_hu": [round(float(q), 1) for q in np.percentile(hu, QUARTILES)] if len(hu) else None
        for name, hu in of.items()
    }


def hardly_differ(told: dict[str, Any] | None) -> list[str]:
    """Whether `quartiles` show an infection as dense as the lungs around it, or as healthy lung, in words."""
    infected, rest = ((told or {}).get(f"{name}_hu") for name in ("infection", "rest_of_lungs"))
    if not infected or not rest or (infected[1] >= AERATED and infected[1] > rest[2]):
        return []
    return [
        f"what is called infected is hardly denser than the rest of the lungs: median {infected[1]:.0f} HU, elsewhere {rest[1]:.0f} "
        f"(quartiles {rest[0]:.0f} to {rest[2]:.0f}). Below {AERATED:.0f} HU lung is well aerated (after Colombi et al. 2020, "
        "doi 10.1148/radiol.2020201433); it may well be healthy"
    ]
