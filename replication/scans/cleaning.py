"""What is done to predicted lungs in three dimensions, each step by itself and measured.

The paper segments slice by slice and names no such step (register row 44), and the training slices
hold none without lung. On a whole scan the first network then calls gas in the bowel, air beside the
arms, or fat lung. Lungs are two large bodies and neither, and that is what is kept.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from replication.scans.steps import Cleaning

GAS = -960.0  # HU: a patch whose median is darker holds gas alone, such as bowel
FAT = (-160.0, -30.0)  # HU: nor is a patch of fat lung; consolidated lung is denser
DOUBT = 0.2  # share of a patch's pixels: so near a half, a part of it is dropped, so that a pixel more or less moves little
SMALLEST = 0.1  # of the largest body's volume: less is no second lung
LEAST_AREA = 0.002  # of a slice's pixels: less lung is none


def clean_lungs(
    lungs: NDArray[np.uint8], how: Cleaning, *, hounsfield: Callable[[int], NDArray] | None = None
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Lungs (S, H, W) behind the steps, and how many voxels each took (positive) or added (negative).

    Args:
        hounsfield: slice number -> HU (H, W) of that slice; None where the scan has none.
    """
    took: dict[str, int] = {}
    steps = {
        "density": lambda m: _of_lung_s_density(m, hounsfield) if hounsfield else m,
        "largest": _two_largest,
        "holes": lambda m: ndimage.binary_fill_holes(m).astype(np.uint8),
        "slices": _enough,
    }
    for name, step in steps.items():
        if getattr(how, name) and lungs.any():
            cleaned = step(lungs)
            took[name] = int(lungs.sum(dtype=np.int64)) - int(cleaned.sum(dtype=np.int64))
            lungs = cleaned
    return lungs, took


def _bodies(mask: NDArray) -> tuple[NDArray, NDArray]:
    labels, number = ndimage.label(mask)
    return labels, np.bincount(labels.ravel(), minlength=number + 1)


def _two_largest(mask: NDArray) -> NDArray[np.uint8]:
    labels, sizes = _bodies(mask)
    sizes[0] = 0
    kept = np.argsort(sizes)[-2:]
    return np.isin(labels, kept[sizes[kept] >= SMALLEST * sizes.max()]).astype(np.uint8)


def _of_lung_s_density(mask: NDArray, hounsfield: Callable[[int], NDArray]) -> NDArray[np.uint8]:
    kept = mask.copy()
    for k in np.flatnonzero(mask.any((1, 2))):
        (labels, _), hu = ndimage.label(mask[k]), hounsfield(int(k))
        for n, box in enumerate(ndimage.find_objects(labels), 1):
            patch = labels[box] == n
            kept[k][box][patch] = ~gas_or_fat(hu[box][patch])
    return kept


def gas_or_fat(hu: NDArray) -> NDArray[np.bool_]:
    """Which pixels of a patch (N,) are dropped: all where gas or fat is its median by far, none where it is not, else a part.

    The part grows with the share of pixels on the median's side of the limit, and begins with those most like gas or fat.
    """
    gas = (hu < GAS).mean()
    fat = 1 - max((hu <= FAT[0]).mean(), (hu >= FAT[1]).mean())
    share, unlike = (gas, hu) if gas > fat else (fat, np.abs(hu - np.mean(FAT)))
    part = np.clip((share - 0.5) / (2 * DOUBT) + 0.5, 0, 1)
    return unlike.argsort(kind="stable").argsort() < np.floor(part * len(hu) + 0.5)


def _enough(mask: NDArray) -> NDArray[np.uint8]:
    return mask * (mask.mean((1, 2), keepdims=True) >= LEAST_AREA).astype(np.uint8)
