"""Scores of Tables 2-5 as numbers: what each component adds, what size and more training are worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replication.evidence.estimates import Ours
from replication.evidence.ledger import paper_numbers
from replication.evidence.records import Record
from replication.evidence.tables import our_records
from replication.training.grid import ROWS, RUNS
from replication.training.profiles import PROFILES

LAST = 5  # epochs, against as many before them, that tell whether a training was still getting better
UNITS = {"slice": "seeds", "patient": "folds"}  # what a protocol is repeated over


# Rows beyond the paper's recipe, and the table's row that trains the same network by it.
BEYOND = {
    row.key: next(
        plain.key for plain in ROWS
        if (plain.arm, plain.stages) == (row.arm, row.stages) and not (plain.recipe or plain.same_as)
        and plain.table.startswith("Table")
    )
    for row in ROWS if row.recipe
}  # fmt: skip


def scores_of(
    number: int, results: str | Path | Ours, *, metric: str = "DSC", profile: str | None = None
) -> pd.DataFrame:
    """One score of Tables 2-5 as numbers, for figures and differences; NaN where nothing was run.

    Args:
        number: 2 to 5.
        metric: a column head.
        results, profile: see `our_records`.

    Returns:
        Indexed by row and segmentation: paper; profile; slice, slice_std, seeds, slice_each; patient,
        patient_std, folds, patient_each; longer; full. The scores by seed or fold are in ..._each. Deviations (ddof 1) are
        NaN below two values. All of ours but the last two are of the one profile in which most of the table's rows were
        trained, under both protocols, so that they can be compared. The last two are on random slices by a larger budget:
        longer by more epochs at that profile's size, full by the profile `paper`.
    """
    ours, numbers = our_records(results, profile), paper_numbers(f"Table {number}")
    lines = numbers[numbers["metric"] == metric].to_dict("records")
    base = ours.alike([line["run"] for line in lines], protocols=tuple(UNITS))
    alike = ours.only(base) if base else ours
    before = list(ours.accepted)[: list(ours.accepted).index(base)] if base else []
    larger = {
        "longer": [name for name in before if PROFILES[name].size == PROFILES[base].size],
        "full": [name for name in before if name == "paper"],
    }
    rows = {}
    for line in lines:
        entry: dict[str, Any] = {"paper": float(line["value"])}
        rows[line["row"], line["segmentation"]] = entry
        for column, profiles in larger.items():
            cells = (ours.only(profile).cell(line["run"], metric) for profile in profiles)
            entry[column] = pd.Series(next((c.pooled for c in cells if c), []), dtype=float).mean()
        entry["profile"] = base
        for protocol, unit in UNITS.items():
            each = (
                alike.values(line["run"], metric, protocol=protocol, profile=base)
                if base in alike.accepted
                else {}
            )
            values = pd.Series(each, dtype=float)
            entry |= {
                protocol: values.mean(), f"{protocol}_std": values.std(), unit: len(values), f"{protocol}_each": each,
            }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["row", "segmentation"])


def differences(more: pd.DataFrame, less: pd.DataFrame) -> pd.DataFrame:
    """Rows of `scores_of` less others, row by row in their order: ours paired by seed or fold.

    Returns:
        Indexed as `more`: paper; slice, slice_std, seeds; patient, patient_std, folds. Over the
        seeds or folds that both rows have within one profile; NaN and 0 where there is none.
    """
    rows = []
    for (_, one), (_, other) in zip(more.iterrows(), less.iterrows(), strict=True):
        rows.append(row := {"paper": one["paper"] - other["paper"]})
        for protocol, unit in UNITS.items():
            mine, theirs = one[f"{protocol}_each"], other[f"{protocol}_each"]
            shared = [k for k in mine if k in theirs] if one["profile"] == other["profile"] else []
            of = pd.Series([mine[k] - theirs[k] for k in shared], dtype=float)
            row |= {protocol: of.mean(), f"{protocol}_std": of.std(), unit: len(of)}
    return pd.DataFrame(rows, index=more.index)


def gains(scores: pd.DataFrame) -> pd.DataFrame:
    """What each row adds to the one above it, of one segmentation of `scores_of`.

    Returns:
        As `differences`, indexed by the component added ("+RIB", ...).
    """
    added = differences(scores.iloc[1:], scores.iloc[:-1])
    return added.set_axis(
        ["+" + row.split(" (")[0].rsplit("+", 1)[1] for row in added.index.get_level_values("row")]
    ).rename_axis("component")


def reductions(results: str | Path, *, data: str | None = None) -> pd.DataFrame:
    """What a profile's reduction costs: runs repeated with one thing changed (register row 12).

    Each run of a profile that stands beside another (`Profile.beside`) is paired with the run of the
    same name there: the same network, split, seed and slices.

    Args:
        results, data: see `replication.evidence.records.load_records`.

    Returns:
        A row for each pair, in the order of the profiles and the grid: run, protocol ("slice" or
        "patient"), change (in words), before and after (pooled DSC), their difference, and of the
        second the best epoch and the number of epochs. Empty where nothing was run twice.
    """
    changed = [profile for profile in PROFILES.values() if profile.beside]
    ours = Ours(
        results, tuple(dict.fromkeys(name for p in changed for name in (p.beside or "", p.name))), data=data
    )
    rows = [
        {"change": profile.change}
        | _beside(ours.accepted[profile.beside or ""][name], ours.accepted[profile.name][name])
        for profile in changed
        for name in ours.accepted[profile.name]
        if name in ours.accepted[profile.beside or ""]
    ]
    columns = ["run", "protocol", "change", "before", "after", "difference", "best epoch", "epochs"]
    return pd.DataFrame(rows, columns=columns)


def _beside(before: Record | None, after: Record) -> dict[str, Any]:
    """A run under two budgets: pooled DSC (NaN: not run), and of the second what its training was."""
    scores = [record["test"]["pooled"]["dsc"] if record else float("nan") for record in (before, after)]
    return {
        "run": after["run"], "protocol": RUNS[after["run"]].protocol, "before": scores[0], "after": scores[1],
        "difference": scores[1] - scores[0], "best epoch": after["fit"]["best_epoch"], "epochs": after["fit"]["epochs"],
    }  # fmt: skip


def at_full_size(results: str | Path | Ours) -> pd.DataFrame:
    """Runs of the profile `paper` beside the same runs of `cpu`: size, batch and epochs differ.

    Trainings that their clock cut short are here, and in no table (`Ours.cut_short`).

    Args:
        results: see `our_records`.

    Returns:
        A row for each run, in the grid's order: run, protocol, before (pooled DSC; NaN: not run), after,
        difference, best epoch, epochs, ended ("stopped early", "all epochs", "out of time").
    """
    ours = our_records(results)
    whole, small = (ours.accepted.get(profile, {}) for profile in ("paper", "cpu"))
    full = whole | ours.cut_short.get("paper", {})
    rows = [
        _beside(small.get(name), full[name]) | {"ended": _ended(full[name])} for name in RUNS if name in full
    ]
    columns = ["run", "protocol", "before", "after", "difference", "best epoch", "epochs", "ended"]
    return pd.DataFrame(rows, columns=columns)


def _ended(record: Record) -> str:
    fit = record["fit"]
    return (
        "out of time" if fit.get("out_of_time") else "stopped early" if fit["stopped_early"] else "all epochs"
    )


def at_equal_epochs(results: str | Path | Ours, *, epoch: int = 10) -> pd.DataFrame:
    """Infection on random slices, every network at the paper's size after the same number of epochs, cut short or not.

    Args:
        results: see `our_records`.
        epoch: after which the validation score is taken.

    Returns:
        A row for each run that had so many, the highest first: run, validation (pooled DSC of the validation slices
        after that epoch), test (pooled DSC of the kept epoch), epochs, ended (as in `at_full_size`).
    """
    ours = our_records(results)
    of = ours.accepted.get("paper", {}) | ours.cut_short.get("paper", {})
    rows = [
        {
            "run": line["run"], "validation": of[line["run"]]["fit"]["history"][epoch - 1]["val_dsc"],
            "test": line["after"], "epochs": line["epochs"], "ended": line["ended"],
        }
        for line in at_full_size(ours).query("protocol == 'slice'").to_dict("records")
        for run in (RUNS[line["run"]],)
        if run.target == "infection" and run.seed == 0 and len(of[run.name]["fit"]["history"]) >= epoch
    ]  # fmt: skip
    columns = ["run", "validation", "test", "epochs", "ended"]
    return pd.DataFrame(rows, columns=columns).sort_values("validation", ascending=False, ignore_index=True)


def trend(scores: Sequence[float]) -> tuple[float, float]:
    """What the last five epochs are above the five before, and how far one epoch lies from the next (register row 71).

    Args:
        scores: one for each epoch, in their order.

    Returns:
        The mean of the last five less that of the five before, and the mean distance between neighbouring epochs of these
        ten; NaN where there are fewer than ten.
    """
    if len(scores) < 2 * LAST:
        return float("nan"), float("nan")
    before, after = np.split(np.asarray(scores[-2 * LAST :]), 2)
    return float(after.mean() - before.mean()), float(np.abs(np.diff([*before, *after])).mean())


def courses(ours: Ours) -> pd.DataFrame:
    """How the score of the cascade and of the direct network came about: the longest training of each at each size.

    Trainings that their clock cut short are here, too (`Ours.cut_short`). One run each, on random slices, seed 0.

    Returns:
        A row for each network and size, if run: network, size (pixels), run, profile, epochs, best epoch, ended (as in
        `at_full_size`), scores (DSC of the validation slices after each epoch), and rise and step (see `trend`).
    """
    rows = []
    for network, run in (("cascade", "table2-infection"), ("direct", "table4-full")):
        for size in sorted({PROFILES[profile].size for profile in ours.accepted}):
            of = [
                (profile, found[run])
                for profile in ours.accepted
                if PROFILES[profile].size == size
                for found in (ours.accepted[profile] | ours.cut_short[profile],)
                if run in found and found[run]["fit"]["history"]
            ]
            if not of:
                continue
            profile, record = of[0]
            scores = [epoch["val_dsc"] for epoch in record["fit"]["history"]]
            rise, step = trend(scores)
            rows.append(
                {
                    "network": network, "size": size, "run": run, "profile": profile,
                    "epochs": record["fit"]["epochs"], "best epoch": record["fit"]["best_epoch"],
                    "ended": _ended(record), "scores": scores, "rise": rise, "step": step,
                }
            )  # fmt: skip
    columns = ["network", "size", "run", "profile", "epochs", "best epoch", "ended", "scores", "rise", "step"]
    return pd.DataFrame(rows, columns=columns)


def infection_rows(ours: Ours) -> pd.DataFrame:
    """Infection DSC of every row of Tables 2-5, see `scores_of`; indexed by table and row."""
    found = {}
    for number in range(2, 6):
        scored = scores_of(number, ours).reset_index()
        chosen = scored[~scored["segmentation"].str.startswith("Lung")]
        found[f"Table {number}"] = chosen.drop(columns="segmentation").set_index("row")
    return pd.concat(found, names=["table"])


def of_both(ours: Ours, run: str, plain: str, *, protocol: str) -> tuple[list[Record], list[Record]] | None:
    """Records of two runs under the seeds or folds that both have, in the same order; None if there are none."""
    found = []
    for profile in ours.accepted:  # one budget for both
        mine, base = (ours.group(name, protocol=protocol, profile=profile) for name in (run, plain))
        if common := [suffix for suffix in mine if suffix in base]:
            found.append(([mine[s] for s in common], [base[s] for s in common]))
    return max(found, key=lambda both: len(both[0]) if protocol == "patient" else 0, default=None)


def with_larger(ours: Ours) -> dict[str, Ours]:
    """The records as they are, and those of `cpu`'s runs on larger slices: by what their names get behind them."""
    size = PROFILES["cpu-256"].size
    return {"": ours, f" at {size}×{size}": Ours(ours.results, ("cpu-256",), data=ours.data)}


def pooled_dsc(records: Sequence[Record]) -> list[float]:
    """The Dice coefficient of all test pixels of each record."""
    return [record["test"]["pooled"]["dsc"] for record in records]
