"""Run records, read and refused. A record that is not what it says feeds no table.

What is checked needs nothing but the record, its place, the grid (`replication.training.grid`) and the
profiles (`replication.training.profiles`): who changes a number by hand must change all that follows from it.
Schema 2 adds a sha256 of the whole record.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from chslib.metrics import COUNTS, evaluate
from chslib.network import ARMS
from replication.provenance import digest
from replication.training.grid import ALIASES, RUNS, run_settings
from replication.training.profiles import get_profile

# Slice stores whose records may be committed in results/, by fingerprint (register row 51).
KNOWN_DATA = {
    "ce11c440440c10219efc37eb20f82f359a85f25b59430f1397e78f163db9cb79": (
        "1360 prepared slices with infection, of 16 patients of [28]"
    ),
}
# What the project trained on; a record of another device is marked where it answers.
DEVICES = ("NVIDIA H200", "CPU, AMD EPYC", "CPU, Intel(R) Xeon(R) Processor")
HEADLINE = ("table2-lungs", "table2-infection")
SCHEMAS = (1, 2)  # 1 has no digest
RECORD_KEYS = (
    "schema", "run", "profile", "config", "data", "first_stage", "fit", "test", "slices",
    "weights_sha256", "wall_seconds", "device", "versions", "commit",
)  # fmt: skip
Record = dict[str, Any]


def read_record(path: str | Path, *, anywhere: bool = False) -> Record:
    """One run record, refused where it is not what its place says.

    Args:
        anywhere: it may lie under another name than `<profile>/<run>.json`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON; a key missing; another run or profile than the path names; a
            configuration that is not the grid's or the profile's; counts or scores that do not
            follow from one another, or a digest that is not the record's (changed by hand).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such record; train the run that writes it.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it and run again.") from error
    if not isinstance(record, dict) or (missing := [key for key in RECORD_KEYS if key not in record]):
        lacks = ", ".join(missing) if isinstance(record, dict) else "everything"
        raise ValueError(f"{path} lacks {lacks}; it is not a run record.")
    if not anywhere and (record["profile"], record["run"]) != (path.parent.name, path.stem):
        raise ValueError(
            f"{path} says it is {record['profile']}/{record['run']}; a record may not be renamed."
        )
    try:
        problem = _problem(record)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        problem = f"part of it is missing or of another kind ({type(error).__name__}: {error})"
    if problem:
        raise ValueError(f"{path}: {problem}; it does not count. Restore what the run wrote, or run again.")
    return record


def _problem(record: Record) -> str | None:
    """What is wrong with a record that lies at its place, or None."""
    checks = (_digest_problem, _config_problem, _counts_problem, _scores_problem)
    return next((problem for check in checks if (problem := check(record))), None)


def _digest_problem(record: Record) -> str | None:
    if record["schema"] not in SCHEMAS:
        return f"schema {record['schema']!r}, expected one of {SCHEMAS}"
    if record["schema"] < 2:
        return None
    if record.get("digest") != digest(record):
        return "its digest is not that of its content, it was changed after it was written"
    return None


def _config_problem(record: Record) -> str | None:
    """Contradictions to the grid, to the profile and to its own data."""
    name, config, fit = record["run"], record["config"], record["fit"]
    if name in ALIASES:
        return f"{name} is the same training as {ALIASES[name]}, whose record answers for both"
    if name not in RUNS:
        return f"{name!r} is no run of the grid (chs-net list shows them)"
    run, profile = RUNS[name], get_profile(record["profile"])
    expected = json.loads(json.dumps(run_settings(run, profile)))
    if run.arm in ARMS:
        changes = ({"widths": profile.widths} if profile.widths else {}) | run.network
        expected["widths"] = list(changes.get("widths", ARMS[run.arm]["widths"]))
    for key, value in expected.items():
        if config[key] != value:
            return f"its config has {key}={config[key]!r}, the {profile.name} profile's {name} has {value!r}"
    if config["data_fingerprint"] != record["data"]["fingerprint"]:
        return "config and data have two fingerprints"
    if not 1 <= fit["best_epoch"] <= fit["epochs"] <= profile.max_epochs[run.target]:
        return f"best epoch {fit['best_epoch']} of {fit['epochs']}, at most {profile.max_epochs[run.target]}"
    first = record["first_stage"] or {}
    if first.get("run") != run.first_stage:
        return f"fed by {first.get('run')}, the grid says {run.first_stage}"
    if first and first["weights_sha256"] != config["first_stage_weights"]:
        return "config and first_stage name two weights"
    return None


def _counts_problem(record: Record) -> str | None:
    """Every test slice once, every pixel of it counted once."""
    ids, split = [row[0] for row in record["slices"]], record["data"]["split"]
    counts = np.array([row[1:] for row in record["slices"]])
    if len(ids) != split["test"]["slices"] or len(set(ids)) != len(ids):
        return f"counts of {len(set(ids))} slices, its test part has {split['test']['slices']}"
    if (total := sum(part["slices"] for part in split.values())) != record["data"]["slices"]:
        return f"parts of {total} slices together, its store has {record['data']['slices']}"
    if counts.shape != (len(ids), len(COUNTS)) or counts.dtype.kind != "i" or counts.min() < 0:
        return "counts that are not four whole numbers a slice"
    pixels = record["config"]["size"] ** 2
    if (wrong := np.flatnonzero(counts.sum(1) != pixels)).size:
        i = int(wrong[0])
        return f"the counts of slice {ids[i]} add up to {counts[i].sum()} pixels, expected {pixels}"
    if record["config"]["protocol"] == "patient":
        both = set(split["test"]["patients"]) & {
            p for part in ("train", "validation") for p in split[part]["patients"]
        }
        if both:
            return f"patient {min(both)} is tested and trained on, under the protocol that excludes it"
    return None


def _scores_problem(record: Record) -> str | None:
    """Scores that its own counts do not give."""
    test = record["test"]
    counts = np.array([row[1:] for row in record["slices"]])
    patients = patients_of([row[0] for row in record["slices"]], record["data"]["split"]["test"]["patients"])
    recomputed = evaluate(counts, patients or ["?"] * len(counts))
    if patients is None:  # names do not tell; mean and deviation still follow from each patient's scores
        recomputed["patients"] = test["patients"]
        table = {k: [p[k] for p in test["patients"].values()] for k in test["pooled"]}
        recomputed["per_patient"] = {
            k: {"mean": float(np.mean(v)), "std": float(np.std(v))} for k, v in table.items()
        }
    if set(test["patients"]) != set(record["data"]["split"]["test"]["patients"]):
        return f"scores of {len(test['patients'])} patients who are not those of its test part"
    theirs, ours = dict(_leaves(test)), dict(_leaves(recomputed))
    if theirs.keys() != ours.keys():
        return f"its test scores have {len(theirs)} entries, expected {len(ours)}"
    for key, value in theirs.items():
        if not math.isclose(value, ours[key], abs_tol=1e-9):
            return (
                f"{' '.join(key)} is {value:g} but its own counts give {ours[key]:g}, "
                "the record was changed after it was written"
            )
    return None


def _leaves(tree: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], float]]:
    """Each number of nested dictionaries with the keys that lead to it."""
    return [
        leaf
        for key, value in tree.items()
        for leaf in (
            _leaves(value, (*above, key)) if isinstance(value, dict) else [((*above, key), value + 0.0)]
        )
    ]


def patients_of(slice_ids: list[str], patients: list[str]) -> list[str] | None:
    """Whose slice each is, where the names tell: one patient's name begins each slice's."""
    known = set(patients)
    # a, a_b, a_b_c of a_b_c_7
    heads = (accumulate(name.split("_")[:-1], "{}_{}".format) for name in slice_ids)
    owners = [[head for head in of if head in known] for of in heads]
    if any(len(owner) != 1 for owner in owners) or {owner[0] for owner in owners} != set(patients):
        return None
    return [owner[0] for owner in owners]


def load_records(
    results: str | Path, profile: str, *, data: str | None = None
) -> tuple[dict[str, Record], dict[str, str]]:
    """Every record of a profile that holds, and why each other one does not.

    Args:
        results: folder of the records; they lie in its folder `<profile>`.
        data: fingerprint of the slice store that all must be of. By default the records in the
            project's own `results/` must be of `KNOWN_DATA` (`smoke` is not committed and may be
            of any), and all records of a folder of one store: that of most of them, or of the
            headline (Table 2) where two are even.

    Returns:
        Records by run, in the grid's order, and reasons by file name without suffix.

    Raises:
        ValueError: an unknown profile. A bad record is never an error.
    """
    get_profile(profile)
    accepted: dict[str, Record] = {}
    refused: dict[str, str] = {}
    for path in sorted((Path(results) / profile).glob("*.json")):
        try:
            accepted[path.stem] = read_record(path)
        except (ValueError, OSError) as error:
            refused[path.stem] = str(error).replace(str(path), "the record")
    if data is not None:
        allowed, why = {data}, f"expected {data[:12]}"
    elif profile != "smoke" and is_project(Path(results)):
        allowed, why = set(KNOWN_DATA), "expected one of KNOWN_DATA in replication/evidence/records.py"
    else:
        allowed, why = {r["data"]["fingerprint"] for r in accepted.values()}, ""
    _refuse(accepted, refused, allowed, why)
    if accepted:
        votes = Counter(record["data"]["fingerprint"] for record in accepted.values())
        headline = next((accepted[n]["data"]["fingerprint"] for n in HEADLINE if n in accepted), None)
        chosen = max(votes, key=lambda f: (votes[f], f == headline, f))
        _refuse(accepted, refused, {chosen}, f"the other records are of {chosen[:12]}")
    return {name: accepted[name] for name in RUNS if name in accepted}, refused


def _refuse(accepted: dict[str, Record], refused: dict[str, str], allowed: set[str], why: str) -> None:
    for name in [n for n, r in accepted.items() if r["data"]["fingerprint"] not in allowed]:
        refused[name] = f"of other data: fingerprint {accepted.pop(name)['data']['fingerprint'][:12]}, {why}"


def is_project(results: Path) -> bool:
    """Whether a folder is the project's `results/`, by what lies beside it."""
    return results.resolve().name == "results" and (results.resolve().parent / "_toc.yml").is_file()


def is_foreign(record: Record) -> bool:
    """Whether a record comes from another machine than the project's, by its device."""
    return not record["device"].startswith(DEVICES)


def first_stage_warning(name: str, accepted: dict[str, Record]) -> str:
    """Where a second stage was fed by other weights than its first stage's record tells of; else ""."""
    first = accepted[name]["first_stage"]
    beside = accepted.get(first["run"]) if first else None
    if beside and beside["weights_sha256"] != first["weights_sha256"]:
        return f"{name} was fed by other weights than those of the record {first['run']}"
    return ""


def slices_of_patients(record: Record) -> dict[str, np.ndarray]:
    """Counts of each patient's test slices, (slices, 4) with columns as `COUNTS`.

    Raises:
        ValueError: slices whose names do not tell their patients.
    """
    owners = patients_of([row[0] for row in record["slices"]], record["data"]["split"]["test"]["patients"])
    if owners is None:
        raise ValueError(
            f"{record['run']}: its slices' names do not begin with their patients' names; expected "
            "such as coronacases_001_080 of coronacases_001."
        )
    counts = np.array([row[1:] for row in record["slices"]])
    return {patient: counts[np.array(owners) == patient] for patient in sorted(set(owners))}


def pooled_counts(records: Sequence[Record]) -> np.ndarray | None:
    """TP, FP, FN, TN of all test pixels of some records, seeds or folds of one run; None without any."""
    return (
        np.sum([[*record["test"]["confusion"].values()] for record in records], axis=0) if records else None
    )
