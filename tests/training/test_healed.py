"""Slices made healthy: infection is gone, everything else stays, and what is made follows from a seed."""

import numpy as np
import pytest

from replication.data.slices.store import read_store
from replication.training.batches import SliceDataset
from replication.training.healed import RIM, healed, healed_slices, with_healed


@pytest.fixture(scope="module")
def read(tiny_store):
    return read_store(tiny_store, size=64, progress=False)


def test_infection_becomes_as_dark_as_the_lung_and_nothing_else_changes(read):
    for row in range(len(read.ct)):
        ct, lung, infection = read.ct[row], read.lung[row] > 0, read.infection[row] > 0
        made = healed(ct, lung, infection, np.random.default_rng(0))
        far = np.pad(infection, RIM + 1)
        near = np.zeros_like(infection)
        for dy in range(2 * RIM + 3):
            for dx in range(2 * RIM + 3):
                near |= far[dy : dy + ct.shape[0], dx : dx + ct.shape[1]]
        assert (made == ct)[~(near & lung)].all(), "changed where no infection was near, or outside the lungs"
        healthy = ct[lung & ~near]
        assert abs(made[infection].mean() - healthy.mean()) < 8 < ct[infection].mean() - healthy.mean()


def test_nothing_is_made_where_most_of_the_lung_is_infected_or_none_is(read):
    ct, lung = read.ct[0], read.lung[0] > 0
    assert healed(ct, lung, lung, np.random.default_rng(0)) is None
    assert healed(ct, lung, np.zeros_like(lung), np.random.default_rng(0)) is None


def test_training_gets_them_behind_its_own_slices_with_empty_masks_the_same_each_time(read):
    rows = np.array([1, 4, 7])
    plain = SliceDataset(read, target="infection", indices=rows)
    more, again, other = (with_healed(plain, read, seed=seed) for seed in (0, 0, 1))
    pictures, of = healed_slices(read, rows, seed=0)
    assert len(more) == len(plain) + len(of) == 6 and of.tolist() == rows.tolist()
    inputs, masks = more.inputs[more.indices], more.masks[more.indices]
    np.testing.assert_array_equal(inputs[:3, 0], read.ct[rows])
    np.testing.assert_array_equal(inputs[3:, 0], pictures)
    assert not masks[3:].any() and masks[:3].any()
    np.testing.assert_array_equal(inputs, again.inputs[again.indices])
    assert (inputs != other.inputs[other.indices]).any()
