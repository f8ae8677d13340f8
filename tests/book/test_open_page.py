"""The page of what is open names the runs that full size lacks, and commands that the parser takes."""

import re
import shlex
from pathlib import Path

import open_runs
import pytest
from page_numbers import Numbers

from replication.cli import build_parser
from replication.evidence.records import load_records
from replication.training.grid import RUNS

ROOT = Path(__file__).resolve().parents[2]


def test_what_full_size_lacks_is_open_and_nothing_else() -> None:
    numbers = Numbers(ROOT)
    found = {of["run"]: of for of in open_runs.open_runs(numbers)}
    records = load_records(ROOT / "results", "paper")[0]
    for run, of in found.items():
        if run in records:
            fit = records[run]["fit"]
            assert fit["out_of_time"] and of["state"].startswith(f"cut short after {fit['epochs']} of ")
            seconds = fit["fit_seconds"] / fit["epochs"] * records[run]["config"]["max_epochs"]
            assert of["time"] == f"{seconds / 60:.0f} min ({records[run]['device']})"
        else:
            assert of["state"] == "not run" and (of["time"] == "not known" or ", by `" in of["time"])
    rows = {run for run in RUNS if re.fullmatch(r"table\d-[a-z-]+", run) and "patient" not in run}
    done = {run for run in rows & set(records) if not records[run]["fit"].get("out_of_time")}
    assert set(found) == rows - done


TEXT = (ROOT / "book/open.md").read_text(encoding="utf-8").replace("\\\n", " ")


@pytest.mark.parametrize(
    "line", re.findall(r"^(?:\.venv/bin/chs-net|!python -m replication) (.*)", TEXT, flags=re.M)
)
def test_each_command_is_one(line: str) -> None:
    options = build_parser().parse_args(shlex.split(line))
    assert set(getattr(options, "names", None) or []) <= set(RUNS)
