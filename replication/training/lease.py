"""A lease of a GPU, minutes long: run after run in one process, each only begun if it can end; then what comes back.

    python -m replication.training.lease --slices FOLDER --minutes 13 --out FOLDER

The list (`LIST`) stands in the order of its worth; what has a record under --results is done. Records are
written as their runs end. Behind the last one the folder --out holds records, predictions and
half-precision weights in at most 7 archives of 16 MiB, and became.json. It imports what training needs and nothing else.
"""

import argparse
import json
import logging
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replication.data.slices.splits import FOLDS
from replication.data.slices.store import SliceStore, read_store
from replication.training.export import export_run
from replication.training.fast_fit import FastFits, key_of
from replication.training.grid import get_run, with_first_stages
from replication.training.profiles import PROFILES, get_profile
from replication.training.run import train_run

LIST = (  # what is wanted of full size, the most telling first
    "table2-infection",
    *(f"table2-infection-patient-fold{k}" for k in range(FOLDS)),
    "table4-hp", "table5-hp-infection", "table5-rib-infection",
    "table2-infection-seed1", "table2-infection-seed2",
    *(f"table4-{arm}-seed{seed}" for seed in (1, 2) for arm in ("full", "hp", "rib", "bu")),
    *(f"{row}-patient-fold{k}" for row in ("table4-full", "table3-unetpp", "table3-attention-unet") for k in range(FOLDS)),
    *(f"beyond-raiunet-patient-fold{k}" for k in range(FOLDS)),
)  # fmt: skip
FIRST_EPOCH = 60.0  # seconds that an architecture's first run is thought to take to compile and capture
EPOCH = 4.0  # seconds an epoch is thought to take before one was measured
ENDING = 12.0  # seconds for predictions, record and weights of a run
FILES, BYTES = 8, 16 * 2**20  # that come back: 7 archives, and what became of each run


def say(started: float, words: str) -> None:
    """A line with the seconds since the lease began."""
    print(f"{time.time() - started:6.0f} s  {words}", flush=True)


def need(name: str, profile: str, fits: FastFits) -> float:
    """Seconds that a run is thought to take, by the epochs of its architecture that were measured."""
    run, settings = get_run(name), get_profile(profile)
    known = fits.seconds.get(key_of(run, settings))
    start = 0.0 if known else FIRST_EPOCH
    passes = settings.beyond_passes if run.recipe == "beyond" else 1
    return start + settings.max_epochs[run.target] * passes * (known or EPOCH) + ENDING


def train_list(
    names: list[str], store: SliceStore, *, profile: str, slices: str, results: str, runs: str, minutes: float
) -> dict[str, str]:
    """Train runs in their order, first stages in front; returns by run "done", "failed: ..." or "not run".

    Half-precision weights go to `<runs>/weights` by a thread, while the next run is being trained.
    """
    started, fits, became = time.time(), FastFits(), {}
    with ThreadPoolExecutor(1) as behind:
        exports = []
        order = with_first_stages(names)
        for i, name in enumerate(order):
            fits.keep(map(get_run, order[i:]), get_profile(profile))
            run, record = get_run(name), Path(results, profile, f"{name}.json")
            left = started + 60 * minutes - time.time()
            if record.is_file() and Path(runs, profile, name, "masks.npz").is_file():
                became[name] = "done"
            elif run.first_stage and became.get(run.first_stage) != "done":
                became[name] = "not run"
            elif left < (wanted := need(name, profile, fits)):
                became[name] = "not run"
                say(started, f"left out {name}: {left:.0f} s left, {wanted:.0f} s wanted")
            else:
                became[name] = _train(name, store, fits, started, profile, slices, results, runs)
                if became[name] == "done":
                    where = {"profile": profile, "results": results, "runs": runs}
                    exports.append(behind.submit(_export, name, Path(runs, "weights"), where))
    say(started, "weights: " + ", ".join(filter(None, (e.result() for e in exports))))
    return became


def _train(
    name: str,
    store: SliceStore,
    fits: FastFits,
    started: float,
    profile: str,
    slices: str,
    results: str,
    runs: str,
) -> str:
    try:
        record = train_run(
            name, profile=profile, slices=slices, results=results, runs=runs, progress=False, store=store,
            repeatable=False, fit=fits,
        )  # fmt: skip
    except Exception as error:  # the other runs go on
        logging.exception(name)
        say(started, f"FAILED {name}: {type(error).__name__}: {error}")
        return f"failed: {type(error).__name__}: {error}"
    fit, dsc = record["fit"], record["test"]["pooled"]["dsc"]
    say(
        started,
        f"{name}: DSC {dsc:.3f}, epoch {fit['best_epoch']} of {fit['epochs']}, first {fit['history'][0]['seconds']:.1f} s, "
        f"last {fit['history'][-1]['seconds']:.1f} s, {record['wall_seconds']:.0f} s in all ({fit['form']})",
    )
    return "done"


def _export(name: str, folder: Path, where: dict[str, str]) -> str:
    try:
        trained = Path(where["runs"], where["profile"], name)
        return export_run(trained, folder, results=where["results"], replace=True).name
    except ValueError as error:  # a network that load_pretrained could not build
        return f"{name} not exported ({error})"


def _parts(files: list[Path], root: Path) -> Iterator[list[Path]]:
    """Files in groups that fit an archive each, in their order."""
    group: list[Path] = []
    used = 10240
    for path in files:
        size = path.stat().st_size + 1536  # its header, and rounding up
        if group and used + size > BYTES:
            yield group
            group, used = [], 10240
        group.append(path)
        used += size
    if group:
        yield group


def pack(out: Path, became: dict[str, str], *, results: Path, runs: Path, profile: str) -> list[Path]:
    """Write what comes back, at most `FILES` files: became.json, then records, predictions and weights in archives.

    What no longer fits is named in the last line printed; nothing is cut in two.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "became.json").write_text(json.dumps(became, indent=1) + "\n")
    records = sorted((results / profile).glob("*.json"))
    masks = [path for r in records if (path := runs / profile / r.stem / "masks.npz").is_file()]
    weights = sorted((runs / "weights" / profile).glob("*"))
    packed: list[Path] = []
    for kind, files, root in (
        ("records", records, results),
        ("masks", masks, runs),
        ("weights", weights, runs),
    ):
        for k, group in enumerate(_parts(files, root)):
            if len(packed) == FILES - 1:
                print(f"left out: {', '.join(p.relative_to(root).as_posix() for p in group)}", flush=True)
                continue
            packed.append(out / f"{kind}{k}.tar")
            with tarfile.open(packed[-1], "w") as archive:
                for path in group:
                    archive.add(path, f"{root.name}/{path.relative_to(root).as_posix()}")
    return packed


def main(arguments: list[str] | None = None) -> int:
    """`python -m replication.training.lease`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", required=True, help="folder of a slice store")
    parser.add_argument("--profile", default="paper", choices=PROFILES)
    parser.add_argument("--minutes", type=float, required=True, help="until the last run has to have ended")
    parser.add_argument("--names", nargs="+", default=LIST, metavar="RUN", help="in place of the list")
    parser.add_argument("--out", type=Path, required=True, help="gets what comes back")
    parser.add_argument("--results", default="lease/results", help="folder of records (%(default)s)")
    parser.add_argument("--runs", default="lease/runs", help="folder of predictions, weights (%(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    try:
        store = read_store(options.slices, size=get_profile(options.profile).size, progress=False)
        became = train_list(
            list(options.names), store, profile=options.profile, slices=options.slices,
            results=options.results, runs=options.runs, minutes=options.minutes,
        )  # fmt: skip
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    where = {"results": Path(options.results), "runs": Path(options.runs), "profile": options.profile}
    for path in pack(options.out, became, **where):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    for name, state in became.items():
        print(f"{name:44} {state}")
    return int(any(state.startswith("failed") for state in became.values()))


if __name__ == "__main__":
    sys.exit(main())
