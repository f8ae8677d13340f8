"""What the tests of analysis share: the committed records, read once, and the ledger of them."""

from pathlib import Path

import pandas as pd
import pytest

from replication.evidence.estimates import Ours
from replication.evidence.ledger import ledger_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def ours() -> Ours:
    """By the rule for which record answers; tests read it only."""
    return Ours(ROOT / "results")


@pytest.fixture(scope="session")
def lines(ours: Ours) -> pd.DataFrame:
    """The ledger of them."""
    return ledger_of(ours)
