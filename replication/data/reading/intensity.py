"""What the numbers of a CT mean: Hounsfield units, recognised by where air and soft tissue lie, with two ends.

The paper gives no intensity window (register row 16), and a header does not say whether its numbers
are Hounsfield units. Air, with the lungs, lies at -1100 to -700 HU, soft tissue at -150 to 150; between
them is little. Shifted by an intercept that was left out, both are found there and not here.

A scan may hold a few voxels of any value: metal, an integer that wrapped, padding, an infinity. None of them
decides anything here: the unit is that of the other voxels, and slices are stretched between two fixed ends
(register row 70), never between a slice's own darkest and brightest voxel.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AIR, SOFT = (-1100, -700), (-150, 150)  # HU
LEAST_AIR, LEAST_SOFT = 0.02, 0.08  # share of a chest's voxels
# Share of what is denser than soft tissue: more, and a slope was left out; less, and there is no bone.
MOST_DENSE, LEAST_DENSE = 0.35, 0.002
DARKEST, BRIGHTEST = -1024.0, 2000.0  # HU: below is padding, above is metal (row 70)
GREY = (0.0, 255.0)  # the ends of a scan that was windowed before
BEYOND = 30710.0  # HU: the end of CT's extended scale. Above are wrapped integers and padding: taken as air
OUTLIERS = 0.002  # share of the voxels at either end that do not decide what the numbers are
CONSTANT = 0.03  # share of the voxels: one value above bone that so many hold is padding
CORNERS = 0.5  # share of the pictures' corners: one value above air that so many hold is padding
METAL = 0.02  # share of the voxels: more above the upper end are no metal, but integers that wrapped
BONE = 300.0  # HU
FEW, ALIKE = 32, 0.85  # a label map: so few values, or so large a share of voxels equal to their neighbour
SURE, LEAST_BETWEEN = 0.1, 0.2  # a map of probabilities: so near 0 or 1 are all voxels but so small a share
NOTHING = -1000.0  # HU: air, which stands where nothing was scanned
PATCH, LEAST_PATCH = 0.001, 9  # share of a plane, and voxels: a patch of wrong numbers that is an outlier
HELD = 0.9  # share of the voxels that eight values hold in a label map, also a resampled one
OFFSETS = {"hounsfield": 0.0, "offset": 1024.0}
KINDS = ("auto", "hounsfield", "offset", "grey")


@dataclass(frozen=True)
class Intensity:
    """How stored numbers become Hounsfield units, or grey of 0..255.

    Attributes:
        kind: `hounsfield`, `offset` (1024 is taken off), or `grey` (windowed before, 0..255).
        scale: factor of the stored numbers.
        padding: the number, in HU, that is none but marks what was not scanned; NaN: there is none.
        brightest: HU that is white; infinite: each slice's own darkest and brightest voxel are the ends.
        beyond: HU above which a number is none.
        notes: what was odd.
    """

    kind: str
    scale: float = 1.0
    padding: float = np.nan
    brightest: float = BRIGHTEST
    beyond: float = BEYOND
    notes: tuple[str, ...] = ()

    @property
    def windowed(self) -> bool:
        return self.kind == "grey"

    @property
    def ends(self) -> tuple[float, float]:
        """What is black and what is white, in HU or grey."""
        return GREY if self.windowed else (DARKEST, self.brightest)

    def apply(self, plane: NDArray) -> NDArray[np.float32]:
        """Any plane of stored numbers -> HU or grey within `ends`; padding, and what is no number of a scanner, becomes air."""
        plane = self._unbounded(plane)
        low, high = self.ends
        air = np.float32(low if self.windowed else NOTHING)
        return np.where(self._none(plane) | (plane < min(low, AIR[0])), air, np.clip(plane, low, high))

    def mend(self, planes: Iterable[NDArray]) -> list[str]:
        """Fill small patches of what no tissue has, in place; what else `apply` changes is only counted.

        Such a patch takes the numbers around it, layer by layer: a hole of air or a spot of metal would move what
        the networks find beside it. Larger ones are no outliers, but padding or metal, and stay.

        Args:
            planes: all of a scan, stored numbers (x, y), that can be written.

        Returns:
            What was found in words, with the share of the voxels.
        """
        low, high = self.ends
        total = none = bright = dark = mended = blank = 0
        darkest, brightest = low, high
        for stored in planes:
            plane = self._unbounded(stored)
            blank += bool((plane == plane[0, 0]).all())
            wrong = self._none(plane)
            low_ones, high_ones = ~wrong & (plane < min(low, AIR[0])), ~wrong & (plane > high)
            total, none = total + wrong.size, none + int(wrong.sum())
            bright, dark = bright + int(high_ones.sum()), dark + int(low_ones.sum())
            if not wrong.all():
                darkest, brightest = min(darkest, plane[~wrong].min()), max(brightest, plane[~wrong].max())
            mended += fill_small(stored, wrong | low_ones | high_ones)
        said = (
            (
                none,
                f"NaN, infinite, padding or beyond {self.beyond:,.0f} HU, which is no measurement: taken as air",
            ),
            (dark, f"below {min(low, AIR[0]):g}, down to {darkest:g}: padding, taken as air"),
            (bright, f"above {high:g}, up to {brightest:g}: metal or noise, taken as {high:g}"),
        )
        notes = [f"{n} of {total} voxels ({n / total:.2g} of all) {what}" for n, what in said if n]
        notes += [f"{blank} planes hold one number each: nothing was scanned there"] * (blank > 0)
        return notes + [f"{mended} of these lie in small patches: filled by what is around them"] * (
            mended > 0
        )

    def _unbounded(self, plane: NDArray) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):  # a number beyond float32 becomes infinite, and that is seen
            plane = np.asarray(plane, np.float32)
            return plane * np.float32(self.scale) - np.float32(OFFSETS.get(self.kind, 0.0))

    def _none(self, plane: NDArray[np.float32]) -> NDArray[np.bool_]:
        return ~np.isfinite(plane) | (plane > self.beyond) | (plane == self.padding)


def fill_small(plane: NDArray, wrong: NDArray[np.bool_]) -> int:
    """Fill patches of at most `PATCH` of a plane, in place, from their rim inwards: each voxel by its neighbours' median.

    Returns:
        How many voxels were filled.
    """
    if not wrong.any():
        return 0
    from scipy import ndimage

    labels, _ = ndimage.label(wrong, np.ones((3, 3)))
    small = np.bincount(labels.ravel()) <= max(PATCH * wrong.size, LEAST_PATCH)
    small[0] = False
    left = small[labels]
    filled = int(left.sum())
    while left.any():
        x, y = np.nonzero(left)
        known = np.pad(~wrong, 1)
        beside = [(x + i, y + j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        numbers = np.where([known[at] for at in beside], [np.pad(plane, 1)[at] for at in beside], np.inf)
        count = np.isfinite(numbers).sum(0)
        rim = count > 0
        ordered, each = np.sort(numbers, 0), np.arange(len(x))
        middle = (ordered[(count - 1) // 2, each] + ordered[count // 2, each]) / 2
        plane[x[rim], y[rim]] = middle[rim]
        wrong[x[rim], y[rim]] = left[x[rim], y[rim]] = False
    return filled


def recognise(
    sample: NDArray, *, told: str = "auto", beside: NDArray | None = None, corners: NDArray | None = None
) -> Intensity:
    """What some voxels of a chest CT, stored numbers, show.

    Args:
        sample: any shape, spread over the whole volume.
        told: `auto`, or the kind where somebody knows it.
        beside: the neighbour of each voxel of the sample, by which a map of many labels is known.
        corners: the voxels in the corners of the pictures, where a scan has air, or what stands for nothing.

    Raises:
        ValueError: all one value, mostly not finite, a label map, or neither Hounsfield units, nor these
            without their offset, nor grey, or inverted; the message says what was found, and the option that decides.
    """
    if told not in KINDS:
        raise ValueError(f"intensity {told!r}: expected one of {', '.join(KINDS)}")
    with np.errstate(all="ignore"):
        sample = np.asarray(sample, np.float32).ravel()
    finite = sample[np.isfinite(sample)]
    if len(finite) < len(sample) / 2 or not len(finite):
        raise ValueError(
            f"{len(sample) - len(finite)} of {len(sample)} sampled voxels are NaN or infinite; no CT"
        )
    if finite.min() == finite.max():
        raise ValueError(f"every sampled voxel is {finite[0]:g}; no CT")
    corners = np.asarray(finite[:0] if corners is None else corners, np.float32).ravel()
    low, high = np.quantile(finite, (OUTLIERS, 1 - OUTLIERS), method="nearest").tolist()
    shares, fitting = _fitting(finite)
    if len(fitting) != 1:  # padding may look like tissue
        others = finite[(finite != _padding(finite, corners)) & (finite != _commonest(corners)[0])]
        shares, fitting = _fitting(others if len(others) else finite)
    if told == "auto":
        _refuse_labels(sample, beside, high=high, fits=fitting == ["hounsfield"])
    if told == "grey" or told == "auto" and 0 <= low and high <= 255:
        unit = high <= 1
        if told == "auto" and _inverted(finite, corners, (low + high) / 2):
            raise ValueError(
                f"grey of {low:g} to {high:g} with nothing brighter than its corners, where air is: inverted, or with a "
                "white margin. Invert or crop it; if it is right: --intensity grey"
            )
        note = f"values of {low:g} to {high:g}: windowed before, not Hounsfield units"
        return Intensity("grey", 255.0 if unit else 1.0, notes=(note + ", scaled by 255" * unit,))
    if told == "auto" and len(fitting) != 1:
        raise ValueError(_neither(finite, shares))
    kind = fitting[0] if told == "auto" else told
    notes: tuple[str, ...] = ()
    if kind == "offset":
        notes = (
            f"values of {low:g} to {high:g}: Hounsfield units whose offset was left out, 1024 is taken off",
        )
    hounsfield = finite - OFFSETS[kind]
    padding = _padding(hounsfield, corners - OFFSETS[kind])
    if padding <= BONE and kind not in _fitting(finite[hounsfield != padding])[1]:
        padding = np.nan  # it is the body's
    wrapped = ((hounsfield > BRIGHTEST) & (hounsfield != padding)).mean() > METAL
    return Intensity(kind, padding=padding, beyond=BRIGHTEST if wrapped else BEYOND, notes=notes)


def _inverted(finite: NDArray, corners: NDArray, middle: float) -> bool:
    """Whether corners are bright and nothing is brighter: of a picture that is cut within the body, bone is."""
    return bool(len(corners) and np.median(corners) > middle and (finite > corners.max()).mean() < METAL / 2)


def _refuse_labels(sample: NDArray, beside: NDArray | None, *, high: float, fits: bool) -> None:
    """A CT has noise: hundreds of values, and neighbours that differ.

    Args:
        fits: they fit Hounsfield units; then only two values are no CT.

    Raises:
        ValueError: two values or nearly so, few, whole numbers in patches, or shares that are 0 or 1 nearly everywhere.
    """
    values, counts = np.unique(sample[np.isfinite(sample)], return_counts=True)
    most = np.sort(counts)[::-1].cumsum()
    needed = int(np.searchsorted(most, (1 - OUTLIERS) * most[-1])) + 1  # values that nearly all voxels hold
    patches = 0.0
    if beside is not None and values[0] >= 0 and high <= 255 and np.array_equal(values, np.rint(values)):
        inside = (sample != values[counts.argmax()]) & (sample < high)
        patches = float((sample == beside.ravel())[inside].mean()) if inside.any() else 1.0
    between = 1.0
    if values[0] >= 0 and high <= 1:
        between = float(((sample > SURE * high) & (sample < (1 - SURE) * high)).mean())
    odd = needed <= FEW or patches >= ALIKE or most[:8][-1] >= HELD * most[-1] or between < LEAST_BETWEEN
    if needed <= 2 or odd and not fits:
        shown = ", ".join(f"{v:g}" for v in values[np.argsort(-counts)[: min(needed, 6)]])
        what = f"{needed} values ({shown}{', ...' * (needed > 6)}) fill it"
        if between < LEAST_BETWEEN:
            what = f"nearly all of its voxels are about 0 or {high:g}"
        raise ValueError(
            f"a label map or mask, no CT: {what}, where a CT has noise. Give the scan that it was drawn on; if these numbers "
            "are a CT: --intensity hounsfield, offset or grey"
        )


def _fitting(finite: NDArray) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """By kind the shares of air and soft tissue, and the kinds that it can be."""
    shares = {kind: _shares(finite - offset) for kind, offset in OFFSETS.items()}
    return {kind: (air, soft) for kind, (air, soft, _) in shares.items()}, [
        kind for kind, (air, soft, dense) in shares.items()
        if air >= LEAST_AIR and soft >= LEAST_SOFT and dense <= MOST_DENSE and (kind != "offset" or dense >= LEAST_DENSE)
    ]  # fmt: skip


def _padding(hounsfield: NDArray, corners: NDArray) -> float:
    """The one value that stands for nothing: above bone and held by too many voxels to be metal, or the corners'; NaN: none."""
    value, count = _commonest(hounsfield[hounsfield > BONE])
    if count > CONSTANT * len(hounsfield):
        return value
    value, count = _commonest(corners)
    return value if count and count >= CORNERS * len(corners) and value > AIR[1] else np.nan


def _commonest(numbers: NDArray) -> tuple[float, int]:
    """The most frequent number, and how often it stands there; NaN and 0 of none."""
    values, counts = np.unique(numbers[np.isfinite(numbers)], return_counts=True)
    return (float(values[counts.argmax()]), int(counts.max())) if len(counts) else (np.nan, 0)


def _shares(hounsfield: NDArray) -> tuple[float, float, float]:
    """Shares of air, of soft tissue and of what is denser, padding and what is no body's aside; zeros where most is no body's."""
    inside = (hounsfield >= AIR[0]) & (hounsfield <= BRIGHTEST)
    below, above = hounsfield[hounsfield < AIR[0]], hounsfield[hounsfield > BRIGHTEST]
    odd = sum(len(part) - _commonest(part)[1] for part in (below, above))  # one number alone is padding
    body = hounsfield[inside]
    if len(body) < max(odd, len(hounsfield) / 10):
        return 0.0, 0.0, 0.0
    air, soft = (float(((body >= a) & (body <= b)).mean()) for a, b in (AIR, SOFT))
    return air, soft, float((body > SOFT[1]).mean())


def _neither(finite: NDArray, shares: dict[str, tuple[float, float]]) -> str:
    low, middle, high = np.percentile(finite, (1, 50, 99))
    air, soft = shares["hounsfield"]
    return (
        f"values of {low:g} to {high:g} (1st to 99th percentile, median {middle:g}) are no chest in Hounsfield units: {air:.1%} "
        f"lie at {AIR[0]} to {AIR[1]} where air and lungs are, {soft:.1%} at {SOFT[0]} to {SOFT[1]} where soft tissue is; "
        "nor are they with 1024 taken off, nor grey of 0..255. Was a slope or an intercept left out? Convert the scan "
        "again; if you know what the numbers are: --intensity hounsfield, offset or grey"
    )
