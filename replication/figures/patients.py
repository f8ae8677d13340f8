"""Figures of cases and rows: confusion matrices (Fig. 13), scores of every slice and patient, all rows.

Every figure is returned, never shown or saved, as in `replication.figures.cases`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from chslib.metrics import scores
from replication.analysis.leak import slices_of_patients
from replication.evidence.comparisons import STYLES, scores_of, styles_of
from replication.evidence.estimates import Ours
from replication.evidence.ledger import NOT_RUN
from replication.evidence.records import Record
from replication.figures.style import BLUE, GREEN, SKY, VERMILION

SLICE, PATIENT = (STYLES[p] for p in ("slice", "patient"))  # name, colour, marker
# Networks that share a panel: colour, marker.
MANY = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (SKY, "D"), ("0.2", "v"), ("#CC79A7", "P"))


def pooled_counts(records: Sequence[Record]) -> np.ndarray | None:
    """TP, FP, FN, TN of all test pixels of some records, seeds or folds of one run; None without any."""
    return (
        np.sum([[*record["test"]["confusion"].values()] for record in records], axis=0) if records else None
    )


def implied_shares(*, precision: float, recall: float, specificity: float) -> np.ndarray:
    """The confusion matrix that three scores imply: TP, FP, FN, TN as shares of all pixels.

    Scores alone hold no counts, but with p the share of positive pixels,
    precision = p recall / (p recall + (1 - p) (1 - specificity)) has one solution.

    Raises:
        ValueError: scores that leave p open.
    """
    if not (0 < precision < 1 and 0 < recall <= 1 and 0 <= specificity < 1):
        raise ValueError(
            f"precision {precision}, recall {recall}, specificity {specificity} leave the share of positive "
            "pixels open; expected precision and specificity below 1 and none 0."
        )
    odds = precision * (1 - specificity) / (recall * (1 - precision))
    p = odds / (1 + odds)
    return np.array([p * recall, (1 - p) * (1 - specificity), p * (1 - recall), (1 - p) * specificity])


def plot_confusion(
    matrices: Mapping[str, Mapping[str, np.ndarray | None]], *, what: Mapping[str, str]
) -> Figure:
    """Confusion matrices after Fig. 13, a row of them for each kind of mask.

    Colour and large number: the share of that row of truth. Small number: of all pixels.

    Args:
        matrices: by mask and by whose they are, counts or shares (TP, FP, FN, TN), None: not run.
        what: how a positive pixel of each mask is called, by mask.
    """
    columns = list(dict.fromkeys(name for row in matrices.values() for name in row))
    figure, axes = plt.subplots(
        len(matrices), len(columns), figsize=(3.1 * len(columns) + 0.4, 2.9 * len(matrices)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for row, (mask, by_column) in zip(axes, matrices.items(), strict=True):
        for axis, column in zip(row, columns, strict=True):
            _confusion(axis, by_column.get(column), positive=what[mask])
            axis.set_title(f"{mask}: {column}", fontsize=10)
            axis.set_xlabel("predicted", fontsize=9)
        row[0].set_ylabel("truth", fontsize=9)
    return figure


def _confusion(axis: Axes, counts: np.ndarray | None, *, positive: str) -> None:
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=8)
    axis.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xticks=(0, 1), yticks=(0, 1))
    axis.set(xticklabels=(positive, "other"))
    axis.set_yticklabels((positive, "other"), rotation=90, va="center")
    if counts is None:
        axis.text(0.5, 0.5, NOT_RUN, ha="center", va="center", color="0.35")
        return
    tp, fp, fn, tn = np.asarray(counts, dtype=float) / np.sum(counts)
    shares = np.array([[tp, fn], [fp, tn]])
    of_truth = shares / shares.sum(1, keepdims=True)
    axis.imshow(of_truth, cmap="Blues", vmin=0, vmax=1.15)
    for (i, j), name in np.ndenumerate([["TP", "FN"], ["FP", "TN"]]):
        colour = "white" if of_truth[i, j] > 0.6 else "0.15"
        axis.text(j, i - 0.12, f"{name} {of_truth[i, j]:.1%}", ha="center", color=colour, fontsize=12)
        axis.text(j, i + 0.22, f"{shares[i, j]:.2%} of all", ha="center", color=colour, fontsize=8)


def plot_slice_scores(groups: Mapping[str, Sequence[Record]], *, title: str) -> Figure:
    """DSC of every test slice by patient, under both protocols; a bar is the patient's median.

    Args:
        groups: records by protocol, "slice" and "patient"; seeds or folds of one run.
        title: what the slices show.
    """
    found = {
        protocol: pd.concat(
            [
                pd.DataFrame({"patient": patient, "dsc": scores(counts)["dsc"]})
                for record in records
                for patient, counts in slices_of_patients(record).items()
            ]
        )
        for protocol, records in groups.items()
        if records
    }
    people = sorted({patient for table in found.values() for patient in table["patient"]})
    figure, axis = plt.subplots(figsize=(8, 0.34 * max(len(people), 3) + 1.2), layout="constrained")
    drawn = np.random.default_rng(0)
    for shift, (protocol, table) in zip((-0.17, 0.17), found.items()):
        name, colour, marker = SLICE if protocol == "slice" else PATIENT
        height = table["patient"].map(people.index) + shift
        axis.plot(
            table["dsc"], height + drawn.uniform(-0.1, 0.1, len(table)), marker, color=colour,
            ms=3, alpha=0.45, mew=0, label=name,
        )  # fmt: skip
        for patient, dsc in table.groupby("patient")["dsc"].median().items():
            y = people.index(patient) + shift
            axis.plot([dsc, dsc], [y - 0.16, y + 0.16], color="0.1", lw=1.6, solid_capstyle="butt")
    _people(axis, people)
    axis.set(xlabel="DSC of a slice", title=title)
    legend = _legend_below(figure, axis)
    for dot in legend.legend_handles:  # as faint as the dots it would not be seen
        dot.set(alpha=1, markersize=6)
    return figure


def plot_patients(
    tables: Mapping[str, Mapping[str, pd.DataFrame]], *, lookup: Mapping[str, pd.Series]
) -> Figure:
    """DSC of each patient under both protocols, with intervals, one panel a network, two side by side.

    Args:
        tables: by network and protocol ("slice", "patient"), `leakage.patient_scores`.
        lookup: by protocol, DSC by patient of the nearest slice's mask; drawn in each panel.
    """
    people = sorted({p for both in tables.values() for table in both.values() for p in table.index})
    figure, axes = _two_across(len(tables), left=2.2, height=0.3 * max(len(people), 3) + 0.9, below=0.6)
    for axis, (network, both) in zip(axes.flat, tables.items()):
        heights = {patient: y for y, patient in enumerate(people)}
        for protocol, (name, colour, marker), fill in (
            ("slice", SLICE, "none"),
            ("patient", PATIENT, "none"),
        ):
            values = lookup[protocol].reindex(people)
            axis.plot(
                values, list(heights.values()), marker, mfc=fill, mec=colour, ms=5, alpha=0.8, ls="none",
                label=f"nearest slice's mask, {name.removeprefix('ours, ')}",
            )  # fmt: skip
        if {"slice", "patient"} <= set(both):
            pairs = (
                both["slice"]["dsc"].to_frame("slice").join(both["patient"]["dsc"].rename("patient")).dropna()
            )
            for patient, pair in pairs.iterrows():
                axis.plot(
                    pair, [heights[patient] - 0.13, heights[patient] + 0.13], color="0.75", lw=1, zorder=0
                )
        for protocol, (name, colour, marker), shift in (("slice", SLICE, -0.13), ("patient", PATIENT, 0.13)):
            if protocol not in both:
                continue
            table = both[protocol]
            reach = np.abs(table[["low", "high"]].sub(table["dsc"], axis=0)).fillna(0).to_numpy().T
            axis.errorbar(
                table["dsc"], [heights[p] + shift for p in table.index], xerr=reach, fmt=marker, color=colour,
                ms=6, lw=1.2, label=f"network, {name.removeprefix('ours, ')}",
            )  # fmt: skip
        _people(axis, people)
        axis.set(xlabel="DSC of a patient", title=network)
    _legend_below(figure, axes[0, 0])
    return figure


def plot_hard_patients(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Every held-out patient by every network, the hardest first: its DSC, and how much was marked of it.

    Args:
        tables: by network, `leakage.patient_scores`.
    """
    dsc = pd.concat({n: t["dsc"] for n, t in tables.items()}, axis=1) if tables else pd.DataFrame()
    people = list(dsc.median(axis=1).sort_values().index)
    slices = {who: int(n) for table in tables.values() for who, n in table["slices"].items()}
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.4, 0.32 * max(len(people), 3) + 1.6), layout="constrained", sharey=True
    )
    right.axvline(1, color="0.6", lw=1)
    for (network, table), (colour, marker) in zip(tables.items(), cycle(MANY)):
        for axis, column in ((left, "dsc"), (right, "marked")):
            axis.plot(
                table[column].reindex(people), range(len(people)), marker, color=colour, mfc="none", mew=1.4,
                ls="none", label=network,
            )  # fmt: skip
    _people(left, [f"{who} ({slices[who]})" for who in people])
    left.set(xlabel="DSC of a patient")
    right.set(xscale="log", xlabel="area marked, as a multiple of the area annotated")
    right.xaxis.set_major_formatter("{x:g}")
    right.grid(axis="x", color="0.9", lw=0.8)
    right.spines[["top", "right"]].set_visible(False)
    right.tick_params(left=False)
    _legend_below(figure, left)
    return figure


def plot_contrast(tables: Mapping[str, pd.DataFrame], contrast: pd.DataFrame) -> Figure:
    """Held-out patients: the share of the lung marked by the share annotated, and the DSC by the grey.

    Args:
        tables: by network, `leakage.patient_scores`.
        contrast: see `contrast.read_contrast`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.2), layout="constrained")
    for (network, table), (colour, marker) in zip(tables.items(), cycle(MANY)):
        of = contrast.reindex(table.index)
        style = {"color": colour, "mfc": "none", "mew": 1.4, "ls": "none", "label": network}
        left.plot(of["share"], of["share"] * table["marked"], marker, **style)
        right.plot(of["brighter"], table["dsc"], marker, **style)
    left.axline((0.01, 0.01), (0.1, 0.1), color="0.6", lw=1)
    left.set(
        xscale="log",
        yscale="log",
        xlabel="area annotated, of the lung’s",
        ylabel="area marked, of the lung’s",
    )
    right.set(xlabel="chance that infected is brighter than healthy", ylabel="DSC of a patient", ylim=(0, 1))
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(lambda x, _: f"{x:.1%}" if x < 0.01 else f"{x:.0%}")
    for axis in (left, right):
        axis.grid(color="0.92", lw=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if not tables:
            axis.text(0.5, 0.5, NOT_RUN, transform=axis.transAxes, ha="center", color="0.35")
    if tables:
        _legend_below(figure, left)
    return figure


def learning_curves(records: Sequence[Record]) -> pd.DataFrame:
    """Loss of Eq. 15 by epoch, as each run's record has it.

    The training loss is a mean over the epoch, while the network still changes; that of Inf-Net has
    terms of its side outputs too (`peers.infnet`).

    Returns:
        Indexed by run and epoch: "training", "validation".
    """
    curves = {
        record["run"]: pd.DataFrame(record["fit"]["history"])
        .set_index("epoch")[["train_loss", "val_loss"]]
        .set_axis(["training", "validation"], axis=1)
        for record in records
    }
    if not curves:
        return pd.DataFrame(columns=["training", "validation"], index=pd.MultiIndex.from_arrays([[], []]))
    return pd.concat(curves, names=["run"])


def plot_learning(networks: Mapping[str, Mapping[str, Sequence[Record]]]) -> Figure:
    """Training and validation loss by epoch under both protocols, one panel a network, two side by side.

    Faint lines are single seeds or folds, strong ones their mean over those that reached the epoch.

    Args:
        networks: by network and protocol ("slice", "patient"), records.
    """
    figure, axes = _two_across(len(networks), left=1.2, height=2.6, below=0.7)
    for axis, (network, groups) in zip(axes.flat, networks.items()):
        for protocol, (name, colour, marker) in (("slice", SLICE), ("patient", PATIENT)):
            curves = learning_curves(groups.get(protocol, []))
            for part, line, filled in (("training", "-", colour), ("validation", "--", "white")):
                if curves[part].empty:
                    continue
                for _, curve in curves[part].groupby(level=0):
                    axis.plot(curve.index.get_level_values(1), curve, line, color=colour, lw=0.8, alpha=0.35)
                mean = curves[part].groupby(level=1).mean()
                axis.plot(
                    mean, line + marker, color=colour, mfc=filled, lw=2, ms=5,
                    label=f"{part}, {name.removeprefix('ours, ')}",
                )  # fmt: skip
        axis.set(title=network, xlabel="epoch", ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(axis="y", color="0.9", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("loss (Eq. 15)")
    if not networks:
        axes[0, 0].text(0.5, 0.5, NOT_RUN, ha="center", color="0.35")
    _legend_below(figure, axes[0, 0])
    return figure


def _two_across(panels: int, *, left: float, height: float, below: float) -> tuple[Figure, np.ndarray]:
    """A figure of panels two side by side, at least one, and their axes (rows, columns).

    Args:
        left, below: inches beside and below them all; height: inches of each.
    """
    panels = max(panels, 1)
    across = min(panels, 2)
    down = -(-panels // across)
    figure, axes = plt.subplots(
        down, across, figsize=(left + 3.6 * across, height * down + below), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    return figure, axes


def _legend_below(figure: Figure, axis: Axes) -> Legend:
    return figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8
    )


def _people(axis: Axes, people: Sequence[str]) -> None:
    axis.set_yticks(range(len(people)), people, fontsize=8)
    axis.set(xlim=(-0.02, 1.02), ylim=(len(people) - 0.4, -0.6))
    axis.grid(axis="x", color="0.9", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if not people:
        axis.text(0.5, 0.5, NOT_RUN, ha="center", color="0.35")


def infection_rows(ours: Ours) -> pd.DataFrame:
    """Infection DSC of every row of Tables 2-5, see `comparisons.scores_of`; indexed by table and row."""
    found = {}
    for number in range(2, 6):
        scored = scores_of(number, ours).reset_index()
        chosen = scored[~scored["segmentation"].str.startswith("Lung")]
        found[f"Table {number}"] = chosen.drop(columns="segmentation").set_index("row")
    return pd.concat(found, names=["table"])


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
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(rows) + 2.0), layout="constrained")
    for y, (_, row) in zip(heights, rows.iterrows(), strict=True):
        reached = row[["slice", "patient", "full"]].astype(float).dropna()
        if len(reached):
            values = [row["paper"], *reached]
            axis.plot([min(values), max(values)], [y, y], color="0.82", lw=1.2, zorder=0)
        else:
            axis.text(1.03, y, NOT_RUN, va="center", fontsize=8, color="0.35")
    for column, (name, colour, marker) in styles_of(rows).items():
        axis.plot(rows[column].astype(float), heights, marker, color=colour, ls="none", label=name)
    labels = [
        row.split(" [")[0].replace("BU+RIB+HP+SSD", "all") for row in rows.index.get_level_values("row")
    ]
    axis.set_yticks(
        heights,
        [f"{table.removeprefix('Table ')}  {label}" for (table, _), label in zip(rows.index, labels)],
        fontsize=8,
    )
    axis.set(
        xlim=(0, 1.12),
        ylim=(heights[-1] + 0.7, -0.7),
        xlabel="infection DSC, all test pixels pooled",
        ylabel="Table and row",
    )
    axis.set_xticks(np.arange(0, 1.01, 0.2))
    axis.grid(axis="x", color="0.92", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    return figure
