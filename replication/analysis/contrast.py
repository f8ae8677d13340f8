"""What each patient's infection looks like, in numbers: how much of the lung it fills, and how far its grey stands out.

Only counts of grey values leave the slices. The paper reports nothing of the kind; it is what the
scores of a held-out patient (register row 13) are set against.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replication.data.slices.splits import persons
from replication.data.slices.store import SliceStore
from replication.provenance import read_written

RECORD = "contrast.json"
COMMAND = "chs-net measure contrast --slices FOLDER"
LEVELS = 256


def contrast_of(healthy: np.ndarray, infected: np.ndarray) -> dict[str, float]:
    """How two histograms of grey values stand to each other.

    Args:
        healthy, infected: pixels of each grey value, (256,).

    Returns:
        healthy_grey, infected_grey: means, 0..255; brighter: the chance that a random infected pixel
        is brighter than a random healthy one, ties half (the area under the ROC curve of the grey
        value alone; 0.5 where it tells nothing); darker: the share of infected pixels that are
        darker than the mean healthy one. NaN where either histogram is empty.
    """
    grey = np.arange(LEVELS)
    if not (healthy.any() and infected.any()):
        return dict.fromkeys(("healthy_grey", "infected_grey", "brighter", "darker"), float("nan"))
    below = np.cumsum(healthy) - healthy / 2  # of each grey value: healthy pixels below it, ties half
    mean = float(healthy @ grey / healthy.sum())
    return {
        "healthy_grey": mean,
        "infected_grey": float(infected @ grey / infected.sum()),
        "brighter": float(infected @ below / healthy.sum() / infected.sum()),
        "darker": float(infected[grey < mean].sum() / infected.sum()),
    }


def contrast_record(store: SliceStore) -> dict[str, Any]:
    """Every patient of a store: slices, lung and infected pixels, and `contrast_of` of the lung's pixels.

    Healthy is lung that is not infected; infection outside the lung mask counts as infected.
    """
    owners, patients = np.array(persons(store.table)), {}
    for patient in sorted(set(owners)):
        rows = owners == patient
        grey, lung, infected = (store.ct[rows], store.lung[rows] > 0, store.infection[rows] > 0)
        healthy, ill = (np.bincount(grey[mask], minlength=LEVELS) for mask in (lung & ~infected, infected))
        found = {k: None if np.isnan(v) else round(v, 4) for k, v in contrast_of(healthy, ill).items()}
        counted = {"slices": int(rows.sum()), "lung": int(lung.sum()), "infected": int(infected.sum())}
        patients[patient] = counted | found
    return {
        "method": "grey values as stored, 0..255; healthy: lung that is not infected",
        "size": int(store.ct.shape[-1]),
        "data": {"fingerprint": store.fingerprint, "slices": len(store)},
        "patients": patients,
    }


def read_contrast(path: str | Path) -> pd.DataFrame:
    """The record as a table, by patient: its columns, and share, infected pixels as a share of the lung's.

    Raises:
        FileNotFoundError, ValueError: see `replication.provenance.read_written`.
    """
    table = pd.DataFrame.from_dict(read_written(path, command=COMMAND)["patients"], orient="index")
    table.insert(3, "share", table["infected"] / table["lung"].where(table["lung"] > 0))
    return table.astype({c: float for c in table.columns[3:]})
