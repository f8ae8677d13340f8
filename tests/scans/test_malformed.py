"""Five hundred malformed scans, one way of `malformed.py` after the other; ten thousand are in a record."""

import json
from collections import Counter
from pathlib import Path

import pytest
from malformed import run

from replication.provenance import read_written

RECORD = Path(__file__).resolve().parents[2] / "results/robustness/malformed.json"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_malformed_scan_ends_in_a_clear_error_or_in_a_whole_result(tmp_path):
    became = run(504, folder=tmp_path)
    bad = {kind: dict(of) for kind, of in became.items() if set(of) - {"whole", "refused"}}
    assert not bad
    total = sum(became.values(), Counter())
    assert total["refused"] > 200 and total["whole"] > 50, "the cases are too wild, or too tame"


def test_the_record_of_ten_thousand_has_none_that_ended_badly():
    record = read_written(RECORD, command="python tests/scans/malformed.py")
    assert record["cases"] == 10_000 == sum(record["total"].values())
    assert set(record["total"]) == {"whole", "refused"}
    assert json.dumps(record["kinds"]).count("DICOM") >= 10
