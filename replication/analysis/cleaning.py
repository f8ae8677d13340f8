"""What each cleaning step is worth: on held-out patients of a slice store, and on drawn scans in Hounsfield units.

The store's slices have no Hounsfield units, are infected all of them, and lack the volumes' ends: what the
steps are for hardly occurs there, so that what counts is that they do no harm. Drawn scans have all three.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from chslib.inference import Progress, accelerator, folded, predict_masks
from chslib.network import contour_map
from replication.analysis.measurements import dice
from replication.data.phantom.volumes import make_volume
from replication.data.reading.scan import Scan
from replication.data.slices.splits import FOLDS, make_split
from replication.data.slices.store import SliceStore
from replication.provenance import read_written
from replication.scans.cleaning import clean_lungs
from replication.scans.report import fingerprint
from replication.scans.segment import segment
from replication.scans.steps import NOTHING, STEPS, Cleaning
from replication.scans.weights import Cascade, load_cascade
from replication.training.predictions import load_masks

RECORD, ON_SCAN, ON_FOLDS = "cleaning.json", "cleaning-scan.json", "cleaning-folds.json"
ARMS: dict[str, Cleaning] = {
    "none": NOTHING, **{step: Cleaning(**{**dict.fromkeys(STEPS, False), step: True}) for step in STEPS}, "all": Cleaning(),
}  # fmt: skip
PHANTOMS = tuple(range(100, 104))  # seeds: none of those that anything was trained on


def counts(truth: NDArray, found: NDArray) -> list[int]:
    """TP, FP, FN of two masks."""
    truth, found = truth > 0, found > 0
    return [int((truth & found).sum()), int((found & ~truth).sum()), int((truth & ~found).sum())]


def on_store(
    cascade: Cascade, store: SliceStore, rows: NDArray, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Counts of lungs and infection by arm, over the volumes of some rows of a store."""
    first, second = (folded(s.network).to(accelerator()) for s in (cascade.lungs, cascade.infection))
    inputs = store.ct[rows][:, None]
    raw = predict_masks(first, inputs, batch_size=4, progress=progress)[:, 0]
    seen: dict[bytes, NDArray] = {}

    def infected(lungs: NDArray) -> NDArray:
        """The second network on slices through lungs; each distinct input once."""
        keys = [lung.tobytes() + row.tobytes() for lung, row in zip(lungs, rows)]
        new = [k for k, key in enumerate(keys) if key not in seen]
        if new:
            ct, mask = (torch.from_numpy(a) for a in (inputs[new], lungs[new, None]))
            found = predict_masks(second, contour_map(ct, mask).numpy(), batch_size=4, progress=progress)
            seen.update(zip([keys[k] for k in new], found[:, 0]))
        return np.stack([seen[key] for key in keys])

    volumes = store.table["volume"].iloc[rows].to_numpy()
    out = {}
    for name, how in ARMS.items():
        lungs = _cleaned(raw, volumes, how)
        infection = infected(lungs)
        if how.slices:
            infection[~lungs.any((1, 2))] = 0
        if how.inside:
            infection &= lungs
        out[name] = {
            "lungs": counts(store.lung[rows], lungs),
            "infection": counts(store.infection[rows], infection),
        }
    return out


def _cleaned(lungs: NDArray, volumes: NDArray, how: Cleaning) -> NDArray[np.uint8]:
    """Slices (S, H, W), cleaned volume by volume."""
    out = lungs.copy()
    for volume in np.unique(volumes):
        out[volumes == volume] = clean_lungs(lungs[volumes == volume], how)[0]
    return out


def folds_record(store: SliceStore, runs: Path) -> dict[str, Any]:
    """Lungs alone, from the predictions that a first stage's folds left, as far as there are any; no network is asked.

    Raises:
        FileNotFoundError: of no fold; ValueError: predictions on another store.
    """
    folds, table = {}, store.table
    for fold in range(FOLDS):
        path = runs / "paper" / f"table2-lungs-patient-fold{fold}" / "masks.npz"
        if not path.is_file():
            continue
        masks, of = load_masks(path)
        if of["fingerprint"] != store.fingerprint:
            raise ValueError(f"{path}: predictions on another store of slices")
        rows = make_split(table, protocol="patient", fold=fold, seed=0).test
        volumes = table["volume"].iloc[rows].to_numpy()
        folds[str(fold)] = {
            arm: counts(store.lung[rows], _cleaned(masks[rows, 0], volumes, how)) for arm, how in ARMS.items()
        }
    if not folds:
        raise FileNotFoundError(f"{runs}/paper: no table2-lungs-patient-fold<k>/masks.npz")
    return {"fingerprint": store.fingerprint, "columns": ["tp", "fp", "fn"], "lungs": folds}


def on_scan(cascade: Cascade, scan: Scan, truth: dict[str, NDArray]) -> dict[str, Any]:
    """Counts of each target with a reference mask (x, y, slices) by arm, and how many voxels are called infected."""
    out: dict[str, dict[str, Any]] = {}
    for arm, how in ARMS.items():
        found = segment(scan, cascade, cleaning=how)
        out[arm] = {target: counts(mask, getattr(found, target)) for target, mask in truth.items()}
        out[arm]["infected_voxels"] = int(found.infection.sum(dtype=np.int64))
    return out


def on_phantoms(cascade: Cascade, *, folder: Path) -> dict[str, Any]:
    """The same over drawn scans of whole chests, in Hounsfield units, with their ends."""
    each = []
    for seed in PHANTOMS:
        volume = make_volume(name="coronacases_001", seed=seed, size=256, depth=16)
        path = folder / f"{seed}.nii"
        nib.save(nib.Nifti1Image(volume.ct.astype(np.int16), np.diag([-1.4, 1.4, 20, 1])), path)
        truth = {"lungs": volume.lung, "infection": volume.infection}
        each.append(on_scan(cascade, Scan(path), truth))
    return {
        arm: {target: np.sum([one[arm][target] for one in each], axis=0).tolist() for target in truth}
        for arm in ARMS
    }


def with_lungs(ct: Path, lungs: Path) -> tuple[Scan, NDArray]:
    """A scan, and a reference mask of its lungs (x, y, slices), whatever its labels.

    Raises:
        ValueError: of another shape.
    """
    scan, mask = Scan(ct), Scan(lungs, intensity=None)
    if mask.shape != scan.shape:
        raise ValueError(f"{lungs}: {mask.shape} voxels; expected those of {ct}, {scan.shape}")
    return scan, np.stack([mask.plane(k) for k in range(mask.shape[2])], 2)


def scan_record(ct: Path, lungs: Path) -> dict[str, Any]:
    """One's own scan with a reference mask of its lungs; by the default cascade."""
    cascade = load_cascade()
    scan, truth = with_lungs(ct, lungs)
    return {
        "weights": cascade.weights, "scan": {"name": ct.name, "sha256": fingerprint(ct), "axes": scan.axes},
        "arms": on_scan(cascade, scan, {"lungs": truth}),
    }  # fmt: skip


def cleaning_record(store: SliceStore, *, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Both, with the default cascade, on the test patients of its own fold."""
    cascade = load_cascade()
    fold = int(cascade.weights["name"][-1])
    rows = make_split(store.table, protocol="patient", fold=fold, seed=0).test
    return {
        "weights": cascade.weights, "fold": fold, "fingerprint": store.fingerprint, "slices": len(rows),
        "patients": sorted(set(store.table["patient"].iloc[rows])), "columns": ["tp", "fp", "fn"],
        "store": on_store(cascade, store, rows, progress=progress),
        "phantom_seeds": list(PHANTOMS), "phantoms": on_phantoms(cascade, folder=folder),
    }  # fmt: skip


def read_cleaning(results: str | Path) -> pd.DataFrame:
    """By arm: DSC of lungs and infection, and false positives in thousands, on held-out patients and on drawn scans.

    Raises:
        ValueError: a record that was changed after it was written.
    """
    record = read_written(Path(results) / RECORD, command="chs-net measure cleaning")
    rows = {}
    for arm in record["store"]:
        rows[arm] = {
            (where, f"{target}, {what}"): value
            for where in ("store", "phantoms")
            for target in ("lungs", "infection")
            for counted in [record[where][arm][target]]
            for what, value in (("DSC", dice(*counted)), ("FP, thousands", counted[1] / 1000))
        }
    return pd.DataFrame(rows).T.rename_axis("steps")


def read_scan(results: str | Path) -> pd.DataFrame:
    """By arm: DSC of the lungs of one scan, and voxels called infected; errors as of `read_cleaning`."""
    arms = read_written(Path(results) / ON_SCAN, command="chs-net measure cleaning --scan CT LUNGS")["arms"]
    return lungs_table(arms, infected_voxels="infected voxels").rename_axis("steps")


def lungs_table(measured: dict[str, Any], **also: str) -> pd.DataFrame:
    """By what was measured on one scan: DSC of the lungs, and other values of the record under the names given."""
    rows = {
        name: {"lungs, DSC": dice(*of["lungs"]), **{told: of[key] for key, told in also.items()}}
        for name, of in measured.items()
    }
    return pd.DataFrame(rows).T


def read_folds(results: str | Path) -> pd.DataFrame:
    """DSC of the lungs by arm and fold; errors as of `read_cleaning`."""
    folds = read_written(Path(results) / ON_FOLDS, command="chs-net measure cleaning --runs RUNS")["lungs"]
    return pd.DataFrame(
        {f"fold {k}": {arm: dice(*counted) for arm, counted in arms.items()} for k, arms in folds.items()}
    ).rename_axis("steps")
