"""What the tests of evidence share."""

from pathlib import Path

import pytest
from made_up import a_record, write

from replication.training.grid import RUNS


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """Made-up records of the whole grid."""
    folder = tmp_path_factory.mktemp("full")
    base = {"bu": 0.5, "rib": 0.6, "rib-hp": 0.7, "full": 0.8}
    for name, run in RUNS.items():
        write(
            folder,
            a_record(name, dsc=base.get(run.arm, 0.55) + 0.1 * bool(run.first_stage) + 0.01 * run.seed),
        )
    return folder
