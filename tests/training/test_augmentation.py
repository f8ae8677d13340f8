"""Augmentation: what moves, what stays, and that a seed and an epoch fix all of it."""

from dataclasses import replace

import pytest
import torch

from replication.data.slices.store import read_store
from replication.training.augmentation import Augmentation
from replication.training.batches import EpochShuffle, SliceBatches, SliceDataset

STILL = Augmentation(flip=0, rotation=0, scale=0, shift=0, brightness=0, contrast=0, gamma=0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """A square off the middle, bright on grey, and its mask."""
    mask = torch.zeros(8, 1, 64, 64)
    mask[:, :, 24:44, 14:34] = 1
    return 0.3 + 0.4 * mask, mask


def centre(mask: torch.Tensor) -> torch.Tensor:
    """Row and column of the middle of each mask, pixels."""
    return torch.stack([slice_.nonzero().float().mean(0) for slice_ in mask[:, 0]])


def test_nothing_to_change_changes_nothing(batch):
    image, mask = STILL.of_epoch(seed=0, epoch=0)(*batch)
    assert torch.allclose(image, batch[0], atol=1e-6) and torch.equal(mask, batch[1])


def test_seed_and_epoch_fix_what_is_drawn(batch):
    def drawn(seed: int, epoch: int) -> list[torch.Tensor]:
        change = Augmentation().of_epoch(seed=seed, epoch=epoch)
        return [*change(*batch), *change(*batch)]

    first = drawn(0, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(0, 3), strict=True))
    assert not torch.equal(first[0], first[2]), "two batches of an epoch are changed alike"
    assert not torch.equal(first[0], drawn(0, 4)[0]) and not torch.equal(first[0], drawn(1, 3)[0])
    assert len({round(float(image.sum()), 3) for image in first[0]}) == len(batch[0]), "slices changed alike"


def test_a_slice_and_its_mask_move_together_within_their_limits(batch):
    moved = replace(Augmentation(), brightness=0, contrast=0, gamma=0).of_epoch(seed=1, epoch=0)
    image, mask = moved(*batch)
    assert torch.equal((image > 0.5).float(), mask) and set(mask.unique().tolist()) == {0.0, 1.0}
    area = mask.sum((1, 2, 3)) / batch[1].sum((1, 2, 3))
    assert (area > 0.7).all() and (area < 1.4).all() and len(area.unique()) > 4


@pytest.mark.parametrize(
    "change, expected", [({"flip": 1}, (33.5, 39.5)), ({"rotation": 1e-9}, (33.5, 23.5))]
)
def test_a_mirrored_slice_is_mirrored_left_for_right(change, expected, batch):
    _, mask = replace(STILL, **change).of_epoch(seed=0, epoch=0)(*batch)
    assert torch.allclose(centre(mask), torch.tensor(expected), atol=0.01)


def test_a_turned_slice_keeps_its_size_and_its_distance_from_the_middle(batch):
    _, mask = replace(STILL, flip=0.5, rotation=15).of_epoch(seed=0, epoch=0)(*batch)
    away, before = ((centre(of) - 31.5).norm(dim=1) for of in (mask, batch[1]))
    assert torch.allclose(away, before, atol=0.3) and len(centre(mask).unique(dim=0)) == len(mask)
    assert torch.allclose(mask.sum((1, 2, 3)), batch[1].sum((1, 2, 3)), rtol=0.03)


def test_a_shift_is_a_share_of_the_side(batch):
    _, mask = replace(STILL, shift=0.1).of_epoch(seed=0, epoch=0)(*batch)
    way = (centre(mask) - centre(batch[1])).abs()
    assert way.max() <= 0.1 * 64 + 0.5 and way.max() > 3


def test_grey_values_change_between_0_and_1_and_the_mask_does_not(batch):
    grey = Augmentation(flip=0, rotation=0, scale=0, shift=0, brightness=0.5, contrast=2)
    image, mask = grey.of_epoch(seed=0, epoch=0)(*batch)
    assert torch.equal(mask, batch[1]) and image.min() >= 0 and image.max() <= 1
    inside, outside = (image * mask).amax((1, 2, 3)), (image * (1 - mask)).amax((1, 2, 3))
    assert (inside >= outside).all() and len(inside.unique()) > 4


def test_batches_are_changed_by_the_epoch_of_their_order(tiny_store):
    dataset = SliceDataset(
        read_store(tiny_store, size=32, progress=False), target="infection", indices=range(7)
    )
    sampler = EpochShuffle(7, seed=0, passes=2)
    epochs: list[int] = []

    def change(epoch: int):
        epochs.append(epoch)
        return lambda image, mask: (image + 1, mask)

    batches = SliceBatches(dataset, batch_size=4, sampler=sampler, change=change)
    sampler.set_epoch(5)
    images = [image for image, _ in batches]
    assert epochs == [5] and [len(i) for i in images] == [4, 4, 4, 2] and len(batches) == 4
    assert all(image.min() >= 1 for image in images)
    order = list(sampler)
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7)) and order[:7] != order[7:]
    once = EpochShuffle(7, seed=0)
    once.set_epoch(5)
    assert order[:7] == list(once), "more passes are another order of the first"
    for seed, epoch in ((0, 6), (1, 5)):
        other = EpochShuffle(7, seed=seed)
        other.set_epoch(epoch)
        assert sorted(other) == list(range(7)) and list(other) != list(once)
