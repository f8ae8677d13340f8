"""The paper's numbers beside ours. `paper_numbers.csv` holds theirs, run records hold ours.

A cell comes from records that runs wrote, or, for parameters, Eq. 1 and what the network is made of,
from the code; what was not run reads "not run". `smoke` records never count. When a number is
reproduced says `replication.evidence.verdicts`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replication.evidence.budgets import ANSWERING
from replication.evidence.counts import count_answer
from replication.evidence.estimates import Ours, code_answer, parameters, record_answer, shorten
from replication.evidence.records import first_stage_warning, is_foreign
from replication.evidence.verdicts import Judgement, judge_claim, judge_parameters, judge_same, judge_score
from replication.training.grid import get_run
from replication.training.profiles import get_profile

PAPER_NUMBERS = Path(__file__).with_name("paper_numbers.csv")
NOT_RUN = "not run"
KINDS = ("score", "count", "parameters", "claim", "setting")
LEDGER_COLUMNS = (
    "id", "table", "row", "segmentation", "metric", "kind", "run", "place", "paper", "ours", "n", "new patients",
    "folds", "difference", "tolerance", "reason", "verdict", "profile", "at", "borrowed", "records",
    "patient records", "warning", "notebook", "note",
)  # fmt: skip
Line = dict[str, Any]


def paper_numbers(table: str | None = None) -> pd.DataFrame:
    """The paper's numbers, one a line, as text.

    Columns: id; table ("Text" where it stands in no table); row, segmentation, metric and value as
    printed, footnote marks aside (Table 3's "DC" is DSC); kind, one of `KINDS`; run, which answers it
    under the split and seed of its suffixes; place; rule, how a claim, count or setting is decided;
    notebook; note.

    Args:
        table: only this one, for example "Table 2".
    """
    numbers = pd.read_csv(PAPER_NUMBERS, dtype=str, keep_default_na=False)
    return numbers if table is None else numbers[numbers["table"] == table].reset_index(drop=True)


def mean_and_std(values: Sequence[float], *, digits: int = 3) -> str:
    """`0.982 ± 0.003`, the deviation (ddof 1) where there are two values or more."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def ledger(
    results: str | Path, *, profiles: Sequence[str] = ANSWERING, data: str | None = None
) -> pd.DataFrame:
    """A line for each of the paper's numbers: theirs, ours under both protocols, and the verdict.

    The verdict is on the paper's protocol, random slices. Scores are those of all test pixels
    pooled, mean and deviation over seeds (`ours`, `n`) or folds (`new patients`, `folds`).

    Args:
        results: folder of the records.
        profiles: in order of preference, cell by cell (`replication.evidence.budgets` has the rule); a claim is
            decided within one.
        data: see `replication.evidence.records.load_records`.

    Returns:
        Columns `LEDGER_COLUMNS`; difference is ours minus theirs; `at` says where a verdict was
        reached at less than the paper's size and training, `borrowed` whose spread its tolerance has
        where no row of its own profile has several seeds.

    Raises:
        ValueError: an unknown profile, or `smoke`, whose scores say nothing.
    """
    if "smoke" in profiles:
        raise ValueError(
            f"smoke records come from synthetic slices and never count; expected some of {', '.join(ANSWERING)}."
        )
    for profile in profiles:
        get_profile(profile)
    return ledger_of(Ours(results, profiles, data=data))


def ledger_of(ours: Ours, numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """`ledger` of records already read, for all numbers or some lines of `paper_numbers`."""
    numbers = paper_numbers() if numbers is None else numbers
    lines = [_line(number, ours) for number in numbers.to_dict("records")]
    return pd.DataFrame(lines, columns=list(LEDGER_COLUMNS))


def _line(number: dict[str, str], ours: Ours) -> Line:
    line: Line = {key: number[key] for key in LEDGER_COLUMNS if key in number} | {
        "paper": number["value"], "ours": NOT_RUN, "n": 0, "new patients": NOT_RUN, "folds": 0,
        "records": "", "patient records": "", "profile": "", "at": "", "borrowed": "", "warning": "",
    }  # fmt: skip
    decide = {"score": _score, "parameters": _parameters, "count": _same, "setting": _same, "claim": _claim}
    judgement = decide[number["kind"]](number, ours, line)
    if judgement.verdict in ("not run", "not checkable"):
        line["at"] = ""
        line["ours"] = line["ours"] if line["ours"] else judgement.verdict
    return line | {
        "difference": judgement.difference, "tolerance": judgement.tolerance,
        "reason": judgement.reason, "verdict": judgement.verdict,
    }  # fmt: skip


def _settings(profile: str, names: Sequence[str], ours: Ours) -> str:
    """Under what a verdict was reached, where that is less than the paper's: "128x128, 3 epochs"; else ""."""
    if profile in ("", "paper"):
        return ""
    records = [ours.accepted[profile][name] for name in names]
    size = records[0]["config"]["size"]
    epochs = sorted({r["fit"]["epochs"] for r in records})
    shown = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
    return f"{size}x{size}, {shown} epoch{'s' if shown != '1' else ''}"


def _rest_on(line: Line, profile: str, names: list[str], ours: Ours) -> None:
    """Note the records that a line rests on."""
    of = ours.accepted[profile]
    warnings = {first_stage_warning(name, of) for name in names} - {""}
    warnings |= {f"trained elsewhere, on {of[n]['device']}" for n in names if is_foreign(of[n])}
    line.update(
        profile=profile, records=shorten(names), n=len(names),
        at=_settings(profile, names, ours), warning="; ".join(sorted(warnings)),
    )  # fmt: skip


def _score(number: dict[str, str], ours: Ours, line: Line) -> Judgement:
    run, metric = number["run"], number["metric"]
    patients = ours.cell(run, metric, protocol="patient")
    if patients:
        line.update({"new patients": mean_and_std(patients.pooled), "folds": len(patients.pooled)})
        line["patient records"] = f"{shorten(patients.names)} ({patients.profile})"
    cell = ours.cell(run, metric)
    if cell is None:
        return Judgement(NOT_RUN, reason=f"lacks {run}")
    _rest_on(line, cell.profile, cell.names, ours)
    line["ours"] = mean_and_std(cell.pooled)
    target = get_run(run).target
    line["borrowed"] = ours.borrowed(target, cell.profile)
    return judge_score(number["value"], cell.pooled, metric=metric, spread=ours.spread(target, metric))


def _parameters(number: dict[str, str], ours: Ours, line: Line) -> Judgement:
    count = parameters(number["run"])
    line["new patients"] = ""
    line["ours"] = f"{count:,}"
    return judge_parameters(number["value"], count)


def _same(number: dict[str, str], ours: Ours, line: Line) -> Judgement:
    rule, value = number["rule"], number["value"]
    line.update({"new patients": "", "ours": ""})
    if not rule:
        return Judgement("not checkable", reason=number["note"])
    if number["kind"] == "count" and number["run"]:
        count = count_answer(rule, ours)
        if count.number is None:
            return Judgement(NOT_RUN, reason=count.reason)
        _rest_on(line, count.profile, count.names, ours)
        line["ours"] = str(count.number)
        return (
            judge_same(value, line["ours"], run=True)
            if count.whole
            else Judgement(NOT_RUN, reason=count.reason)
        )
    if number["run"]:
        profile, group = ours.best(number["run"])
        if not group:
            return Judgement(NOT_RUN, reason=f"lacks {number['run']}")
        _rest_on(line, profile, [r["run"] for r in group], ours)
        answers: set[Any] = {record_answer(rule, record) for record in group}
        answer: Any = ", ".join(sorted(answers))
    else:
        answer = code_answer(rule)
    line.update(ours=answer, at="")  # what a run did is so at any size
    if rule == "folds":
        return Judgement(NOT_RUN, reason="five folds inside the 70 % are defined, and none was run")
    return judge_same(value, answer, run=False)


def _claim(number: dict[str, str], ours: Ours, line: Line) -> Judgement:
    rule = number["rule"]
    line.update({"new patients": "", "ours": ""})
    if not rule:
        return Judgement("not checkable", reason=number["note"])
    if rule == "eq1":
        line["ours"] = code_answer(rule)
        return judge_same(number["value"], line["ours"], run=False)
    decided = {protocol: _decide(rule, ours, protocol) for protocol in ("slice", "patient")}
    profile, judgement, words, names = decided["patient"]
    line["new patients"] = words or NOT_RUN
    line["patient records"] = f"{', '.join(names)} ({profile})" if words else ""
    profile, judgement, words, names = decided["slice"]
    if words:
        _rest_on(line, profile, names, ours)
        line.update(ours=words, records=", ".join(names))
        if judgement.tolerance:  # two scores of one run need none
            line["borrowed"] = ours.borrowed(get_run(names[0]).target, profile)
    return judgement


def _decide(rule: str, ours: Ours, protocol: str) -> tuple[str, Judgement, str, list[str]]:
    """A claim within the first profile that has all it needs, of new patients that with most folds; else within the one that lacks least."""
    decided: list[tuple[str, Judgement, str, list[str]]] = []
    tried: list[Any] = []
    for profile in ours.accepted:
        used: set[str] = set()

        def values(run: str, metric: str, profile: str = profile, used: set[str] = used) -> dict[str, float]:
            used |= {r["run"] for r in ours.group(run, protocol=protocol, profile=profile).values()}
            return ours.values(run, metric, protocol=protocol, profile=profile)

        spread_of = (
            (lambda run, metric: ours.spread(get_run(run).target, metric)) if protocol == "slice" else None
        )
        judgement, words = judge_claim(rule, values, spread_of)
        if words:
            decided.append((profile, judgement, words, sorted(used)))
        tried.append((len(judgement.reason.split(", ")), len(tried), judgement))
    if decided:
        return max(decided, key=lambda one: len(one[3]) if protocol == "patient" else 0)
    return "", min(tried)[2], "", []
