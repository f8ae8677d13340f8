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
        labels, number = ndimage.label(mask[k])
        middle = ndimage.median(hounsfield(k), labels, np.arange(1, number + 1))
        wrong = (middle < GAS) | ((middle > FAT[0]) & (middle < FAT[1]))
        kept[k][np.isin(labels, 1 + np.flatnonzero(wrong))] = 0
    return kept


def _enough(mask: NDArray) -> NDArray[np.uint8]:
    return mask * (mask.mean((1, 2), keepdims=True) >= LEAST_AREA).astype(np.uint8)
