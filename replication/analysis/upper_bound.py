"""What the upper end of Hounsfield units moves (register row 70): lungs and infection of one scan, by several ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replication.analysis.cleaning import counts, lungs_table, with_lungs
from replication.provenance import read_written
from replication.scans.report import fingerprint
from replication.scans.segment import segment
from replication.scans.steps import Cleaning
from replication.scans.weights import load_cascade

RECORD = "upper-bound.json"
OWN = "own"  # each slice's darkest and brightest voxel, as the public recipe has it
ENDS = {OWN: np.inf, "1000": 1000.0, "1500": 1500.0, "2000": 2000.0, "3071": 3071.0}  # HU


def upper_bound_record(ct: Path, lungs: Path) -> dict[str, Any]:
    """By end: TP, FP, FN of the lungs, and ml called infected; by the default cascade and all cleaning steps.

    Raises:
        ValueError: a reference of another shape, or a scan without Hounsfield units.
    """
    cascade = load_cascade()
    scan, truth = with_lungs(ct, lungs)
    stored = scan.intensity
    if stored is None or stored.windowed:
        raise ValueError(f"{ct}: grey of 0..255; expected Hounsfield units, which alone have an upper end")
    ml, ends = float(np.prod(scan.spacing)) / 1000, {}
    for name, brightest in ENDS.items():
        scan.intensity = replace(stored, brightest=brightest)
        found = segment(scan, cascade, cleaning=Cleaning())
        infected = float(found.infection.sum(dtype=np.int64)) * ml
        ends[name] = {"lungs": counts(truth, found.lungs), "infected_ml": round(infected, 2)}
    return {
        "weights": cascade.weights, "scan": {"name": ct.name, "sha256": fingerprint(ct), "axes": scan.axes},
        "columns": ["tp", "fp", "fn"], "ends": ends,
    }  # fmt: skip


def read_upper_bound(results: str | Path) -> pd.DataFrame:
    """By end: DSC of the lungs, and ml called infected.

    Raises:
        ValueError: a record that was changed after it was written.
    """
    ends = read_written(Path(results) / RECORD, command="chs-net measure upper-bound --scan CT LUNGS")["ends"]
    return lungs_table(ends, infected_ml="infected, ml").rename_axis("upper end, HU")
