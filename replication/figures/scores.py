"""Tables 2-5 as pictures: the paper's scores beside ours, by row, by component, by parameters."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replication.evidence.comparisons import scores_of
from replication.evidence.estimates import Ours, parameters
from replication.evidence.ledger import NOT_RUN, paper_numbers
from replication.evidence.tables import our_records
from replication.evidence.verdicts import printed
from replication.figures.style import LARGER, STYLES, legend_below


def styles_of(scores: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Label, colour and marker of each column of `scores_of` that a figure shows."""
    return STYLES | {column: style for column, style in LARGER.items() if scores[column].notna().any()}


def _clean(axis: Axes, *, anything: bool) -> None:
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
        1,
        len(kinds),
        figsize=(3.1 * len(kinds) + (3 if len(kinds) == 1 else 0.6), 3.6),
        layout="constrained",
        sharey=True,
        squeeze=False,
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
        axis.set_xticks(range(len(rows)), rows, fontsize=9)
        axis.set_xlim(-0.4, len(rows) - 0.6)
        _clean(axis, anything=chosen[["slice", "patient"]].notna().any(axis=None))
    legend_below(figure, axes[0, 0])  # no corner of the panels is free of points in every table
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
    counts |= dict.fromkeys(("patient", *LARGER), counts["slice"])
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
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
        axis.annotate(name, theirs, xytext=offset, textcoords="offset points", fontsize=9, ha=side)
    axis.set(xscale="log", xlabel="parameters", ylabel="DSC, infection", ylim=(0, 1.02))
    axis.legend(loc="lower left")
    _clean(axis, anything=scores[["slice", "patient"]].notna().any(axis=None))
    return figure


def plot_rows(rows: pd.DataFrame) -> Figure:
    """The paper's infection DSC beside ours, a line for each row of Tables 2-5; "not run" where none is.

    Args:
        rows: see `infection_rows`.
    """
    gaps = (
        rows.index.get_level_values("table")
        .to_series()
        .ne(pd.Series(rows.index.get_level_values("table")).shift().to_numpy())
    )
    heights = np.arange(len(rows)) + np.cumsum(gaps.to_numpy()) - 1
    figure, axis = plt.subplots(figsize=(6.2, 0.3 * len(rows) + 1.6), layout="constrained")
    for y, (_, row) in zip(heights, rows.iterrows(), strict=True):
        reached = row[["slice", "patient", *LARGER]].astype(float).dropna()
        if len(reached):
            values = [row["paper"], *reached]
            axis.plot([min(values), max(values)], [y, y], color="0.82", lw=1.2, zorder=0)
        else:
            axis.text(1.03, y, NOT_RUN, va="center", fontsize=9, color="0.35")
    for column, (name, colour, marker) in styles_of(rows).items():
        axis.plot(rows[column].astype(float), heights, marker, color=colour, ls="none", label=name)
    labels = [
        row.split(" [")[0].replace("BU+RIB+HP+SSD", "all") for row in rows.index.get_level_values("row")
    ]
    axis.set_yticks(
        heights,
        [f"{table.removeprefix('Table ')}  {label}" for (table, _), label in zip(rows.index, labels)],
        fontsize=9,
    )
    axis.set(
        xlim=(0, 1.12),
        ylim=(heights[-1] + 0.7, -0.7),
        xlabel="infection DSC, all test pixels pooled",
        ylabel="Table and row",
    )
    axis.set_xticks(np.arange(0, 1.01, 0.2))
    axis.grid(axis="x")
    legend_below(figure, axis)
    return figure
