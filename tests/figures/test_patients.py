"""Confusion matrices from scores, and figures of cases and rows that say what was not run."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from chslib.metrics import scores
from replication.analysis.leak import patient_scores
from replication.evidence.audit import implied_shares
from replication.evidence.comparisons import courses, infection_rows
from replication.evidence.estimates import Ours
from replication.evidence.records import pooled_counts
from replication.figures.cases import plot_confusion
from replication.figures.curves import learning_curves, plot_courses, plot_history, plot_learning
from replication.figures.density import plot_densities
from replication.figures.patients import plot_hard_patients, plot_patients, plot_slice_scores
from replication.figures.scores import plot_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ours() -> Ours:
    return Ours(ROOT / "results")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_three_scores_give_back_the_matrix_they_were_computed_from():
    counts = np.array([700, 110, 290, 65_000])
    score = {k: float(v) for k, v in scores(counts).items()}
    shares = implied_shares(**{k: score[k] for k in ("precision", "recall", "specificity")})
    assert np.allclose(shares, counts / counts.sum())
    with pytest.raises(ValueError, match="specificity 1.0 leave the share of positive pixels open"):
        implied_shares(precision=0.9, recall=0.9, specificity=1.0)


def test_counts_are_added_up_over_seeds_or_folds():
    records = [{"test": {"confusion": dict(zip(("tp", "fp", "fn", "tn"), row))}} for row in ([1, 2, 3, 4], [10, 20, 30, 40])]  # fmt: skip
    assert pooled_counts(records).tolist() == [11, 22, 33, 44] and pooled_counts([]) is None


def test_a_matrix_shows_shares_of_its_row_of_truth_and_of_all_pixels():
    figure = plot_confusion(
        {"infection": {"paper": np.array([3, 1, 1, 15]), "ours": None}}, what={"infection": "infected"}
    )
    shown = texts(figure)
    assert shown[-1] == "not run" and len(shown) == 9
    assert {"TP 75.0%", "FN 25.0%", "FP 6.2%", "TN 93.8%", "15.00% of all", "75.00% of all"} <= set(shown)


def test_a_row_without_a_record_reads_not_run(ours, tmp_path):
    rows = infection_rows(ours)
    assert len(rows) == 15 and rows["paper"].notna().all()
    missing = rows[["slice", "patient"]].isna().all(axis=1).sum()
    assert texts(plot_rows(rows)).count("not run") == missing
    assert texts(plot_rows(infection_rows(Ours(tmp_path)))).count("not run") == 15


def test_every_test_slice_of_both_protocols_is_a_dot(ours):
    groups = {p: ours.best("table2-infection", protocol=p)[1] for p in ("slice", "patient")}
    (axis,) = plot_slice_scores(groups, title="CHS-Net").axes
    dots = sum(len(line.get_xdata()) for line in axis.lines if line.get_marker() not in ("None", ""))
    assert dots == sum(len(record["slices"]) for group in groups.values() for record in group)
    assert texts(plot_slice_scores({"slice": [], "patient": []}, title="CHS-Net")) == ["not run"]


def test_a_patient_held_out_stands_beside_itself_and_the_lookup_table(ours):
    groups = {p: ours.best("table2-infection", protocol=p)[1] for p in ("slice", "patient")}
    tables = {"CHS-Net": {p: patient_scores(group) for p, group in groups.items()}}
    lookup = {p: pd.Series({"coronacases_001": 0.5}) for p in ("slice", "patient")}
    figure = plot_patients(tables, lookup=lookup)
    people = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert people == sorted(set(tables["CHS-Net"]["slice"].index) | set(tables["CHS-Net"]["patient"].index))
    three = plot_patients({name: tables["CHS-Net"] for name in "abc"}, lookup=lookup)
    assert [axis.get_visible() for axis in three.axes] == [True, True, True, False]
    assert len({round(axis.get_subplotspec().colspan.start) for axis in three.axes}) == 2, "two side by side"
    assert plot_patients({}, lookup=lookup).axes  # nothing was run: an empty panel, no error


def test_the_hardest_patient_is_on_top_by_each_network(ours):
    table = patient_scores(ours.best("table2-infection", protocol="patient")[1])
    other = table.iloc[1:].assign(dsc=table["dsc"] / 2, marked=2.0)
    figure = plot_hard_patients({"CHS-Net": table, "other": other})
    left, right = figure.axes
    people = [label.get_text() for label in left.get_yticklabels()]
    hardest = table["dsc"].idxmin()
    assert people[0] == f"{hardest} ({table.loc[hardest, 'slices']})" and len(people) == len(table)
    dots = {line.get_label(): line.get_xdata() for line in left.lines}
    assert dots["CHS-Net"][0] == table["dsc"].min() and np.isnan(dots["other"]).sum() == 1
    assert [line.get_xdata()[1] for line in right.lines if line.get_label() == "other"] == [2.0]
    assert len({(line.get_color(), line.get_marker()) for line in left.lines}) == 2
    assert plot_hard_patients({}).axes  # nothing was run: an empty panel, no error


def test_learning_curves_are_those_of_the_records_by_run_and_epoch(ours: Ours) -> None:
    _, records = ours.best("table3-miniseg", protocol="patient")
    curves = learning_curves(records)
    assert len(curves) == sum(r["fit"]["epochs"] for r in records) > 5
    told = records[1]["fit"]["history"][2]
    shown = curves.loc[(records[1]["run"], told["epoch"])]
    assert (shown["training"], shown["validation"]) == (told["train_loss"], told["val_loss"])
    assert learning_curves([]).empty


def test_curves_of_a_run_are_its_record_s_and_mark_the_epoch_that_was_kept(ours: Ours) -> None:
    fit = ours.best("table3-miniseg")[1][0]["fit"]
    left, right = plot_history({"fit": fit}).axes
    drawn = [list(line.get_ydata()) for line in (*left.lines[:2], right.lines[0])]
    assert drawn == [[e[key] for e in fit["history"]] for key in ("train_loss", "val_loss", "val_dsc")]
    assert {axis.lines[-1].get_xdata()[0] for axis in (left, right)} == {fit["best_epoch"]}
    of = courses(ours)
    dots = [line.get_xydata()[0] for line in plot_courses(of).axes[0].lines if line.get_marker() == "o"]
    assert np.allclose(dots, [(k, scores[k - 1]) for k, scores in zip(of["best epoch"], of["scores"])])


def test_learning_is_drawn_for_each_network_and_protocol_with_means_over_folds(ours: Ours) -> None:
    both = {p: ours.best("table3-miniseg", protocol=p)[1] for p in ("slice", "patient")}
    figure = plot_learning({"MiniSeg": both, "half of it": {"patient": both["patient"]}})
    labels = [line.get_label() for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert labels == [
        f"{part}, {name}"
        for name in ("random slices", "new patients")
        for part in ("training", "validation")
    ]  # fmt: skip
    mean = next(line for line in figure.axes[0].lines if line.get_label() == "validation, new patients")
    first = [r["fit"]["history"][0]["val_loss"] for r in both["patient"]]
    assert mean.get_ydata()[0] == pytest.approx(sum(first) / len(first))
    assert plot_learning({}).axes  # nothing was run: an empty panel, no error


def test_both_densities_say_their_median_and_a_scan_without_units_or_lungs_says_so():
    of = {
        "infection": np.full(9, -400, np.float32),
        "rest_of_lungs": np.array([-3000, -800, -790], np.float32),
    }
    assert texts(plot_densities(of)) == [
        "rest of the lungs, median -800 HU",
        "called infected, median -400 HU",
    ]
    assert texts(plot_densities(of | {"infection": of["infection"][:0]})) == [
        "rest of the lungs, median -800 HU"
    ]
    for nothing in (None, {name: hu[:0] for name, hu in of.items()}):
        assert texts(plot_densities(nothing)) == ["no Hounsfield units, or no lung"]
