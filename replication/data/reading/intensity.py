"""What the numbers of a CT mean: Hounsfield units, recognised by where air and soft tissue lie.

The paper gives no intensity window (register row 16), and a header does not say whether its numbers
are Hounsfield units. Air, with the lungs, lies at -1100 to -700 HU, soft tissue at -150 to 150; between
them is little. Shifted by an intercept that was left out, both are found there and not here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AIR, SOFT = (-1100, -700), (-150, 150)  # HU
LEAST_AIR, LEAST_SOFT = 0.02, 0.08  # share of a chest's voxels
DARKEST = -1024.0  # below it is padding: scanners write -2000 or -3024 outside their circle
OFFSETS = {"hounsfield": 0.0, "offset": 1024.0}
KINDS = ("auto", "hounsfield", "offset", "grey")


@dataclass(frozen=True)
class Intensity:
    """How stored numbers become Hounsfield units, or grey of 0..255.

    Attributes:
        kind: `hounsfield`, `offset` (1024 is taken off), or `grey` (windowed before, 0..255).
        notes: what was odd.
    """

    kind: str
    scale: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def windowed(self) -> bool:
        return self.kind == "grey"

    def apply(self, plane: NDArray) -> NDArray[np.float32]:
        """Any plane of stored numbers -> HU of at least -1024, or grey 0..255; NaN becomes air."""
        plane = np.asarray(plane, np.float32)
        low = 0.0 if self.windowed else DARKEST
        plane = plane * np.float32(self.scale) - np.float32(OFFSETS.get(self.kind, 0.0))
        return np.nan_to_num(np.maximum(plane, low), nan=low, posinf=1e4, neginf=low)


def recognise(sample: NDArray, *, told: str = "auto") -> Intensity:
    """What some voxels of a chest CT, stored numbers, show.

    Args:
        sample: any shape, spread over the whole volume.
        told: `auto`, or the kind where somebody knows it.

    Raises:
        ValueError: all one value, mostly not finite, or neither Hounsfield units, nor these without
            their offset, nor grey; the message says what was found, and the option that decides.
    """
    if told not in KINDS:
        raise ValueError(f"intensity {told!r}: expected one of {', '.join(KINDS)}")
    sample = np.asarray(sample, np.float32).ravel()
    finite = sample[np.isfinite(sample)]
    notes = []
    if len(finite) < len(sample) / 2 or not len(finite):
        raise ValueError(
            f"{len(sample) - len(finite)} of {len(sample)} sampled voxels are NaN or infinite; no CT"
        )
    if len(finite) < len(sample):
        notes.append(f"{1 - len(finite) / len(sample):.1%} of the voxels are NaN or infinite: taken as air")
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        raise ValueError(f"every sampled voxel is {low:g}; no CT")
    if told == "grey" or told == "auto" and 0 <= low and high <= 255:
        unit = high <= 1
        notes.append(
            f"values of {low:g} to {high:g}: windowed before, not Hounsfield units"
            + (", scaled by 255" if unit else "")
        )
        return Intensity("grey", 255.0 if unit else 1.0, tuple(notes))
    shares = {kind: _shares(finite - offset) for kind, offset in OFFSETS.items()}
    kind = told
    if told == "auto":
        fitting = [k for k, (air, soft) in shares.items() if air >= LEAST_AIR and soft >= LEAST_SOFT]
        if len(fitting) != 1:
            raise ValueError(_neither(finite, shares))
        kind = fitting[0]
    if kind == "offset":
        notes.append(
            f"values of {low:g} to {high:g}: Hounsfield units whose offset was left out, 1024 is taken off"
        )
    elif (padding := float((finite < DARKEST - 76).mean())) > 0:
        notes.append(f"{padding:.1%} of the voxels below -1100 HU, down to {low:g}: padding, taken as air")
    return Intensity(kind, 1.0, tuple(notes))


def _shares(hounsfield: NDArray) -> tuple[float, float]:
    """Shares of air (what is darker, padding, aside) and of soft tissue."""
    body = hounsfield[hounsfield >= AIR[0]]
    if len(body) < len(hounsfield) / 10:
        return 0.0, 0.0
    return tuple(float(((body >= a) & (body <= b)).mean()) for a, b in (AIR, SOFT))


def _neither(finite: NDArray, shares: dict[str, tuple[float, float]]) -> str:
    low, middle, high = np.percentile(finite, (1, 50, 99))
    air, soft = shares["hounsfield"]
    return (
        f"values of {low:g} to {high:g} (1st to 99th percentile, median {middle:g}) are no chest in Hounsfield units: {air:.1%} "
        f"lie at {AIR[0]} to {AIR[1]} where air and lungs are, {soft:.1%} at {SOFT[0]} to {SOFT[1]} where soft tissue is; "
        "nor are they with 1024 taken off, nor grey of 0..255. Was a slope or an intercept left out? Convert the scan "
        "again; if you know what the numbers are: --intensity hounsfield, offset or grey"
    )
