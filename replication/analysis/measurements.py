"""Records of what is measured without a training: written with the code and the machine that made them, refused where changed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from replication.data.slices.store import SliceStore, read_store
from replication.evidence.records import Record, read_record
from replication.files import write_json
from replication.provenance import digest, environment, read_written
from replication.training.grid import Run, get_run
from replication.training.predictions import rows_tested


def write_measured(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write what was measured, with `environment` and `digest`; returns the record."""
    record = content | environment()
    record["digest"] = digest(record)
    write_json(path, record)
    return record


def read_measured(results: str | Path, folder: str, *, what: str) -> Iterator[dict[str, Any]]:
    """Every record of a measurement of runs, `<results>/<folder>/<profile>/<run>.json`; see `read_of_run`."""
    for path in sorted((Path(results) / folder).glob("*/*.json")):
        yield read_of_run(path, what=what)


def read_of_run(path: Path, *, what: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The record of a measurement of one run.

    Args:
        what: the command that writes it, as `chs-net measure lesions`; keys: what it tells.

    Raises:
        ValueError: a record that was changed after it was written, of another kind, or of another run than its place says.
    """
    anew = f"{what} {path.stem} --profile {path.parent.name}"
    record = read_written(path, command=anew)
    if missing := [key for key in ("profile", "run", *keys) if key not in record]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; write it anew: {anew}.")
    if (record["profile"], record["run"]) != (path.parent.name, path.stem):
        raise ValueError(f"{path} says it is {record['profile']}/{record['run']}; write it anew: {anew}.")
    return record


def run_with_slices(
    name: str, *, profile: str, slices: str | Path, results: str | Path
) -> tuple[Run, Record, SliceStore, NDArray]:
    """A trained run, its record, the store that it was trained on, and the rows of its test slices.

    Raises:
        FileNotFoundError, ValueError: no record, one that does not count, or slices that it was not trained on.
    """
    run = get_run(name)
    record = read_record(Path(results) / profile / f"{run.name}.json")
    store = read_store(slices, size=record["config"]["size"], progress=False)
    return run, record, store, rows_tested(record, store, slices=slices)


def dice(tp: float, fp: float, fn: float) -> float:
    """The Dice coefficient of counts; 0 where there are none."""
    return 2 * tp / max(2 * tp + fp + fn, 1)
