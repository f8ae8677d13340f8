"""Speed must not cost quality: the plain network's training curve beside the fast one's.

One run of the grid (`table2-lungs`, cpu profile: real slices, 128x128, 3 epochs) is trained by the
plain forms with seed 0, and by the fast ones with three seeds, all on every n-th slice of the store.
What the seeds differ by is the yardstick for what the forms differ by.
"""

import csv
from pathlib import Path
from typing import Any

from benchmarks.plain import plain
from replication.training import fit
from replication.training import run as train

RUN, PROFILE = "table2-lungs", "cpu"
SEEDS = ("", "-seed1", "-seed2")
CURVES = ("train_loss", "val_loss", "val_dsc")


def thinned(slices: str | Path, folder: Path, *, every: int) -> Path:
    """A store of every `every`-th slice of another, whose pictures it links to."""
    source = Path(slices).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ct", "lung", "infection"):
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(source / name, target_is_directory=True)
    with (source / "slices.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (folder / "slices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[1::every]])
    return folder


def train_plain(run: str, **where: Any) -> dict[str, Any]:
    """`replication.training.run.train_run` of the network in its plain forms, with the default allocator."""
    make_network, keep_freed_memory = train.make_network, fit.keep_freed_memory
    train.make_network = lambda *a, **k: plain(make_network(*a, **k))
    fit.keep_freed_memory = lambda: False
    try:
        return train.train_run(run, **where)
    finally:
        train.make_network, fit.keep_freed_memory = make_network, keep_freed_memory


def measure(slices: str | Path, folder: Path, *, every: int) -> dict[str, Any]:
    """Train plain (seed 0) and fast (each seed); resumes by what stands in `folder`."""
    store = thinned(slices, folder / f"every{every}", every=every)

    def where(form: str) -> dict[str, Any]:
        place = folder / f"{form}-every{every}"
        return {"profile": PROFILE, "slices": store, "results": place / "results", "runs": place / "runs"}

    # Plain first: the allocator's setting is for the whole process and cannot be taken back.
    found = curves(
        train_plain(RUN, **where("plain")),
        {suffix.strip("-") or "seed0": train.train_run(RUN + suffix, **where("fast")) for suffix in SEEDS},
    )
    return found | {"run": RUN, "every": every}


def curves(plain_record: dict[str, Any], fast_records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Per epoch and quantity: the plain value, the fast ones by seed, and whether they agree.

    They agree where plain and fast of seed 0 differ by no more than the largest difference between
    two seeds of the fast form.
    """

    def history(record: dict[str, Any]) -> dict[str, list[float]]:
        return {key: [epoch[key] for epoch in record["fit"]["history"]] for key in CURVES}

    fast = {name: history(record) for name, record in fast_records.items()}
    found: dict[str, Any] = {
        "plain": history(plain_record),
        "fast": fast,
        "slices": plain_record["data"]["slices"],
        "plain_test_dsc": plain_record["test"]["pooled"]["dsc"],
        "fast_test_dsc": {name: r["test"]["pooled"]["dsc"] for name, r in fast_records.items()},
        "difference": {},
        "spread": {},
        "within": {},
    }
    for key in CURVES:
        epochs = list(zip(*(f[key] for f in fast.values()), strict=True))
        found["spread"][key] = [max(values) - min(values) for values in epochs]
        ours, theirs = fast["seed0"][key], found["plain"][key]
        found["difference"][key] = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        found["within"][key] = [d <= s for d, s in zip(found["difference"][key], found["spread"][key])]
    return found
