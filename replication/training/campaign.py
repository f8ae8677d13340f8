"""Runs of the grid by their worth, several at a time on one GPU, within a given time.

    chs-net campaign --profile paper --slices FOLDER --minutes 50
    chs-net campaign --profile paper --slices FOLDER --names table4-bu table4-full --minutes 20

For a machine that is lent for an hour, or a Colab session; `make grid` is for one that stays. The
slices are read once, and each training is a process of its own that shares them. One network of
these widths leaves a GPU idle between its many small operations, so several are trained at a time:
those with residual inception blocks in one lane, the lighter U-Net and peers in another beside it.

Each record is written as its run ends. When the time is nearly up no epoch is begun any more, and
what was being trained is scored with the best of the epochs that it had (its record says
``out_of_time``, and answers no number of the paper). Interrupted or out of time, the same command goes
on from the last whole epochs.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from replication.data.slices.store import SliceStore, read_store
from replication.files import write_json
from replication.training.grid import get_run, with_first_stages
from replication.training.profiles import get_profile
from replication.training.run import train_run
from replication.training.state import run_state

HEAVY = ("rib", "rib-hp", "full")  # arms whose step keeps a GPU busy for longer than their kernels' launch
RESERVE = 0.06  # share of the time that is kept for predictions and records of what is cut short
LEAST = 0.15  # share of the time below which no further run is begun


@dataclass(frozen=True)
class Place:
    """Where a campaign reads and writes, and how."""

    profile: str
    slices: str
    results: str
    runs: str
    deadline: float | None
    repeatable: bool

    def log(self, name: str) -> Path:
        """What a run prints."""
        return Path(self.runs) / self.profile / f"{name}.log"

    def done(self, name: str) -> bool:
        """Whether a run's record and the predictions that feed a second stage are there."""
        state = run_state(name, profile=self.profile, results=self.results, runs=self.runs)
        folder = Path(self.runs) / self.profile / name
        if state.status != "done" or not (folder / "masks.npz").is_file():
            return False
        record = json.loads((Path(self.results) / self.profile / f"{name}.json").read_text())
        return not (record["fit"].get("out_of_time") and (folder / "last.ckpt").is_file())


def _train(name: str, store: SliceStore, place: Place) -> None:
    """One training, in a process of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log = os.open(place.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(log, "a", buffering=1)
    torch.set_num_threads(max(1, torch.get_num_threads() // 4) if torch.cuda.is_available() else 1)
    train_run(
        name, profile=place.profile, slices=place.slices, results=place.results, runs=place.runs,
        progress=False, store=store, deadline=place.deadline, repeatable=place.repeatable,
    )  # fmt: skip


class Lanes:
    """Which runs are being trained: at most so many heavy ones, and so many light ones beside them.

    Args:
        heavy: of the arms `HEAVY` at a time; of any arm where `light` is 0.
        light: of the others at a time.
    """

    def __init__(self, heavy: int, light: int) -> None:
        self.limits = {"heavy": heavy, "light": light}
        self.busy: dict[str, BaseProcess] = {}

    def lane(self, name: str) -> str:
        """The lane of a run."""
        return "light" if self.limits["light"] and get_run(name).arm not in HEAVY else "heavy"

    def free(self, name: str) -> bool:
        """Whether a run may begin."""
        lane = self.lane(name)
        return sum(self.lane(other) == lane for other in self.busy) < self.limits[lane]


def work(
    names: list[str],
    *,
    profile: str,
    slices: str | Path,
    results: str | Path = "results/local",
    runs: str | Path = "runs/local",
    minutes: float | None = None,
    heavy: int = 1,
    light: int = 0,
    repeatable: bool = True,
) -> dict[str, str]:
    """Train the named runs, the first named first; returns what became of each.

    Args:
        names: runs of the grid; the first stage that one needs is put in front of it.
        profile, slices, results, runs, repeatable: see `replication.training.run.train_run`.
        minutes: in which all is to end; None: no limit.
        heavy, light: see `Lanes`.

    Returns:
        By run: "done" (now or before), "failed", or "not run".

    Raises:
        ValueError, FileNotFoundError: an unknown run or profile, a bad store.
        KeyboardInterrupt: interrupted; what was being trained goes on from its last whole epoch.
    """
    started, waiting = time.time(), with_first_stages(names)
    settings = get_profile(profile)
    deadline = None if minutes is None else started + 60 * minutes * (1 - RESERVE)
    place = Place(profile, str(slices), str(results), str(runs), deadline, repeatable)
    store = read_store(slices, size=settings.size, progress=False)
    (Path(runs) / profile).mkdir(parents=True, exist_ok=True)
    lanes, ended = Lanes(heavy, light), {name: "done" for name in waiting if place.done(name)}
    waiting = [name for name in waiting if name not in ended]
    _say(started, f"{len(store)} slices, {len(waiting)} runs to train, {len(ended)} done before")
    # Forked, so that the slices are shared; no process here has touched the GPU before.
    context = multiprocessing.get_context("fork")
    try:
        while waiting or lanes.busy:
            for name in [name for name, process in lanes.busy.items() if not process.is_alive()]:
                process = lanes.busy.pop(name)
                process.join()
                ended[name] = "done" if process.exitcode == 0 else "failed"
                _say(started, _what_came(name, place, ended[name]))
            late = minutes is not None and time.time() > started + 60 * minutes * (1 - LEAST)
            for name in [] if late else list(waiting):
                first = get_run(name).first_stage
                if ended.get(first or "") == "failed":
                    waiting.remove(name)
                    ended[name] = "not run"
                elif lanes.free(name) and (first is None or ended.get(first or "") == "done"):
                    waiting.remove(name)
                    lanes.busy[name] = context.Process(target=_train, args=(name, store, place))
                    lanes.busy[name].start()
                    _say(started, f"begin {name}")
            if late and not lanes.busy:
                break
            time.sleep(0.2)
    finally:  # interrupted, or something broke here: nothing is left behind
        for process in lanes.busy.values():
            process.terminate()
        for process in lanes.busy.values():
            process.join()
    result = {name: ended.get(name, "not run") for name in with_first_stages(names)}
    counts = {state: sum(s == state for s in result.values()) for state in ("done", "failed", "not run")}
    _say(started, ", ".join(f"{n} {state}" for state, n in counts.items()))
    write_json(Path(runs) / profile / "campaign.json", result)
    return result


def _say(started: float, words: str) -> None:
    print(f"{time.time() - started:6.0f} s  {words}", flush=True)


def _what_came(name: str, place: Place, state: str) -> str:
    """One line on a run that ended."""
    if state == "failed":
        why = run_state(name, profile=place.profile, results=place.results, runs=place.runs).reason
        return f"FAILED {name}: {why or f'see {place.log(name)}'}"
    record = json.loads((Path(place.results) / place.profile / f"{name}.json").read_text())
    fit = record["fit"]
    how = "out of time" if fit.get("out_of_time") else "stopped early" if fit["stopped_early"] else "all"
    return (
        f"done  {name}: DSC {record['test']['pooled']['dsc']:.3f}, epoch {fit['best_epoch']} of "
        f"{fit['epochs']} ({how}), {record['wall_seconds']:.0f} s"
    )
