"""The picture that a link to the book shows: its name, its question, and the U of its icon. No slice is in it.

python book/preview.py    # writes book/_static/preview.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from replication.evidence.ledger import paper_numbers  # noqa: E402
from replication.figures.style import BLUE, VERMILION  # noqa: E402

PICTURE = ROOT / "book/_static/preview.png"
WIDTH, HEIGHT = 1200, 630  # what those who show it expect


def draw(path: Path) -> None:
    """Write the picture."""
    printed = paper_numbers().set_index("id").loc["t2-infection-dsc", "value"]
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axis.set_axis_off()
    axis.add_patch(plt.Rectangle((0, 0), 24, HEIGHT, color=BLUE, lw=0))
    for level in range(
        4
    ):  # the U: maps that halve, what skips from one side to the other, the bottleneck below
        y, half, left, right = 150 + 85 * level, 58 / 1.45**level, 850 + 30 * level, 1110 - 30 * level
        for x in (left, right):
            axis.add_patch(plt.Rectangle((x - 9, y - half), 18, 2 * half, color=BLUE, lw=0))
        axis.annotate(
            "",
            (right - 16, y),
            (left + 16, y),
            arrowprops={"arrowstyle": "->", "color": VERMILION, "lw": 2.5},
        )
    axis.add_patch(plt.Rectangle((971, 455), 18, 26, color=BLUE, lw=0))
    words = {
        (150, 60, "bold", "black"): "CHS-Net, replicated",
        (
            300,
            36,
            "normal",
            "black",
        ): f"The paper’s Dice coefficient is {printed}.\nWhat is it for a new patient?",
        (
            540,
            24,
            "normal",
            "0.3",
        ): "COVID-19 infection in chest CT: the paper’s tables run again,\nwith code, weights and a record of every run",
    }
    for (y, size, weight, colour), text in words.items():
        axis.text(80, y, text, size=size * 0.72, weight=weight, color=colour, va="center", linespacing=1.4)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(PICTURE)
