"""The look of every figure: colours and markers with one meaning each, legends below, panels two across."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

# Okabe-Ito: told apart by people with colour-blindness, and on white as on grey slices.
BLUE, SKY, GREEN, VERMILION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
# Columns of `scores_of`: how each is called and drawn.
STYLES = {
    "paper": ("paper", VERMILION, "D"),
    "slice": ("ours, random slices", BLUE, "o"),
    "patient": ("ours, new patients", SKY, "s"),
}
FULL = {"full": ("ours, random slices, at full size", GREEN, "^")}  # where most of ours are of another


def two_across(panels: int, *, left: float, height: float, below: float) -> tuple[Figure, np.ndarray]:
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


def legend_below(figure: Figure, axis: Axes) -> Legend:
    """A legend in two columns below a figure, of what one of its axes shows."""
    return figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8
    )


def people_axis(axis: Axes, people: Sequence[str]) -> None:
    """Name one patient a row on a score's axis, the first on top."""
    axis.set_yticks(range(len(people)), people, fontsize=8)
    axis.set(xlim=(-0.02, 1.02), ylim=(len(people) - 0.4, -0.6))
    axis.grid(axis="x", color="0.9", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if not people:
        axis.text(0.5, 0.5, "not run", ha="center", color="0.35")
