"""Training on scans of one's own: patients apart unless asked otherwise, both stages of a cascade in one call."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from replication.data.slices.splits import PROTOCOLS
from replication.training.grid import get_run, with_first_stages

OWN = "own"  # source of every slice that was fused from scans of one's own


def run_for(name: str, table: pd.DataFrame | None, *, protocol: str | None = None) -> str:
    """The run that a name means on a store: scans of one's own are split by patient, whatever the name.

    Args:
        table: of the store; None: the synthetic one.
        protocol: "slice" or "patient", in place of what the name says and of this rule.

    Raises:
        ValueError: no such run or protocol, or a run of random slices that has no like among those by patient.
    """
    if protocol and protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}; expected one of {', '.join(PROTOCOLS)}, or none.")
    run = get_run(name)
    own = table is not None and set(table["source"]) == {OWN}
    wanted = protocol or ("patient" if own else run.protocol)
    if wanted == run.protocol:
        return run.name
    if run.protocol == "patient":
        return run.name[: run.name.index("-patient-fold")]
    if run.seed:
        raise ValueError(
            f"{run.name} is a run on random slices, and scans of one's own are split by patient; expected "
            f"{run.name.removesuffix(f'-seed{run.seed}')}-patient-fold0, or --protocol slice."
        )
    return f"{run.name}-patient-fold0"


def train_stages(name: str, **how: Any) -> Iterator[dict[str, Any]]:
    """Train a run, behind the first stage that feeds it; yields the record of each.

    Args:
        how: see `replication.training.run.train_run`.
    """
    from replication.training.run import train_run

    for stage in with_first_stages([name]):
        yield train_run(stage, **how)


def described(record: dict[str, Any]) -> str:
    """Whose slices a run was trained and tested on, in a line."""
    data = record["data"]
    split = ", ".join(
        f"{len(part['patients'])} {name} ({part['slices']} slices)" for name, part in data["split"].items()
    )
    how = (
        "patients apart"
        if record["config"]["protocol"] == "patient"
        else "random slices, patients on both sides"
    )
    whose = (data.get("origin") or {}).get("scans", "slices that do not say whose they are")
    return f"{whose}: {data['slices']} slices of {data['patients']} patients; {how}: {split}"


def folder_of(record: dict[str, Any], runs: str | Path) -> Path:
    """Where a run left its weights: what `segment --weights` takes."""
    return Path(runs) / record["profile"] / record["run"]
