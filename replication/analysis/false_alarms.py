"""What a network calls infected where nothing is: on test slices whose infection was replaced by healthy lung.

Every slice that the networks are trained and scored on holds infection (register row 52), so no score
tells what they do to a healthy lung. `replication.training.healed` makes slices that tell something of it.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from chslib.inference import accelerator, predict_masks
from replication.analysis.measurements import read_measured, run_with_slices
from replication.evidence.records import read_record
from replication.training.grid import get_run
from replication.training.healed import healed_slices
from replication.training.networks import trained_network
from replication.training.profiles import get_profile

FOLDER = "false-alarms"


def false_alarm_record(
    name: str, *, profile: str, slices: str | Path, results: str | Path, runs: str | Path
) -> dict[str, Any]:
    """A direct run on its healed test slices: how many, how many with an alarm, and pixels of lung called infected.

    Raises:
        ValueError: a second stage, whose input a first one would have to make; weights or slices of another training.
        FileNotFoundError: no record or weights.
    """
    run = get_run(name)
    if run.target != "infection" or run.first_stage or run.cascade == "truth":
        raise ValueError(f"{name}: expected a direct run, such as table3-miniseg-patient-fold0")
    run, record, store, test = run_with_slices(name, profile=profile, slices=slices, results=results)
    pictures, rows = healed_slices(store, test, seed=run.seed)
    settings = get_profile(profile)
    network = trained_network(run, settings, record, runs).to(accelerator())
    found = predict_masks(network, pictures[:, None], batch_size=settings.batch_size)[:, 0]
    lung = store.lung[rows] > 0
    return {
        "run": run.name, "profile": profile, "weights_sha256": record["weights_sha256"],
        "test_slices": len(test), "healed": len(rows), "with_alarm": int(found.any((1, 2)).sum()),
        "lung_pixels": int(lung.sum()), "alarm_pixels": int((found > 0).sum()),
        "dsc": record["test"]["pooled"]["dsc"],
    }  # fmt: skip


def read_false_alarms(results: str | Path) -> pd.DataFrame:
    """By run: healed slices, the share with an alarm, alarmed pixels a pixel of lung, its own DSC, and of which weights.

    A run can be trained twice, to other weights. `weights` says whether these were of the training whose record lies in
    `results`: "the record's" or "another training's", by their sha256.

    Raises:
        ValueError: a record that was changed after it was written, or a score that is not that of its own weights.
    """
    table = pd.DataFrame(
        [
            {
                "run": f"{r['profile']}/{r['run']}", "healed slices": r["healed"],
                "share with an alarm": r["with_alarm"] / max(r["healed"], 1),
                "share of lung called infected": r["alarm_pixels"] / max(r["lung_pixels"], 1), "DSC": r["dsc"],
                "weights": _whose(r, Path(results)),
            }
            for r in read_measured(results, FOLDER, what="chs-net measure false-alarms")
        ]
    )  # fmt: skip
    return table.set_index("run") if len(table) else table


def _whose(alarms: dict[str, Any], results: Path) -> str:
    path = results / alarms["profile"] / f"{alarms['run']}.json"
    record = read_record(path) if path.is_file() else None
    if not record or record["weights_sha256"] != alarms["weights_sha256"]:
        return "another training's"
    if record["test"]["pooled"]["dsc"] != alarms["dsc"]:
        raise ValueError(
            f"{alarms['profile']}/{alarms['run']}: false alarms beside a DSC of {alarms['dsc']:.3f}, the record of the same "
            f"weights has {record['test']['pooled']['dsc']:.3f}; measure again: chs-net measure false-alarms {alarms['run']}"
        )
    return "the record's"


def of_folds(results: str | Path, run: str) -> pd.DataFrame:
    """The lines of a row's folds of new patients, or of one fold, in `read_false_alarms`; empty: none was measured."""
    table = read_false_alarms(results)
    return table[table.index.str.contains(rf"/{run}(?:-patient-fold\d)?$")] if len(table) else table
