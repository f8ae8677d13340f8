"""Two protocols: what lands where, that nothing crosses, and what is refused."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from replication.data.slices.splits import (
    FOLDS,
    Split,
    check_split,
    leaks,
    make_split,
    patient_folds,
    persons,
    split_slices,
)

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
@pytest.mark.parametrize("sources", [2, 3])
def test_thirty_percent_of_each_source_test_and_a_fifth_of_the_rest_validates(sources, seed):
    table = TABLE if sources == 2 else TWINS
    split = make_split(table, protocol="slice", fold=0, seed=seed)
    for source, rows in table.groupby("source").indices.items():
        counts = {p: np.isin(rows, getattr(split, p)).sum() for p in PARTS}
        assert counts["test"] == round(0.3 * len(rows)), source
        assert counts["validation"] == pytest.approx((len(rows) - counts["test"]) / FOLDS, abs=1)


def test_the_folds_of_a_random_split_share_its_test_part_and_divide_the_rest():
    splits = [make_split(TABLE, protocol="slice", fold=k, seed=5) for k in range(FOLDS)]
    assert all(np.array_equal(s.test, splits[0].test) for s in splits)
    validated = np.concatenate([s.validation for s in splits])
    assert sorted(validated) == sorted(np.concatenate([splits[0].train, splits[0].validation]))


def test_a_seed_changes_the_random_split_and_not_the_folds_of_patients():
    a, b = (make_split(TABLE, protocol="slice", fold=0, seed=s) for s in (0, 1))
    assert not np.array_equal(a.test, b.test)
    assert same(*(make_split(TABLE, protocol="patient", fold=0, seed=s) for s in (0, 1)))


def test_the_split_of_a_seed_is_pinned():
    """A change here would make every published run another run."""
    split = split_slices(table_of({"a": 10, "b": 10}), seed=0)
    assert same(split, split_slices(table_of({"a": 10, "b": 10}), seed=0))
    assert (split.test.tolist(), split.validation.tolist()) == ([2, 4, 6, 12, 13, 19], [3, 7, 10, 16])


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


# ---- twins -------------------------------------------------------------------------------------
def store_with_twins() -> pd.DataFrame:
    """Three sources; medseg_0 and medseg_1 repeat radiopaedia_0 and radiopaedia_1, slice by slice."""
    rows = [
        {
            "slice_id": f"{source}_{number}_{i}", "source": source, "volume": f"{source}_{number}",
            "patient": f"{source}_{number}", "slice_index": i, "infection_pixels": 10 + number,
            "duplicate_of": f"radiopaedia_{number}_{i}" if source == "medseg" else np.nan,
        }
        for source, count in (("coronacases", 5), ("radiopaedia", 4), ("medseg", 2))
        for number in range(count)
        for i in range(10)
    ]  # fmt: skip
    return pd.DataFrame(rows)


TWINS = store_with_twins()


@pytest.mark.parametrize("fold", range(FOLDS))
def test_twins_share_a_fold_and_leak_nothing(fold):
    split = make_split(TWINS, protocol="patient", fold=fold, seed=0)
    for part in PARTS:
        shown = patients(TWINS, getattr(split, part))
        assert all((f"medseg_{n}" in shown) == (f"radiopaedia_{n}" in shown) for n in (0, 1))
    assert (leaks(TWINS, split)["slices"] == 0).all()


def test_persons_join_whole_patients_along_chains_and_through_one_slice():
    table = pd.DataFrame(
        {"slice_id": list("abcdefg"), "patient": list("PPQQRRS"),
         "duplicate_of": [np.nan, np.nan, "b", np.nan, "d", "", "gone"]}
    )  # fmt: skip
    assert persons(table).tolist() == list("PPPPPPS")  # c is b, so Q is P; e is d, so R is Q
    assert persons(table[::-1]).tolist() == list("SPPPPPP")
    assert persons(table.drop(columns="duplicate_of")).tolist() == list("PPQQRRS")
    circle = table.assign(duplicate_of=["c", None, "a", None, None, None, None])
    assert len(set(persons(circle))) == 3


def test_a_person_weighs_what_all_its_slices_hold():
    folds = patient_folds(TWINS)
    assert set(folds) == set(TWINS["patient"]) - {"medseg_0", "medseg_1"}
    # radiopaedia_1 with its twin (220) is the heaviest, radiopaedia_0 with its own (200) the next.
    assert (folds["radiopaedia_1"], folds["radiopaedia_0"]) == (0, 1)


LEAKS = {
    "nothing": (["c0"], ["a0", "b0"], (0, 0, 0, 0)),
    "a patient": (["a0"], ["a2"], (1, 0, 0, 1)),
    "a neighbour": (["a1"], ["a0", "a2", "a5", "c0"], (3, 2, 0, 3)),
    "the original of a copy": (["a0"], ["b0", "b1"], (0, 0, 1, 1)),
    "the copy of an original": (["b0"], ["a0", "a1"], (0, 0, 1, 1)),
    "another copy": (["d0"], ["b0", "b1"], (0, 0, 1, 1)),
    "a copy of the same volume": (["b2"], ["b1"], (1, 1, 0, 1)),
    "all": (["a1", "b2"], ["a0", "a2", "b1", "c0"], (3, 3, 1, 3)),
    "only what validates": (["c0"], ["a0"], (0, 0, 0, 0)),
}


@pytest.mark.parametrize("case", LEAKS)
def test_leaks_are_counted_by_reason(case):
    ids = ["a0", "a1", "a2", "a5", "b0", "b1", "b2", "c0", "d0"]
    of = {"b0": "a0", "b1": "a1", "b2": "a1", "d0": "a0"}
    table = pd.DataFrame(
        {"slice_id": ids, "volume": [i[0] for i in ids], "patient": [i[0] for i in ids],
         "slice_index": [int(i[1]) for i in ids], "duplicate_of": [of.get(i) for i in ids]}
    )  # fmt: skip
    train, test, expected = LEAKS[case]
    rows = [np.array([ids.index(i) for i in part]) for part in (train, test)]
    rest = np.setdiff1d(np.arange(len(ids)), np.concatenate(rows))
    counts = leaks(table, Split(train=rows[0], validation=rest, test=rows[1]))
    assert counts.index.tolist() == ["patient", "neighbour", "duplicate", "any"]
    assert tuple(counts["slices"]) == expected and (counts["of"] == len(test)).all()
    assert np.allclose(counts["share"], counts["slices"] / len(test))
    alone = leaks(table.drop(columns="duplicate_of"), Split(train=rows[0], validation=rest, test=rows[1]))
    assert tuple(alone["slices"][:3]) == (*expected[:2], 0)


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


def test_copies_that_cross_are_named_five_of_them():
    split = make_split(TWINS.drop(columns="duplicate_of"), protocol="patient", fold=0, seed=0)
    sides = {p: patients(TWINS, getattr(split, p)) for p in PARTS}
    crossing = [
        n for n in (0, 1) if not any({f"medseg_{n}", f"radiopaedia_{n}"} <= s for s in sides.values())
    ]
    assert crossing  # else the next lines test nothing
    with pytest.raises(ValueError, match="Patient radiopaedia_.*promises that none crosses") as error:
        check_split(TWINS, split, by_patient=True)
    assert re.search(r"Slices: medseg_(\d)_0 = radiopaedia_\1_0, .* and \d+ more\.$", str(error.value))
    assert str(error.value).count(" = ") == 5


@pytest.mark.parametrize(
    "table, arguments, message",
    [
        (TABLE, {"protocol": "volume"}, "'volume'.*slice.*patient"),
        (TABLE, {"fold": 5}, r"fold=5; expected 0\.\.4"),
        (TABLE, {"fold": -1}, r"fold=-1; expected 0\.\.4"),
        (
            table_of({"a": 9, "b": 9}),
            {"protocol": "patient"},
            r"2 patients \(a, b\); patients apart need 3.*--protocol slice",
        ),
        (
            table_of({"a": 9, "b": 9, "c": 9}),
            {"protocol": "patient", "fold": 3},
            "fold 3: .* expected fold 0 to 2",
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
