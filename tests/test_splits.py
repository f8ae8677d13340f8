"""Two protocols: what lands where, that nothing crosses, and what is refused."""

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from chslib.data.slices import read_table
from chslib.data.splits import FOLDS, Split, check_split, make_split, patient_folds, split_slices

PROTOCOLS = ("slice", "patient")
PARTS = ("train", "validation", "test")


def table_of(sizes: dict[str, int], *, infected: dict[str, int] | None = None) -> pd.DataFrame:
    """``sizes`` slices of each patient; two sources in turn."""
    rows = [
        {
            "slice_id": f"{patient}_{i}",
            "source": f"source{number % 2}",
            "patient": patient,
            "infection_pixels": (infected or {}).get(patient, 10),
        }
        for number, (patient, count) in enumerate(sizes.items())
        for i in range(count)
    ]
    return pd.DataFrame(rows)


TABLE = table_of({f"p{i}": 20 + 7 * i for i in range(11)})


def patients(table: pd.DataFrame, rows: np.ndarray) -> set[str]:
    return set(table["patient"].iloc[rows])


def same(a: Split, b: Split) -> bool:
    return all(np.array_equal(getattr(a, p), getattr(b, p)) for p in PARTS)


@pytest.mark.parametrize("fold", range(FOLDS))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_parts_cover_the_store_and_do_not_overlap(protocol, fold):
    split = make_split(TABLE, protocol=protocol, fold=fold, seed=3)
    rows = np.concatenate([getattr(split, p) for p in PARTS])
    assert sorted(rows) == list(range(len(TABLE)))
    assert all(np.array_equal(getattr(split, p), np.sort(getattr(split, p))) for p in PARTS)


@pytest.mark.parametrize("seed", range(3))
def test_thirty_percent_of_each_source_test_and_a_fifth_of_the_rest_validates(seed):
    split = make_split(TABLE, protocol="slice", fold=0, seed=seed)
    for source, rows in TABLE.groupby("source").indices.items():
        counts = {p: np.isin(rows, getattr(split, p)).sum() for p in PARTS}
        assert counts["test"] == round(0.3 * len(rows)), source
        assert counts["validation"] == pytest.approx((len(rows) - counts["test"]) / FOLDS, abs=1)


def test_the_folds_of_a_random_split_share_its_test_part_and_divide_the_rest():
    splits = [make_split(TABLE, protocol="slice", fold=k, seed=5) for k in range(FOLDS)]
    assert all(np.array_equal(s.test, splits[0].test) for s in splits)
    validated = np.concatenate([s.validation for s in splits])
    assert sorted(validated) == sorted(np.concatenate([splits[0].train, splits[0].validation]))


def test_a_random_split_leaves_patients_on_both_sides():
    split = make_split(TABLE, protocol="slice", fold=0, seed=0)
    assert patients(TABLE, split.train) & patients(TABLE, split.test)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_arguments_give_the_same_split(protocol):
    once, again = (make_split(TABLE.copy(), protocol=protocol, fold=2, seed=7) for _ in range(2))
    assert same(once, again)


def test_a_seed_changes_the_random_split_and_not_the_folds_of_patients():
    a, b = (make_split(TABLE, protocol="slice", fold=0, seed=s) for s in (0, 1))
    assert not np.array_equal(a.test, b.test)
    assert same(*(make_split(TABLE, protocol="patient", fold=0, seed=s) for s in (0, 1)))


def test_the_split_of_a_seed_is_pinned():
    """A change here would make every published run another run."""
    split = split_slices(table_of({"a": 10, "b": 10}), seed=0)
    assert (split.test.tolist(), split.validation.tolist()) == ([2, 4, 6, 12, 13, 19], [3, 7, 10, 16])


@pytest.mark.parametrize("fold", range(FOLDS))
def test_no_patient_crosses(fold):
    split = make_split(TABLE, protocol="patient", fold=fold, seed=0)
    sets = [patients(TABLE, getattr(split, p)) for p in PARTS]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 11


def test_each_patient_tests_once_and_validates_once():
    splits = [make_split(TABLE, protocol="patient", fold=k, seed=0) for k in range(FOLDS)]
    for part in ("test", "validation"):
        seen = Counter(p for s in splits for p in patients(TABLE, getattr(s, part)))
        assert set(seen) == set(TABLE["patient"]) and set(seen.values()) == {1}
    assert all(np.array_equal(splits[k].validation, splits[(k + 1) % FOLDS].test) for k in range(FOLDS))


def test_folds_are_dealt_by_infected_area_the_largest_to_the_emptiest():
    infected = dict(zip("abcdefg", (100, 90, 80, 70, 60, 50, 1)))
    folds = patient_folds(table_of(dict.fromkeys(infected, 1), infected=infected))
    # Round one a..e to 0..4; round two f (50) to the least loaded, e's fold; g to the next, d's.
    assert folds == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 4, "g": 3}


def test_folds_do_not_depend_on_the_order_of_the_rows():
    shuffled = TABLE.sample(frac=1, random_state=0).reset_index(drop=True)
    assert patient_folds(TABLE) == patient_folds(shuffled)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_table_of_a_store_can_be_split(tiny_store, protocol):
    table = read_table(tiny_store)
    split = make_split(table, protocol=protocol, fold=0, seed=0)
    assert sum(len(getattr(split, p)) for p in PARTS) == len(table)


# ---- what is refused ---------------------------------------------------------------------------

GOOD = make_split(TABLE, protocol="patient", fold=0, seed=0)


def changed(**parts: np.ndarray) -> Split:
    return dataclasses.replace(GOOD, **parts)


@pytest.mark.parametrize(
    "split, by_patient, message",
    [
        (changed(test=np.array([], int)), False, "test part of the split is empty"),
        (changed(train=np.append(GOOD.train, GOOD.test[0])), False, "same slice in two parts"),
        (changed(train=np.append(GOOD.train, GOOD.train[0])), False, "same slice in two parts"),
        (
            changed(train=np.append(GOOD.train, GOOD.test[0]), test=GOOD.test[1:]),
            True,
            "is in both train and test",
        ),
        (
            changed(train=np.append(GOOD.train, GOOD.validation[0]), validation=GOOD.validation[1:]),
            True,
            "is in both train and validation",
        ),
        (
            changed(validation=np.append(GOOD.validation, GOOD.test[0]), test=GOOD.test[1:]),
            True,
            "is in both validation and test",
        ),
    ],
)
def test_a_split_that_breaks_its_promise_is_refused(split, by_patient, message):
    with pytest.raises(ValueError, match=message):
        check_split(TABLE, split, by_patient=by_patient)


def test_a_duplicate_counts_as_the_patient_of_its_original():
    table = TABLE.assign(duplicate_of=None)
    original, copy = GOOD.train[0], GOOD.test[0]
    table.loc[copy, "duplicate_of"] = table.loc[original, "slice_id"]
    with pytest.raises(ValueError, match=f"Patient {table['patient'][original]} is in both train and test"):
        check_split(table, GOOD, by_patient=True)
    check_split(table, GOOD, by_patient=False)
    table.loc[copy, "duplicate_of"] = table.loc[GOOD.test[1], "slice_id"]  # within one part
    check_split(table, GOOD, by_patient=True)


@pytest.mark.parametrize(
    "table, arguments, message",
    [
        (TABLE, {"protocol": "volume"}, "'volume'.*slice.*patient"),
        (TABLE, {"fold": 5}, r"fold=5; expected 0\.\.4"),
        (TABLE, {"fold": -1}, r"fold=-1; expected 0\.\.4"),
        (
            table_of({"a": 9, "b": 9}),
            {"protocol": "patient"},
            r"2 patients \(a, b\); 5 folds need at least 5",
        ),
        (
            TABLE.drop(columns="infection_pixels"),
            {"protocol": "patient"},
            "no infection_pixels column",
        ),
        (table_of({"a": 1}), {"fold": 4}, "validation and test part of the split is empty"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(table, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_split(table, **{"protocol": "slice", "fold": 0, "seed": 0, **arguments})
