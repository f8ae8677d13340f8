"""The confusion matrix of Fig. 13 and the scores of Tables 2-5: Acc, Pre, Spe, Rec, DSC, JI.

The paper does not say over what it averages (register row 18), so three views are kept apart:

* pooled: the counts of all pixels of all slices are added up, then scored (the tables' column);
* per slice, per patient: counts are added up within a slice or a patient, scored, and averaged.

One rule for empty masks: a score whose denominator is 0 is 1 if prediction and truth agree on
every pixel (no FP, no FN), else 0. So a slice without infection scores DSC 1 if nothing was
predicted and 0 if anything was; predicting nothing on an infected slice scores precision 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

COUNTS = ("tp", "fp", "fn", "tn")
SCORES = ("accuracy", "precision", "specificity", "recall", "dsc", "ji")


def confusion(prediction: Tensor, target: Tensor) -> np.ndarray:
    """Count TP, FP, FN, TN per slice (Fig. 13).

    Args:
        prediction, target: boolean (or 0/1) masks (N, 1, H, W) or (N, H, W), same shape.

    Returns:
        int64 array (N, 4), columns as in `COUNTS`, pixels.

    Raises:
        ValueError: shapes differ, or values other than 0 and 1 (a probability, say).
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"Masks of shapes {tuple(prediction.shape)} and {tuple(target.shape)}; expected the same."
        )
    masks = []
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.dtype != torch.bool:
            if not ((mask == 0) | (mask == 1)).all():
                raise ValueError(
                    f"The {name} holds values other than 0 and 1; expected a mask. "
                    "Threshold it first: logits > 0, or probabilities > 0.5."
                )
            mask = mask.bool()
        masks.append(mask.flatten(1))
    p, y = masks
    columns = [(p & y).sum(1), (p & ~y).sum(1), (~p & y).sum(1), (~p & ~y).sum(1)]
    return torch.stack(columns, dim=1).cpu().numpy().astype(np.int64)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Acc, Pre, Spe, Rec, DSC and JI of confusion counts (Fig. 13).

    Args:
        counts: (..., 4), columns as in `COUNTS`.

    Returns:
        One array of shape (...) for each name in `SCORES`, in [0, 1].
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    agree = np.where((fp == 0) & (fn == 0), 1.0, 0.0)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), agree)

    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "precision": ratio(tp, tp + fp),
        "specificity": ratio(tn, tn + fp),
        "recall": ratio(tp, tp + fn),
        "dsc": ratio(2 * tp, 2 * tp + fp + fn),
        "ji": ratio(tp, tp + fp + fn),
    }


def group_counts(counts: np.ndarray, groups: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Add up the counts (N, 4) of slices by group (a patient, a volume): sorted names and (G, 4)."""
    if len(groups) != len(counts):
        raise ValueError(f"{len(counts)} rows of counts but {len(groups)} group names; expected one each.")
    names = sorted(set(groups))
    position = {name: i for i, name in enumerate(names)}
    summed = np.zeros((len(names), 4), dtype=np.int64)
    np.add.at(summed, [position[g] for g in groups], np.asarray(counts, dtype=np.int64))
    return names, summed


def evaluate(counts: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """The three views of one test set, ready for a run record.

    Args:
        counts: (N, 4) per slice, from `confusion`.
        patients: N patient names.

    Returns:
        ``pooled`` scores; ``per_slice`` and ``per_patient`` mean and standard deviation (over
        slices or patients, ddof 0); ``patients``: scores of each; ``confusion``: pooled counts.

    Raises:
        ValueError: no slice at all.
    """
    if len(counts) == 0:
        raise ValueError("No slice to evaluate; the test part of the split is empty.")
    names, by_patient = group_counts(counts, patients)
    total = np.asarray(counts).sum(0)

    def spread(table: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {k: {"mean": float(v.mean()), "std": float(v.std())} for k, v in table.items()}

    patient_scores = scores(by_patient)
    return {
        "confusion": {k: int(v) for k, v in zip(COUNTS, total)},
        "pooled": {k: float(v) for k, v in scores(total).items()},
        "per_slice": spread(scores(counts)),
        "per_patient": spread(patient_scores),
        "patients": {n: {k: float(v[i]) for k, v in patient_scores.items()} for i, n in enumerate(names)},
    }
