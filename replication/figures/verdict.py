"""The verdict as a picture: one line a row of Tables 2-5, the paper's value and ours on one axis, the verdict as a word."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replication.evidence.ledger import NOT_RUN
from replication.figures.style import BLUE, GREEN, INK, STYLES, VERMILION

TABLES = tuple(f"Table {number}" for number in range(2, 6))
WORDS = {  # verdict -> what stands at the line's end, and its colour
    "reproduced": ("reproduced", GREEN),
    "compatible": ("compatible", GREEN),
    "above the paper": ("above", BLUE),
    "below the paper": ("below", VERMILION),
    "undecided": ("undecided", "0.35"),
    NOT_RUN: (NOT_RUN, "0.35"),
}


def verdict_rows(lines: pd.DataFrame) -> pd.DataFrame:
    """The ledger's lines that the picture shows: DSC of each row of Tables 2-5, ours and new patients' as numbers."""
    shown = lines[(lines["metric"] == "DSC") & lines["table"].isin(TABLES)].copy()
    for column in ("paper", "ours", "new patients"):
        shown[column] = pd.to_numeric(shown[column].str.split(" ").str[0], errors="coerce")
    return shown


def plot_verdicts(lines: pd.DataFrame) -> Figure:
    """Diamonds: the paper. Dots: ours, on random slices. Squares: ours, on new patients.

    Args:
        lines: the ledger.
    """
    rows = verdict_rows(lines)
    gaps = rows["table"].ne(rows["table"].shift()).cumsum().to_numpy()
    heights = np.arange(len(rows)) + gaps - 1
    figure, axis = plt.subplots(figsize=(5.6, 0.27 * (heights[-1] + 1) + 0.9), layout="constrained")
    for y, row in zip(heights, rows.to_dict("records"), strict=True):
        word, colour = WORDS.get(row["verdict"], (row["verdict"], "0.35"))
        if not np.isnan(row["ours"]):
            axis.plot([row["paper"], row["ours"]], [y, y], color=colour, lw=2, alpha=0.45, zorder=1)
        axis.text(1.04, y, word, color=INK.get(colour, colour), va="center", fontsize=9, weight="bold")
    for column, key in (("paper", "paper"), ("ours", "slice"), ("new patients", "patient")):
        label, colour, marker = STYLES[key]
        axis.plot(
            rows[column], heights, marker, color=colour, ms=5 if key == "patient" else 6.5, zorder=2,
            label=label.replace("ours, ", ""),
        )  # fmt: skip
    axis.legend(
        loc="lower center", bbox_to_anchor=(0.45, 1), ncols=3, handletextpad=0, columnspacing=1,
        labelcolor=[INK.get(colour, colour) for _, colour, _ in STYLES.values()],
    )  # fmt: skip
    names = [_name(row, both=row["table"] in ("Table 2", "Table 5")) for row in rows.to_dict("records")]
    axis.set_yticks(heights, names, fontsize=9)
    for number in np.unique(gaps):
        of = heights[gaps == number]
        table = rows["table"].iloc[int(np.flatnonzero(gaps == number)[0])]
        axis.text(-0.015, of[0] - 0.85, table, fontsize=9, weight="bold", va="center", ha="right")
    axis.set(xlim=(0, 1.0), ylim=(heights[-1] + 0.7, -1.4), xlabel="Dice coefficient, test pixels pooled")
    axis.set_xticks(np.arange(0, 1.01, 0.2))
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    return figure


def _name(row: dict, *, both: bool) -> str:
    name = (
        row["row"].split(" [")[0].replace("BU+RIB+HP+SSD (", "").replace("+RAIU-Net (Ours)", "").rstrip(")")
    )
    name = name.replace("AU-Net", "Attention U-Net") if name == "AU-Net" else name
    return f"{name}, {'lungs' if row['segmentation'] == 'Lungs' else 'infection'}" if both else name
