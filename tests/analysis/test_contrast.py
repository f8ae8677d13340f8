"""How a patient's infection stands out: against brute force, by hand, and the record that the book shows."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from replication.analysis.contrast import LEVELS, RECORD, contrast_of, contrast_record, read_contrast
from replication.analysis.leak import patient_scores
from replication.data.slices.store import SliceStore
from replication.figures.patients import plot_contrast

ROOT = Path(__file__).resolve().parents[2]


def histogram(grey) -> np.ndarray:
    return np.bincount(grey, minlength=LEVELS)


def test_the_chance_to_be_brighter_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    healthy, infected = rng.integers(20, 60, 300), rng.integers(30, 90, 200)
    found = contrast_of(histogram(healthy), histogram(infected))
    pairs = (infected[:, None] > healthy) + (infected[:, None] == healthy) / 2
    assert found["brighter"] == pytest.approx(pairs.mean())
    assert found["healthy_grey"] == pytest.approx(healthy.mean())
    assert found["infected_grey"] == pytest.approx(infected.mean())
    assert found["darker"] == pytest.approx((infected < healthy.mean()).mean())
    same = contrast_of(histogram(healthy), histogram(healthy))
    assert same["brighter"] == pytest.approx(0.5), "the same grey values tell nothing"
    assert all(np.isnan(v) for v in contrast_of(histogram(healthy), np.zeros(LEVELS, int)).values())


def test_each_patient_is_counted_over_its_own_lung():
    ct = np.array([[[10, 10], [200, 99]], [[10, 30], [40, 99]], [[7, 7], [7, 7]]], dtype=np.uint8)
    lung = np.array([[[1, 1], [1, 0]], [[1, 1], [1, 0]], [[1, 1], [0, 0]]], dtype=np.uint8)
    infection = np.array([[[0, 0], [1, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=np.uint8)
    table = pd.DataFrame({"slice_id": ["a_0", "a_1", "b_0"], "patient": ["a", "a", "b"]})
    found = contrast_record(SliceStore(table, ct, lung, infection, "f" * 64))["patients"]
    assert found["a"] == {
        "slices": 2, "lung": 6, "infected": 2, "healthy_grey": 15.0, "infected_grey": 120.0, "brighter": 1.0, "darker": 0.0,
    }  # fmt: skip
    assert found["b"]["brighter"] is None, "no infection, no contrast; the background is no lung"


def test_amounts_are_known_of_patients_trained_on_and_guessed_of_others(ours):
    share = read_contrast(ROOT / "results" / RECORD)["share"]
    for profile, run in (("cpu", "table2-infection"), ("cpu", "table4-bu"), ("cpu", "table3-miniseg"), ("paper", "table4-bu")):  # fmt: skip
        of = ours.only(profile)
        seen, new = (patient_scores(of.best(run, protocol=p)[1])["marked"] for p in ("slice", "patient"))
        rho = [share.corr(share * marked, method="spearman") for marked in (seen, new)]
        assert rho[0] > 0.9 > 0.8 > rho[1], (profile, run, rho)
        much, little = (new[share > 0.1].median(), new[share < 0.03].median())
        assert much < 1 < little, "too little where much is infected, too much where little is"


def test_a_mark_stands_for_each_patient_of_each_network():
    scores = pd.DataFrame({"dsc": [0.2, 0.8], "marked": [3.0, 0.5]}, index=["a", "b"])
    contrast = pd.DataFrame({"share": [0.01, 0.2], "brighter": [0.6, 0.9]}, index=["a", "b"])
    figure = plot_contrast({"x": scores, "y": scores.iloc[:1]}, contrast)
    left, right = ({line.get_label(): line for line in axis.lines} for axis in figure.axes)
    assert left["x"].get_xdata().tolist() == [0.01, 0.2] and left["x"].get_ydata().tolist() == [0.03, 0.1]
    assert right["y"].get_xdata().tolist() == [0.6] and right["y"].get_ydata().tolist() == [0.2]
    assert "not run" in [text.get_text() for axis in plot_contrast({}, contrast).axes for text in axis.texts]
    plt.close("all")
