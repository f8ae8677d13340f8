"""Scores of Tables 2-5 as numbers: what each component adds, and the figures that show it."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replication.evidence.estimates import Ours, parameters
from replication.evidence.ledger import NOT_RUN, paper_numbers
from replication.evidence.tables import our_records
from replication.evidence.verdicts import printed
from replication.figures.style import BLUE, GREEN, SKY, VERMILION
from replication.training.grid import RUNS
from replication.training.profiles import PROFILES, Profile

# Columns of `scores_of`: how each is called and drawn.
STYLES = {
    "paper": ("paper", VERMILION, "D"),
    "slice": ("ours, random slices", BLUE, "o"),
    "patient": ("ours, new patients", SKY, "s"),
}
UNITS = {"slice": "seeds", "patient": "folds"}  # what a protocol is repeated over
FULL = {"full": ("ours, random slices, at full size", GREEN, "^")}  # where most of ours are of another


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
        patient_std, folds, patient_each; full. The scores by seed or fold are in ..._each. Deviations (ddof 1) are NaN below two values. All of ours but the last are of the
        one profile in which most of the table's rows were trained, so that they can be compared;
        full is on random slices by the profile `paper`, where that is another.
    """
    ours, numbers = our_records(results, profile), paper_numbers(f"Table {number}")
    lines = numbers[numbers["metric"] == metric].to_dict("records")
    base = ours.alike([line["run"] for line in lines])
    alike = ours.only(base) if base else ours
    full = ours.only("paper") if base != "paper" and "paper" in ours.accepted else None
    rows = {}
    for line in lines:
        rows[line["row"], line["segmentation"]] = entry = {"paper": float(line["value"])}
        at_full = full.cell(line["run"], metric) if full else None
        entry["full"] = pd.Series(at_full.pooled if at_full else [], dtype=float).mean()
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


def styles_of(scores: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Label, colour and marker of each column of `scores_of` that a figure shows."""
    return STYLES | (FULL if scores.get("full", pd.Series(dtype=float)).notna().any() else {})


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
        results, tuple(dict.fromkeys(name for p in changed for name in (p.beside, p.name))), data=data
    )
    rows = [
        _reduction(profile, name, ours)
        for profile in changed
        for name in ours.accepted[profile.name]
        if name in ours.accepted[profile.beside]
    ]
    columns = ["run", "protocol", "change", "before", "after", "difference", "best epoch", "epochs"]
    return pd.DataFrame(rows, columns=columns)


def _reduction(profile: Profile, name: str, ours: Ours) -> dict[str, object]:
    before, after = (ours.accepted[p][name] for p in (profile.beside, profile.name))
    scores = [record["test"]["pooled"]["dsc"] for record in (before, after)]
    return {
        "run": name, "protocol": RUNS[name].protocol, "change": profile.change,
        "before": scores[0], "after": scores[1], "difference": scores[1] - scores[0],
        "best epoch": after["fit"]["best_epoch"], "epochs": after["fit"]["epochs"],
    }  # fmt: skip


def at_full_size(results: str | Path | Ours, *, beside: str = "cpu") -> pd.DataFrame:
    """Runs of the profile `paper` beside the same runs of a smaller one: size, batch and epochs differ.

    Trainings that their clock cut short are here, and in no table (`Ours.cut_short`).

    Args:
        results: see `our_records`.
        beside: the smaller profile.

    Returns:
        A row for each run, in the grid's order: run, protocol, before (pooled DSC; NaN: not run), after,
        difference, best epoch, epochs, ended ("stopped early", "all epochs", "out of time").
    """
    ours = our_records(results)
    whole, small = (ours.accepted.get(profile, {}) for profile in ("paper", beside))
    full = whole | ours.cut_short.get("paper", {})
    rows = []
    for name in (name for name in RUNS if name in full):
        fit, dsc = full[name]["fit"], full[name]["test"]["pooled"]["dsc"]
        before = small[name]["test"]["pooled"]["dsc"] if name in small else float("nan")
        ended = (
            "out of time" if name not in whole else "stopped early" if fit["stopped_early"] else "all epochs"
        )
        rows.append(
            {
                "run": name, "protocol": RUNS[name].protocol, "before": before, "after": dsc,
                "difference": dsc - before, "best epoch": fit["best_epoch"], "epochs": fit["epochs"],
                "ended": ended,
            }
        )  # fmt: skip
    columns = ["run", "protocol", "before", "after", "difference", "best epoch", "epochs", "ended"]
    return pd.DataFrame(rows, columns=columns)


def _clean(axis: Axes, *, anything: bool) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    if not anything:
        axis.text(
            0.98, 0.04, f"ours: {NOT_RUN}", transform=axis.transAxes, color="0.35", ha="right", fontsize=9
        )


def plot_arms(scores: pd.DataFrame, *, metric: str = "DSC") -> Figure:
    """A score over the rows of Table 4 or 5, theirs and ours, one panel a segmentation.

    Bars are standard deviations over seeds or folds. Copes with rows that were not run.
    """
    kinds = list(dict.fromkeys(scores.index.get_level_values("segmentation")))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(4.6 * len(kinds) + 1.2, 3.8), layout="constrained", sharey=True, squeeze=False
    )
    for axis, kind in zip(axes[0], kinds):
        chosen = scores.xs(kind, level="segmentation")
        rows = [row.split(" (")[0].replace("BU+RIB+HP+SSD", "all") for row in chosen.index]
        for i, (column, (label, colour, marker)) in enumerate(styles_of(chosen).items()):
            spread = chosen.get(f"{column}_std")
            axis.errorbar(
                np.arange(len(rows)) + 0.12 * (i - 1), chosen[column],
                yerr=None if spread is None else spread.fillna(0),
                fmt=marker, color=colour, label=label, capsize=3, ls="-" if column == "paper" else ":", lw=1,
            )  # fmt: skip
        axis.set(title=kind, ylim=(0, 1.02), ylabel=metric if axis is axes[0, 0] else None)
        axis.set_xticks(range(len(rows)), rows)
        axis.set_xlim(-0.4, len(rows) - 0.6)
        _clean(axis, anything=chosen[["slice", "patient"]].notna().any(axis=None))
    # Below the panels: no corner of them is free of points in every table.
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=2,
    )
    return figure


def plot_parameters(results: str | Path | Ours, *, profile: str | None = None) -> Figure:
    """DSC of Table 3's networks against their parameters: as printed, and ours as counted and scored."""
    ours = our_records(results, profile)
    scores = scores_of(3, ours).droplevel("segmentation")
    lines = paper_numbers("Table 3").query("metric == 'Param.'").set_index("row")
    counts = {
        "paper": lines["value"].map(lambda value: printed(value)[0]),
        "slice": lines["run"].map(parameters),
    }
    counts["patient"] = counts["full"] = counts["slice"]
    figure, axis = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    shown = styles_of(scores)
    for column, (label, colour, marker) in shown.items():
        axis.plot(counts[column], scores[column], marker, color=colour, label=label)
    beside = {"U-Net++": ((8, -9), "left"), "AU-Net": ((-7, 0), "right")}  # two points that nearly meet
    for row in scores.index:
        theirs, reached = (
            (counts["paper"][row], scores.loc[row, "paper"]),
            scores.loc[row, [column for column in shown if column != "paper"]],
        )
        for height in reached.dropna():  # which of ours belongs to which of theirs
            axis.plot([theirs[0], counts["slice"][row]], [theirs[1], height], color="0.8", lw=0.8, zorder=0)
        name = row.split(" [")[0].split("+RAIU")[0]
        offset, side = beside.get(name, ((0, 6), "center"))
        axis.annotate(name, theirs, xytext=offset, textcoords="offset points", fontsize=8, ha=side)
    axis.set(xscale="log", xlabel="parameters", ylabel="DSC, infection", ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    _clean(axis, anything=scores[["slice", "patient"]].notna().any(axis=None))
    return figure
