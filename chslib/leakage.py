"""How far a random slice split gets without learning anything: copy the mask of the nearest slice.

Neighbouring slices of a scan look alike, and so do their masks. Under the paper's random 70/30 split
(Sec. 4.2; register row 13) most test slices have a direct neighbour among the training slices, so
looking up the most similar training slice and copying its mask already scores. Under the patient
protocol it cannot.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chslib.data.slices import TARGETS, SliceStore, read_store
from chslib.data.splits import FOLDS, Split, leaks, make_split, persons
from chslib.metrics import COUNTS, confusion, evaluate
from chslib.runlog import digest, environment, write_json

SEEDS = (0, 1, 2)
THUMBNAIL = 32  # pixels: enough to tell slices apart, too few to see an infection
RECORD = "nearest-slice.json"


def nearest_slices(store: SliceStore, split: Split) -> np.ndarray:
    """Row of the training slice most similar to each test slice: correlation of 32x32 thumbnails."""
    side = store.ct.shape[-1]
    if side % THUMBNAIL:
        raise ValueError(f"slices of {side}x{side}; expected a side that divides by {THUMBNAIL}")
    step = side // THUMBNAIL
    small = store.ct.reshape(len(store), THUMBNAIL, step, THUMBNAIL, step).mean((2, 4), dtype=np.float64)
    small = small.reshape(len(store), -1)
    small -= small.mean(1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12)
    return split.train[(small[split.test] @ small[split.train].T).argmax(1)]


def copied_masks(store: SliceStore, split: Split, target: str) -> dict[str, Any]:
    """Scores of the copied masks on the test part, as `metrics.evaluate` gives them."""
    masks = getattr(store, TARGETS[target])
    copied = torch.from_numpy(masks[nearest_slices(store, split)]).bool()
    counts = confusion(copied, torch.from_numpy(masks[split.test]).bool())
    return evaluate(counts, persons(store.table)[split.test].tolist())


def leakage_record(store: SliceStore) -> dict[str, Any]:
    """Both protocols, every seed and fold, both targets; and what each random split leaks."""
    entries = []
    settings = [("slice", 0, seed) for seed in SEEDS] + [("patient", fold, 0) for fold in range(FOLDS)]
    for protocol, fold, seed in settings:
        split = make_split(store.table, protocol=protocol, fold=fold, seed=seed)
        entry: dict[str, Any] = {"protocol": protocol, "fold": fold, "seed": seed, "slices": len(split.test)}
        if protocol == "slice":
            entry["leaks"] = {k: int(v) for k, v in leaks(store.table, split)["slices"].items()}
        entry |= {target: copied_masks(store, split, target) for target in TARGETS}
        entries.append(entry)
    record = {
        "method": f"the mask of the training slice with the most similar {THUMBNAIL}x{THUMBNAIL} thumbnail",
        "size": int(store.ct.shape[-1]),
        "data": {"fingerprint": store.fingerprint, "slices": len(store)},
        "entries": entries,
        **environment(),
    }
    record["digest"] = digest(record)
    return record


def read_leakage(path: str | Path) -> dict[str, Any]:
    """The record, refused where it was changed after it was written.

    Raises:
        FileNotFoundError, ValueError: no such record, or one whose digest does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; python -m chslib.leakage --slices FOLDER writes it.")
    record = json.loads(path.read_text())
    if record.get("digest") != digest(record):
        raise ValueError(f"{path} was changed after it was written; write it anew: python -m chslib.leakage.")
    for entry in record["entries"]:
        for target in TARGETS:
            if set(entry[target]["confusion"]) != set(COUNTS):
                raise ValueError(f"{path} is not a record of this module; write it anew.")
    return record


def main(arguments: list[str] | None = None) -> int:
    """`python -m chslib.leakage --slices FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m chslib.leakage", description="Score the masks of the nearest training slices."
    )
    parser.add_argument("--slices", required=True, help="folder of a slice store")
    parser.add_argument("--size", type=int, default=128, help="side of the slices, pixels (%(default)s)")
    parser.add_argument("--results", default="results", help="folder of the record (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        record = leakage_record(read_store(options.slices, size=options.size))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_json(Path(options.results) / RECORD, record)
    for entry in record["entries"]:
        name = f"seed {entry['seed']}" if entry["protocol"] == "slice" else f"fold {entry['fold']}"
        shown = "  ".join(f"{t} DSC {entry[t]['pooled']['dsc']:.3f}" for t in TARGETS)
        print(f"{entry['protocol']:8}{name:8}{shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
