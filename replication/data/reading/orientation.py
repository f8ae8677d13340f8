"""Which way a stored volume lies: what name and header say, and what the pixels show.

A picture here is the axial slice as radiologists look at it: spine at the bottom, the patient's
right on the left; slices count from the base of the lungs upwards. The paper does not speak of
orientation. `np.rot90` of a plane gives that picture, except that Zenodo's Radiopaedia volumes
come out upside down, and one of them is reversed in z. How MedSeg's nr. 2 lies is not known.

- Up and down: what the pixels show, where they are clear (`judge`); else the habit of the source;
  else the header.
- Left-right and z, which pixels do not tell reliably: the habit of the source; else the header.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from replication.data.names import source_of

UPSIDE_DOWN = {"coronacases": False, "radiopaedia": True}  # after np.rot90; MedSeg: not known
REVERSED_IN_Z = ("radiopaedia_7_85703_0",)
GRID = 128  # the rule looks at pictures of this many rows and columns
LOOKED_AT = 24  # slices that the rule looks at, spread over the lung
SMALLEST = 32  # rows or columns; on smaller pictures there is no telling
FEWEST = 4  # with fewer slices it is undecided
SURE = 0.15  # with a smaller margin it is undecided


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is done to a volume: `np.rot90` of every plane, then these flips."""

    top_bottom: bool = False
    left_right: bool = False
    z: bool = False

    def picture(self, plane: NDArray) -> NDArray:
        """A stored plane (x, y) -> the picture (row, column)."""
        picture = np.rot90(plane)
        picture = picture[::-1] if self.top_bottom else picture
        return picture[:, ::-1] if self.left_right else picture

    def __str__(self) -> str:
        flips = {"top-bottom": self.top_bottom, "left-right": self.left_right, "z": self.z}
        return ", ".join(["rot90", *(f"flip {axis}" for axis, flipped in flips.items() if flipped)])


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the pixels show. Numbers are -1..1, positive for upright.

    Attributes:
        says: `upright`, `upside down` or `undecided`.
        margin: the weaker of the two witnesses, 0 where they contradict each other.
        spine, table: mean of each witness over the slices, see `witnesses`.
        slices: how many slices had enough lung to be looked at.
    """

    says: str
    margin: float
    spine: float
    table: float
    slices: int


def header_axes(affine: NDArray | None) -> tuple[str | None, str | None]:
    """Where each voxel index counts towards, such as `LAS`, and a note.

    Returns:
        The codes and None; or None and why the affine tells nothing.
    """
    if affine is None:
        return None, "affine ignored: the header holds none that can be computed"
    if not np.isfinite(affine).all():
        return None, "affine ignored: it holds NaN or infinite values"
    if np.abs(affine).max() > 1e5:
        return None, "affine ignored: it holds values beyond 100 m"
    axes = np.asarray(affine, float)[:3, :3]
    lengths = np.sqrt((axes**2).sum(0))
    if lengths.min() < 1e-4 or lengths.max() > 1e3:
        return None, f"affine ignored: voxels of {', '.join(f'{v:.3g}' for v in lengths)} mm"
    if abs(np.linalg.det(axes / lengths)) < 1e-2:
        return None, "affine ignored: it is singular"
    return "".join(nib.aff2axcodes(affine)), None


def witnesses(picture: NDArray, lung: NDArray) -> tuple[float, float] | None:
    """Spine and table of one slice, each -1..1, positive where the slice is upright.

    Spine: in the middle quarter of the lungs' width and outside the lungs, the brightest tenth of
    the pixels lies behind the lungs' centre (mean row), and the part behind is brighter (90th
    percentile) than the part before: vertebrae against sternum, heart and fat.

    Table: beyond the lungs there is more horizontal edge behind than before: ribs, muscles of the
    back and the table's lines against skin and air.

    Flipping a slice changes the signs and nothing else. A patient who lies on the belly has the
    spine on one side and the table on the other: the witnesses contradict each other.

    Args:
        picture: (H, W) grey, on any scale that rises with density.
        lung: (H, W) bool.

    Returns:
        None where the picture is too small, or holds too little lung or contrast, to tell.
    """
    if min(picture.shape) < SMALLEST:
        return None
    from scipy import ndimage  # a quarter of a second, which a dry run does not need

    grey = np.asarray(_shrink(picture.astype(np.float32), Image.Resampling.BILINEAR), float)
    lung = _shrink(lung.astype(np.uint8) * 255, Image.Resampling.BOX) > 127
    low, high = np.percentile(grey, (1, 99))
    rows, columns = np.flatnonzero(lung.any(1)), np.flatnonzero(lung.any(0))
    if lung.mean() < 0.02 or np.ptp(rows) < GRID / 12 or np.ptp(columns) < GRID / 6 or high <= low:
        return None
    grey = np.clip((grey - low) / (high - low), 0, 1.5)  # 1.5: metal must not outweigh bone
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    tall, wide = bottom - top, right - left

    # As far before the lungs' centre as behind it, so that a flip is symmetric.
    centre, middle = (top + bottom) / 2, (left + right) / 2
    reach = min(tall / 2 + wide / 4, centre, GRID - centre)
    first, last = round(centre - reach + 1e-6), round(centre + reach - 1e-6)
    box = slice(first, last), slice(int(middle - 0.13 * wide), int(np.ceil(middle + 0.13 * wide)))
    band, outside = grey[box], ~ndimage.binary_dilation(lung)[box]
    below = np.arange(first, last) + 0.5 - centre
    behind, before = below > 0.1 * tall, below < -0.1 * tall
    if outside[behind].sum() < 20 or outside[before].sum() < 20:
        return None
    bright = outside & (band >= np.percentile(band[outside], 90))
    shift = (bright.sum(1) * below).sum() / bright.sum() / (tall / 2)
    contrast = np.percentile(band[behind][outside[behind]], 90) - np.percentile(
        band[before][outside[before]], 90
    )
    spine = (np.clip(shift / 0.3, -1, 1) + np.clip(contrast / 0.12, -1, 1)) / 2

    # Blurred along the rows, noise leaves few edges and a table all of its own.
    edges = np.abs(np.diff(ndimage.gaussian_filter(grey, (0.5, 3)), axis=0))[:, left:right]
    above, beneath = edges[: max(top - 1, 0)].sum(), edges[bottom:].sum()
    table = np.clip((beneath - above) / (beneath + above + 1e-6) / 0.3, -1, 1)
    return float(spine), float(table)


def _shrink(picture: NDArray, how: Image.Resampling) -> NDArray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((GRID, GRID), how))


def judge(slices: Iterable[tuple[NDArray, NDArray]]) -> Verdict:
    """What several slices of one volume, (picture, lung) each, show together.

    Both witnesses, averaged over the slices, must agree, each by `SURE` and by twice its standard
    error or more, and at least `FEWEST` slices must have been looked at; otherwise the verdict is
    `undecided`.
    """
    seen = [s for s in (witnesses(picture, lung) for picture, lung in slices) if s is not None]
    spine, table = np.mean(seen, axis=0).tolist() if seen else (0.0, 0.0)
    noise = np.std(seen, axis=0) / len(seen) ** 0.5 if seen else np.zeros(2)
    steady = bool((np.abs((spine, table)) >= 2 * noise).all())
    margin = min(abs(spine), abs(table)) * np.sign(spine) if spine * table > 0 else 0.0
    says = "undecided"
    if len(seen) >= FEWEST and abs(margin) >= SURE and steady:
        says = "upright" if margin > 0 else "upside down"
    return Verdict(
        says=says, margin=round(float(margin), 3), spine=round(spine, 3), table=round(table, 3),
        slices=len(seen),
    )  # fmt: skip


def orient(
    volume: str, affine: NDArray | None, slices: Iterable[tuple[NDArray, NDArray]]
) -> tuple[Turn, dict[str, Any]]:
    """How to turn a volume, and the record of why.

    Args:
        volume: canonical name.
        affine: (4, 4) of its header; absurd ones are ignored with a note.
        slices: some slices with lung, (`np.rot90` of the plane, its lung mask) each.

    Returns:
        The turn, and `header` (axis codes or None), `by_name` (`upright`, `upside down` or None),
        `anatomy`, `margin`, `spine`, `table`, `slices` (see `Verdict`), `turned` (what is done),
        `because` (who decided up and down: `name`, `header`, `anatomy`, or `nothing`) and `notes`.
    """
    axes, note = header_axes(affine)
    notes = [note] if note else []
    told = axes
    if axes and not (axes[0] in "LR" and axes[1] in "AP" and axes[2] in "SI"):
        told = None
        notes.append(f"header ignored: by its axes {axes} the planes would not be axial")
    habit = UPSIDE_DOWN.get(source_of(volume))
    if habit is not None:
        left_right, z = False, volume in REVERSED_IN_Z
    else:
        left_right, z = (told or "LAS")[0] == "R", (told or "LAS")[2] == "I"
    by_header = told[1] == "P" if told else None
    expected, because = (habit, "name") if habit is not None else (by_header, "header")
    if expected is None:
        expected, because = False, "nothing"
    verdict = judge(slices)
    shown = {"upright": False, "upside down": True}.get(verdict.says)
    if shown is not None and (shown != expected or because == "nothing"):
        if because != "nothing":
            notes.append(f"the pixels show it {verdict.says}, against the {because}: turned by the pixels")
        expected, because = shown, "anatomy"
    turn = Turn(top_bottom=expected, left_right=left_right, z=z)
    return turn, {
        "header": axes, "by_name": None if habit is None else ("upside down" if habit else "upright"),
        "anatomy": verdict.says, "margin": verdict.margin, "spine": verdict.spine,
        "table": verdict.table, "slices": verdict.slices, "turned": str(turn), "because": because,
        "notes": notes,
    }  # fmt: skip
