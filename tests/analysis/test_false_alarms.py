"""False alarms: what a direct run marks on its own test slices once their infection is gone."""

import numpy as np
import pytest

from chslib.inference import predict_masks
from replication.analysis.false_alarms import FOLDER, false_alarm_record, read_false_alarms
from replication.cli import main
from replication.data.slices.store import read_store
from replication.evidence.records import read_record
from replication.training import run as train
from replication.training.grid import get_run
from replication.training.healed import healed_slices
from replication.training.networks import trained_network
from replication.training.profiles import PROFILES, Profile

NAME = "beyond-healed-patient-fold0"
TINY = Profile(
    name="tiny", size=32, widths=(4, 6, 9), batch_size=2, learning_rate=0.1,
    max_epochs={"lungs": 1, "infection": 1}, worth="nothing",
)  # fmt: skip


@pytest.fixture(scope="module")
def places(tiny_store, tmp_path_factory):
    where = tmp_path_factory.mktemp("alarms")
    places = {"slices": tiny_store, "results": where / "results", "runs": where / "runs"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", TINY)
        train.train_run(NAME, profile="tiny", progress=False, **places)
        yield places


def test_alarms_are_counted_on_the_run_s_own_test_slices_without_infection(places):
    made = false_alarm_record(NAME, profile="tiny", **places)
    record = read_record(places["results"] / "tiny" / f"{NAME}.json")
    store = read_store(places["slices"], size=32, progress=False)
    ids = store.table["slice_id"].tolist()
    rows = np.array([ids.index(entry[0]) for entry in record["slices"]])
    pictures, of = healed_slices(store, rows, seed=0)
    network = trained_network(get_run(NAME), TINY, record, places["runs"])
    found = predict_masks(network, pictures[:, None], batch_size=2)[:, 0]
    assert made["healed"] == len(of) <= made["test_slices"] == len(rows)
    assert made["alarm_pixels"] == int((found > 0).sum())
    assert made["with_alarm"] == int(found.any((1, 2)).sum())
    assert made["lung_pixels"] == int((store.lung[of] > 0).sum())


def test_the_command_writes_what_the_table_reads_and_a_changed_record_is_refused(places):
    main(
        [
            "measure",
            "false-alarms",
            NAME,
            "--profile",
            "tiny",
            *(a for k, v in places.items() for a in (f"--{k}", str(v))),
        ]
    )
    table = read_false_alarms(places["results"])
    assert table.index.tolist() == [f"tiny/{NAME}"]
    assert 0 <= table["share of lung called infected"].item() <= 1
    path = places["results"] / FOLDER / "tiny" / f"{NAME}.json"
    text = path.read_text()
    path.write_text(text.replace('"healed": ', '"healed": 1'))
    with pytest.raises(ValueError, match="changed"):
        read_false_alarms(places["results"])
    path.write_text(text)


def test_a_second_stage_is_refused(places):
    with pytest.raises(ValueError, match="expected a direct run"):
        false_alarm_record("table2-infection", profile="tiny", **places)
