"""The lookup table: the most similar training slice, its mask, and the record that the book shows."""

import numpy as np
import pandas as pd
import pytest

from replication.analysis.leak import (
    agreement,
    copied_masks,
    leakage_record,
    nearest_slices,
    paired,
    patient_scores,
    with_interval,
)
from replication.data.slices.splits import Split, make_split
from replication.data.slices.store import SliceStore, read_store
from replication.evidence.records import slices_of_patients


@pytest.fixture(scope="module")
def read(tiny_store) -> SliceStore:
    return read_store(tiny_store, size=64, progress=False)


def test_a_slice_s_brightened_copy_is_the_nearest_and_hands_in_its_own_mask(read):
    store = SliceStore(read.table, read.ct.copy(), read.lung, read.infection.copy(), read.fingerprint)
    store.ct[5] = (store.ct[11] * 0.5 + 60).astype(np.uint8)  # another window
    store.infection[5] = store.infection[11]
    others = np.array([k for k in range(len(store)) if k != 5])
    split = Split(train=others, validation=others[:0], test=np.array([5]))
    assert nearest_slices(store, split).tolist() == [11]
    assert copied_masks(store, split, "infection")["pooled"]["dsc"] == 1
    without = Split(train=others[others != 11], validation=others[:0], test=np.array([5]))
    assert copied_masks(store, without, "infection")["pooled"]["dsc"] < 1


def test_only_training_slices_are_looked_up(read):
    for protocol in ("slice", "patient"):
        split = make_split(read.table, protocol=protocol, fold=1, seed=0)
        assert set(nearest_slices(read, split)) <= set(split.train)


def test_an_odd_size_is_refused(read):
    store = SliceStore(read.table, read.ct[:, :40, :40], read.lung, read.infection, "")
    with pytest.raises(ValueError, match="40x40; expected a side that divides by 32"):
        nearest_slices(store, make_split(read.table, protocol="slice", fold=0, seed=0))


def test_the_record_has_every_seed_and_fold(read):
    entries = leakage_record(read)["entries"]
    assert [(e["protocol"], e["fold"], e["seed"]) for e in entries] == [
        *(("slice", 0, s) for s in range(3)), *(("patient", k, 0) for k in range(5)),
    ]  # fmt: skip
    assert all(e["leaks"]["patient"] <= e["slices"] for e in entries[:3])


# ---- one patient under both protocols ----------------------------------------------------------


def record_of(slices: list[list]) -> dict:
    patients = sorted({row[0].rsplit("_", 1)[0] for row in slices})
    return {"run": "table2-infection", "slices": slices, "data": {"split": {"test": {"patients": patients}}}}


def test_a_patient_s_score_is_of_all_its_slices_of_all_seeds():
    first = record_of([["a_0", 6, 2, 2, 90], ["b_0", 1, 0, 9, 90], ["a_1", 0, 0, 4, 96]])
    second = record_of([["a_2", 10, 0, 0, 90]])
    table = patient_scores([first, second])
    assert table.index.tolist() == ["a", "b"] and table["slices"].tolist() == [3, 1]
    assert (
        table.loc["a", "dsc"] == pytest.approx(2 * 16 / (2 * 16 + 2 + 6)) and table.loc["a", "infected"] == 22
    )
    assert table["marked"].tolist() == pytest.approx([(16 + 2) / 22, 1 / 10]), "more is marked than is hit"
    nothing = patient_scores([record_of([["a_0", 0, 3, 0, 97]])])
    assert nothing["marked"].isna().all(), "a patient without infection has no multiple of it"
    assert 0 <= table.loc["a", "low"] < table.loc["a", "dsc"] < table.loc["a", "high"] <= 1
    assert table.loc["b", ["low", "high"]].isna().all(), "one slice has no spread to resample"
    assert slices_of_patients(first)["a"].tolist() == [[6, 2, 2, 90], [0, 0, 4, 96]]
    assert patient_scores([]).empty
    first["data"]["split"]["test"]["patients"] = ["c"]
    with pytest.raises(ValueError, match="do not begin with their patients' names"):
        patient_scores([first])


def test_networks_agree_where_they_rank_the_patients_alike():
    def of(**dsc):
        return pd.DataFrame({"dsc": dsc})

    table = agreement(
        {"x": of(a=0.1, b=0.5, c=0.9), "y": of(c=0.3, b=0.2, a=0.0, d=0.9), "z": of(a=3, b=2, c=1)}
    )
    assert table.index.tolist() == table.columns.tolist() == ["x", "y", "z"]
    assert table.loc["x", "y"] == 1 and table.loc["x", "z"] == table.loc["z", "x"] == -1
    assert agreement({"x": of(a=0.1, b=0.2), "y": of(a=0.1, b=0.3)}).isna().all(axis=None), (
        "two are no ranking"
    )
    assert agreement({}).empty


def test_what_the_chapter_says_of_hard_patients_is_so_in_the_records(ours):
    both = {
        run: {p: patient_scores(ours.only("cpu").best(run, protocol=p)[1]) for p in ("slice", "patient")}
        for run in ("table2-infection", "table4-bu", "table3-miniseg")
    }
    full = patient_scores(ours.only("paper").best("table4-bu", protocol="patient")[1])
    held_out = {run: of["patient"] for run, of in both.items()} | {"full": full}
    agree = agreement(held_out).to_numpy()
    assert agree.shape == (4, 4) and agree.min() > 0.4, "much the same patients are hard"
    marked = pd.concat([of["marked"] for of in held_out.values()], axis=1)
    little = marked.index[(marked < 1).all(axis=1)]
    assert {"coronacases_001", "coronacases_003", "radiopaedia_7_85703_0"} <= set(little)
    for run in ("table4-bu", "table3-miniseg"):
        seen = both[run]["slice"]["marked"][little]
        assert (seen > 0.8).all(), "with their slices on both sides nearly as much, or more"


def test_protocols_are_compared_over_the_patients_they_share():
    seen = pd.Series({"a": 0.9, "b": 0.8, "c": 0.1})
    new = pd.Series({"b": 0.5, "a": 0.7, "d": 0.0})
    table = paired(seen, new)
    assert table["patients"].tolist() == [2, 2, 2]
    assert table["mean"].tolist() == pytest.approx([0.85, 0.6, 0.25])
    assert table.loc["lost", ["low", "high"]].tolist() == pytest.approx([0.2, 0.3])
    assert paired(seen, new, names=("x", "y", "gained")).index.tolist() == ["x", "y", "gained"]
    one = paired(seen[["a"]], new)
    assert one.loc["lost", "mean"] == pytest.approx(0.2) and one[["low", "high"]].isna().all(axis=None)
    none = paired(seen[["c"]], new)
    assert none["patients"].tolist() == [0, 0, 0]
    assert with_interval(table.loc["lost"]) == "0.250 (0.200 to 0.300)"
    assert with_interval(one.loc["lost"]) == "0.200" and with_interval(none.loc["lost"]) == "not run"
