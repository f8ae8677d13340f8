"""Records made up for tests: consistent, signed, of a few slices."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from chslib.metrics import evaluate
from chslib.network import ARMS
from replication.provenance import digest
from replication.training.grid import get_run
from replication.training.profiles import PROFILES, get_profile

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted(
    p for p in (ROOT / "results").glob("*/*.json") if p.parent.name in PROFILES and p.parent.name != "smoke"
)
RUN = "table2-lungs-patient-fold0"
DATA = "f" * 64


def a_record(run: str = RUN, profile: str = "cpu", *, dsc: float = 0.9, schema: int = 2, data: str = DATA):
    """A record as a run would write it; FP = FN, and this pooled DSC."""
    what, how = get_run(run), get_profile(profile)
    hits, patients = round(1000 * dsc), ["a", "b_1"]
    rest = {"train": ["c"], "validation": ["d"]} if what.protocol == "patient" else {}
    who = ["a", "b_1", "a"]
    truth, extra = [1000, 2000, 1000], [-80, 80, 0]  # so that the mean over slices is not the pooled score
    counts = []
    for pixels, more in zip(truth, extra):
        tp = hits * pixels // 1000 + more
        counts.append([tp, pixels - tp, pixels - tp, how.size**2 - 2 * pixels + tp])
    counts = np.array(counts)
    first = what.first_stage and {"run": what.first_stage, "weights_sha256": f"weights of {what.first_stage}"}
    widths = ({"widths": how.widths} if how.widths else {}) | what.network
    record = {
        "schema": schema, "run": what.name, "profile": profile,
        "config": {
            **json.loads(json.dumps(asdict(what))), "profile": profile, "size": how.size,
            "batch_size": how.batch_size, "learning_rate": how.learning_rate, "patience": how.patience,
            "max_epochs": how.max_epochs[what.target], "optimizer": "Adam", "augmentation": None,
            "loss": "0.5 BCE (mean) + 0.5 Dice", "parameters": 1234, "data_fingerprint": data,
            "widths": list(widths.get("widths", ARMS.get(what.arm, {}).get("widths", (8,)))),
            **({"first_stage_weights": first["weights_sha256"]} if first else {}),
        },
        "data": {
            "fingerprint": data, "slices": 10, "sources": {"coronacases": 10}, "patients": 4,
            "split": {
                "train": {"slices": 5, "patients": rest.get("train", patients)},
                "validation": {"slices": 2, "patients": rest.get("validation", patients)},
                "test": {"slices": 3, "patients": patients},
            },
        },
        "first_stage": first,
        "fit": {"epochs": 2, "best_epoch": 1, "fit_seconds": 60.0, "history": []},
        "test": evaluate(counts, who),
        "slices": [[f"{p}_{i:03d}", *map(int, row)] for i, (p, row) in enumerate(zip(who, counts))],
        "weights_sha256": f"weights of {what.name}",
        "device": "CPU", "versions": {}, "commit": "c" * 40, "wall_seconds": 61.0,
    }  # fmt: skip
    return signed(record)


def signed(record: dict) -> dict:
    if record["schema"] > 1:
        record["digest"] = digest(record)
    return record


def write(folder: Path, record: dict, *, profile: str = "", name: str = "") -> Path:
    path = folder / (profile or record["profile"]) / f"{name or record['run']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path
