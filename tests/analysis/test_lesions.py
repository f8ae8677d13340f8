"""Lesions by size: pieces are told apart, counted once, and found by what covers them."""

import json
from pathlib import Path

import numpy as np

from replication.analysis.lesions import BOUNDS, lesions_of, read_lesions

ROOT = Path(__file__).resolve().parents[2]


def test_lesions_are_connected_pieces_of_one_slice():
    truth, found = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)
    truth[0, 0, 0] = truth[0, 1, 1] = 1  # corners touch: one lesion of two pixels
    truth[0, 5:7, 5:8] = 1
    truth[1, 0, 0] = 1  # another slice, another lesion
    found[0, 5, 4:7] = 1  # two of six pixels, and a false one
    lesions = lesions_of(truth, found)
    assert sorted(map(tuple, lesions.to_numpy().tolist())) == [(1, 0), (2, 0), (6, 2)]
    assert lesions["pixels"].sum() == truth.sum()
    assert lesions_of(truth[:0], found[:0]).empty


def test_committed_records_add_up_to_the_counts_of_their_runs():
    table = read_lesions(ROOT / "results")
    assert list(table.loc["paper/table4-full"].index) == list(BOUNDS)
    for name in table.index.unique("run"):
        record = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
        tp, fn = (sum(row[k] for row in record["slices"]) for k in (1, 3))
        assert table.loc[name, "found"].sum() == tp and table.loc[name, "pixels"].sum() == tp + fn
