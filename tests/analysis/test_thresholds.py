"""Another threshold than 0.5: counted from the run's own weights, chosen on validation slices alone."""

import copy
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from chslib.metrics import scores
from replication.analysis import thresholds
from replication.analysis.thresholds import (
    FOLDER,
    LADDER,
    USUAL,
    chosen,
    pooled,
    read_thresholds,
    threshold_record,
    thresholds_of,
)
from replication.cli import main
from replication.figures.thresholds import plot_precision_recall, plot_thresholds  # fmt: skip
from replication.files import write_json
from replication.provenance import digest
from replication.training import run as train
from replication.training.profiles import PROFILES, Profile

ROOT = Path(__file__).resolve().parents[2]
RUNS = ("table2-lungs", "table2-infection")

TINY = Profile(
    name="tiny", size=32, widths=(4, 6, 9), batch_size=2, learning_rate=0.1,
    max_epochs={"lungs": 2, "infection": 2}, worth="nothing",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_store, tmp_path_factory):
    """Both stages of the cascade, trained, and the thresholds of each."""
    where = tmp_path_factory.mktemp("thresholds")
    places = {"results": where / "results", "runs": where / "runs"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", TINY)
        for name in RUNS:
            train.train_run(name, profile="tiny", slices=tiny_store, progress=False, **places)
            made = threshold_record(name, profile="tiny", slices=tiny_store, **places)
            write_json(places["results"] / FOLDER / "tiny" / f"{name}.json", made)
        yield where


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
        assert (counts.sum(1) == own["data"]["split"][part]["slices"] * TINY.size**2).all()
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
        (lambda r: r.pop("ladder"), "none of this module"),
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
    with pytest.warns(UserWarning, match="changed after it was written, or is none of this module; write"):
        assert read_thresholds(tmp_path) == []
    changed["digest"] = digest(changed)
    write_json(path, changed)
    with pytest.warns(UserWarning, match=told):
        assert read_thresholds(tmp_path) == []
    write_json(path, record)
    assert read_thresholds(tmp_path) == [record]
    path.write_text("{")
    with pytest.warns(UserWarning, match="left out: .* is not JSON"):
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


def test_the_command_writes_the_record_and_says_what_is_missing(folder, tiny_store, tmp_path, capsys):
    where = ["--profile", "tiny", "--slices", str(tiny_store), "--runs", str(folder / "runs")]
    (tmp_path / "tiny").mkdir()
    own = folder / "results" / "tiny" / "table2-infection.json"
    (tmp_path / "tiny" / own.name).write_text(own.read_text())
    assert main(["measure", "thresholds", "table2-infection", "--results", str(tmp_path), *where]) == 0
    assert "at 0.5 DSC 0." in capsys.readouterr().out and len(read_thresholds(tmp_path)) == 1
    assert main(["measure", "thresholds", "table4-bu", "--results", str(tmp_path), *where]) == 1
    assert "table4-bu.json: no such record; train the run" in capsys.readouterr().err
    other = tmp_path / "runs" / "tiny" / "table2-infection"
    other.mkdir(parents=True)
    state = torch.load(folder / "runs" / "tiny" / "table2-infection" / "weights.pt", weights_only=True)
    torch.save({k: v + 1 for k, v in state.items()}, other / "weights.pt")
    assert (
        main(
            [
                "measure",
                "thresholds",
                "table2-infection",
                "--results",
                str(tmp_path),
                *where[:4],
                "--runs",
                str(tmp_path / "runs"),
            ]
        )
        == 1
    )
    assert "the two belong to different trainings" in capsys.readouterr().err


def test_slices_of_another_store_are_refused(folder, store, tmp_path):
    table = (store / "slices.csv").read_text().splitlines()
    (store / "slices.csv").write_text("\n".join(table[:-1]) + "\n")
    with pytest.raises(ValueError, match="give the folder of that store"):
        threshold_record(
            "table2-lungs", profile="tiny", slices=store, results=folder / "results", runs=folder / "runs"
        )


def test_the_committed_records_are_of_committed_runs():
    for record in read_thresholds(ROOT / "results"):
        assert record["profile"] in PROFILES and not str(record).count("/home/")
        assert thresholds.thresholds_of([record])["highest"].item() < 1


def test_precision_stands_against_recall_at_every_threshold(folder):
    made = json.loads((folder / "results" / FOLDER / "tiny" / "table2-lungs.json").read_text())
    axis = plot_precision_recall({"ours": made}).axes[0]
    of = scores(pooled(made, "test"))
    curve = next(line for line in axis.lines if len(line.get_xdata()) == len(LADDER))
    np.testing.assert_allclose(curve.get_xydata(), np.stack([of["recall"], of["precision"]], 1))
    assert [text.get_text() for text in axis.texts][-1] == "ours"
    assert [text.get_text() for text in plot_precision_recall({}).axes[0].texts][-1] == "not run"
    plt.close("all")
