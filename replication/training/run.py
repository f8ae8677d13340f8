"""One run, from slices to record: store -> split -> inputs of the stage -> fit -> predict -> score -> record.

The second stage sees what the first predicts (Sec. 4.3; register row 9). Mixed precision (bfloat16) on a
GPU, float32 on a CPU. How a network is fitted says `replication.training.fit`.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from chslib.inference import accelerator, predict_masks
from replication.data.slices.splits import make_split, persons
from replication.data.slices.store import TARGETS, SliceStore, read_store
from replication.files import write_json
from replication.provenance import digest, environment
from replication.training.batches import SliceDataset
from replication.training.description import describe_data, infection_inside, score
from replication.training.fit import fit_with_checkpoints
from replication.training.grid import Run, get_run
from replication.training.healed import with_healed
from replication.training.networks import make_network, run_config
from replication.training.predictions import StageInputs, bar, masks_tested, save_masks, stage_inputs
from replication.training.profiles import Profile, get_profile
from replication.training.state import RECORD, failure_file

Fit = Callable[..., dict[str, Any]]  # see `replication.training.fit.fit_with_checkpoints`
SCHEMA = 2  # of a run record; 1 had no digest and no evaluation


def train_run(
    name: str,
    *,
    profile: str,
    slices: str | Path,
    results: str | Path = "results/local",
    runs: str | Path = "runs/local",
    progress: bool = True,
    store: SliceStore | None = None,
    deadline: float | None = None,
    repeatable: bool = True,
    fit: Fit | None = None,
) -> dict[str, Any]:
    """Train one run of the grid and score it; returns its record.

    Files: `<results>/<profile>/<run>.json`, the record, written last and atomically;
    `<runs>/<profile>/<run>/`: checkpoints, `weights.pt` of the best epoch, the record once more and
    `masks.npz`, its predictions on the whole store. A run whose record and predictions stand, with the same
    configuration and data, is not run again.

    Args:
        name: a key of `replication.training.grid.RUNS`.
        profile: a key of `replication.training.profiles.PROFILES`.
        slices: folder of a slice store.
        progress: a bar within each epoch; a line behind each is printed in any case.
        store: the slices where they are in memory already, at the profile's size.
        deadline: seconds since 1970. Behind it no epoch is begun: the run is scored with the best of
            those that it had, and its record says ``out_of_time``. Called again, it goes on.
        repeatable: torch's deterministic algorithms; off, a GPU may be faster, and no run is repeated to the bit.
        fit: what fits the network in place of `replication.training.fit`; see `fast_fit.FastFits`.

    Raises:
        ValueError, FileNotFoundError: an unknown run or profile, a bad store (see
            `replication.data.slices.store`), a second stage whose first has not been run on this data, files
            of another configuration in the way. Whatever ends a run that has its data is noted in
            `<runs>/<profile>/<run>/failed.json`, for the list of the grid.
    """
    run, settings = get_run(name), get_profile(profile)
    if store is None:
        store = read_store(slices, size=settings.size, progress=progress)  # a mistyped folder leaves no trace
    failed = failure_file(run.name, profile=profile, runs=runs)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    try:
        record = _pipeline(
            run, settings, store, path=Path(results) / profile / f"{run.name}.json", runs=Path(runs) / profile,
            progress=progress, deadline=deadline, repeatable=repeatable, fit=fit or fit_with_checkpoints,
        )  # fmt: skip
    except Exception as error:
        write_json(failed, {"error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        torch.set_num_threads(threads)
    failed.unlink(missing_ok=True)
    return record


def _pipeline(
    run: Run,
    settings: Profile,
    store: SliceStore,
    *,
    path: Path,
    runs: Path,
    progress: bool,
    deadline: float | None,
    repeatable: bool,
    fit: Fit,
) -> dict[str, Any]:
    """The run itself; each step's result is the next one's input."""
    folder = runs / run.name
    split = make_split(store.table, protocol=run.protocol, fold=run.fold, seed=run.seed)
    L.seed_everything(run.seed, workers=True, verbose=False)
    network = make_network(run, settings)
    inputs = stage_inputs(run, store, runs)
    config = _config(run, settings, network, store, inputs)
    if standing := _standing_record(path, config, folder):
        return standing

    started, clock = datetime.now(UTC), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    datasets = {
        part: SliceDataset(store, target=run.target, indices=rows, inputs=inputs.pixels)
        for part, rows in asdict(split).items()
    }
    if run.recipe == "healed":
        datasets["train"] = with_healed(datasets["train"], store, seed=run.seed)
    fitted = fit(
        run, settings, network, datasets, config=config, folder=folder, progress=progress,
        deadline=deadline, repeatable=repeatable,
    )  # fmt: skip
    weights_sha256 = _save_weights(network, folder / "weights.pt")
    masks = predict_masks(
        network.to(accelerator()),  # the trainer leaves it on the CPU
        inputs.pixels,
        batch_size=settings.batch_size,
        progress=bar("predict") if progress else None,
    )
    save_masks(folder / "masks.npz", masks, fingerprint=store.fingerprint, weights_sha256=weights_sha256)
    record = {
        "schema": SCHEMA,
        "run": run.name,
        "profile": settings.name,
        "config": config,
        "data": describe_data(store, split),
        "first_stage": inputs.first_stage
        and {**inputs.first_stage, "infection_inside": infection_inside(store, split, inputs.lungs)},
        "fit": fitted,
        **score(store, split, run.target, masks),
        "weights_sha256": weights_sha256,
        **({} if repeatable else {"repeatable": False}),
        "wall_seconds": round(time.perf_counter() - clock, 1),
        "started": started.isoformat(timespec="seconds"),
        **environment(),
    }
    _write(folder / RECORD, record)  # beside the weights, so that a run's folder says what it is
    return _write(path, record)


def _write(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    record["digest"] = digest(record)
    write_json(path, record)
    return record


def _config(
    run: Run, settings: Profile, network: nn.Module, store: SliceStore, inputs: StageInputs
) -> dict[str, Any]:
    """All that decides the run's numbers, but for the code, as a record gives it back: lists, no tuples."""
    config = {**run_config(run, settings, network), "data_fingerprint": store.fingerprint}
    if inputs.first_stage:
        config["first_stage_weights"] = inputs.first_stage["weights_sha256"]
    return json.loads(json.dumps(config))


def _standing_record(path: Path, config: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """The record of this very run where it stands whole, predictions and all.

    Raises:
        ValueError: the record of another configuration or of other data is in the way.
    """
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    if record["config"] != config:
        raise ValueError(
            f"{path} is the record of another configuration or of other data; move it away, or have "
            "records written elsewhere (results=, make RESULTS=folder). Nothing was overwritten."
        )
    cut_short = record["fit"].get("out_of_time")
    if (folder / "masks.npz").is_file() and not cut_short:
        return record
    if not cut_short:
        print(f"{path} stands, but the weights it tells of are not in {folder}: training again")
    return None


def _save_weights(network: nn.Module, path: Path) -> str:
    """Write a network's weights, whole or not at all; returns the file's sha256."""
    temporary = path.with_name(path.name + ".part")
    torch.save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, temporary)
    os.replace(temporary, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def evaluate_run(
    name: str,
    *,
    profile: str,
    slices: str | Path,
    results: str | Path = "results/local",
    runs: str | Path = "runs/local",
) -> dict[str, Any]:
    """Add to a run's record what goes beyond the paper (`replication.training.evaluation`); returns the record.

    It reads the predictions that the run left, so it can follow on another machine than the one
    that trained. A record that has it is returned as it is.

    Raises:
        FileNotFoundError: no record, or no predictions.
        ValueError: predictions of other weights or other data than the record's.
    """
    from replication.training.evaluation import evaluate_masks  # MONAI: not needed to train

    run = get_run(name)
    path, folder = Path(results) / profile / f"{run.name}.json", Path(runs) / profile / run.name
    for needed in (path, folder / "masks.npz"):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing; train {run.name} first.")
    record = json.loads(path.read_text())
    if record.get("evaluation"):
        return record
    store = read_store(slices, size=record["config"]["size"], progress=False)
    masks, rows = masks_tested(record, folder / "masks.npz", store, slices=slices)
    record["evaluation"] = evaluate_masks(
        masks,
        getattr(store, TARGETS[run.target])[rows],
        slice_ids=store.table["slice_id"].iloc[rows].tolist(),
        patients=persons(store.table)[rows].tolist(),
    )
    record["schema"] = SCHEMA
    return _write(path, record)


def summary(record: dict[str, Any]) -> str:
    """One record in a few lines, for a terminal."""
    pooled, patients, fit = record["test"]["pooled"], record["test"]["per_patient"], record["fit"]
    shown = "  ".join(f"{k} {v:.3f}" for k, v in pooled.items())
    return (
        f"{record['run']} ({record['profile']}): {shown}\n"
        f"  DSC per patient {patients['dsc']['mean']:.3f} +- {patients['dsc']['std']:.3f} "
        f"over {len(record['test']['patients'])} patients; "
        f"best of {fit['epochs']} epochs: {fit['best_epoch']}; {fit['fit_seconds'] / 60:.1f} min"
    )
