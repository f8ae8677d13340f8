"""A record that comes from elsewhere, judged before it counts: what it says of itself, and what can be known besides.

`replication.evidence.records` has the rules that every record is held to. Here are those that need more than the record: this
history, and, where they are sent along, the predictions and the slices.
"""

import subprocess
from pathlib import Path

import numpy as np
import torch

from chslib.metrics import confusion
from replication.data.slices.store import TARGETS, read_store
from replication.evidence.records import KNOWN_DATA, Record, is_foreign, is_project, read_record
from replication.training.predictions import masks_tested

HERE = Path(__file__).resolve().parent


def judge_record(
    path: str | Path, *, predictions: str | Path | None = None, slices: str | Path | None = None
) -> list[str]:
    """What was found of a record, a line each.

    Args:
        path: the record, wherever it lies.
        predictions: `masks.npz` of the run, for a recount; needs `slices`.
        slices: folder of the slice store that it was trained on.

    Raises:
        FileNotFoundError, ValueError: it does not count; why, and how to mend it.
    """
    path = Path(path)
    in_results = is_project(path.resolve().parent.parent)
    record = read_record(path, anywhere=not in_results)
    pooled, fit = record["test"]["pooled"], record["fit"]
    found = [
        f"{record['profile']}/{record['run']}: schema {record['schema']}, digest and configuration hold",
        f"{len(record['slices'])} test slices, their counts add up to its scores: DSC {pooled['dsc']:.3f}",
        f"{fit['epochs']} of {record['config']['max_epochs']} epochs"
        + (", cut short: it answers no number of the paper" if fit.get("out_of_time") else ""),
        _data(record, in_results=in_results),
        _commit(record["commit"]),
        f"trained on {record['device']}" + (", another machine than ours" if is_foreign(record) else ""),
    ]
    if predictions:
        if not slices:
            raise ValueError(
                "predictions tell counts only beside the truth: give --slices, the folder of the store."
            )
        found.append(_recounted(record, Path(predictions), Path(slices)))
    return found


def _data(record: Record, *, in_results: bool) -> str:
    fingerprint = record["data"]["fingerprint"]
    if fingerprint in KNOWN_DATA:
        return f"data: {KNOWN_DATA[fingerprint]}"
    other = f"other data than the committed records': {record['data']['slices']} slices, fingerprint {fingerprint[:12]}"
    if in_results:
        raise ValueError(
            f"{other}; expected one of KNOWN_DATA in replication/evidence/records.py. Keep it in another folder of results."
        )
    return other


def _commit(commit: str) -> str:
    """That a record's code is a commit of this history."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True)

    try:
        shallow = git("rev-parse", "--is-shallow-repository").stdout.strip()
    except OSError:
        shallow = ""
    if shallow != "false":
        raise ValueError("The history is not here: check in a full clone (git fetch --unshallow).")
    if git("merge-base", "--is-ancestor", commit, "HEAD").returncode:
        raise ValueError(
            f"commit {commit} is none of this history; train with the code as committed here, unchanged."
        )
    return f"commit {commit[:12]} of this history"


def _recounted(record: Record, predictions: Path, slices: Path) -> str:
    store = read_store(slices, size=record["config"]["size"], progress=False)
    masks, rows = masks_tested(record, predictions, store, slices=slices)
    truth = getattr(store, TARGETS[record["config"]["target"]])[rows]
    counts = confusion(torch.from_numpy(masks).bool(), torch.from_numpy(truth).bool())
    wrong = np.flatnonzero(
        (np.asarray(counts) != np.array([row[1:] for row in record["slices"]])).any(axis=1)
    )
    if wrong.size:
        raise ValueError(
            f"{predictions} gives other counts for {wrong.size} of {len(rows)} test slices, first {record['slices'][wrong[0]][0]}."
        )
    return f"the predictions give these counts, {len(rows)} slices"
