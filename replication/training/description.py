"""What a run's record says of its data, of its fit and of its scores."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from chslib.metrics import COUNTS, confusion, evaluate
from replication.data.slices.splits import Split, persons
from replication.data.slices.store import TARGETS, SliceStore


def score(store: SliceStore, split: Split, target: str, masks: np.ndarray) -> dict[str, Any]:
    """The test part of a record: the three views of its scores, and the counts of each slice."""
    truth = getattr(store, TARGETS[target])[split.test]
    counts = confusion(torch.from_numpy(masks[split.test, 0]).bool(), torch.from_numpy(truth).bool())
    names = store.table["slice_id"].iloc[split.test]
    return {
        "test": evaluate(counts, persons(store.table)[split.test].tolist()),
        "slices": [[name, *map(int, row)] for name, row in zip(names, counts)],
        "slices_columns": ["slice_id", *COUNTS],
    }


def infection_inside(store: SliceStore, split: Split, lungs: Any) -> dict[str, float | None]:
    """Share of infected pixels inside the predicted lungs: what the cascade cuts off, no second stage finds."""

    def share(rows: np.ndarray) -> float | None:
        infected = store.infection[rows] > 0
        return float(lungs[rows, 0][infected].mean()) if infected.any() else None

    return {part: share(rows) for part, rows in asdict(split).items()}


def describe_data(store: SliceStore, split: Split) -> dict[str, Any]:
    """Whose slices they are, how they were prepared, and how they were split."""
    people = persons(store.table)  # a copy of a scan is its original's patient
    healthy = ~np.asarray(store.infection.any((1, 2)))

    def part(rows: np.ndarray) -> dict[str, Any]:
        return {
            "slices": len(rows), "patients": sorted(set(people[rows])), "without_infection": int(healthy[rows].sum()),
        }  # fmt: skip

    return {
        "fingerprint": store.fingerprint,
        "slices": len(store),
        "sources": {k: int(v) for k, v in store.table["source"].value_counts().sort_index().items()},
        "patients": len(set(people)),
        "origin": asdict(store.origin) if store.origin else None,
        "infected_share": float(store.infection.mean()),
        "split": {name: part(rows) for name, rows in asdict(split).items()},
    }


def told_of(
    epochs: list[dict[str, Any]], *, most: int, patience: int, late: bool, **more: Any
) -> dict[str, Any]:
    """What a record says of a fit: its epochs, the best one, and how it ended.

    Args:
        epochs: the history; most: epochs there could have been; late: whether a deadline had passed behind the last one.
    """
    best_epoch = min(epochs, key=lambda e: e["val_loss"])["epoch"]
    fewer = len(epochs) < most
    out_of_time = late and fewer and len(epochs) - best_epoch < patience
    return {
        "epochs": len(epochs),
        "best_epoch": best_epoch,
        "stopped_early": fewer and not out_of_time,
        **({"out_of_time": True} if out_of_time else {}),
        "fit_seconds": round(sum(e["seconds"] for e in epochs), 1),
        **more,
        "history": epochs,
    }
