"""What the status page says: versions, runs and notebooks, each from something that was recorded.

A line `% versions`, `% runs` or `% notebooks` of book/status.md gives way to a table. Versions come
from requirements.lock, from this environment and from the run records; runs from their records; of a
notebook, papermill's note in it where it was executed for this build, and Git's date of the file
where it is the committed one.
"""

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SHOWN = ("torch", "lightning", "numpy", "monai", "pandas", "nibabel", "papermill", "jupyter-book")
NOT_RECORDED = "not recorded"
COMMITTED = ("paper", "cpu", "cpu-long", "cpu-30", "cpu-256")  # profiles whose records are in the repository


def fill_status(page: Path, *, source: Path, staged: Path, executed: Path | None) -> None:
    """Write the tables into a staged status page.

    Args:
        page: the staged page.
        source: the repository's root.
        staged: folder of the staged notebooks.
        executed: folder of those that were executed for this build, or None.

    Raises:
        ValueError: the page lacks a line for one of the tables.
    """
    fresh = {p.stem: _papermill(p) for p in sorted(executed.glob("*.ipynb"))} if executed else {}
    records, refused = _records(source, fresh.values())
    tables = {
        "versions": versions(source, records),
        "runs": runs(records, refused),
        "notebooks": notebooks(sorted(p.stem for p in staged.glob("*.ipynb")), fresh, source),
    }
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        if f"\n% {name}\n" not in text:
            raise ValueError(f"{page.name} has no line '% {name}', which the table of {name} replaces")
        text = text.replace(f"\n% {name}\n", f"\n{table}\n")
    page.write_text(text, encoding="utf-8")


def versions(source: Path, records: Sequence[dict[str, Any]]) -> str:
    """Version by package: locked, installed here, and of the environments that wrote the records."""
    lock = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (source / "requirements.lock").read_text("utf-8"), re.M))
    commit = _git(source, "rev-parse", "--short=7", "HEAD")
    commits = sorted({r["commit"][:7] for r in records})
    rows = [("this project", "—", commit or NOT_RECORDED, ", ".join(commits) or NOT_RECORDED)]
    for name in ("python", *SHOWN):
        recorded = sorted({r["versions"][name] for r in records if name in r["versions"]})
        here = platform.python_version() if name == "python" else _installed(name)
        rows.append((name, lock.get(name, "—"), here, ", ".join(recorded) or NOT_RECORDED))
    return markdown(("Package", "requirements.lock", "This book was built with", "The runs had"), rows)


def runs(records: Sequence[dict[str, Any]], refused: dict[str, str]) -> str:
    """A line a record: when it began, how long it took, on what, and of which commit."""
    rows = [
        (
            f"`{r['profile']}/{r['run']}`", str(r.get("started", NOT_RECORDED))[:10],
            duration(r["wall_seconds"]), r["device"], r["commit"][:7],
        )
        for r in records
    ]  # fmt: skip
    rows += [(f"`{name}`", "refused", "", why, "") for name, why in refused.items()]
    return markdown(("Run", "Began", "Took", "Device", "Commit"), rows) if rows else "Not run."


def notebooks(names: Iterable[str], fresh: dict[str, dict[str, Any]], source: Path) -> str:
    """A line a notebook; `fresh` holds papermill's notes of those that were executed for this build."""
    rows = []
    for name in names:
        link = f"[{name}](../notebooks/{name}.ipynb)"
        if name in fresh:
            note = fresh[name]
            began, took = note.get("start_time"), note.get("duration")
            when = f"{began[:16].replace('T', ' ')} UTC" if began else NOT_RECORDED
            rows.append((link, "executed for this book", when, duration(took) if took else NOT_RECORDED))
        else:
            rows.append((link, "as committed", committed(source, f"notebooks/{name}.ipynb"), NOT_RECORDED))
    return markdown(("Notebook", "Shown", "When", "Took"), rows)


def committed(source: Path, path: str) -> str:
    """The day of a file's last commit; "not recorded" where Git cannot tell."""
    if _git(source, "rev-parse", "--is-shallow-repository") != "false":
        return NOT_RECORDED  # no Git, or a clone without history, where every file dates from its last commit
    day = _git(source, "log", "-1", "--format=%cs", "--", path)
    if not day:
        return NOT_RECORDED
    return f"{day}, changed since" if _git(source, "status", "--porcelain", "--", path) else day


def duration(seconds: float) -> str:
    """Seconds for a reader: 48 s, 17 min, 1 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _records(source: Path, notes: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The records that the shown notebooks read: those they were given, else the committed ones."""
    from replication.evidence.records import load_records  # brings torch along

    given = (note.get("parameters", {}) for note in notes)
    places = {(p["results"], p["profile"]) for p in given if {"results", "profile"} <= p.keys()}
    places = sorted(places) or [(str(source / "results"), profile) for profile in COMMITTED]
    records, refused = [], {}
    for results, profile in places:
        accepted, reasons = load_records(results, profile)
        records += accepted.values()
        refused |= reasons
    return records, refused


def _papermill(notebook: Path) -> dict[str, Any]:
    """What papermill noted in a notebook that it executed."""
    return json.loads(notebook.read_text(encoding="utf-8")).get("metadata", {}).get("papermill", {})


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str:
    """What a Git command prints; "" where it fails, or there is no Git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
