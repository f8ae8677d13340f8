"""Figures that more than one notebook draws: loss curves, cases in the manner of Fig. 14.

Every figure is returned, never shown or saved, so a notebook or a script decides.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from chslib.metrics import confusion, scores
from replication.data.store import TARGETS, read_store
from replication.figures.style import BLUE, GREEN, SKY, VERMILION
from replication.training.predictions import load_masks


def plot_history(record: dict[str, Any]) -> Figure:
    """Loss and validation DSC of every epoch of a run, the best epoch marked."""
    history, best = record["fit"]["history"], record["fit"]["best_epoch"]
    epochs = [e["epoch"] for e in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(epochs, [e["train_loss"] for e in history], "o-", color=BLUE, label="training")
    left.plot(epochs, [e["val_loss"] for e in history], "s--", color=VERMILION, label="validation")
    left.set(title="Loss (Eq. 15)", xlabel="epoch", ylabel="loss")
    left.legend(frameon=False)
    right.plot(epochs, [e["val_dsc"] for e in history], "s--", color=VERMILION)
    right.set(title="Validation DSC, all pixels pooled", xlabel="epoch", ylabel="DSC", ylim=(0, 1))
    for axis in (left, right):
        axis.axvline(best, color="0.6", lw=1, zorder=0)
        axis.set_xticks(epochs if len(epochs) <= 12 else np.linspace(1, epochs[-1], 8).round().astype(int))
        axis.spines[["top", "right"]].set_visible(False)
    right.annotate("kept", (best, 0.02), xytext=(3, 0), textcoords="offset points", color="0.4", fontsize=8)
    return figure


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
    figure, axes = plt.subplots(len(ct), 4, figsize=(9, 2.45 * len(ct)), layout="constrained", squeeze=False)
    for row, (slice_, y, p) in enumerate(zip(ct, truth, prediction)):
        errors = np.stack([slice_] * 3, axis=-1) / 255 * 0.55
        errors[(y > 0) & (p > 0)] = matplotlib_rgb(GREEN)
        errors[(y > 0) & (p == 0)] = matplotlib_rgb(SKY)
        errors[(y == 0) & (p > 0)] = matplotlib_rgb(VERMILION)
        for axis, image in zip(axes[row], (slice_, y, p, errors)):
            axis.imshow(image, cmap="gray", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        axes[row, 0].set_ylabel(names[row], fontsize=7)
        axes[row, 2].set_xlabel(f"DSC {score['dsc'][row]:.3f}   JI {score['ji'][row]:.3f}", fontsize=8)
    for axis, title in zip(
        axes[0], ("slice", f"{what}: truth", f"{what}: predicted", "green hit, blue missed, red false")
    ):
        axis.set_title(title, fontsize=9)
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
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def draw_run(record: dict[str, Any], *, slices: str | Path, runs: str | Path = "runs") -> list[Path]:
    """Loss curves and, after Fig. 14, cases of a run, as PNGs beside its checkpoints.

    They show slices of the store, so they stay out of version control with the rest of `runs/`.
    """
    folder = Path(runs) / record["profile"] / record["run"]
    store = read_store(slices, size=record["config"]["size"], progress=False)
    masks, _ = load_masks(folder / "masks.npz")
    truth = getattr(store, TARGETS[record["config"]["target"]])
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
