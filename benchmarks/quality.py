"""Speed must not cost quality: the plain network's training curve beside the fast one's.

The same run of the grid (`table2-lungs`, cpu profile, seed 0: real slices, 128x128, 3 epochs) is
trained by the plain forms. The fast forms' curves are those of the committed records of its three
seeds; what the seeds differ by is the yardstick.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.plain import plain
from chslib import train

RUN, PROFILE = "table2-lungs", "cpu"
SEEDS = ("", "-seed1", "-seed2")
CURVES = ("train_loss", "val_loss", "val_dsc")


def train_plain(slices: str | Path, *, results: str | Path, runs: str | Path) -> dict[str, Any]:
    """The run with plain forms, from and to folders of its own; returns its record."""
    make_network, keep_freed_memory = train.make_network, train.keep_freed_memory
    train.make_network = lambda *a, **k: plain(make_network(*a, **k))
    train.keep_freed_memory = lambda: False
    try:
        return train.train_run(RUN, profile=PROFILE, slices=slices, results=results, runs=runs)
    finally:
        train.make_network, train.keep_freed_memory = make_network, keep_freed_memory


def curves(plain_record: dict[str, Any], *, results: str | Path) -> dict[str, Any]:
    """Per epoch and quantity: the plain value, the fast ones by seed, and whether they agree.

    They agree where plain and fast of seed 0 differ by no more than the largest difference between
    two seeds of the fast form.
    """

    def history(record: dict[str, Any], key: str) -> list[float]:
        return [epoch[key] for epoch in record["fit"]["history"]]

    found: dict[str, Any] = {"plain": {k: history(plain_record, k) for k in CURVES}, "fast": {}}
    for suffix in SEEDS:
        path = Path(results) / PROFILE / f"{RUN}{suffix}.json"
        if path.is_file():
            record = json.loads(path.read_text())
            found["fast"][suffix.strip("-") or "seed0"] = {k: history(record, k) for k in CURVES}
    found["plain_test_dsc"] = plain_record["test"]["pooled"]["dsc"]
    found["difference"], found["spread"], found["within"] = {}, {}, {}
    for key in CURVES:
        epochs = list(zip(*(f[key] for f in found["fast"].values()), strict=True))
        found["spread"][key] = [max(values) - min(values) for values in epochs]
        ours, theirs = found["fast"]["seed0"][key], found["plain"][key]
        found["difference"][key] = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        found["within"][key] = [d <= s for d, s in zip(found["difference"][key], found["spread"][key])]
    return found
