"""What the jobs of the Snakefile do: one run, one page, the book, the report.

    python workflow/steps.py {train,page,book,report} --help

A run's marker, <grid>/<run>.txt, says how it ended, in one line: "done", "failed: why" or
"skipped: why". Snakemake knows a run by it; see the head of the Snakefile. Beside it lie the executed
notebook and the log. Nothing here imports torch until it must: a process is started for each run.
"""

import argparse
import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from execution import ROOT, alone, end_with_parent, execute, say  # beside this file

TRAINING = "05_training"
# The book's example: the page of notebook 05, and what stands below it.
SHOWN = {TRAINING: "table2-infection-patient-fold0", f"{TRAINING}_lungs": "table2-lungs-patient-fold0"}


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of one profile: markers, records and weights."""

    grid: str
    results: str
    weights: str

    def marker(self, run: str) -> str:
        return f"{self.grid}/{run}.txt"

    def options(self) -> str:
        """As options of a command."""
        folders = {"grid": self.grid, "results": self.results, "weights": self.weights}
        return " ".join(f"--{name} {shlex.quote(folder)}" for name, folder in folders.items())

    def ended(self, run: str) -> str:
        """What the run's marker says; "not run" where it has none."""
        marker = Path(self.marker(run))
        return marker.read_text(encoding="utf-8").strip() if marker.is_file() else "not run"


def drop_stale(first: dict[str, str | None], places: Places) -> list[str]:
    """Delete the markers that no longer hold, so that Snakemake runs these runs again.

    A marker holds if it says "done", the record stands, and so do the predictions wherever a
    second stage has yet to read them.

    Args:
        first: every run that is asked for -> its first stage, or None; first stages come first.
    """
    dropped: list[str] = []
    needed: set[str] = set()
    for run, stage in reversed(first.items()):
        holds = places.ended(run) == "done" and Path(places.results, f"{run}.json").is_file()
        if holds and run in needed:
            holds = Path(places.weights, run, "masks.npz").is_file()
        if not holds:
            needed |= {stage} - {None}
            if Path(places.marker(run)).is_file():
                Path(places.marker(run)).unlink()
                dropped.append(run)
    return dropped


def notebooks_of(toc: dict[str, Any], root: Path) -> list[str]:
    """Names of the notebooks that a table of contents lists and that exist, in its order."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if str(node.get("file", "")).startswith("notebooks/"):
                found.append(Path(node["file"]).name)
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                walk(item)

    walk(toc)
    return [name for name in found if (root / "notebooks" / f"{name}.ipynb").is_file()]


def parameters(notebook: Path) -> set[str]:
    """Names that the notebook's parameters cell declares."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    names = set()
    for node in ast.parse("\n".join("".join(c["source"]) for c in tagged)).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


# ---- the steps ---------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> int:
    """One run of the grid; ends well even if the run fails, which its marker then tells."""
    places, run, given = _places(options), options.run, dict(options.parameter)
    marker, weights = Path(places.marker(run)), Path(places.weights, run)
    end_with_parent()
    with alone(weights / ".lock"):
        started, clock = time.time(), time.perf_counter()
        if options.first and (stage := places.ended(options.first)) != "done":
            told = f"skipped: its first stage {options.first} is {stage.split(':')[0]}"
        else:
            told = _attempt(places, run, options.log, given)
            if told != "done":
                _note_failure(weights / "failed.json", told, since=started)
    temporary = marker.with_name(marker.name + ".part")
    temporary.write_text(told + "\n", encoding="utf-8")
    os.replace(temporary, marker)
    say(f"{run}: {told}" + (f" ({time.perf_counter() - clock:.0f} s)" if told == "done" else ""))
    return 0


def _attempt(places: Places, run: str, log: Path, given: dict[str, str]) -> str:
    """Run notebook 05 and see that the record is whole; returns the marker's line."""
    try:
        execute(ROOT / "notebooks" / f"{TRAINING}.ipynb", Path(places.grid, f"{run}.ipynb"), log, run, given)
        record = Path(places.results, f"{run}.json")
        if not json.loads(record.read_text(encoding="utf-8")).get("evaluation"):
            sys.path.insert(0, str(ROOT))
            from replication.training.run import evaluate_run

            evaluate_run(**{"name" if k == "run" else k: v for k, v in given.items()})
    except Exception as error:  # whatever it is, the other runs go on
        # papermill's own message is the whole traceback, which the executed notebook has
        name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        return f"failed: {name}: {' '.join(str(value).split())}"
    return "done"


def _note_failure(path: Path, told: str, *, since: float) -> None:
    """Leave what `chs-net list` reads, unless the training itself did so (`train_run`)."""
    if path.is_file() and path.stat().st_mtime >= since:
        return
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps({"error": told.removeprefix("failed: ")}) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def page(options: argparse.Namespace) -> int:
    """Execute one page; where it fails, what was executed stays beside its log."""
    end_with_parent()
    executed = options.log.with_name(f"{options.page}.failed.ipynb")
    try:
        execute(
            ROOT / "notebooks" / f"{options.page}.ipynb", executed, options.log, options.page,
            dict(options.parameter),
        )  # fmt: skip
    except Exception as error:
        name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        say(f"error: notebook {options.page} failed: {name}: {value}\n  as far as it came: {executed}")
        return 1
    os.replace(executed, options.out)
    say(f"{options.page}: executed")
    return 0


def book(options: argparse.Namespace) -> int:
    """Build the book of executed pages, with the two runs that it shows where they are done."""
    places = _places(options)
    folder = options.out / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in options.pages:
        shutil.copy(path, folder)
    for name, run in SHOWN.items():
        executed = Path(places.grid, f"{run}.ipynb")
        if places.ended(run) == "done" and executed.is_file():
            shutil.copy(executed, folder / f"{name}.ipynb")
    command = [sys.executable, str(ROOT / "book/build.py"), "--executed", folder, "--out", options.out]
    return subprocess.run(command).returncode


def report(options: argparse.Namespace) -> int:
    """What became of every run; 1 if any is not done."""
    places = _places(options)
    states = {run: places.ended(run) for run in options.runs}
    bad = {run: told for run, told in states.items() if told != "done"}
    for run, told in bad.items():
        log = f" ({places.grid}/{run}.log)" if told.startswith("failed") else ""
        say(f"{run}: {told}{log}")
    failed = sum(told.startswith("failed") for told in bad.values())
    say(f"runs: {len(states) - len(bad)} done, {failed} failed, {len(bad) - failed} not run")
    if options.book:
        say(f"book: {options.book.resolve()}")
    if bad:
        say("error: not every run is done; the same command tries these again, and only these")
    return 1 if bad else 0


def _places(options: argparse.Namespace) -> Places:
    return Places(grid=options.grid, results=options.results, weights=options.weights)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the jobs."""
    parser = argparse.ArgumentParser(prog="python workflow/steps.py", description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for step in (train, page, book, report):
        sub = steps.add_parser(step.__name__, help=step.__doc__.splitlines()[0])
        sub.set_defaults(step=step)
        if step is not page:
            for folder in ("grid", "results", "weights"):
                sub.add_argument(f"--{folder}", required=True, help=f"folder; see {Places.__name__}")
        if step in (train, page):
            sub.add_argument("--log", type=Path, required=True)
            sub.add_argument("--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    steps.choices["train"].add_argument("run")
    steps.choices["train"].add_argument("--first", help="name of the first stage")
    steps.choices["page"].add_argument("page")
    steps.choices["page"].add_argument("--out", type=Path, required=True)
    steps.choices["book"].add_argument("--out", type=Path, required=True)
    steps.choices["book"].add_argument("pages", type=Path, nargs="*")
    steps.choices["report"].add_argument("--book", type=Path)
    steps.choices["report"].add_argument("runs", nargs="*")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step."""
    options = build_parser().parse_args(arguments)
    try:
        return options.step(options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
