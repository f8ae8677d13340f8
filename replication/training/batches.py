"""What training reads of a slice store: (image, mask) pairs, neighbouring slices as channels, batches on the device."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler

from replication.data.slices.store import TARGETS, SliceStore
from replication.training.grid import Run
from replication.training.profiles import Profile
from replication.training.recipe import Recipe


def with_neighbours(store: SliceStore, context: int) -> np.ndarray:
    """Each slice with those below and above it in its volume as further channels.

    Args:
        context: slices to either side, by `slice_index`.

    Returns:
        uint8 (S, 1 + 2 * context, size, size): the slice, then the one below and the one above, then
        the next below and above. Where the store has none (at the volume's end, or because
        the slice was dropped for want of infection) the nearest that it has in that direction, up
        to the slice itself.

    Raises:
        ValueError: no slice to either side, or a volume that holds one `slice_index` twice.
    """
    if context < 1:
        raise ValueError(f"context={context}; expected 1 or more slices to either side.")
    places = list(zip(store.table["volume"], store.table["slice_index"]))
    rows = {place: row for row, place in enumerate(places)}
    if len(rows) < len(places):
        twice = next(place for row, place in enumerate(places) if rows[place] != row)
        raise ValueError(
            f"Volume {twice[0]} has slice_index {twice[1]} twice; expected each once (chs-net data check)."
        )
    channels = [np.arange(len(places))]
    for distance in range(1, context + 1):
        for side in (-1, 1):
            # What is nearer in that direction stands in for a missing one; at distance 0 it is the slice.
            nearest = [
                next(rows[v, i + side * d] for d in range(distance, -1, -1) if (v, i + side * d) in rows)
                for v, i in places
            ]
            channels.append(np.array(nearest))
    return np.stack([store.ct[rows_] for rows_ in channels], axis=1)


class SliceDataset(Dataset):
    """Slices of a store as (image, mask) pairs, each float32 (C, size, size).

    The image is the CT in [0, 1], or its contour map where the second stage asks for one
    (`inputs`); the mask is 0 or 1. No augmentation: the paper names none (register row 12).

    Args:
        store: the store in memory.
        target: "lungs" or "infection".
        indices: rows of the store.
        inputs: uint8 (S, C, size, size), replacing the CT as the network's input.
    """

    def __init__(
        self, store: SliceStore, *, target: str, indices: np.ndarray, inputs: np.ndarray | None = None
    ) -> None:
        if target not in TARGETS:
            raise ValueError(f"target={target!r}; expected one of {tuple(TARGETS)}.")
        self.inputs = store.ct[:, None] if inputs is None else inputs
        self.masks = getattr(store, TARGETS[target])[:, None]
        self.indices = np.asarray(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        i = self.indices[item]
        return torch.from_numpy(self.inputs[i]).float() / 255, torch.from_numpy(self.masks[i]).float()


class SliceBatches:
    """Batches of a `SliceDataset` from bytes that lie on the device for good.

    A quarter of the memory of floats, no worker processes, and nothing is moved in a step but the
    rows' numbers: a loader that fetched slice by slice from main memory would starve a GPU.

    Args:
        dataset: whose slices; the same values come out as from ``torch.utils.data.DataLoader``.
        batch_size: slices a batch; the last one may be smaller.
        sampler: the order, over ``range(len(dataset))``; the dataset's own if None.
        device: where the slices lie.
        change: given the sampler's epoch, what is done to each batch of it, see `replication.training.augmentation`.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        *,
        batch_size: int,
        sampler: Sampler[int] | None = None,
        device: torch.device | str = "cpu",
        change: Callable[[int], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] | None = None,
    ) -> None:
        self.batch_size, self.change = batch_size, change
        # Lightning tells the sampler its epoch, and asks for both attributes of a DataLoader.
        self.sampler: Any = SequentialSampler(dataset) if sampler is None else sampler
        self.batch_sampler = None
        self.images, self.masks = (
            torch.from_numpy(np.ascontiguousarray(part[dataset.indices])).to(device)
            for part in (dataset.inputs, dataset.masks)
        )

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        change = self.change(self.sampler.epoch) if self.change else None
        for rows in torch.tensor(list(self.sampler), device=self.images.device).split(self.batch_size):
            batch = self.images[rows].float() / 255, self.masks[rows].float()
            yield change(*batch) if change else batch


class EpochShuffle(Sampler[int]):
    """A fresh order each epoch, fixed by (seed, epoch): what makes a resumed run an unbroken one.

    Args:
        length: slices; an epoch has each of them `passes` times.
        seed: of the order.
        passes: over all slices, each in an order of its own.
    """

    def __init__(self, length: int, *, seed: int, passes: int = 1) -> None:
        self.length, self.seed, self.passes, self.epoch = length, seed, passes, 0

    def set_epoch(self, epoch: int) -> None:  # called by Lightning
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length * self.passes

    def __iter__(self) -> Iterator[int]:
        drawn = np.random.default_rng([self.seed, self.epoch])
        return iter(np.concatenate([drawn.permutation(self.length) for _ in range(self.passes)]).tolist())


def batches_of(
    run: Run,
    profile: Profile,
    datasets: dict[str, SliceDataset],
    *,
    recipe: Recipe | None,
    device: torch.device | str,
) -> tuple[SliceBatches, SliceBatches]:
    """Training and validation slices in batches on the device; the training's in the order that seed and epoch fix.

    Args:
        recipe: beyond the paper's, or None.
    """
    how: dict[str, Any] = {"batch_size": profile.batch_size, "device": device}
    passes = profile.beyond_passes if recipe else 1
    sampler = EpochShuffle(len(datasets["train"]), seed=run.seed, passes=passes)
    change = (lambda epoch: recipe.augmentation.of_epoch(seed=run.seed, epoch=epoch)) if recipe else None
    train = SliceBatches(datasets["train"], sampler=sampler, change=change, **how)
    return train, SliceBatches(datasets["validation"], **how)
