"""Tables come from records that a run wrote; anything else is refused, and gaps read "not run"."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from chslib.experiments import PROFILES, RUNS
from chslib.ledger import COLUMNS, NOT_RUN, describe, paper_numbers, read_record, records, table2
from chslib.metrics import evaluate

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = sorted(p for p in (ROOT / "results").glob("*/*.json") if p.parent.name != "smoke")
RUN = "table2-lungs-patient-fold0"


def a_record(run: str = RUN, profile: str = "cpu") -> dict:
    counts = np.array([[10, 2, 3, 85], [0, 0, 0, 100], [20, 0, 5, 75]])
    patients = ["a", "a", "b"]
    split = {part: {"slices": 3, "patients": ["a", "b"]} for part in ("train", "validation", "test")}
    return {
        "schema": 1,
        "run": run,
        "profile": profile,
        "config": {
            "arm": "full", "target": RUNS[run].target, "widths": [1, 2], "parameters": 1234,
            "optimizer": "Adam", "learning_rate": 1e-3, "batch_size": 8, "size": 128,
        },
        "data": {"fingerprint": "f" * 64, "split": split},
        "first_stage": None,
        "fit": {"epochs": 2, "best_epoch": 1, "fit_seconds": 60.0, "history": []},
        "test": evaluate(counts, patients),
        "slices": [[f"s{i}", *map(int, row)] for i, row in enumerate(counts)],
        "device": "CPU", "versions": {}, "commit": "c" * 40, "wall_seconds": 61.0,
    }  # fmt: skip


def write(folder: Path, record: dict, *, profile: str = "cpu", name: str = RUN) -> Path:
    path = folder / profile / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_table_2_of_the_paper_is_whole():
    numbers = paper_numbers("Table 2")
    assert numbers.groupby("segmentation").size().to_dict() == {"COVID-19": 6, "Lungs": 6}
    infection = numbers.query("segmentation == 'COVID-19'").set_index("metric")["value"]
    assert list(infection[list(COLUMNS)]) == ["0.96", "0.85", "0.97", "0.92", "0.88", "0.96"]


def test_what_was_not_run_reads_not_run(tmp_path):
    table = table2(tmp_path)
    ours = table.drop(index="paper, random slices", level="of")
    assert (ours == NOT_RUN).all(axis=None) and len(ours) == 4


def test_a_record_fills_its_own_row_and_no_other(tmp_path):
    record = a_record()
    write(tmp_path, record)
    table = table2(tmp_path)
    row = table.loc[("Lungs", "ours, new patients, fold 0")]
    assert row["record"] == RUN
    assert row["DSC"] == f"{2 * 30 / (2 * 30 + 2 + 8):.3f}"
    assert table.loc[("COVID-19", "ours, random slices"), "DSC"] == NOT_RUN
    assert "1,234 parameters" in describe(record)["network"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["test"]["pooled"].update(dsc=0.99), "changed after it was written"),
        (lambda r: r.update(profile="paper"), "may not be renamed"),
        (lambda r: r.update(run="table2-lungs"), "may not be renamed"),
        (lambda r: r.pop("slices"), "lacks slices"),
    ],
)
def test_a_record_that_is_not_what_it_says_is_refused(tmp_path, change, message):
    record = a_record()
    change(record)
    path = write(tmp_path, record)
    with pytest.raises(ValueError, match=message):
        read_record(path)


def test_a_broken_or_missing_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such record"):
        read_record(tmp_path / "cpu" / "x.json")
    path = write(tmp_path, a_record())
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_record(path)


def test_an_unknown_profile_is_named(tmp_path):
    with pytest.raises(ValueError, match="'tiny'.*smoke, cpu, paper"):
        table2(tmp_path, profile="tiny")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_committed_record_holds_together(path):
    record = read_record(path)
    assert record["profile"] in PROFILES and record["run"] in RUNS
    train, test = (set(record["data"]["split"][part]["patients"]) for part in ("train", "test"))
    if record["config"]["protocol"] == "patient":
        assert not train & test
    assert not str(record).count(str(ROOT.parent) + "/") and not str(record).count("/home/")
    first = record["first_stage"]
    if first:  # the second stage was fed by the very weights whose record stands beside it
        assert (
            read_record(path.with_name(first["run"] + ".json"))["weights_sha256"] == first["weights_sha256"]
        )


def test_the_introduction_quotes_the_records():
    text = (ROOT / "book/intro.md").read_text()
    for row, suffix in (("random slices", ""), ("new patients (fold 0)", "-patient-fold0")):
        quoted = re.search(rf"\| Here, {re.escape(row)} \| ([^|]+) \| ([^|]+) \|", text).groups()
        for target, cell in zip(("lungs", "infection"), quoted):
            path = ROOT / f"results/cpu/table2-{target}{suffix}.json"
            assert cell == (
                f"{read_record(path)['test']['pooled']['dsc']:.2f}" if path.is_file() else NOT_RUN
            )
    test = read_record(ROOT / "results/cpu/table2-infection-patient-fold0.json")["test"]
    assert f"precision {test['pooled']['precision']:.2f}" in text
    assert f"recall {test['pooled']['recall']:.2f}" in text
    low, middle, high = sorted(f"{score['dsc']:.2f}" for score in test["patients"].values())
    assert f"{low}, {middle} and\n{high}" in text


def test_smoke_records_are_never_committed():
    assert "results/smoke/" in (ROOT / ".gitignore").read_text().split()
    assert set(records(ROOT / "results", "paper")) <= set(RUNS)
