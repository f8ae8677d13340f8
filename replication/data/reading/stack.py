"""Slices -> one even stack: their order and spacing are fitted to all of them, not read off two.

Positions are rounded and directions carry noise. A stack is even where no corner of a picture lies further than
`TOLERANCE` from it. Where it is not, the error says which of the reasons holds: a picture twice, slices that are
missing, uneven distances, or a tilted gantry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replication.data.reading.slices import Slice

TOLERANCE = 0.5  # mm; along the stack also at most a quarter of the least distance
TOLD = 1e-4  # mm from which it is said
SAME = 1e-3  # mm: closer slices lie at one place
LEAN = 1.0  # degrees that a stack may lean, as of a scan in NIfTI (`scan.SHEARED`)
# What resamples such a stack whatever its voxels' type; dcm2niix leaves unsigned ones as they are, under a wrong header.
RESAMPLE = (
    "resample it, and segment the file that comes out: pip install dicom2nifti; "
    'python -c "import dicom2nifti as d, dicom2nifti.settings as s; s.{}(); s.enable_resampling(); '
    "s.set_resample_padding(-1000); d.convert_directory('THIS FOLDER', 'AN EMPTY FOLDER')\""
)


@dataclass(frozen=True)
class Stack:
    """Slices in order, and where they lie.

    Attributes:
        slices: along the normal, which is row x column.
        affine: (4, 4) voxel (column, row, slice) -> mm towards right, front and head (RAS).
        deviation: mm, the furthest that a corner lies from the fit.
    """

    slices: list[Slice]
    affine: NDArray
    deviation: float

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, columns = self.slices[0].shape
        return columns, rows, len(self.slices)


def normal_of(slices: Sequence[Slice]) -> NDArray:
    """Unit normal of the mean picture.

    Raises:
        ValueError: its two directions span no plane, or are not at right angles.
    """
    row, column = np.mean([one.edges for one in slices], axis=0)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 1e-6 or abs(row @ column) > 0.02 * lengths[0] * lengths[1]:
        raise ValueError(
            "its ImageOrientationPatient is no two directions at right angles; export the series again"
        )
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices by where they lie, along the normal: those of one place together."""
    normal = normal_of(slices)
    along = np.array([one.position for one in slices]) @ normal
    order = np.argsort(along, kind="stable")
    begins = np.flatnonzero(np.diff(along[order], prepend=-np.inf) > SAME)
    return [[slices[i] for i in part] for part in np.split(order, begins[1:])]


def fit(slices: Sequence[Slice]) -> Stack:
    """The even stack that slices form, fitted by least squares.

    Raises:
        ValueError: the one reason why they form none, and its cure.
    """
    by_place = places(slices)
    if twice := [part for part in by_place if len(part) > 1]:
        raise ValueError(
            f"{len(twice[0])} different pictures lie at one place, {', '.join(one.path.name for one in twice[0][:3])}"
            f"{f', and so at {len(twice)} places' * (len(twice) > 1)}, and no tag parts them; keep one of each"
        )
    ordered, normal = [part[0] for part in by_place], normal_of(slices)
    positions = np.array([one.position for one in ordered])
    count = np.arange(len(ordered)) - (len(ordered) - 1) / 2
    step = (count @ positions) / (count @ count)
    off = positions - positions.mean(0) - np.outer(count, step)
    distances = np.diff(positions @ normal)
    along, across = np.abs(off @ normal), np.linalg.norm(off - np.outer(off @ normal, normal), axis=1)
    if along.max() > min(TOLERANCE, distances.min() / 4):
        raise ValueError(_uneven(positions @ normal, distances))
    lean = np.degrees(np.arctan2(np.linalg.norm(step - (step @ normal) * normal), step @ normal))
    if lean > LEAN:
        raise ValueError(
            f"its slices are stacked {lean:.1f} degrees off their normal (a tilted gantry); "
            + RESAMPLE.format("disable_validate_orthogonal")
        )
    if across.max() > TOLERANCE:
        raise ValueError(
            f"its slices are shifted in their plane by up to {across.max():.1f} mm (at most {TOLERANCE} mm is allowed); "
            "export the series again"
        )
    edges = np.array([one.edges for one in ordered])
    mean = edges.mean(0)
    deviation = max(along.max(), across.max(), np.linalg.norm(edges - mean, axis=2).max())
    rows, columns = ordered[0].shape
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = mean[0] / columns, mean[1] / rows, step
    affine[:3, 3] = positions.mean(0) + count[0] * step
    return Stack(ordered, np.diag([-1, -1, 1, 1]) @ affine, float(deviation))


def _uneven(along: NDArray, distances: NDArray) -> str:
    usual = float(distances.min())
    times = distances / usual
    gaps = np.flatnonzero(times > 1.5)
    if (np.abs(times - np.rint(times)) < 0.25).all() and len(gaps):
        where = ", ".join(f"between {along[k]:.1f} and {along[k + 1]:.1f} mm" for k in gaps[:3])
        missing = int(np.rint(times).sum()) - len(times)
        return (
            f"{missing} {'slice is' if missing == 1 else 'slices are'} missing, {where}{' and so on' * (len(gaps) > 3)}; the others lie {usual:.2f} mm apart. "
            "Export the series again, whole"
        )
    return (
        f"its slices lie {distances.min():.2f} to {distances.max():.2f} mm apart, unevenly; "
        + RESAMPLE.format("disable_validate_slice_increment")
    )
