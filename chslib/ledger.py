"""The paper's numbers beside ours. `paper_numbers.csv` holds theirs, run records hold ours.

A table cell comes from a record that a run wrote; what was not run reads "not run".
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from chslib.experiments import RUNS, Run
from chslib.profiles import PROFILES
from chslib.metrics import COUNTS, SCORES, scores

PAPER_NUMBERS = Path(__file__).with_name("paper_numbers.csv")
NOT_RUN = "not run"
# Column heads of Tables 2-5 -> names in a record.
COLUMNS = dict(zip(("Acc.", "Pre.", "Spe.", "Rec.", "DSC", "JI"), SCORES))
RECORD_KEYS = (
    "schema",
    "first_stage",
    "run",
    "profile",
    "config",
    "data",
    "fit",
    "test",
    "slices",
    "device",
    "versions",
    "commit",
)


def paper_numbers(table: str | None = None) -> pd.DataFrame:
    """The paper's numbers, one a line: table, row, segmentation, metric, value (as printed), place.

    Args:
        table: only this one, for example "Table 2".
    """
    numbers = pd.read_csv(PAPER_NUMBERS, dtype={"value": str})
    return numbers if table is None else numbers[numbers["table"] == table].reset_index(drop=True)


def read_record(path: str | Path) -> dict[str, Any]:
    """One run record, refused where it is not what its place says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON, a key missing, another run or profile than the path names, or scores
            that are not those of its own confusion counts (a record edited by hand).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such record; train the run that writes it.")
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it and run again.") from error
    if missing := [key for key in RECORD_KEYS if key not in record]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it is not a run record.")
    if (record["profile"], record["run"]) != (path.parent.name, path.stem):
        raise ValueError(
            f"{path} says it is {record['profile']}/{record['run']}; a record may not be renamed."
        )
    total = [sum(row[i] for row in record["slices"]) for i in range(1, 1 + len(COUNTS))]
    recomputed = scores(total)
    for name, value in record["test"]["pooled"].items():
        if abs(float(recomputed[name]) - value) > 1e-9:
            raise ValueError(
                f"{path}: pooled {name} is {value} but its own counts give {float(recomputed[name]):.6f}; "
                "the record was changed after it was written."
            )
    return record


def records(results: str | Path, profile: str) -> dict[str, dict[str, Any]]:
    """Every record of a profile, by the name of its run; runs without one are absent."""
    folder = Path(results) / profile
    return {
        name: read_record(folder / f"{name}.json") for name in RUNS if (folder / f"{name}.json").is_file()
    }


def table2(results: str | Path, *, profile: str = "cpu") -> pd.DataFrame:
    """Table 2 with ours below each of its rows: the paper's protocol, then the patient one.

    Args:
        results: folder of the records.
        profile: whose records to show.

    Returns:
        Rows (segmentation, of whom), columns Acc. .. JI as text, and the record each came from.
    """
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}; expected one of {', '.join(PROFILES)}.")
    ours = records(results, profile)
    whose = "phantom" if profile == "smoke" else "ours"  # what smoke writes is nobody's result
    rows = []
    for target, label in (("lungs", "Lungs"), ("infection", "COVID-19")):
        paper = paper_numbers("Table 2").query("segmentation == @label").set_index("metric")["value"]
        rows.append(
            {"Segmentation": label, "of": "paper, random slices", **paper[list(COLUMNS)], "record": "Table 2"}
        )
        slice_run = f"table2-{target}"
        rows.append(_row(label, f"{whose}, random slices", ours.get(slice_run), slice_run))
        folds = [r for r in RUNS.values() if r.name.startswith(f"table2-{target}-patient")]
        done = [r for r in folds if r.name in ours]
        if not done:
            rows.append(_row(label, f"{whose}, new patients", None, folds[0].name))
        for run in done:
            rows.append(_row(label, f"{whose}, new patients, fold {run.fold}", ours[run.name], run.name))
    return pd.DataFrame(rows).set_index(["Segmentation", "of"])


def _row(label: str, whose: str, record: dict[str, Any] | None, name: str) -> dict[str, str]:
    pooled = record["test"]["pooled"] if record else None
    cells = {head: f"{pooled[key]:.3f}" if pooled else NOT_RUN for head, key in COLUMNS.items()}
    return {"Segmentation": label, "of": whose, **cells, "record": name if record else NOT_RUN}


def describe(record: dict[str, Any]) -> pd.Series:
    """What a reader needs to know of one run, from its record alone."""
    config, data, fit = record["config"], record["data"], record["fit"]
    split = data["split"]
    run: Run = RUNS[record["run"]]
    tested = split["test"]["patients"]
    shared = set(tested) & set(split["train"]["patients"])
    inside = (record["first_stage"] or {}).get("infection_inside", {}).get("test")
    rows = pd.Series(
        {
            "profile": f"{record['profile']} ({PROFILES[record['profile']].worth})",
            "split": "random slices, 70/30"
            if run.protocol == "slice"
            else f"whole patients, fold {run.fold} of 5",
            "slices": ", ".join(f"{split[part]['slices']} {part}" for part in split),
            "test patients": f"{len(tested)}, {len(shared)} of them also trained on"
            if shared
            else ", ".join(tested),
            "network": f"{config['arm']}, widths {config['widths']}, {config['parameters']:,} parameters",
            "training": f"{config['optimizer']} {config['learning_rate']:g}, batch {config['batch_size']}, "
            f"{config['size']}x{config['size']}, {fit['epochs']} epochs, epoch {fit['best_epoch']} kept",
            "device": record["device"],
            "time": f"{fit['fit_seconds'] / 60:.0f} min of fitting, {record['wall_seconds'] / 60:.0f} min in all",
            "data": data["fingerprint"][:12],
            "commit": record["commit"][:12],
        },
        name="",
    )
    if inside is not None:
        rows["infection inside the predicted lungs"] = f"{inside:.1%} of its test pixels"
    return rows
