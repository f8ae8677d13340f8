"""Runs of the grid, one after the other, within a given time: for a GPU that is lent, or a Colab session.

    chs-net campaign --profile paper --slices FOLDER --minutes 55
    chs-net campaign --profile paper --slices FOLDER --minutes 13 --not-repeatable --pack FOLDER

The slices are read once, each record is written as its run ends, and a run that fails holds up no other. When the time
is nearly up no epoch is begun any more, and what was being trained is scored with the best of the epochs that it had (its
record says ``out_of_time``, and answers no number of the paper). Interrupted or out of time, the same command goes on
from the last whole epoch. Not repeatable, the step of an architecture is compiled once for all its runs
(`replication.training.fast_fit`), which leaves no checkpoints: a run is begun only if it can end.
It imports what training needs and nothing else.
"""

import gc
import json
import tarfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from replication.data.slices.store import read_store
from replication.files import write_json
from replication.training.export import export_run
from replication.training.fast_fit import FastFits, key_of
from replication.training.grid import Run, get_run, with_first_stages
from replication.training.profiles import Profile, get_profile
from replication.training.run import train_run

RESERVE = 0.06  # share of the time that is kept for predictions and records of what is cut short
FIRST_EPOCH = 60.0  # seconds that an architecture's first run is thought to take to compile and capture
EPOCH = 4.0  # seconds an epoch is thought to take before one was measured
ENDING = 12.0  # seconds for predictions, record and weights of a run
BYTES = 16 * 2**20  # of an archive


def train_all(
    names: list[str], *, profile: str, slices: str | Path, results: str | Path = "results/local",
    runs: str | Path = "runs/local", minutes: float | None = None, repeatable: bool = True, pack: str | Path | None = None,
) -> dict[str, str]:  # fmt: skip
    """Train the named runs in their order, first stages in front; returns what became of each.

    Args:
        names: runs of the grid.
        profile, slices, results, runs, repeatable: see `replication.training.run.train_run`.
        minutes: in which all is to end; None: no limit.
        pack: folder that gets records, predictions and half-precision weights in archives, and became.json; see `packed`.

    Returns:
        By run: "done" (now or before), "failed: why", or "not run".

    Raises:
        ValueError, FileNotFoundError: an unknown run or profile, a bad store.
        KeyboardInterrupt: interrupted; what was being trained goes on from its last whole epoch.
    """
    started, order, settings = time.time(), with_first_stages(names), get_profile(profile)
    seconds = float("inf") if minutes is None else 60 * minutes
    where: dict[str, Any] = {"profile": profile, "results": results, "runs": runs}
    how = where | {
        "slices": slices, "store": read_store(slices, size=settings.size, progress=False), "progress": False,
        "deadline": None if minutes is None else started + seconds * (1 - RESERVE), "repeatable": repeatable,
    }  # fmt: skip
    fits = None if repeatable else FastFits()
    became: dict[str, str] = {}
    epochs: dict[str, float] = {}  # by architecture, seconds of one
    for i, name in enumerate(order):
        run, left = get_run(name), started + seconds - time.time()
        if _stands(name, **where):
            became[name] = "done"
        elif run.first_stage and became[run.first_stage] != "done":
            became[name] = "not run"
        elif left < (wanted := RESERVE * seconds if fits is None else needed(run, settings, epochs)):
            became[name] = "not run"
            _say(started, f"left out {name}: {left:.0f} s left, {wanted:.0f} s wanted")
        else:
            _say(started, f"begin {name}")
            made = _attempt(name, fit=fits, **how)
            became[name] = made if isinstance(made, str) else "done"
            _say(started, f"{name} {made}" if isinstance(made, str) else _told(made))
            if isinstance(made, dict):
                epochs[key_of(run, settings)] = made["fit"]["history"][-1]["seconds"]
                if pack:
                    _export(name, **where)
            if fits:
                fits.keep(map(get_run, order[i + 1 :]), settings)
            gc.collect()  # a trainer and its network hold each other, as a graph and what it was captured from
            torch.cuda.empty_cache()
    if pack:
        for path in packed(Path(pack), became, **where):
            _say(started, f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    counted = Counter(state.split(":")[0] for state in became.values())
    _say(started, ", ".join(f"{count} {state}" for state, count in counted.items()))
    return became


def needed(run: Run, settings: Profile, epochs: dict[str, float]) -> float:
    """Seconds that a run is thought to take, by the epochs of its architecture (`key_of`) that were measured."""
    key = key_of(run, settings)
    passes = settings.beyond_passes if run.recipe == "beyond" else 1
    fit = settings.max_epochs[run.target] * passes * epochs.get(key, EPOCH)
    return fit + ENDING + (0 if key in epochs else FIRST_EPOCH)


def packed(
    out: Path, became: dict[str, str], *, profile: str, results: str | Path, runs: str | Path
) -> list[Path]:
    """Write what comes back from a machine that is lent; returns the archives.

    They hold results/<profile>/<run>.json of every run that is done, then its runs/<profile>/<run>/masks.npz and
    runs/weights/<profile>/<run>.*; `BYTES` each at most, and no file is cut in two.
    """
    write_json(out / "became.json", became)
    groups: list[list[tuple[Path, str]]] = []
    used = BYTES
    for root, inside, pattern in (
        (results, "results", f"{profile}/{{}}.json"),
        (runs, "runs", f"{profile}/{{}}/masks.npz"),
        (runs, "runs", f"weights/{profile}/{{}}.*"),
    ):
        for path in (
            p for name, s in became.items() if s == "done" for p in Path(root).glob(pattern.format(name))
        ):
            size = path.stat().st_size + 1536  # its header, and rounding up
            if used + size > BYTES:
                groups.append([])
                used = tarfile.RECORDSIZE
            groups[-1].append((path, f"{inside}/{path.relative_to(root).as_posix()}"))
            used += size
    archives = [out / f"runs{k}.tar" for k in range(len(groups))]
    for path, group in zip(archives, groups, strict=True):
        with tarfile.open(path, "w") as archive:
            for member, name in group:
                archive.add(member, name)
    return archives


def _attempt(name: str, **how: Any) -> dict[str, Any] | str:
    """The record of a run, or why it failed: the other runs go on."""
    try:
        return train_run(name, **how)
    except Exception as error:
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}"


def _stands(name: str, *, profile: str, results: str | Path, runs: str | Path) -> bool:
    """Whether a run was trained to its end, and the predictions that feed a second stage are there."""
    path = Path(results, profile, f"{name}.json")
    if not path.is_file() or not Path(runs, profile, name, "masks.npz").is_file():
        return False
    return not json.loads(path.read_text())["fit"].get("out_of_time")


def _export(name: str, *, profile: str, results: str | Path, runs: str | Path) -> None:
    """Half-precision weights, to `<runs>/weights`."""
    try:
        export_run(Path(runs, profile, name), Path(runs, "weights"), results=results, replace=True)
    except ValueError as error:  # a network that load_pretrained could not build
        print(f"{name} not exported ({error})")


def _say(started: float, words: str) -> None:
    """A line with the seconds since all began."""
    print(f"{time.time() - started:6.0f} s  {words}", flush=True)


def _told(record: dict[str, Any]) -> str:
    """One line on a run that ended."""
    fit = record["fit"]
    how = "out of time" if fit.get("out_of_time") else "stopped early" if fit["stopped_early"] else "all"
    return (
        f"done  {record['run']}: DSC {record['test']['pooled']['dsc']:.3f}, epoch {fit['best_epoch']} of {fit['epochs']} ({how}), "
        f"first {fit['history'][0]['seconds']:.1f} s, last {fit['history'][-1]['seconds']:.1f} s, "
        f"{record['wall_seconds']:.0f} s in all" + (f" ({fit['form']})" if "form" in fit else "")
    )
