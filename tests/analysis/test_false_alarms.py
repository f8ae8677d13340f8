"""False alarms: what a direct run marks on its own test slices once their infection is gone."""

import numpy as np
import pytest

from chslib.inference import predict_masks
from replication.analysis.false_alarms import false_alarm_record
from replication.data.slices.store import read_store
from replication.training.grid import get_run
from replication.training.healed import healed_slices
from replication.training.networks import trained_network

NAME = "beyond-unet"


def test_alarms_are_counted_on_a_direct_run_s_own_test_slices_without_infection(trained, tiny):
    where = {"profile": "tiny", "slices": trained.slices, "results": trained.results, "runs": trained.runs}
    made, record = false_alarm_record(NAME, **where), trained.records[NAME]
    store = read_store(trained.slices, size=32, progress=False)
    ids = store.table["slice_id"].tolist()
    rows = np.array([ids.index(entry[0]) for entry in record["slices"]])
    pictures, of = healed_slices(store, rows, seed=0)
    network = trained_network(get_run(NAME), tiny, record, trained.runs)
    found = predict_masks(network, pictures[:, None], batch_size=2)[:, 0]
    assert made["healed"] == len(of) <= made["test_slices"] == len(rows)
    assert made["alarm_pixels"] == int((found > 0).sum())
    assert made["with_alarm"] == int(found.any((1, 2)).sum())
    assert made["lung_pixels"] == int((store.lung[of] > 0).sum())
    with pytest.raises(ValueError, match="expected a direct run"):
        false_alarm_record("table2-infection", **where)
