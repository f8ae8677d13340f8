"""Slices without infection, made of slices with it: lung of the same slice in the infection's place.

The paper trains on slices that its 3560 leave after a filter, and the prepared real slices all hold
infection (register row 52), so that a network never sees a healthy lung. Pieces of healthy lung are
copied, whole and from nearby, so that vessels and grain stay; the seam is blurred. No picture of a healthy
person, and what a network learns of it may be the seam: where it is measured, that is said.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from replication.data.slices.store import SliceStore
from replication.training.batches import SliceDataset

LEAST_HEALTHY = 0.4  # of the lung, or nothing is made
RIM = 3  # pixels around the infection that are replaced too: it fades
TRIES = 60  # displaced copies that are tried, nearest first


def healed(
    ct: NDArray[np.uint8], lung: NDArray, infection: NDArray, drawn: np.random.Generator
) -> NDArray[np.uint8] | None:
    """One slice (H, W) with healthy lung where infection was; None where too little of the lung is healthy."""
    lung = lung > 0
    sick = ndimage.binary_dilation(infection > 0, iterations=RIM) & lung
    healthy = ndimage.binary_erosion(lung & ~sick)
    if not sick.any() or healthy.sum() < LEAST_HEALTHY * lung.sum():
        return None
    out, left = ct.astype(np.float32), sick.copy()
    rows, columns = np.nonzero(healthy)
    reach = drawn.uniform(4, 48, (TRIES, 1)) * np.sort(drawn.random((TRIES, 1)), axis=0)
    angle = drawn.uniform(0, 2 * np.pi, (TRIES, 1))
    for dy, dx in np.rint(reach * np.hstack([np.sin(angle), np.cos(angle)])).astype(int):
        if not left.any():
            break
        source = np.roll(healthy, (-dy, -dx), (0, 1)) & left
        out[source] = np.roll(ct, (-dy, -dx), (0, 1))[source]
        left &= ~source
    if left.any():
        chosen = drawn.integers(len(rows), size=int(left.sum()))
        out[left] = ct[rows[chosen], columns[chosen]]
    soft = ndimage.gaussian_filter(sick.astype(np.float32), 1.0)
    smooth = ndimage.gaussian_filter(out, 0.7)
    seam = sick & (soft < 0.9)
    out[seam] = smooth[seam]
    return np.rint(out).clip(0, 255).astype(np.uint8)


def healed_slices(store: SliceStore, rows: NDArray, *, seed: int) -> tuple[NDArray[np.uint8], NDArray]:
    """What `healed` makes of some rows of a store: slices (N, H, W), and the rows that they are of."""
    made = [
        (picture, row)
        for row in rows
        if (
            picture := healed(
                store.ct[row],
                store.lung[row],
                store.infection[row],
                np.random.default_rng([seed, int(row), 2]),
            )
        )
        is not None
    ]
    side = store.ct.shape[1:]
    pictures = np.stack([m[0] for m in made]) if made else np.empty((0, *side), np.uint8)
    return pictures, np.array([m[1] for m in made], int)


def with_healed(dataset: SliceDataset, store: SliceStore, *, seed: int) -> SliceDataset:
    """The slices of a dataset, and behind them what can be healed of them, with empty masks."""
    pictures, _ = healed_slices(store, dataset.indices, seed=seed)
    more = SliceDataset(store, target="infection", indices=dataset.indices)
    more.inputs = np.concatenate([dataset.inputs, pictures[:, None]])
    more.masks = np.concatenate([dataset.masks, np.zeros_like(pictures)[:, None]])
    more.indices = np.concatenate([dataset.indices, len(dataset.inputs) + np.arange(len(pictures))])
    return more
