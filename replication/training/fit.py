"""How a network is fitted: Lightning's task, the order of slices, checkpoints, resumption (Sec. 4.2).

The recipe: Adam at 1e-3 on the loss of Eq. 15, early stopping on the validation loss, no
augmentation (register rows 11 and 12); rows beyond it have `replication.training.recipe`.

A checkpoint is written behind each epoch. The order of the slices (and what augmentation draws)
depends on the seed and the epoch alone and nothing else is random, so a run that is killed anywhere and started again
repeats at most one epoch and ends with the same weights.
"""

import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn

from chslib.loss import segmentation_loss
from chslib.metrics import confusion, scores
from replication.memory import keep_freed_memory
from replication.provenance import environment
from replication.training.batches import SliceDataset, batches_of
from replication.training.callbacks import Deadline, History, Stopping, not_finite
from replication.training.description import told_of
from replication.training.grid import Run
from replication.training.profiles import Profile
from replication.training.recipe import LOSSES, RECIPES, AveragedWeights, Recipe, cosine


def training_loss(network: nn.Module, image: Tensor, mask: Tensor, *, loss: str = Run.loss) -> Tensor:
    """Eq. 15, another loss of the grid's `LOSSES`, or a peer's own where it has one (`replication.peers`)."""
    own = getattr(network, "training_loss", None)
    return own(image, mask) if own else segmentation_loss(network(image), mask, **LOSSES[loss])


class SegmentationTask(L.LightningModule):
    """A network with its loss (Eq. 15, or a peer's own), optimiser (register row 11) and, beyond the
    paper's recipe, schedule."""

    def __init__(self, network: nn.Module, *, learning_rate: float, config: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.learning_rate, self.config = network, learning_rate, config
        self.loss: str = config["loss"] if config.get("loss") in LOSSES else Run.loss  # a peer brings its own
        self.counts: list[np.ndarray] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        image, mask = batch
        loss = training_loss(self.network, image, mask, loss=self.loss)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(image))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Reading the loss waits for a GPU, so not at each step.
        if batch_idx % 50 == 0 and not torch.isfinite(outputs["loss"]):
            raise not_finite(
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

    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        if "schedule" not in self.config:
            return adam
        return cosine(adam, steps=int(self.trainer.estimated_stepping_batches))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["config"] = self.config


class Fitting:
    """One fit with what watches it: `run()` fits or resumes, and says how it went.

    Args:
        folder: of the checkpoints.
        deadline, repeatable: see `replication.training.run.train_run`.
        progress: a bar within each epoch.
    """

    def __init__(
        self,
        run: Run,
        profile: Profile,
        task: SegmentationTask,
        folder: Path,
        *,
        progress: bool,
        deadline: float | None,
        repeatable: bool,
    ) -> None:
        self.run, self.profile, self.task, self.folder = run, profile, task, folder
        self.most_epochs = profile.max_epochs[run.target]
        recipe = RECIPES.get(run.recipe or "")
        self.more = recipe if isinstance(recipe, Recipe) else None
        self.averaged = AveragedWeights(self.more.decay) if self.more else None
        self.history, self.time_limit = History(), Deadline(deadline)
        self.stopping = Stopping(monitor="val_loss", patience=profile.patience, check_on_train_epoch_end=True)
        files: dict[str, Any] = {
            "dirpath": folder,
            "save_on_train_epoch_end": True,
            "enable_version_counter": False,
        }
        self.trainer = _trainer(
            [
                self.history,
                self.stopping,
                ModelCheckpoint(filename="best-{epoch:03d}", monitor="val_loss", **files),
                ModelCheckpoint(filename="last", **files),  # save_last=True would wait for the next best one
                self.time_limit,
                *([self.averaged] if self.averaged else []),
                *([TQDMProgressBar(refresh_rate=5)] if progress else []),
            ],
            enable_progress_bar=progress,
            max_epochs=self.most_epochs,
            deterministic="warn" if repeatable else False,
        )

    def fit(self, datasets: dict[str, SliceDataset]) -> dict[str, Any]:
        """Fit or resume; the best weights end in the task's network, what the record says comes back.

        Raises:
            ValueError: a checkpoint that cannot be read, or is of another configuration; a loss that is not finite.
            KeyboardInterrupt: interrupted; started again it goes on.
        """
        last = self.folder / "last.ckpt"
        if last.is_file():
            _check_checkpoint(last, self.task.config, self.run.name)
            print(f"resuming {self.run.name} from {last}")
        train, validation = batches_of(
            self.run, self.profile, datasets, recipe=self.more, device=self.trainer.strategy.root_device
        )
        interrupts = signal.getsignal(signal.SIGINT)
        with warnings.catch_warnings():
            # Lightning's own use of a deprecated torch name.
            warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            try:
                self.trainer.fit(self.task, train, validation, ckpt_path=last if last.is_file() else None)
            except SystemExit:  # what Lightning makes of an interrupt, and it lets nobody interrupt again
                signal.signal(signal.SIGINT, interrupts)
                raise KeyboardInterrupt(
                    f"{self.run.name} was interrupted; start it again to go on from the last whole epoch."
                ) from None
        return self._outcome()

    def _outcome(self) -> dict[str, Any]:
        """Load the best epoch's weights; epochs, the best one, and how it ended."""
        told = told_of(
            self.history.epochs,
            most=self.most_epochs,
            patience=self.profile.patience,
            late=self.time_limit.reached,
        )
        # By the history, not by Lightning's memory of it, which does not survive a folder that was moved.
        kept = self.folder / f"best-epoch={told['best_epoch'] - 1:03d}.ckpt"
        if not kept.is_file():
            raise FileNotFoundError(
                f"{kept} is missing, the best epoch of {self.run.name}; delete {self.folder} and train anew."
            )
        checkpoint = torch.load(kept, map_location="cpu", weights_only=True)
        if self.averaged:
            self.task.network.load_state_dict(self.averaged.of_checkpoint(checkpoint))
        else:
            self.task.load_state_dict(checkpoint["state_dict"])
        return told


def fit_with_checkpoints(
    run: Run,
    profile: Profile,
    network: nn.Module,
    datasets: dict[str, SliceDataset],
    *,
    config: dict[str, Any],
    folder: Path,
    **how: Any,
) -> dict[str, Any]:
    """Fit or resume a run; the best weights end in the network, what its record says of it comes back.

    Args:
        config: of the record; a checkpoint of another one is refused.
        folder: of the checkpoints.
        how: progress, deadline, repeatable; see `replication.training.run.train_run`.
    """
    task = SegmentationTask(network, learning_rate=profile.learning_rate, config=config)
    return Fitting(run, profile, task, folder, **how).fit(datasets)


def _trainer(callbacks: list[Callback], **settings: Any) -> L.Trainer:
    # Devices found and products to try: the record has the one, nobody asked for the other.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Deterministic mode would also fill every new tensor with NaN first; nothing here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        keep_freed_memory()
    with warnings.catch_warnings():
        # One process a run: a cluster's srun has nothing to launch.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        return L.Trainer(
            accelerator="auto",
            devices=1,
            precision=environment()["precision"],
            callbacks=callbacks,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **settings,
        )


def _check_checkpoint(last: Path, config: dict[str, Any], name: str) -> None:
    """Refuse a checkpoint that cannot be read or belongs to another configuration."""
    try:
        theirs = torch.load(last, map_location="cpu", weights_only=True).get("config")
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(
            f"{last} cannot be read ({type(error).__name__}: {error}); delete it to train {name} "
            "from its first epoch."
        ) from error
    if theirs != config:
        differ = [k for k in config if (theirs or {}).get(k) != config[k]]
        raise ValueError(
            f"{last} belongs to another configuration (differs in {', '.join(differ)}: "
            f"{[(theirs or {}).get(k) for k in differ]} there, {[config[k] for k in differ]} here). "
            f"Delete {last.parent} to train anew, or rerun with the settings that wrote it."
        )
