"""What became of a run: done, failed or not run, as its record or its failure tells."""

import json
from dataclasses import dataclass
from pathlib import Path

RECORD = "record.json"  # in a run's folder, beside its weights: its record as the training left it


@dataclass(frozen=True)
class State:
    """What became of a run: "done", "failed" or "not run", why, and how long it took (seconds)."""

    status: str
    reason: str = ""
    seconds: float | None = None


def failure_file(name: str, *, profile: str, runs: str | Path) -> Path:
    """Where a run that failed says so; a run that succeeds removes it."""
    return Path(runs) / profile / name / "failed.json"


def run_state(name: str, *, profile: str, results: str | Path, runs: str | Path) -> State:
    """State of one run, from its record, else from what it left when it failed."""
    record, failed = Path(results) / profile / f"{name}.json", failure_file(name, profile=profile, runs=runs)
    try:
        if record.is_file():  # it stands, whatever a later try at it ran into
            return State("done", seconds=json.loads(record.read_text())["wall_seconds"])
        if failed.is_file():
            return State("failed", json.loads(failed.read_text())["error"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        return State("failed", f"{record if record.is_file() else failed} cannot be read ({error!r})")
    return State("not run")
