"""Killed twice here, twenty times in the record: nothing half written, and a rerun ends with the same bytes."""

from pathlib import Path

from killed import run

from replication.provenance import read_written

RECORD = Path(__file__).resolve().parents[2] / "results/robustness/killed.json"


def test_a_killed_segmentation_and_fusion_leave_nothing_half_written(tmp_path):
    told = run(2, folder=tmp_path, only=("fuse", "segment"))
    assert {command: of["faults"] for command, of in told.items()} == {"fuse": [], "segment": []}
    assert told["segment"]["files"] == 4 and told["fuse"]["files"] > 10


def test_the_record_of_twenty_kills_has_no_fault():
    commands = read_written(RECORD, command="python tests/scans/killed.py")["commands"]
    assert set(commands) == {"segment", "fuse", "train"}
    assert all(of["times"] == 20 and of["killed"] >= 15 and not of["faults"] for of in commands.values())
