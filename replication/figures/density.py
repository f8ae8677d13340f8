"""How dense is what is called infected, beside the rest of the lungs: two histograms over one axis."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from replication.figures.style import BLUE, INK, VERMILION
from replication.scans.density import AERATED, quartiles

BINS = np.arange(-1025, 226, 25.0)  # HU; what is denser counts in the last
SHOWN = {"rest_of_lungs": ("rest of the lungs", BLUE), "infection": ("called infected", VERMILION)}


def plot_densities(of: dict[str, NDArray[np.float32]] | None) -> Figure:
    """Share of the voxels by Hounsfield units, each of the two adding up to 1; a dot at the median, a bar between the quartiles.

    Args:
        of: see `replication.scans.density.densities`; None where the scan has no Hounsfield units.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    told, highest = quartiles(of) or {}, 0.0
    for row, (name, (called, colour)) in enumerate(SHOWN.items()):
        if not (middle := told.get(f"{name}_hu")) or of is None:
            continue
        shares = np.histogram(np.clip(of[name], BINS[0], BINS[-1]), BINS)[0] / len(of[name])
        axis.stairs(shares, BINS, color=colour, fill=True, alpha=0.2)
        axis.stairs(shares, BINS, color=colour, lw=1.5)
        highest, height = max(highest, shares.max()), -0.05 - 0.05 * row
        axis.plot(
            middle[::2], [height] * 2, color=colour, lw=3, transform=axis.get_xaxis_transform(), clip_on=False
        )
        axis.plot(
            middle[1], height, "o", color=colour, ms=7, transform=axis.get_xaxis_transform(), clip_on=False
        )
        axis.text(
            0.99, 0.95 - 0.1 * row, f"{called}, median {middle[1]:.0f} HU", transform=axis.transAxes, ha="right", va="top",
            color=INK.get(colour, colour),
        )  # fmt: skip
    if not highest:
        axis.text(
            0.5, 0.5, "no Hounsfield units, or no lung", transform=axis.transAxes, ha="center", color="0.35"
        )
    axis.axvline(AERATED, color="0.45", lw=1, ls="--", zorder=0)
    axis.set(
        xlabel="density, HU",
        ylabel="share of the voxels",
        xlim=(BINS[0], BINS[-1]),
        ylim=(0, highest * 1.25 or 1),
    )
    axis.tick_params(axis="x", pad=24)
    return figure
