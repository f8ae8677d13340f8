"""What a run of the paper's size would still decide: the table of book/open.md, from the ledger and the records alone."""

from collections.abc import Iterable
from typing import Any

from run_status import markdown

HEAD = ("Run, and how far at full size", "Decides", "Answered meanwhile", "Time")


def open_runs(numbers: Any) -> list[dict[str, str]]:
    """The runs of Tables 2 to 5 that no record of full size answers, trained to its end.

    Args:
        numbers: `page_numbers.Numbers`.
    """
    from replication.training.grid import get_run

    wanted: dict[str, list[dict[str, Any]]] = {}
    for key, line in numbers.lines.items():
        if line["metric"] == "DSC" and line["table"] in [f"Table {n}" for n in range(2, 6)]:
            wanted.setdefault(get_run(numbers.runs_of[key]).name, []).append(line)
    cut = numbers.of_profile("paper").cut_short["paper"]
    return [
        {
            "run": run, "state": _state(cut.get(run)), "decides": "; ".join(_rows(lines)),
            "meanwhile": f"{lines[0]['ours']}, {lines[0]['verdict']}, at {lines[0]['at'].replace('x', '×')}" if lines[0]["at"] else "not run",
            "time": _time(numbers, run),
        }
        for run, lines in wanted.items()
        if lines[0]["profile"] != "paper"
    ]  # fmt: skip


def _state(record: dict[str, Any] | None) -> str:
    if record is None:
        return "not run"
    return f"cut short after {record['fit']['epochs']} of {record['config']['max_epochs']} epochs"


def _rows(lines: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(f"{line['table']}, {line['row'].split(' [')[0]}" for line in lines))


def _time(numbers: Any, run: str) -> str:
    """How long all its epochs would take, by a record of full size of the same network; and on what."""
    from replication.training.grid import get_run
    from replication.training.profiles import get_profile

    paper = numbers.of_profile("paper")
    known = paper.cut_short["paper"] | paper.accepted["paper"]
    told = get_run(run)
    alike = [run, *(name for name in known if get_run(name).arm == told.arm)]
    record = next((known[name] for name in alike if name in known), None)
    if record is None:
        return "not known"
    epochs = get_profile("paper").max_epochs[told.target]
    minutes = record["fit"]["fit_seconds"] / record["fit"]["epochs"] * epochs / 60
    own = "" if record["run"] == run else f", by `{record['run']}`"
    return f"{max(minutes, 1):.0f} min ({record['device']}{own})"


def table(numbers: Any) -> str:
    """The runs as Markdown."""
    rows = [
        (f"`{of['run']}`, {of['state']}", of["decides"], of["meanwhile"], of["time"])
        for of in open_runs(numbers)
    ]
    return markdown(HEAD, rows) if rows else "None: each row has a record of full size."


def command(numbers: Any) -> str:
    """The runs' names, for one command."""
    return " ".join(of["run"] for of in open_runs(numbers)) or "(none)"
