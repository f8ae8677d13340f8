"""Slices with their masks in the manner of Fig. 14, and confusion matrices after Fig. 13.

Every figure is returned, never shown or saved, so a notebook or a script decides.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chslib.metrics import confusion, scores
from replication.data.slices.store import TARGETS, read_store
from replication.figures.curves import plot_history
from replication.figures.style import BLUE, GREEN, INK, LOOK, SKY, VERMILION, picture
from replication.training.predictions import load_masks


def pick_cases(dsc: np.ndarray, *, count: int = 3) -> list[int]:
    """Positions of the best, the median and the worst score, or of `count` evenly spaced ranks."""
    order = np.argsort(-np.asarray(dsc), kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[r]) for r in ranks]


def plot_cases(
    ct: np.ndarray, truth: np.ndarray, prediction: np.ndarray, *, names: list[str], what: str
) -> Figure:
    """Slices, truth and prediction side by side, with DSC and JI of each, after Fig. 14.

    Args:
        ct: uint8 (N, H, W); truth, prediction: 0/1 masks, same shape.
        names: a label for each slice.
        what: what the masks show, "lungs" or "infection".
    """
    counts = confusion(torch.from_numpy(prediction).bool(), torch.from_numpy(truth).bool())
    score = scores(counts)
    figure, axes = plt.subplots(
        len(ct), 4, figsize=(6.4, 1.75 * len(ct)), layout="constrained", squeeze=False
    )
    for row, (slice_, y, p) in enumerate(zip(ct, truth, prediction)):
        errors = np.stack([slice_] * 3, axis=-1) / 255 * 0.55
        errors[(y > 0) & (p > 0)] = matplotlib_rgb(GREEN)
        errors[(y > 0) & (p == 0)] = matplotlib_rgb(SKY)
        errors[(y == 0) & (p > 0)] = matplotlib_rgb(VERMILION)
        for axis, image in zip(axes[row], (slice_, y, p, errors)):
            picture(axis, image, interpolation="nearest")
        axes[row, 0].set_ylabel(textwrap.fill(names[row], 22), fontsize=8)
        axes[row, 2].set_xlabel(f"DSC {score['dsc'][row]:.2f}, JI {score['ji'][row]:.2f}", fontsize=9)
    for axis, title in zip(axes[0], ("slice", f"{what}: truth", "predicted", "errors")):
        axis.set_title(title, fontsize=9)
    for x, word, colour in ((0, "hit", GREEN), (0.5, "missed", SKY), (1, "false", VERMILION)):
        axes[-1, 3].text(
            x, -0.04, word, transform=axes[-1, 3].transAxes, color=INK[colour], fontsize=9, va="top",
            ha={0: "left", 0.5: "center", 1: "right"}[x],
        )  # fmt: skip
    return figure


def plot_run_cases(
    record: dict[str, Any],
    *,
    ct: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray,
    slice_ids: list[str],
    count: int = 4,
) -> Figure:
    """`plot_cases` for a run: test slices with something to find, from the best DSC to the worst.

    Args:
        record: the run's record.
        ct, truth: the whole store, (S, H, W); masks: the run's predictions on it, (S, 1, H, W).
        slice_ids: names of the store's slices.

    Raises:
        ValueError: the record names a slice that the store does not hold.
    """
    counts = np.array([row[1:] for row in record["slices"]])
    shown = np.flatnonzero(counts[:, [0, 2]].sum(1) > 0)  # TP + FN: pixels of truth
    picked = [record["slices"][shown[i]][0] for i in pick_cases(scores(counts[shown])["dsc"], count=count)]
    position = {name: i for i, name in enumerate(slice_ids)}
    if absent := [name for name in picked if name not in position]:
        raise ValueError(f"The store has no slice {absent[0]}, which the record of {record['run']} names.")
    rows = [position[name] for name in picked]
    what = record["config"]["target"]
    return plot_cases(ct[rows], truth[rows], masks[rows, 0], names=picked, what=what)


def matplotlib_rgb(colour: str) -> tuple[float, float, float]:
    """A hexadecimal colour as three floats in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def draw_run(record: dict[str, Any], *, slices: str | Path, runs: str | Path = "runs/local") -> list[Path]:
    """Loss curves and, after Fig. 14, cases of a run, as PNGs beside its checkpoints.

    They show slices of the store, so they stay out of version control with the rest of `runs/`.
    """
    folder = Path(runs) / record["profile"] / record["run"]
    store = read_store(slices, size=record["config"]["size"], progress=False)
    masks, _ = load_masks(folder / "masks.npz")
    truth = getattr(store, TARGETS[record["config"]["target"]])
    with plt.rc_context(LOOK):  # type: ignore[arg-type]
        figures = {
            "history.png": plot_history(record),
            "cases.png": plot_run_cases(
                record, ct=store.ct, truth=truth, masks=masks, slice_ids=store.table["slice_id"].tolist()
            ),
        }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=120)
        plt.close(figure)
    return [folder / name for name in figures]


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
        len(matrices), len(columns), figsize=(2.2 * len(columns) + 0.3, 2.25 * len(matrices)),
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
        axis.text(0.5, 0.5, "not run", ha="center", va="center", color="0.35")
        return
    tp, fp, fn, tn = np.asarray(counts, dtype=float) / np.sum(counts)
    shares = np.array([[tp, fn], [fp, tn]])
    of_truth = shares / shares.sum(1, keepdims=True)
    for (i, j), name in np.ndenumerate([["TP", "FN"], ["FP", "TN"]]):
        tint = 0.04 + 0.4 * of_truth[i, j]
        axis.add_patch(plt.Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, color=BLUE, alpha=tint, lw=0))
        axis.text(j, i - 0.1, f"{name} {of_truth[i, j]:.1%}", ha="center", fontsize=10)
        axis.text(j, i + 0.22, f"{shares[i, j]:.2%} of all", ha="center", fontsize=9)
