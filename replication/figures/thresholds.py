"""What the threshold of the mask moves: Dice against it, and precision against recall over all of them."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from chslib.metrics import scores
from replication.analysis.thresholds import chosen, pooled
from replication.figures.style import BLUE, GREEN, INK, PURPLE, SKY, VERMILION
from replication.training.grid import RUNS

# By arm of the grid: what its runs are called and drawn in.
FAMILIES = {
    "full": ("CHS-Net and its variants", BLUE),
    "bu": ("U-Net", GREEN),
    "miniseg": ("MiniSeg", VERMILION),
    "attention-unet": ("Attention U-Net", PURPLE),
    "infnet": ("Inf-Net", SKY),
}


def _family(record: dict[str, Any]) -> tuple[str, str]:
    arm = RUNS[record["run"]].arm
    return FAMILIES.get(arm, (arm, "0.4"))


def plot_thresholds(records: list[dict[str, Any]]) -> Figure:
    """Test DSC against the threshold, a line a run; filled: chosen on validation, hollow: 0.5.

    Args:
        records: see `thresholds.read_thresholds`; a panel for each protocol, a colour for each network.
    """
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 4.2), layout="constrained", sharey=True)
    named = {}
    for axis, (protocol, title) in zip(axes, (("slice", "random slices"), ("patient", "new patients"))):
        shown = [record for record in records if RUNS[record["run"]].protocol == protocol]
        for record in shown:
            name, colour = _family(record)
            ladder, dsc = np.array(record["ladder"]), scores(pooled(record, "test"))["dsc"]
            (named[name],) = axis.plot(ladder, dsc, color=colour, lw=1.2, alpha=0.8)
            at, usual = chosen(record), record["ladder"].index(0.5)
            axis.plot(ladder[usual], dsc[usual], "o", mfc="white", color=colour, ms=5)
            axis.plot(ladder[at], dsc[at], "o", color=colour, ms=5)
        axis.set(title=title, xlabel="threshold of the probability", xlim=(0, 1))
        axis.grid(axis="y")
        if not shown:
            axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="0.35")
    axes[0].set_ylabel("DSC, all test pixels pooled")
    if named:
        figure.legend(named.values(), named, loc="outside lower center", ncols=3)
    return figure


def plot_precision_recall(records: dict[str, dict[str, Any]]) -> Figure:
    """Precision against recall of test pixels over every threshold, a curve a network; hollow: 0.5; grey: equal DSC.

    Args:
        records: by the network's name; networks of one split, so that they saw the same slices.
    """
    figure, axis = plt.subplots(figsize=(6.2, 4.6), layout="constrained")
    for dsc in (0.6, 0.7, 0.8):
        recall = np.linspace(dsc / (2 - dsc), 1, 200)  # from where the precision is 1
        precision = dsc * recall / (2 * recall - dsc)
        axis.plot(recall, precision, color="0.85", lw=1, zorder=0)
        axis.text(recall[-1], precision[-1], f" DSC {dsc:g}", fontsize=9, color="0.45", va="center")
    for name, record in records.items():
        _, colour = _family(record)
        of = scores(pooled(record, "test"))
        axis.plot(of["recall"], of["precision"], color=colour, lw=1.8)
        usual = record["ladder"].index(0.5)
        axis.plot(of["recall"][usual], of["precision"][usual], "o", mfc="white", color=colour, ms=6)
        axis.annotate(
            name.removesuffix(", direct"), (of["recall"][-1], of["precision"][-1]), (-4, 4), textcoords="offset points", ha="right",
            fontsize=9, color=INK.get(colour, colour),
        )  # fmt: skip
    if not records:
        axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="0.35")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0.2, 1.09), ylim=(0.2, 1.02))
    return figure
