"""One run: read the slices, fit (or resume), evaluate, write its record (Sec. 4.2).

The recipe: Adam at 1e-3 on the loss of Eq. 15, early stopping on the validation loss, no
augmentation (register rows 11 and 12); rows beyond it have `replication.training.recipe`. The second stage sees what the first predicts
(Sec. 4.3; register row 9). Mixed precision (bfloat16) on a GPU, float32 on a CPU.

A checkpoint is written behind each epoch. The order of the slices (and what augmentation draws)
depends on the seed and the epoch alone and nothing else is random, so a run that is killed anywhere and started again
repeats at most one epoch and ends with the same weights.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import json
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm import tqdm

from chslib.inference import Progress, accelerator, predict_masks
from chslib.loss import segmentation_loss
from chslib.metrics import COUNTS, confusion, evaluate, scores
from chslib.network import ARMS, build_network, contour_map, count_parameters
from replication.data.splits import Split, make_split, persons
from replication.data.store import (
    TARGETS,
    SliceBatches,
    SliceDataset,
    SliceStore,
    read_store,
    with_neighbours,
)
from replication.peers import PEERS, build_peer
from replication.provenance import digest, environment, write_json
from replication.training.grid import Run, failure_file, get_run
from replication.training.profiles import Profile, get_profile
from replication.training.recipe import RECIPES, AveragedWeights, Recipe, context_of, cosine

SCHEMA = 2  # of a run record; 1 had no digest and no evaluation


class EpochShuffle(Sampler[int]):
    """A fresh order each epoch, fixed by (seed, epoch): what makes a resumed run an unbroken one.

    Args:
        length: slices; an epoch has each of them `passes` times.
        seed: of the order.
        passes: over all slices, each in an order of its own.
    """

    def __init__(self, length: int, *, seed: int, passes: int = 1) -> None:
        self.length, self.seed, self.passes, self.epoch = length, seed, passes, 0

    def set_epoch(self, epoch: int) -> None:  # called by Lightning
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length * self.passes

    def __iter__(self) -> Iterator[int]:
        drawn = np.random.default_rng([self.seed, self.epoch])
        return iter(np.concatenate([drawn.permutation(self.length) for _ in range(self.passes)]).tolist())


def bar(words: str) -> Progress:
    """A progress bar over batches, as `chslib.inference` takes one."""
    return partial(tqdm, desc=words, unit="batch", leave=False)


def _not_finite(where: str) -> ValueError:
    return ValueError(
        f"The loss is not finite ({where}); look for a broken slice (python -m replication.data check), or lower the "
        "learning rate. Nothing of this epoch was kept."
    )


def training_loss(network: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Eq. 15, or a peer's own loss where it has one (`replication.peers`)."""
    own = getattr(network, "training_loss", None)
    return own(image, mask) if own else segmentation_loss(network(image), mask)


class SegmentationTask(L.LightningModule):
    """A network with its loss (Eq. 15, or a peer's own), optimiser (register row 11) and, beyond the
    paper's recipe, schedule."""

    def __init__(self, network: nn.Module, *, learning_rate: float, config: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.learning_rate, self.config = network, learning_rate, config
        self.counts: list[np.ndarray] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        image, mask = batch
        loss = training_loss(self.network, image, mask)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(image))
        return loss

    def on_train_batch_end(self, outputs: dict, batch: Any, batch_idx: int) -> None:
        # Reading the loss waits for a GPU, so not at each step.
        if batch_idx % 50 == 0 and not torch.isfinite(outputs["loss"]):
            raise _not_finite(
                f"epoch {self.current_epoch + 1}, step {batch_idx + 1}: {float(outputs['loss'])}"
            )

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        image, mask = batch
        logits = self.network(image)
        self.log("val_loss", segmentation_loss(logits, mask), prog_bar=True, batch_size=len(image))
        self.counts.append(confusion(logits > 0, mask))

    def on_validation_epoch_end(self) -> None:
        dsc = float(scores(np.concatenate(self.counts).sum(0))["dsc"])
        self.counts.clear()
        self.log("val_dsc", dsc, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer | dict[str, Any]:
        adam = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        if "schedule" not in self.config:
            return adam
        return cosine(adam, steps=int(self.trainer.estimated_stepping_batches))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["config"] = self.config


class History(Callback):
    """Losses, validation DSC and seconds of every epoch; part of the checkpoint, so it survives a kill."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = {k: float(trainer.callback_metrics[k]) for k in ("train_loss", "val_loss", "val_dsc")}
        if not np.isfinite(list(values.values())).all():  # before anything of this epoch is kept
            raise _not_finite(f"epoch {trainer.current_epoch + 1} ended with {values}")
        seconds = round(time.perf_counter() - self.started, 1)
        self.epochs.append({"epoch": trainer.current_epoch + 1, **values, "seconds": seconds})
        shown = "  ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in values.items())
        print(
            f"epoch {trainer.current_epoch + 1} of at most {trainer.max_epochs}: {shown}  ({seconds:.0f} s)",
            flush=True,
        )

    def state_dict(self) -> dict:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict) -> None:
        self.epochs = list(state_dict["epochs"])


class Deadline(Callback):
    """Ends a training behind the epoch in which its time runs out, whatever is left of its epochs.

    Args:
        at: seconds since 1970; None: never.
    """

    def __init__(self, at: float | None) -> None:
        self.at, self.reached = at, False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.at is not None and time.time() >= self.at:
            self.reached = trainer.should_stop = True


class Stopping(EarlyStopping):
    """Early stopping that a restart remembers: its patience is in the checkpoint, its verdict is not."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for reuse rather than hand them back to the system.

    A training step frees and asks again for hundreds of megabytes; by default each request is
    mapped and zeroed anew, which on two cores took more time than the arithmetic. True if set.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def run_config(run: Run, profile: Profile, network: nn.Module) -> dict[str, Any]:
    """Everything that decides a run's numbers, apart from data and code; part of its record."""
    config = {
        **asdict(run),
        "profile": profile.name,
        "size": profile.size,
        "batch_size": profile.batch_size,
        "learning_rate": profile.learning_rate,
        "max_epochs": profile.max_epochs[run.target],
        "patience": profile.patience,
        "optimizer": "Adam",
        "loss": f"its own ({run.arm})" if hasattr(network, "training_loss") else "0.5 BCE (mean) + 0.5 Dice",
        "augmentation": None,
        "widths": list(network.widths),
        "parameters": count_parameters(network),
    }
    if run.recipe:
        config |= RECIPES[run.recipe].config(passes=profile.beyond_passes)
    return config


def make_network(run: Run, profile: Profile) -> nn.Module:
    """The untrained network of a run, channels_last; the caller seeds."""
    if run.arm in ARMS:
        changes = ({"widths": profile.widths} if profile.widths else {}) | run.network
        if run.first_stage and run.cascade == "concat":
            changes["in_channels"] = 2
        if context := context_of(run.recipe):
            changes["in_channels"] = 1 + 2 * context
        network = build_network(run.arm, **changes)
    else:
        network = build_peer(run.arm, **((PEERS[run.arm].narrow if profile.widths else {}) | run.network))
    return network.to(memory_format=torch.channels_last)


def load_weights(network: nn.Module, path: str | Path) -> str:
    """Load a state dict into a network; returns the sha256 of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a state dict, or holds a network of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; train its run first.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = {k: tuple(v.shape) for k, v in state.items()}
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(f"{path} is not a file of weights ({type(error).__name__}: {error}).") from error
    ours = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    if theirs != ours:
        key = next((k for k in ours if theirs.get(k) != ours[k]), None) or next(
            k for k in theirs if k not in ours
        )
        raise ValueError(
            f"{path} holds a network of another shape: {key} is {theirs.get(key, 'absent')} there and "
            f"{ours.get(key, 'absent')} here (widths {getattr(network, 'widths', '?')}). "
            "Build the network with the arm and widths of the run that wrote it, or delete the file and train again."
        )
    network.load_state_dict(state)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trained_network(run: Run, profile: Profile, record: dict[str, Any], runs: str | Path) -> nn.Module:
    """The network of a run with the weights that it left, known by its record's sha256.

    Args:
        record: the run's record; runs: folder that holds `<profile>/<run>/weights.pt`.

    Raises:
        FileNotFoundError, ValueError: see `load_weights`; weights that are not those of the record.
    """
    network = make_network(run, profile)
    found = load_weights(network, Path(runs) / profile.name / run.name / "weights.pt")
    if found != record["weights_sha256"]:
        raise ValueError(
            f"weights.pt of {run.name} has sha256 {found[:12]}, its record {record['weights_sha256'][:12]}; "
            "the two belong to different trainings, train the run again."
        )
    return network


def second_stage_inputs(store: SliceStore, lungs: np.ndarray, *, cascade: str) -> np.ndarray:
    """Contour maps (S, C, H, W), uint8 as the CT, of predicted lungs (S, 1, H, W) of 0 and 1."""
    ct, mask = torch.from_numpy(store.ct[:, None]), torch.from_numpy(lungs)
    # In the concatenated form the mask spans 0..255, as the CT does: both are divided by 255 later.
    return contour_map(ct, mask * 255 if cascade == "concat" else mask, cascade=cascade).numpy()


def _fit(
    run: Run,
    profile: Profile,
    task: SegmentationTask,
    datasets: dict[str, SliceDataset],
    folder: Path,
    *,
    progress: bool,
    deadline: float | None,
    repeatable: bool,
) -> dict:
    """Fit or resume; returns what the record says of it. The best weights end in the task's network."""
    history = History()
    files = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best-{epoch:03d}", monitor="val_loss", **files)
    every = ModelCheckpoint(filename="last", **files)  # save_last=True would wait for the next best one
    stopping = Stopping(monitor="val_loss", patience=profile.patience, check_on_train_epoch_end=True)
    time_limit = Deadline(deadline)
    recipe = RECIPES.get(run.recipe)
    more = recipe if isinstance(recipe, Recipe) else None
    averaged = AveragedWeights(more.decay) if more else None
    with warnings.catch_warnings():
        # One process a run: a cluster's srun has nothing to launch.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        trainer = L.Trainer(
            accelerator="auto",
            devices=1,
            precision=environment()["precision"],
            max_epochs=profile.max_epochs[run.target],
            callbacks=[
                history,
                stopping,
                best,
                every,
                time_limit,
                *([averaged] if averaged else []),
                *([TQDMProgressBar(refresh_rate=5)] if progress else []),
            ],
            enable_progress_bar=progress,
            deterministic="warn" if repeatable else False,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    last = folder / "last.ckpt"
    if last.is_file():
        try:
            theirs = torch.load(last, map_location="cpu", weights_only=True).get("config")
        except Exception as error:  # torch raises many kinds for a broken file
            raise ValueError(
                f"{last} cannot be read ({type(error).__name__}: {error}); delete it to train {run.name} "
                "from its first epoch."
            ) from error
        if theirs != task.config:
            differ = [k for k in task.config if (theirs or {}).get(k) != task.config[k]]
            raise ValueError(
                f"{last} belongs to another configuration (differs in {', '.join(differ)}: "
                f"{[(theirs or {}).get(k) for k in differ]} there, {[task.config[k] for k in differ]} here). "
                f"Delete {folder} to train anew, or rerun with the settings that wrote it."
            )
        print(f"resuming {run.name} from {last}")
    passes = profile.beyond_passes if more else 1
    sampler = EpochShuffle(len(datasets["train"]), seed=run.seed, passes=passes)
    change = more and (lambda epoch: more.augmentation.of_epoch(seed=run.seed, epoch=epoch))
    batches = {"batch_size": profile.batch_size, "device": trainer.strategy.root_device}
    train = SliceBatches(datasets["train"], sampler=sampler, change=change, **batches)
    validation = SliceBatches(datasets["validation"], **batches)
    with warnings.catch_warnings():
        # Lightning's own use of a deprecated torch name.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        trainer.fit(task, train, validation, ckpt_path=last if last.is_file() else None)
    if trainer.interrupted:
        raise KeyboardInterrupt(
            f"{run.name} was interrupted; start it again to go on from the last whole epoch."
        )
    best_epoch = min(history.epochs, key=lambda e: e["val_loss"])["epoch"]
    fewer = len(history.epochs) < profile.max_epochs[run.target]
    out_of_time = time_limit.reached and fewer and stopping.wait_count < profile.patience
    # By the history, not by Lightning's memory of it, which does not survive a folder that was moved.
    kept = folder / f"best-epoch={best_epoch - 1:03d}.ckpt"
    if not kept.is_file():
        raise FileNotFoundError(
            f"{kept} is missing, the best epoch of {run.name}; delete {folder} and train anew."
        )
    checkpoint = torch.load(kept, map_location="cpu", weights_only=True)
    if averaged:
        task.network.load_state_dict(averaged.of_checkpoint(checkpoint))
    else:
        task.load_state_dict(checkpoint["state_dict"])
    return {
        "epochs": len(history.epochs),
        "best_epoch": best_epoch,
        "stopped_early": fewer and not out_of_time,
        **({"out_of_time": True} if out_of_time else {}),
        "fit_seconds": round(sum(e["seconds"] for e in history.epochs), 1),
        "history": history.epochs,
    }


def train_run(
    name: str,
    *,
    profile: str,
    slices: str | Path,
    results: str | Path = "results",
    runs: str | Path = "runs",
    progress: bool = True,
    store: SliceStore | None = None,
    deadline: float | None = None,
    repeatable: bool = True,
) -> dict[str, Any]:
    """Train one run of the grid and score it; returns its record.

    Files: `<results>/<profile>/<run>.json`, the record, written last and atomically;
    `<runs>/<profile>/<run>/`: checkpoints, `weights.pt` of the best epoch and `masks.npz`, its
    predictions on the whole store. A run whose record and predictions stand, with the same
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

    Raises:
        ValueError, FileNotFoundError: an unknown run or profile, a bad store (see
            `replication.data.store`), a second stage whose first has not been run on this data, files
            of another configuration in the way. Whatever ends a run that has its data is noted in
            `<runs>/<profile>/<run>/failed.json`, for the list of the grid.
    """
    run, settings = get_run(name), get_profile(profile)
    if store is None:
        store = read_store(slices, size=settings.size, progress=progress)  # a mistyped folder leaves no trace
    failed = failure_file(run.name, profile=profile, runs=runs)
    try:
        record = _train(
            run, settings, store, results=results, runs=runs, progress=progress, deadline=deadline,
            repeatable=repeatable,
        )  # fmt: skip
    except Exception as error:
        write_json(failed, {"error": f"{type(error).__name__}: {error}"})
        raise
    failed.unlink(missing_ok=True)
    return record


def _train(
    run: Run,
    settings: Profile,
    store: SliceStore,
    *,
    results: str | Path,
    runs: str | Path,
    progress: bool,
    deadline: float | None,
    repeatable: bool,
) -> dict[str, Any]:
    name, profile = run.name, settings.name
    folder, record_path = Path(runs) / profile / name, Path(results) / profile / f"{name}.json"
    split = make_split(store.table, protocol=run.protocol, fold=run.fold, seed=run.seed)
    L.seed_everything(run.seed, workers=True, verbose=False)
    network = make_network(run, settings)
    config = {**run_config(run, settings, network), "data_fingerprint": store.fingerprint}

    inputs, lungs, parent = stage_inputs(run, store, Path(runs) / profile)
    if parent:
        config["first_stage_weights"] = parent["weights_sha256"]
    config = json.loads(json.dumps(config))  # as a record gives it back: lists, no tuples
    if record_path.is_file():
        record = json.loads(record_path.read_text())
        if record["config"] != config:
            raise ValueError(
                f"{record_path} is the record of another configuration or of other data; move it away, or have "
                "records written elsewhere (results=, make RESULTS=folder). Nothing was overwritten."
            )
        cut_short = record["fit"].get("out_of_time") and (folder / "last.ckpt").is_file()
        if (folder / "masks.npz").is_file() and not cut_short:
            return record
        if not cut_short:
            print(f"{record_path} stands, but the weights it tells of are not in {folder}: training again")

    started, clock = datetime.now(UTC), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    if not torch.cuda.is_available():
        keep_freed_memory()
    # Deterministic mode would also fill every new tensor with NaN first; nothing here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # Devices found and products to try: the record has the one, nobody asked for the other.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    task = SegmentationTask(network, learning_rate=settings.learning_rate, config=config)
    parts = asdict(split)
    datasets = {
        p: SliceDataset(store, target=run.target, indices=rows, inputs=inputs) for p, rows in parts.items()
    }
    fit = _fit(
        run, settings, task, datasets, folder, progress=progress, deadline=deadline, repeatable=repeatable
    )
    network.to(accelerator())  # the trainer leaves it on the CPU

    temporary = folder / "weights.pt.part"
    torch.save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, temporary)
    os.replace(temporary, folder / "weights.pt")
    weights_sha256 = hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()
    masks = predict_masks(
        network, inputs, batch_size=settings.batch_size, progress=bar("predict") if progress else None
    )
    _save_masks(folder / "masks.npz", masks, fingerprint=store.fingerprint, weights_sha256=weights_sha256)

    truth = datasets["test"].masks[split.test]
    counts = confusion(torch.from_numpy(masks[split.test]).bool(), torch.from_numpy(truth).bool())
    table = store.table.iloc[split.test]
    record = {
        "schema": SCHEMA,
        "run": name,
        "profile": profile,
        "config": config,
        "data": _describe_data(store, split),
        "first_stage": parent and {**parent, "infection_inside": _infection_inside(store, split, lungs)},
        "fit": fit,
        "test": evaluate(counts, persons(store.table)[split.test].tolist()),
        "slices": [[i, *map(int, row)] for i, row in zip(table["slice_id"], counts)],
        "slices_columns": ["slice_id", *COUNTS],
        "weights_sha256": weights_sha256,
        **({} if repeatable else {"repeatable": False}),
        "wall_seconds": round(time.perf_counter() - clock, 1),
        "started": started.isoformat(timespec="seconds"),
        **environment(),
    }
    record["digest"] = digest(record)
    write_json(record_path, record)
    return record


def evaluate_run(
    name: str,
    *,
    profile: str,
    slices: str | Path,
    results: str | Path = "results",
    runs: str | Path = "runs",
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
    masks, hashes = load_masks(folder / "masks.npz")
    store = read_store(slices, size=record["config"]["size"], progress=False)
    theirs = {"fingerprint": record["data"]["fingerprint"], "weights_sha256": record["weights_sha256"]}
    if hashes != theirs or store.fingerprint != theirs["fingerprint"]:
        raise ValueError(
            f"{folder / 'masks.npz'} or {slices} does not belong to {path}: weights "
            f"{hashes['weights_sha256'][:12]} and data {store.fingerprint[:12]}, expected "
            f"{theirs['weights_sha256'][:12]} and {theirs['fingerprint'][:12]}; train {run.name} again."
        )
    row_of = {slice_id: row for row, slice_id in enumerate(store.table["slice_id"])}
    rows = [row_of[entry[0]] for entry in record["slices"]]
    record["evaluation"] = evaluate_masks(
        masks[rows, 0],
        getattr(store, TARGETS[run.target])[rows],
        slice_ids=store.table["slice_id"].iloc[rows].tolist(),
        patients=persons(store.table)[rows].tolist(),
    )
    record["schema"] = SCHEMA
    record["digest"] = digest(record)
    write_json(path, record)
    return record


def _infection_inside(store: SliceStore, split: Split, lungs: np.ndarray) -> dict[str, float | None]:
    """Share of infected pixels inside the predicted lungs: what the cascade cuts off, no second stage finds."""

    def share(rows: np.ndarray) -> float | None:
        infected = store.infection[rows] > 0
        return float(lungs[rows, 0][infected].mean()) if infected.any() else None

    return {part: share(rows) for part, rows in asdict(split).items()}


def _describe_data(store: SliceStore, split: Split) -> dict[str, Any]:
    people = persons(store.table)  # a copy of a scan is its original's patient

    def part(rows: np.ndarray) -> dict[str, Any]:
        return {"slices": len(rows), "patients": sorted(set(people[rows]))}

    return {
        "fingerprint": store.fingerprint,
        "slices": len(store),
        "sources": {k: int(v) for k, v in store.table["source"].value_counts().sort_index().items()},
        "patients": len(set(people)),
        "infected_share": float(store.infection.mean()),
        "split": {name: part(rows) for name, rows in asdict(split).items()},
    }


def _save_masks(path: Path, masks: np.ndarray, *, fingerprint: str, weights_sha256: str) -> None:
    temporary = path.with_name("part-" + path.name)  # numpy would add .npz to another suffix
    np.savez_compressed(
        temporary,
        bits=np.packbits(masks),
        shape=masks.shape,
        fingerprint=fingerprint,
        weights_sha256=weights_sha256,
    )
    os.replace(temporary, path)


def load_masks(path: str | Path) -> tuple[np.ndarray, dict[str, str]]:
    """The predictions of a run on its whole store: uint8 (S, 1, H, W), and the hashes they belong to."""
    with np.load(path) as saved:
        shape = tuple(saved["shape"])
        masks = np.unpackbits(saved["bits"], count=int(np.prod(shape))).reshape(shape)
        return masks, {k: str(saved[k]) for k in ("fingerprint", "weights_sha256")}


def stage_inputs(
    run: Run, store: SliceStore, runs: Path
) -> tuple[np.ndarray, np.ndarray | None, dict[str, str] | None]:
    """What a run's network sees: uint8 (S, C, H, W), and what it comes from.

    Args:
        runs: folder of the runs of its profile, where its first stage left its predictions.

    Returns:
        The inputs; the predicted lungs (S, 1, H, W) and the name and weights of the run that
        predicted them, or None twice where no first stage feeds it.

    Raises:
        FileNotFoundError, ValueError: predictions of the first stage that are absent or of other data.
    """
    if run.first_stage:
        lungs, parent = _first_stage(run, store, runs / run.first_stage)
        return second_stage_inputs(store, lungs, cascade=run.cascade), lungs, parent
    if run.cascade == "truth":
        return second_stage_inputs(store, store.lung[:, None], cascade="mask"), None, None
    context = context_of(run.recipe)
    return (with_neighbours(store, context) if context else store.ct[:, None]), None, None


def _first_stage(run: Run, store: SliceStore, folder: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Predicted lungs of the first stage, refused where they are absent or of other data."""
    path = folder / "masks.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {run.name} is fed by the lungs that {run.first_stage} predicts; train that run first."
        )
    masks, hashes = load_masks(path)
    if hashes["fingerprint"] != store.fingerprint or masks.shape[2:] != store.ct.shape[1:]:
        raise ValueError(
            f"{path} holds predictions on other data (fingerprint {hashes['fingerprint'][:12]}, here "
            f"{store.fingerprint[:12]}); train {run.first_stage} on this store first."
        )
    return masks, {"run": run.first_stage, "weights_sha256": hashes["weights_sha256"]}


def draw_run(record: dict[str, Any], *, slices: str | Path, runs: str | Path = "runs") -> list[Path]:
    """Loss curves and, after Fig. 14, cases of a run, as PNGs beside its checkpoints.

    They show slices of the store, so they stay out of version control with the rest of `runs/`.
    """
    import matplotlib.pyplot as plt

    from replication.figures.cases import plot_history, plot_run_cases

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


def main(arguments: list[str] | None = None) -> int:
    """`python -m replication.training.run RUN --profile P --slices FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m replication.training.run", description="Train and evaluate one run of the grid."
    )
    parser.add_argument("run", help="its name; python -m replication.training.grid list shows them")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--slices", required=True, help="folder of a slice store")
    parser.add_argument("--results", default="results")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args(arguments)
    try:
        record = train_run(
            options.run,
            profile=options.profile,
            slices=options.slices,
            results=options.results,
            runs=options.runs,
        )
        if importlib.util.find_spec("monai"):
            record = evaluate_run(
                options.run,
                profile=options.profile,
                slices=options.slices,
                results=options.results,
                runs=options.runs,
            )
        print(summary(record))
        for path in draw_run(record, slices=options.slices, runs=options.runs):
            print(path)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
