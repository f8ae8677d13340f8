"""What a random slice split gives away: the mask of the nearest slice, and one patient under both splits.

Neighbouring slices of a scan look alike, and so do their masks. Under the paper's random 70/30 split
(Sec. 4.2; register row 13) most test slices have a direct neighbour among the training slices, so
looking up the most similar training slice and copying its mask already scores. Under the patient
protocol it cannot. `patient_scores` and `paired` set a network's scores of a patient under the one
beside those under the other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from chslib.metrics import confusion, evaluate, scores
from replication.data.slices.splits import FOLDS, Split, leaks, make_split, persons
from replication.data.slices.store import TARGETS, SliceStore
from replication.evidence.ledger import NOT_RUN
from replication.evidence.records import Record, slices_of_patients
from replication.provenance import read_written
from replication.training.evaluation import draw, middle

SEEDS = (0, 1, 2)
RESAMPLES = 5000
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
    return {
        "method": f"the mask of the training slice with the most similar {THUMBNAIL}x{THUMBNAIL} thumbnail",
        "size": int(store.ct.shape[-1]),
        "data": {"fingerprint": store.fingerprint, "slices": len(store)},
        "entries": entries,
    }


def read_leakage(path: str | Path) -> dict[str, Any]:
    """The record, refused where it was changed after it was written.

    Raises:
        FileNotFoundError, ValueError: no such record, or one whose digest does not fit.
    """
    return read_written(path, command="chs-net measure leak --slices FOLDER")


def mean_of_copies(record: dict[str, Any], protocol: str, *, target: str = "infection") -> float:
    """Mean DSC of the copied masks over the seeds or folds of a protocol, from `read_leakage`."""
    return float(
        np.mean([e[target]["pooled"]["dsc"] for e in record["entries"] if e["protocol"] == protocol])
    )


def patient_scores(records: Sequence[Record], *, seed: int = 0) -> pd.DataFrame:
    """DSC of each patient over all test slices of some records, seeds or folds of one run.

    Returns:
        By patient: dsc, of the pooled pixels; low, high, a 95 % interval from its resampled slices
        (NaN for one slice; neighbours are alike, so it is rather too narrow); slices; infected, the
        pixels of truth; marked, the pixels of the prediction as a multiple of these.
    """
    counts: dict[str, list[np.ndarray]] = {}
    for record in records:
        for patient, each_slice in slices_of_patients(record).items():
            counts.setdefault(patient, []).append(each_slice)
    rng, rows = np.random.default_rng(seed), {}
    for patient in sorted(counts):
        each = np.concatenate(counts[patient])
        drawn = draw(rng, len(each), RESAMPLES) @ each
        low, high = middle(scores(drawn)["dsc"]) if len(each) > 1 else (np.nan, np.nan)
        rows[patient] = {
            "dsc": float(scores(each.sum(0))["dsc"]), "low": low, "high": high,
            "slices": len(each), "infected": (infected := int(each[:, [0, 2]].sum())),
            "marked": float(each[:, [0, 1]].sum() / infected) if infected else np.nan,
        }  # fmt: skip
    columns = ["dsc", "low", "high", "slices", "infected", "marked"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def agreement(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Spearman's rank correlation of the patients' DSC between networks: do they fail on the same ones?

    Args:
        tables: by network, `patient_scores`; over the patients that all of them have.

    Returns:
        A square table, networks in their order. NaN where fewer than three patients are shared.
    """
    shared = (
        pd.concat({n: t["dsc"] for n, t in tables.items()}, axis=1, join="inner")
        if tables
        else pd.DataFrame()
    )
    return shared.corr("spearman", min_periods=3)


# Two slices and 29 infected pixels at full size: one volume whose place in the source is not confirmed (book/limits.md).
TINY = "radiopaedia_29_86490_1"
PROTOCOL_NAMES = ("random slices", "new patients", "lost")


def paired(
    seen: pd.Series, new: pd.Series, *, names: Sequence[str] = PROTOCOL_NAMES, seed: int = 0
) -> pd.DataFrame:
    """Means over the patients that two tests share, and of what each loses, with 95 % intervals.

    Args:
        seen, new: DSC by patient, say under random slices and where the patient was held out.
        names: of the two, and of the first less the second.

    Returns:
        A row for each name: mean, low, high (of resampled patients; NaN for one), patients.
        Percentile intervals of few patients are too narrow.
    """
    first, second, difference = names
    both = pd.concat({first: seen, second: new}, axis=1, sort=True).dropna()
    both[difference] = both[first] - both[second]
    drawn = np.random.default_rng(seed).integers(max(len(both), 1), size=(RESAMPLES, len(both)))
    rows = {}
    for name, values in both.items():
        low, high = middle(values.to_numpy()[drawn].mean(1)) if len(both) > 1 else (np.nan, np.nan)
        rows[name] = {"mean": values.mean(), "low": low, "high": high, "patients": len(both)}
    return pd.DataFrame(rows).T.astype({"patients": int})


def with_interval(line: pd.Series) -> str:
    """A row of `paired` in one cell: `0.710 (0.600 to 0.820)`, "not run" where it has no patient."""
    around = "" if pd.isna(line["low"]) else f" ({line['low']:.3f} to {line['high']:.3f})"
    return f"{line['mean']:.3f}{around}" if line["patients"] else NOT_RUN
