"""A fit for a GPU that is lent by the minute: the whole step compiled, captured once, and replayed.

The same recipe, order of slices, early stopping and record as `replication.training.fit`, without a
trainer around it and without checkpoints: who begins a run here has to be able to end it
(`replication.training.campaign`). Forward, loss, backward and Adam are one CUDA graph, and so is an evaluation step;
nothing is read back within an epoch. Seeds and folds of an architecture share its graphs. On a CPU there are none.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from chslib.inference import accelerator
from chslib.loss import segmentation_loss
from chslib.metrics import scores
from replication.training.batches import SliceBatches, SliceDataset, batches_of
from replication.training.callbacks import not_finite
from replication.training.description import told_of
from replication.training.fit import training_loss
from replication.training.grid import Run
from replication.training.profiles import Profile
from replication.training.recipe import LOSSES, RECIPES, Recipe, StepHooks, context_of

FORMS = ("compiled graph", "graph", "eager")  # each tried once in a process; what fails is not tried again
LOG = logging.getLogger(__name__)


class Steps:
    """Training and evaluation steps of one architecture, on buffers that stay where they are.

    Args:
        network: channels_last, on its device; trained in place.
        batch: image (N, C, H, W) and mask (N, 1, H, W) of a full batch, for their shapes.
        learning_rate, loss: of Adam (register row 11); a key of `LOSSES`, unless the network brings its own.
        form: the first of `FORMS` to try; the attribute says which one is used.
    """

    def __init__(
        self, network: nn.Module, batch: tuple[Tensor, Tensor], *, learning_rate: float, form: str,
        loss: str = Run.loss,
    ) -> None:  # fmt: skip
        self.network, self.device = network, batch[0].device
        self.loss = None if hasattr(network, "training_loss") else loss  # a peer's own
        cuda = self.device.type == "cuda"
        self.form = form if cuda else "eager"
        rate = torch.tensor(learning_rate, device=self.device) if cuda else learning_rate
        self.adam = torch.optim.Adam(network.parameters(), lr=rate, fused=cuda or None, capturable=cuda)
        self.image, self.mask = (part.clone() for part in batch)
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # of the loss, of the slices
        self.counts = torch.zeros(4, dtype=torch.float64, device=self.device)  # TP, FP, FN, TN
        self.train: torch.cuda.CUDAGraph | None = None
        self.evaluate: torch.cuda.CUDAGraph | None = None
        while self.form != "eager" and self.train is None:
            try:
                self._capture()
            except Exception as error:  # a compiler and a driver raise many kinds
                self.train = self.evaluate = None
                LOG.warning("no %s (%s: %s)", self.form, type(error).__name__, str(error)[:300])
                self.form = FORMS[FORMS.index(self.form) + 1]

    def begin(self, weights: dict[str, Tensor]) -> None:
        """A new run: its weights, and an optimiser that remembers nothing."""
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                value.copy_(weights[key])
            for state in self.adam.state.values():
                for value in state.values():
                    value.zero_()

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps that follow, without a new graph."""
        (group,) = self.adam.param_groups
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def epoch(
        self, batches: SliceBatches, *, training: bool, hooks: StepHooks | None = None
    ) -> dict[str, float]:
        """One pass; the mean loss of its slices and, of an evaluation, the pooled DSC.

        Args:
            hooks: of a recipe beyond the paper's, what is done before and after each training step.
        """
        self.network.train(training)
        self.sums.zero_()
        self.counts.zero_()
        replay, plain = (self.train, self._train) if training else (self.evaluate, self._evaluate)
        for image, mask in batches:
            if hooks:
                hooks.before(self)
            if replay is None or len(image) != len(self.image):  # a last, smaller batch
                plain(self.network, image, mask)
            else:
                self.image.copy_(image)
                self.mask.copy_(mask)
                replay.replay()
            if hooks:
                hooks.after(self)
        total, slices = self.sums.tolist()
        found = {"loss": total / slices}
        return found if training else found | {"dsc": float(scores(self.counts.cpu().numpy())["dsc"])}

    def _forward(self, forward: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            return forward(image)

    def _train(self, forward: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor) -> None:
        self.adam.zero_grad(set_to_none=True)
        loss = self._forward(lambda x: training_loss(self.network, x, mask), image) if self.loss is None else (
            segmentation_loss(self._forward(forward, image), mask, **LOSSES[self.loss]))  # fmt: skip
        loss.backward()
        self.adam.step()
        self._add(loss, image)

    @torch.no_grad()
    def _evaluate(self, forward: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor) -> None:
        logits = self._forward(forward, image)
        found, true = logits > 0, mask > 0
        parts = [found & true, found & ~true, ~found & true, ~found & ~true]
        self.counts += torch.stack([part.sum() for part in parts])
        self._add(segmentation_loss(logits, mask), image)

    def _add(self, loss: Tensor, image: Tensor) -> None:
        self.sums[0] += loss.detach() * len(image)
        self.sums[1] += len(image)

    def _compiled(self) -> Callable[[Tensor], Tensor]:
        """The network, to be compiled once for training and once for evaluation; changes its norms' statistics."""
        torch.compiler.config.recompile_limit = 64  # torch's 8 are four arms, in two forms
        with torch.no_grad():  # makes the spectral operators, see `spectral_resample2d`
            self._forward(self.network, self.image)
        return torch.compile(self.network, fullgraph=True, dynamic=False)

    def _capture(self) -> None:
        """Both steps as graphs. What warming up changes is put back by `begin`."""
        forward = self._compiled() if self.form == "compiled graph" else self.network
        graphs = []
        for step, training in ((self._train, True), (self._evaluate, False)):
            self.network.train(training)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step(forward, self.image, self.mask)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step(forward, self.image, self.mask)
            graphs.append(graph)
            if training:  # the graph writes gradients here; an eager step must not give the memory away
                self.gradients = [p.grad for p in self.network.parameters()]
        self._compare(graphs[1])
        self.train, self.evaluate = graphs

    def _compare(self, graph: "torch.cuda.CUDAGraph") -> None:
        """Refuse a graph whose loss is not the plain network's, to within what bfloat16 rounds."""
        found = []
        for step in (graph.replay, lambda: self._evaluate(self.network, self.image, self.mask)):
            self.sums.zero_()
            step()
            found.append(float(self.sums[0] / self.sums[1]))
        if not abs(found[0] - found[1]) <= 0.05 * abs(found[1]):
            raise RuntimeError(f"the graph's loss is {found[0]:.4f}, the plain network's {found[1]:.4f}")


class FastFits:
    """Fits of many runs in one process; a call fits one, as `replication.training.run.train_run` takes it.

    Attributes:
        form: which of `FORMS` works here.
    """

    def __init__(self) -> None:
        self.form = FORMS[0]
        self._steps: dict[str, Steps] = {}

    def __call__(
        self,
        run: Run,
        profile: Profile,
        network: nn.Module,
        datasets: dict[str, SliceDataset],
        *,
        deadline: float | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Fit; the best weights end in the network, what the record says of it comes back.

        Raises:
            ValueError: a loss that is not finite.
        """
        train, validation, hooks = self._prepared(run, profile, datasets)
        steps = self._for(run, profile, network, next(iter(validation)))
        steps.begin(network.state_dict())
        steps.set_rate(profile.learning_rate)
        history: list[dict[str, Any]] = []
        best, most = {}, profile.max_epochs[run.target]
        while len(history) < most:
            started, epoch = time.perf_counter(), len(history)
            train.sampler.set_epoch(epoch)
            fitted = steps.epoch(train, training=True, hooks=hooks)
            if hooks:
                hooks.validating(steps, begin=True)
            tested = steps.epoch(validation, training=False)
            values = {"train_loss": fitted["loss"], "val_loss": tested["loss"], "val_dsc": tested["dsc"]}
            if not torch.isfinite(torch.tensor(list(values.values()))).all():
                raise not_finite(f"epoch {epoch + 1} ended with {values}")
            seconds = round(time.perf_counter() - started, 1)
            history.append({"epoch": epoch + 1, **values, "seconds": seconds})
            if history[-1]["val_loss"] < min((e["val_loss"] for e in history[:-1]), default=float("inf")):
                best = {k: v.detach().clone() for k, v in steps.network.state_dict().items()}
                best_epoch = epoch + 1
            if hooks:
                hooks.validating(steps, begin=False)
            late = deadline is not None and time.time() >= deadline
            if len(history) - best_epoch >= profile.patience or late:
                break
        network.load_state_dict({k: v.cpu() for k, v in best.items()})
        return told_of(history, most=most, patience=profile.patience, late=late, form=steps.form)

    def keep(self, runs: Iterable[Run], profile: Profile) -> None:
        """Give up graphs and buffers, up to 9 GiB an architecture, that none of these runs to come has; `gc` frees them."""
        wanted = {key_of(run, profile) for run in runs}
        self._steps = {key: steps for key, steps in self._steps.items() if key in wanted}

    def _prepared(
        self, run: Run, profile: Profile, datasets: dict[str, SliceDataset]
    ) -> tuple[SliceBatches, SliceBatches, StepHooks | None]:
        """Training and validation slices on the device, and what a recipe beyond the paper's does around a step."""
        recipe = RECIPES.get(run.recipe or "")
        more = recipe if isinstance(recipe, Recipe) else None
        train, validation = batches_of(run, profile, datasets, recipe=more, device=accelerator())
        hooks = None
        if more:
            steps = len(train) * profile.max_epochs[run.target]
            hooks = StepHooks(steps=steps, rate=profile.learning_rate, decay=more.decay)
        return train, validation, hooks

    def _for(self, run: Run, profile: Profile, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Steps:
        """The steps of a run's architecture, made when it first comes."""
        key = key_of(run, profile)
        if key not in self._steps:
            own = copy.deepcopy(network).to(batch[0].device)
            own = own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its types leave it out
            self._steps[key] = Steps(
                own, batch, form=self.form, loss=run.loss, learning_rate=profile.learning_rate
            )
            self.form = self._steps[key].form if batch[0].is_cuda else self.form
        return self._steps[key]


def key_of(run: Run, profile: Profile) -> str:
    """What two runs must share to be trained by one graph: network, loss, channels, size and batch."""
    fed = "concat" if run.first_stage and run.cascade == "concat" else context_of(run.recipe)
    return f"{run.arm} {run.loss} {sorted(run.network.items())} {fed} {profile.size} {profile.batch_size}"
