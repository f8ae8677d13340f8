"""Another threshold than 0.5: counted from the run's own weights, chosen on validation slices alone."""

import copy
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from chslib.metrics import scores
from replication.analysis import thresholds
from replication.analysis.thresholds import (
    FOLDER,
    LADDER,
    USUAL,
    chosen,
    pooled,
    read_thresholds,
    thresholds_of,
)
from replication.cli import main
from replication.figures.thresholds import plot_precision_recall, plot_thresholds
from replication.files import write_json
from replication.provenance import digest

RUNS = ("table2-lungs", "table2-infection")


@pytest.fixture(scope="module")
def folder(trained, tiny, tmp_path_factory):
    """Both stages of the cascade, trained, and the thresholds of each."""
    where = Path(shutil.copytree(trained.folder, tmp_path_factory.mktemp("thresholds") / "trained"))
    places = ["--slices", trained.slices, "--results", where / "results", "--runs", where / "runs"]
    for name in RUNS:
        assert main(["measure", "thresholds", name, "--profile", "tiny", *map(str, places)]) == 0
    return where


@pytest.mark.parametrize("name", RUNS)
def test_at_half_the_counts_are_the_record_s_and_they_fall_with_the_threshold(name, folder):
    made = json.loads((folder / "results" / FOLDER / "tiny" / f"{name}.json").read_text())
    own = json.loads((folder / "results" / "tiny" / f"{name}.json").read_text())
    assert made["ladder"] == list(LADDER) == sorted(LADDER) and LADDER[USUAL] == 0.5
    assert pooled(made, "test")[USUAL].tolist() == np.sum([row[1:] for row in own["slices"]], axis=0).tolist()
    assert sorted(made["test"]) == own["data"]["split"]["test"]["patients"]
    assert sorted(made["validation"]) == own["data"]["split"]["validation"]["patients"]
    for part in ("validation", "test"):
        counts = pooled(made, part)
        assert (counts.sum(1) == own["data"]["split"][part]["slices"] * 32**2).all()
        marked = counts[:, 0] + counts[:, 1]
        assert (np.diff(marked) <= 0).all() and marked[0] > marked[-1]
    assert made["digest"] == digest(made)


def test_the_threshold_is_the_validation_slices_best_and_of_equals_the_nearest_to_half():
    def record(**parts):  # of one patient; at 0.2 and at 0.8 nothing is wrong
        return {"ladder": [0.2, 0.5, 0.8], **{part: {"a": rows} for part, rows in parts.items()}}

    good, bad = [10, 0, 0, 10], [5, 5, 5, 5]
    assert chosen(record(validation=[good, bad, bad], test=[bad, good, bad])) == 0
    assert chosen(record(validation=[good, good, good])) == 1
    two = {"ladder": [0.2, 0.5, 0.8], "validation": {"a": [[1, 0, 3, 4]] * 3, "b": [bad, good, bad]}}
    assert pooled(two, "validation").tolist() == [[6, 5, 8, 9], [11, 0, 3, 14], [6, 5, 8, 9]]


def test_what_was_chosen_is_told_of_the_test_slices(folder):
    records = read_thresholds(folder / "results")
    assert [record["run"] for record in records] == list(RUNS)
    table = thresholds_of(records).set_index("run")
    for record in records:
        tp, fp, fn, _ = pooled(record, "test")[chosen(record)]
        assert table.loc[record["run"], "chosen"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert table.loc[record["run"], "threshold"] == record["ladder"][chosen(record)]
    assert (table["highest"] >= table[["usual", "chosen"]].max(axis=1)).all()
    figure = plot_thresholds(records)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CHS-Net and its variants"]
    assert len(figure.axes[0].lines) == 3 * len(records)  # the line, the hollow mark, the filled one
    assert "not run" in figure.axes[1].texts[0].get_text()
    assert figure.axes[0].lines[0].get_ydata()[USUAL] == pytest.approx(table.loc["table2-lungs", "usual"])
    plt.close(figure)
    assert read_thresholds(folder) == [] and thresholds_of([]).empty
    plt.close(plot_thresholds([]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r["test"].popitem(), "pixels .* at 0.5, the record of its run"),
        (lambda r: r.update(weights_sha256="0" * 64), "other weights"),
        (lambda r: r.update(run="table2-lungs"), "says it is tiny/table2-lungs"),
        (lambda r: r.pop("ladder"), "lacks ladder"),
    ],
)
def test_a_record_that_is_not_of_its_run_is_refused(change, told, folder, tmp_path):
    record = json.loads((folder / "results" / FOLDER / "tiny" / "table2-infection.json").read_text())
    (tmp_path / "tiny").mkdir()
    own = folder / "results" / "tiny" / "table2-infection.json"
    (tmp_path / "tiny" / own.name).write_text(own.read_text())
    changed = copy.deepcopy(record)
    change(changed)
    path = tmp_path / FOLDER / "tiny" / "table2-infection.json"
    write_json(path, changed)  # by hand: the digest no longer fits
    with pytest.warns(UserWarning, match="changed after it was written; write it anew"):
        assert read_thresholds(tmp_path) == []
    changed["digest"] = digest(changed)
    write_json(path, changed)
    with pytest.warns(UserWarning, match=told):
        assert read_thresholds(tmp_path) == []
    write_json(path, record)
    assert read_thresholds(tmp_path) == [record]
    path.write_text("{")
    with pytest.warns(UserWarning, match="left out: .* is not a record"):
        assert read_thresholds(tmp_path) == []


def test_rounding_on_another_machine_is_no_reason_to_refuse(folder, tmp_path, monkeypatch):
    own, path = (Path("tiny") / "table2-infection.json", tmp_path / FOLDER / "tiny" / "table2-infection.json")
    (tmp_path / "tiny").mkdir()
    shutil.copy(folder / "results" / own, tmp_path / own)
    record = json.loads((folder / "results" / FOLDER / own).read_text())
    counts = next(iter(record["test"].values()))[USUAL]
    counts[0], counts[2] = counts[0] - 1, counts[2] + 1  # one infected pixel, missed there and found here
    record["digest"] = digest(record)
    write_json(path, record)
    with pytest.warns(UserWarning, match="write it anew"):
        assert read_thresholds(tmp_path) == []
    monkeypatch.setattr(thresholds, "ROUNDING", 1 / sum(counts))
    assert read_thresholds(tmp_path) == [record]


def test_precision_stands_against_recall_at_every_threshold(folder):
    made = json.loads((folder / "results" / FOLDER / "tiny" / "table2-lungs.json").read_text())
    axis = plot_precision_recall({"ours": made}).axes[0]
    of = scores(pooled(made, "test"))
    curve = next(line for line in axis.lines if len(line.get_xdata()) == len(LADDER))
    np.testing.assert_allclose(curve.get_xydata(), np.stack([of["recall"], of["precision"]], 1))
    assert [text.get_text() for text in axis.texts][-1] == "ours"
    assert [text.get_text() for text in plot_precision_recall({}).axes[0].texts][-1] == "not run"
    plt.close("all")
