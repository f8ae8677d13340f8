"""Loss by epoch: one run's, and those of all networks under both protocols."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replication.evidence.ledger import NOT_RUN
from replication.evidence.records import Record
from replication.figures.style import BLUE, GREEN, STYLES, legend_below, name_ends, two_across


def plot_history(record: dict[str, Any]) -> Figure:
    """Loss and validation DSC of every epoch of a run, the best epoch marked."""
    history, best = record["fit"]["history"], record["fit"]["best_epoch"]
    epochs = [e["epoch"] for e in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.9), layout="constrained")
    left.plot(epochs, [e["train_loss"] for e in history], "o-", color=BLUE, label="training")
    left.plot(epochs, [e["val_loss"] for e in history], "o--", color=BLUE, mfc="white", label="validation")
    left.set(title="Loss (Eq. 15)", xlabel="epoch")
    name_ends(left)
    right.plot(epochs, [e["val_dsc"] for e in history], "o--", color=BLUE, mfc="white")
    right.set(title="DSC on validation slices", xlabel="epoch", ylim=(0, 1))
    for axis in (left, right):
        axis.axvline(best, color="0.6", lw=1, zorder=0)
        axis.set_xticks(epochs if len(epochs) <= 12 else np.linspace(1, epochs[-1], 8).round().astype(int))
    right.annotate("kept", (best, 0.02), xytext=(3, 0), textcoords="offset points", color="0.4", fontsize=9)
    return figure


def plot_courses(courses: pd.DataFrame) -> Figure:
    """Validation DSC by epoch of the cascade and of the direct network, the paper's size solid, half of it dashed.

    A dot is the epoch that was kept; a cross is where a clock cut the training short.

    Args:
        courses: see `replication.evidence.comparisons.courses`.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    whole = courses["size"].max()
    for of in courses.to_dict("records"):
        colour = {"cascade": BLUE, "direct": GREEN}[of["network"]]
        epochs, scores = range(1, len(of["scores"]) + 1), of["scores"]
        line = "-" if of["size"] == whole else "--"
        axis.plot(epochs, scores, line, color=colour, label=f"{of['network']}, {of['size']}×{of['size']}")
        axis.plot(of["best epoch"], scores[of["best epoch"] - 1], "o", color=colour, ms=5)
        if of["ended"] == "out of time":
            axis.plot(epochs[-1], scores[-1], "x", color=colour, ms=8, mew=2)
    lowest = min((min(of[1:] or of) for of in courses["scores"]), default=0)  # the first epoch says little
    axis.set(xlabel="epoch", ylabel="DSC, validation slices", ylim=(np.floor(lowest * 10) / 10, None))
    axis.locator_params(axis="x", integer=True)
    axis.grid(axis="y")
    if len(courses):
        axis.legend(loc="lower right")
    else:
        axis.text(0.5, 0.5, NOT_RUN, transform=axis.transAxes, ha="center", color="0.35")
    return figure


def learning_curves(records: Sequence[Record]) -> pd.DataFrame:
    """Loss of Eq. 15 by epoch, as each run's record has it.

    The training loss is a mean over the epoch, while the network still changes; that of Inf-Net has
    terms of its side outputs too (`replication.peers.infnet`).

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
    figure, axes = two_across(len(networks), left=0.85, height=2.6, below=0.7)
    for axis, (network, groups) in zip(axes.flat, networks.items()):
        for protocol, (name, colour, marker) in (("slice", STYLES["slice"]), ("patient", STYLES["patient"])):
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
        axis.locator_params(axis="x", integer=True)
        axis.grid(axis="y")
    for axis in axes[:, 0]:
        axis.set_ylabel("loss (Eq. 15)")
    if not networks:
        axes[0, 0].text(0.5, 0.5, NOT_RUN, ha="center", color="0.35")
    legend_below(figure, axes[0, 0])
    return figure
