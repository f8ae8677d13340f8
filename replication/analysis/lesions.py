"""Recall by the size of a lesion: the paper's own motive for inception blocks (Sec. 1.4).

A lesion is a connected piece of the annotated infection on one test slice (edges and corners touch). Only counts leave the slices.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from replication.data.slices.store import TARGETS, read_store
from replication.evidence.records import read_record
from replication.provenance import digest, environment, read_written
from replication.training.grid import RUNS, get_run
from replication.training.predictions import load_masks

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
    run = get_run(name)
    record = read_record(Path(results) / profile / f"{run.name}.json")
    masks, hashes = load_masks(Path(runs) / profile / run.name / "masks.npz")
    store = read_store(slices, size=record["config"]["size"], progress=False)
    theirs = {"fingerprint": record["data"]["fingerprint"], "weights_sha256": record["weights_sha256"]}
    if hashes != theirs or store.fingerprint != theirs["fingerprint"]:
        raise ValueError(
            f"Predictions or slices are not those of {profile}/{run.name}: {hashes}, expected {theirs}."
        )
    row_of = {slice_id: row for row, slice_id in enumerate(store.table["slice_id"])}
    rows = [row_of[entry[0]] for entry in record["slices"]]
    lesions = lesions_of(getattr(store, TARGETS[run.target])[rows], masks[rows, 0])
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
    made = {"run": run.name, "profile": profile, **theirs, "classes": counted, **environment()}
    return made | {"digest": digest(made)}


def read_lesions(results: str | Path) -> pd.DataFrame:
    """Every record of a results folder: by run and class its lesions, the share touched, and recall (pixels found).

    Raises:
        ValueError: a record that was changed after it was written.
    """
    rows = [
        {"run": f"{record['profile']}/{record['run']}", **of}
        for path in sorted((Path(results) / FOLDER).glob("*/*.json"))
        for record in [read_written(path, command=f"chs-net measure lesions {path.stem}")]
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
