"""Where the mask is cut: what another threshold than 0.5 is worth (register row 44).

The paper does not say at which probability a pixel counts as infected; every mask here is cut at
0.5. A network that is unsure on a new patient may then mark too little. This module scores a trained
run at a ladder of thresholds, on its validation and its test slices, so that one can be chosen on the
former and tried on the latter. It answers no number of the paper.

    chs-net measure thresholds RUN --profile cpu --slices FOLDER

writes `results/thresholds/<profile>/<run>.json` from the weights that the run left.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chslib.inference import accelerator, predict_logits
from chslib.metrics import COUNTS, scores
from replication.analysis.measurements import read_of_run, run_with_slices
from replication.data.slices.splits import make_split, persons
from replication.data.slices.store import TARGETS
from replication.evidence.records import read_record
from replication.training.grid import RUNS
from replication.training.networks import trained_network
from replication.training.predictions import bar, stage_inputs
from replication.training.profiles import get_profile

LADDER = (0.02, 0.05, *(round(0.1 + 0.05 * step, 2) for step in range(17)))
USUAL = LADDER.index(0.5)
PARTS = ("validation", "test")
FOLDER = "thresholds"
ROUNDING = 1e-6  # share of the pixels that may change sides at 0.5: 27 of 408 slices of 256x256
COMMAND = "chs-net measure thresholds"


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
    run, record, store, _ = run_with_slices(name, profile=profile, slices=slices, results=results)
    settings = get_profile(profile)
    network = trained_network(run, settings, record, runs).to(accelerator())
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
    return {
        "run": run.name,
        "profile": profile,
        "weights_sha256": record["weights_sha256"],
        "ladder": list(LADDER),
        "columns": list(COUNTS),
        **parts,
    }


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
    record, anew = (
        read_of_run(path, what=COMMAND, keys=("ladder", *PARTS)),
        f"write it anew: {COMMAND} {path.stem} --profile {path.parent.name}",
    )
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
