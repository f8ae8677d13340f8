"""What rows beyond the paper's recipe train with: augmentation, a schedule, averaged weights; or neighbouring slices.

No row of Tables 2-5 is trained so. The recipe is part of a run's configuration, and so of its
record; what is not in it is the replication's: network, loss, optimiser, batch size, data.
"""

import math
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from replication.training.augmentation import Augmentation


@dataclass(frozen=True)
class Recipe:
    """More training: augmentation, a schedule, averaged weights, and more passes over the training slices.

    Attributes:
        augmentation: of the training slices, see `replication.training.augmentation`.
        decay: of the exponential average of weights, a step, once it has warmed up.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    decay: float = 0.99

    def config(self, *, passes: int) -> dict[str, Any]:
        """What it adds to a run's configuration; passes: those of the profile."""
        return {
            "passes": passes,
            "augmentation": asdict(self.augmentation),
            "schedule": "cosine to 0 over all steps",
            "weight_averaging": {"decay": self.decay, "buffers": "averaged as the weights"},
        }


@dataclass(frozen=True)
class Neighbours:
    """A network that reads the neighbouring slices as well, trained by the paper's recipe.

    Attributes:
        context: slices to either side; see `replication.data.slices.store.with_neighbours`.
    """

    context: int = 1

    def config(self, *, passes: int) -> dict[str, Any]:
        """What it adds to a run's configuration; it takes the slices once an epoch, whatever the profile."""
        return {"passes": 1, "context": self.context}


# A loss by what records call it -> arguments of `chslib.loss.segmentation_loss`.
LOSSES: dict[str, dict[str, str]] = {
    "0.5 BCE (mean) + 0.5 Dice": {},
    "0.5 BCE (sum) + 0.5 Dice": {"cross_entropy": "sum"},
    "BCE (mean)": {"terms": "cross entropy"},
    "Dice": {"terms": "dice"},
}


@dataclass(frozen=True)
class Healed:
    """The paper's recipe, with slices without infection beside those with it (`replication.training.healed`)."""

    def config(self, *, passes: int) -> dict[str, Any]:
        """What it adds to a run's configuration."""
        return {"passes": 1, "healed": "each training slice once more, where it can be healed"}


RECIPES: dict[str, Recipe | Neighbours | Healed] = {
    "beyond": Recipe(), "context": Neighbours(), "healed": Healed(),
}  # fmt: skip


def context_of(recipe: str | None) -> int:
    """Slices to either side that a network trained by a recipe reads; 0 by the paper's (None)."""
    return getattr(RECIPES[recipe], "context", 0) if recipe else 0


def cosine_share(step: int, *, steps: int) -> float:
    """Share of the learning rate at a step: 1 at the first, 0 behind the last."""
    return 0.5 + 0.5 * math.cos(math.pi * min(step / max(steps, 1), 1.0))


def cosine(optimizer: torch.optim.Optimizer, *, steps: int) -> dict[str, Any]:
    """The learning rate's way from its full value down to 0, for Lightning's `configure_optimizers`."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_share(step, steps=steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class AveragedWeights(Callback):
    """An exponential moving average of a network's weights, which validation sees and the run keeps.

    Running means and variances of batch norms are averaged as the weights are. Young averages
    forget faster, by (1 + n) / (10 + n) after n steps, so that the random start has no part in them.
    Part of the checkpoint, so it survives a kill; the network's own weights are trained on.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.average:  # resumed
            self.average = {k: v.to(pl_module.device) for k, v in self.average.items()}
        else:
            self.average = _copied(pl_module.network)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = trainer.global_step
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        now = pl_module.network.state_dict()
        real = [key for key, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[key] for key in real], [now[key] for key in real], share)
        for key in now.keys() - set(real):  # counters
            self.average[key].copy_(now[key])

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.own = _copied(pl_module.network)
        pl_module.network.load_state_dict(self.average)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.network.load_state_dict(self.own)
        self.own = {}

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = dict(state_dict["average"])

    def of_checkpoint(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """The averaged weights that a checkpoint holds."""
        return checkpoint["callbacks"][self.state_key]["average"]


class StepHooks:
    """What a recipe beyond the paper's does before and after each of `fast_fit.Steps`: rate and averaged weights.

    Args:
        steps: in all epochs; rate: the full one; decay: see `AveragedWeights`, which does the averaging.
    """

    def __init__(self, *, steps: int, rate: float, decay: float) -> None:
        self.steps, self.rate, self.done = steps, rate, 0
        self.average = AveragedWeights(decay)

    def before(self, of: Any) -> None:
        """Set the rate of the next step."""
        if not self.done:
            self.average.on_train_start(None, self._module(of))
        of.set_rate(self.rate * cosine_share(self.done, steps=self.steps))

    def after(self, of: Any) -> None:
        """Take the step's weights into the average."""
        self.done += 1
        self.average.on_train_batch_end(
            SimpleNamespace(global_step=self.done), self._module(of), None, None, 0
        )

    def validating(self, of: Any, *, begin: bool) -> None:
        """Validation sees the average."""
        change = self.average.on_validation_start if begin else self.average.on_validation_end
        change(None, self._module(of))

    @staticmethod
    def _module(of: Any) -> SimpleNamespace:
        return SimpleNamespace(network=of.network, device=of.device)


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in network.state_dict().items()}
