"""Where the mask is cut: what another threshold than 0.5 is worth (register row 44).

The paper does not say at which probability a pixel counts as infected; every mask here is cut at
0.5. A network that is unsure on a new patient may then mark too little. This module scores a trained
run at a ladder of thresholds, on its validation and its test slices, so that one can be chosen on the
former and tried on the latter. It answers no number of the paper.

    chs-net measure thresholds RUN --profile cpu --slices FOLDER

writes `results/thresholds/<profile>/<run>.json` from the weights that the run left.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chslib.metrics import COUNTS, scores
from replication.data.slices.splits import make_split, persons
from replication.data.slices.store import TARGETS, read_store
from replication.evidence.records import read_record
from replication.provenance import digest, environment
from replication.training.grid import RUNS, get_run
from replication.training.profiles import get_profile

LADDER = (0.02, 0.05, *(round(0.1 + 0.05 * step, 2) for step in range(17)))
USUAL = LADDER.index(0.5)
PARTS = ("validation", "test")
FOLDER = "thresholds"
ROUNDING = 1e-6  # share of the pixels that may change sides at 0.5: 27 of 408 slices of 256x256
KEYS = ("run", "profile", "weights_sha256", "ladder", "columns", *PARTS, "commit", "versions", "device")


def threshold_record(
    name: str,
    *,
    profile: str,
    slices: str | Path,
    results: str | Path = "results",
    runs: str | Path = "runs",
    progress: bool = False,
) -> dict[str, Any]:
    """Counts of a trained run at every threshold of `LADDER`, by part and patient.

    Args:
        name, profile: of the run; slices: folder of the store that it was trained on.
        results, runs: folders of its record and of its weights.

    Returns:
        The record: for each part, by patient, a list of `COUNTS` for each threshold.

    Raises:
        FileNotFoundError: no record, or no weights.
        ValueError: weights or slices that are not those of the record.
    """
    from chslib.inference import accelerator, predict_logits
    from replication.training.networks import trained_network  # training imports more than reading needs
    from replication.training.predictions import bar, stage_inputs

    run, settings = get_run(name), get_profile(profile)
    record = read_record(Path(results) / profile / f"{run.name}.json")
    network = trained_network(run, settings, record, runs).to(accelerator())
    store = read_store(slices, size=settings.size, progress=progress)
    if store.fingerprint != record["data"]["fingerprint"]:
        raise ValueError(
            f"{slices} has fingerprint {store.fingerprint[:12]}, {run.name} was trained on "
            f"{record['data']['fingerprint'][:12]}; give the folder of that store."
        )
    inputs = stage_inputs(run, store, Path(runs) / profile).pixels
    split = make_split(store.table, protocol=run.protocol, fold=run.fold, seed=run.seed)
    people, truth = persons(store.table), getattr(store, TARGETS[run.target]) > 0
    parts: dict[str, dict[str, list[list[int]]]] = {}
    for part in PARTS:
        rows = getattr(split, part)
        counted: dict[str, np.ndarray] = {}
        predicted = predict_logits(
            network, inputs[rows], batch_size=settings.batch_size, progress=bar(part) if progress else None
        )
        for batch, logits in predicted:
            heights = logits.float().cpu().numpy()[:, 0]
            for row, height in zip(rows[batch], heights, strict=True):
                counts = np.array([_counts(height > _logit(cut), truth[row]) for cut in LADDER])
                counted[people[row]] = counted.get(people[row], 0) + counts
        parts[part] = {who: counted[who].tolist() for who in sorted(counted)}
    made: dict[str, Any] = {
        "run": run.name,
        "profile": profile,
        "weights_sha256": record["weights_sha256"],
        "ladder": list(LADDER),
        "columns": list(COUNTS),
        **parts,
        **environment(),
    }
    made["digest"] = digest(made)
    return made


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _counts(mask: np.ndarray, truth: np.ndarray) -> list[int]:
    tp = int((mask & truth).sum())
    fp, fn = int(mask.sum()) - tp, int(truth.sum()) - tp
    return [tp, fp, fn, mask.size - tp - fp - fn]


def pooled(record: dict[str, Any], part: str) -> np.ndarray:
    """Counts of a part over all its patients, (thresholds, 4)."""
    return np.sum([np.array(rows) for rows in record[part].values()], axis=0)


def chosen(record: dict[str, Any]) -> int:
    """Position in the ladder of the highest Dice coefficient on the validation slices; of equals the nearest to 0.5."""
    dsc = scores(pooled(record, "validation"))["dsc"]
    best = np.flatnonzero(dsc >= dsc.max() - 1e-12)
    return int(min(best, key=lambda i: abs(record["ladder"][i] - 0.5)))


def read_thresholds(results: str | Path) -> list[dict[str, Any]]:
    """Every record of a results folder that fits its run, in the order of profiles and grid.

    The counts at 0.5 have to be those of the run's record to within `ROUNDING`: another number of
    threads, or another device, rounds a logit that is nearly 0 to the other side. One that does not
    fit is left out, with a warning that says why.
    """
    found = []
    for path in sorted((Path(results) / FOLDER).glob("*/*.json")):
        try:
            found.append(_read(path, Path(results)))
        except (FileNotFoundError, ValueError) as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    order = list(RUNS)
    return sorted(found, key=lambda record: (record["profile"], order.index(record["run"])))


def _read(path: Path, results: Path) -> dict[str, Any]:
    """One record, refused where it was changed, or is not of its run.

    Raises:
        FileNotFoundError, ValueError: its run has no record; it was changed, or has other weights, other
            patients or other counts at 0.5 than that.
    """
    anew = f"write it anew: chs-net measure thresholds {path.stem} --profile {path.parent.name}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); {anew}.") from error
    if (
        not isinstance(record, dict)
        or any(key not in record for key in KEYS)
        or record.get("digest") != digest(record)
    ):
        raise ValueError(f"{path} was changed after it was written, or is none of this module; {anew}.")
    if (record["profile"], record["run"]) != (path.parent.name, path.stem) or record["run"] not in RUNS:
        raise ValueError(f"{path} says it is {record['profile']}/{record['run']}; {anew}.")
    own = read_record(results / record["profile"] / f"{record['run']}.json")
    if own["weights_sha256"] != record["weights_sha256"]:
        raise ValueError(f"{path} is of other weights than the record of its run; {anew}.")
    theirs = np.sum([row[1:] for row in own["slices"]], axis=0)
    mine = pooled(record, "test")[record["ladder"].index(0.5)]
    if mine.sum() != theirs.sum() or np.abs(mine - theirs).max() > ROUNDING * theirs.sum():
        raise ValueError(
            f"{path} has {mine.tolist()} pixels (TP, FP, FN, TN) at 0.5, the record of its run {theirs.tolist()}; {anew}."
        )
    return record


def thresholds_of(records: list[dict[str, Any]]) -> pd.DataFrame:
    """What a threshold chosen on validation slices is worth on the test slices.

    Returns:
        A row for each record: run, profile, protocol, threshold, and on the test slices DSC at 0.5, at
        the threshold, and the highest of the ladder, which nobody could have chosen; precision and recall at the threshold.
    """
    rows = []
    for record in records:
        at, test = chosen(record), scores(pooled(record, "test"))
        rows.append(
            {
                "run": record["run"],
                "profile": record["profile"],
                "protocol": RUNS[record["run"]].protocol,
                "threshold": record["ladder"][at],
                "usual": float(test["dsc"][record["ladder"].index(0.5)]),
                "chosen": float(test["dsc"][at]),
                "highest": float(test["dsc"].max()),
                "precision": float(test["precision"][at]),
                "recall": float(test["recall"][at]),
            }
        )
    columns = ("run", "profile", "protocol", "threshold", "usual", "chosen", "highest", "precision", "recall")
    return pd.DataFrame(rows, columns=list(columns))
