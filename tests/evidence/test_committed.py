"""What is committed counts, and knows where it comes from."""

import csv

import pandas as pd
import pytest
from made_up import COMMITTED, ROOT

from replication.evidence.comparisons import at_equal_epochs
from replication.evidence.estimates import Ours
from replication.evidence.ledger import paper_numbers
from replication.evidence.records import first_stage_warning, load_records, read_record
from replication.training.grid import RUNS
from replication.training.profiles import PROFILES


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_committed_record_holds_together(path):
    record = read_record(path)
    assert record["profile"] in PROFILES and record["run"] in RUNS
    assert not str(record).count(str(ROOT.parent) + "/") and not str(record).count("/home/")


# Second stages whose first was trained again, on another kind of processor, and so to other weights; the pages say so.
FED_ANEW = {"cpu": {"alt-concat-infection"}, "paper": {"table2-infection"}}


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "smoke"])
def test_every_committed_record_counts_and_knows_its_first_stage(profile):
    accepted, refused = load_records(ROOT / "results", profile)
    assert refused == {}
    assert len(accepted) == sum(path.parent.name == profile for path in COMMITTED)
    fed_anew = {name for name in accepted if first_stage_warning(name, accepted)}
    assert fed_anew <= FED_ANEW.get(profile, set())


def test_smoke_records_are_never_committed():
    assert "results/smoke/" in (ROOT / ".gitignore").read_text().split()


def test_the_paper_s_numbers_are_a_plain_csv():
    with open(ROOT / "replication/evidence/paper_numbers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert pd.DataFrame(rows).equals(paper_numbers())
    assert {row["notebook"].split("_")[0] for row in rows} <= {f"{n:02d}" for n in range(1, 13)}


def test_at_equal_epochs_a_cut_short_run_stands_beside_finished_ones():
    ours = Ours(ROOT / "results")
    lines = at_equal_epochs(ours).set_index("run")
    assert {"table2-infection", "table4-full", "table4-bu", "table3-infnet"} <= set(lines.index)
    assert lines["validation"].is_monotonic_decreasing
    record = ours.cut_short["paper"]["table2-infection"]
    assert lines.loc["table2-infection", "validation"] == record["fit"]["history"][9]["val_dsc"]
    assert lines.loc["table2-infection", "ended"] == "out of time"
    assert at_equal_epochs(ours, epoch=11).set_index("run").index.isin(["table2-infection"]).sum() == 0
