"""Recall by the size of a lesion: the paper's own motive for inception blocks (Sec. 1.4).

A lesion is a connected piece of the annotated infection on one test slice (edges and corners touch). Only counts leave the slices.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from replication.analysis.measurements import read_measured, run_with_slices
from replication.data.slices.store import TARGETS
from replication.training.grid import RUNS
from replication.training.predictions import masks_tested

FOLDER = "lesions"
BOUNDS = (
    1,
    10,
    100,
    1000,
)  # pixels at 256x256 from which a class begins; about 0.005 to 5 cm2 of a chest 33 cm wide
TOUCHING = np.ones((3, 3))  # edges and corners


def lesions_of(truth: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Every lesion of some slices: its pixels, and how many of them were found.

    Args:
        truth, predicted: 0/1 masks (N, H, W).
    """
    rows: list[tuple[int, int]] = []
    for true, found in zip(truth, predicted, strict=True):
        labels, number = ndimage.label(true > 0, TOUCHING)
        size = np.bincount(labels.ravel(), minlength=number + 1)[1:]
        hit = np.bincount(labels[found > 0], minlength=number + 1)[1:]
        rows += zip(size.tolist(), hit.tolist())
    return pd.DataFrame(rows, columns=["pixels", "found"])


def lesion_record(
    name: str, *, profile: str, slices: str | Path, results: str | Path, runs: str | Path
) -> dict[str, Any]:
    """Lesions of a run's test slices by size: how many, how many were touched, their pixels, and those found.

    Raises:
        FileNotFoundError, ValueError: no record or predictions, or of another training or store.
    """
    run, record, store, rows = run_with_slices(name, profile=profile, slices=slices, results=results)
    masks, _ = masks_tested(record, Path(runs, profile, run.name, "masks.npz"), store, slices=slices)
    lesions = lesions_of(getattr(store, TARGETS[run.target])[rows], masks)
    scale = (record["config"]["size"] / 256) ** 2
    classes = np.digitize(lesions["pixels"] / scale, BOUNDS) - 1
    counted = [
        {
            "from": bound, "lesions": len(of), "touched": int((of["found"] > 0).sum()),
            "pixels": int(of["pixels"].sum()), "found": int(of["found"].sum()),
        }
        for k, bound in enumerate(BOUNDS)
        for of in [lesions[classes.clip(0) == k]]
    ]  # fmt: skip
    return {
        "run": run.name, "profile": profile, "fingerprint": store.fingerprint,
        "weights_sha256": record["weights_sha256"], "classes": counted,
    }  # fmt: skip


def read_lesions(results: str | Path) -> pd.DataFrame:
    """Every record of a results folder: by run and class its lesions, the share touched, and recall (pixels found).

    Raises:
        ValueError: a record that was changed after it was written.
    """
    rows = [
        {"run": f"{record['profile']}/{record['run']}", **of}
        for record in read_measured(results, FOLDER, what="chs-net measure lesions")
        for of in record["classes"]
    ]
    table = pd.DataFrame(rows, columns=["run", "from", "lesions", "touched", "pixels", "found"])
    order = {name: k for k, name in enumerate(RUNS)}
    table = table.sort_values(
        ["run", "from"], key=lambda c: c.map(lambda v: order.get(str(v).split("/")[-1], v))
    )
    table["share touched"] = table["touched"] / table["lesions"].where(table["lesions"] > 0)
    table["recall"] = table["found"] / table["pixels"].where(table["pixels"] > 0)
    return table.set_index(["run", "from"])
