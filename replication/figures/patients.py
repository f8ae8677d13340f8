"""Scores of every slice and patient, under both protocols and by network.

Every figure is returned, never shown or saved, as everywhere in `replication.figures`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from chslib.metrics import scores
from replication.evidence.ledger import NOT_RUN
from replication.evidence.records import Record, slices_of_patients
from replication.figures.style import (
    BLUE,
    GREEN,
    PURPLE,
    SKY,
    STYLES,
    VERMILION,
    legend_below,
    people_axis,
    two_across,
)

SLICE, PATIENT = (STYLES[p] for p in ("slice", "patient"))  # name, colour, marker
# Networks that share a panel: colour, marker.
MANY = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (SKY, "D"), ("0.2", "v"), (PURPLE, "P"), ("0.5", "X"))


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
    figure, axis = plt.subplots(figsize=(6.2, 0.34 * max(len(people), 3) + 1.2), layout="constrained")
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
    people_axis(axis, people)
    axis.set(xlabel="DSC of a slice", title=title)
    legend = legend_below(figure, axis)
    for dot in filter(None, legend.legend_handles):  # as faint as the dots it would not be seen
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
    figure, axes = two_across(len(tables), left=2.2, height=0.3 * max(len(people), 3) + 0.9, below=0.6)
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
        people_axis(axis, people)
        axis.set(xlabel="DSC of a patient", title=network)
    legend_below(figure, axes[0, 0])
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
        1, 2, figsize=(7.2, 0.32 * max(len(people), 3) + 1.6), layout="constrained", sharey=True
    )
    right.axvline(1, color="0.6", lw=1)
    for (network, table), (colour, marker) in zip(tables.items(), cycle(MANY)):
        for axis, column in ((left, "dsc"), (right, "marked")):
            axis.plot(
                table[column].reindex(people), range(len(people)), marker, color=colour, mfc="none", mew=1.4,
                ls="none", label=network,
            )  # fmt: skip
    people_axis(left, [f"{who} ({slices[who]})" for who in people])
    left.set(xlabel="DSC of a patient")
    right.set(xscale="log", xlabel="area marked / area annotated")
    right.xaxis.set_major_formatter("{x:g}")
    right.grid(axis="x")
    right.tick_params(left=False)
    legend_below(figure, left)
    return figure


def plot_contrast(tables: Mapping[str, pd.DataFrame], contrast: pd.DataFrame) -> Figure:
    """Held-out patients: the share of the lung marked by the share annotated, and the DSC by the grey.

    Args:
        tables: by network, `leakage.patient_scores`.
        contrast: see `contrast.read_contrast`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.9), layout="constrained")
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
    right.set(xlabel="chance that infected is brighter", ylabel="DSC of a patient", ylim=(0, 1))
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(lambda x, _: f"{x:.1%}" if x < 0.01 else f"{x:.0%}")
    for axis in (left, right):
        axis.grid()
        if not tables:
            axis.text(0.5, 0.5, NOT_RUN, transform=axis.transAxes, ha="center", color="0.35")
    if tables:
        legend_below(figure, left)
    return figure
