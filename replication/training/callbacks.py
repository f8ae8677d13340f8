"""What watches a fit: its history, its deadline, early stopping that a restart remembers."""

import time

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, EarlyStopping


def not_finite(where: str) -> ValueError:
    """The error of a loss that is NaN or infinite."""
    return ValueError(
        f"The loss is not finite ({where}); look for a broken slice (chs-net data check), or lower the "
        "learning rate. Nothing of this epoch was kept."
    )


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
            raise not_finite(f"epoch {trainer.current_epoch + 1} ended with {values}")
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
