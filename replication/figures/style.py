"""The look of every figure: vector, colours and markers with one meaning each, names beside what they name."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from numpy.typing import ArrayLike

# Okabe-Ito: told apart by people with colour-blindness, and on white as on grey slices.
BLUE, SKY, GREEN, VERMILION, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7"
# The same for words, dark enough on white. book/sphinx_figures.py gives either theme its own.
INK = {SKY: "#2B7CAB", GREEN: "#007A5A", VERMILION: "#B34D00", PURPLE: "#A0457A"}
LOOK = {
    "font.size": 11,
    "svg.fonttype": "none",  # words stay words
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "svg.hashsalt": "chs-net",  # the same figure is the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "grid.color": "0.9",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": "small",
}
# Columns of `scores_of`: how each is called and drawn.
STYLES = {
    "paper": ("paper", VERMILION, "D"),
    "slice": ("ours, random slices", BLUE, "o"),
    "patient": ("ours, new patients", SKY, "s"),
}
# By a larger budget than most of ours.
LARGER = {
    "longer": ("ours, random slices, more epochs", PURPLE, "v"),
    "full": ("ours, random slices, at full size", GREEN, "^"),
}


def use_style() -> None:
    """Show the figures of a notebook below their cells, as vectors and with one look."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    plt.rcParams.update(LOOK)  # type: ignore[arg-type]
    set_matplotlib_formats("svg", dpi=110, metadata={"Date": None, "Creator": None})


def picture(axis: Axes, image: ArrayLike, **how: Any) -> None:
    """Show a slice, a mask or a map in grey, without ticks or frame.

    Args:
        how: for `Axes.imshow`.
    """
    axis.imshow(image, **({"cmap": "gray"} | how))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def name_ends(axis: Axes, *, apart: float = 11) -> None:
    """Write each line's label at its right end, in its colour, in place of a legend.

    Args:
        apart: least distance of two labels, points.
    """
    lines = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
    points = [xy[np.isfinite(xy).all(axis=1)] for xy in (np.asarray(line.get_xydata()) for line in lines)]
    ends = [(line, xy[xy[:, 0].argmax()]) for line, xy in zip(lines, points) if len(xy)]
    heights = [axis.transData.transform(end)[1] * 72 / axis.figure.dpi for _, end in ends]
    lowest = -np.inf
    for at in np.argsort(heights):
        line, end = ends[at]
        lowest = max(heights[at], lowest + apart)
        colour = str(line.get_color())
        axis.annotate(
            line.get_label(), end, (6, lowest - heights[at]), textcoords="offset points", va="center",
            fontsize=9, color=INK.get(colour, colour), annotation_clip=False,
        )  # fmt: skip


def two_across(panels: int, *, left: float, height: float, below: float) -> tuple[Figure, np.ndarray]:
    """A figure of panels two side by side, at least one, and their axes (rows, columns).

    Args:
        left, below: inches beside and below them all; height: inches of each.
    """
    panels = max(panels, 1)
    across = min(panels, 2)
    down = -(-panels // across)
    figure, axes = plt.subplots(
        down, across, figsize=(left + 2.8 * across, height * down + below), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    return figure, axes


def legend_below(figure: Figure, axis: Axes) -> Legend:
    """A legend in two columns below a figure, of what one of its axes shows."""
    return figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def people_axis(axis: Axes, people: Sequence[str]) -> None:
    """Name one patient a row on a score's axis, the first on top."""
    axis.set_yticks(range(len(people)), people, fontsize=9)
    axis.set(xlim=(-0.02, 1.02), ylim=(len(people) - 0.4, -0.6))
    axis.grid(axis="x")
    if not people:
        axis.text(0.5, 0.5, "not run", ha="center", color="0.35")
