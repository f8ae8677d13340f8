"""What each cleaning step is worth: counted against references, written once, refused when changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chest import stored

from replication.analysis import cleaning, upper_bound
from replication.analysis.cleaning import ARMS, counts, on_store, read_cleaning, read_folds, read_scan
from replication.analysis.upper_bound import ENDS, read_upper_bound
from replication.cli import main
from replication.data.slices.store import read_store
from replication.scans.steps import STEPS
from replication.training.predictions import save_masks


@pytest.fixture
def seeing(eyes, monkeypatch):
    seen = replace(eyes, weights=eyes.weights | {"name": "eyes-fold3"})
    for module in (cleaning, upper_bound):
        monkeypatch.setattr(module, "load_cascade", lambda: seen)
    monkeypatch.setattr(cleaning, "PHANTOMS", (3,))


def test_counts_are_those_of_a_hand_worked_example():
    truth, found = np.array([1, 1, 2, 0, 0]), np.array([1, 0, 1, 1, 0])
    assert counts(truth, found) == [2, 1, 1]


def test_an_arm_has_one_step_and_a_step_that_takes_nothing_changes_nothing(eyes, tiny_store):
    assert list(ARMS) == ["none", *STEPS, "all"]
    assert [sum(how.__dict__.values()) for how in ARMS.values()] == [0, 1, 1, 1, 1, 1, 5]
    store = read_store(tiny_store, size=64, progress=False)
    rows = np.arange(6)
    found = on_store(eyes, store, rows)
    assert found["density"] == found["none"], "a store has no Hounsfield units"
    for arm, of in found.items():
        for target, (tp, _, fn) in of.items():
            mask = store.lung if target == "lungs" else store.infection
            assert tp + fn == (mask[rows] > 0).sum(), arm


def test_a_scan_s_reference_in_another_order_of_axes_counts_the_same(drawn, put, seeing, tmp_path, capsys):
    ct = put(drawn.hu, drawn.affine, "ct.nii.gz")
    told = {}
    for axes in ("LAS", "PSR"):
        image = stored(drawn.lung * np.uint8(12), drawn.affine, axes)
        lungs = put(np.asanyarray(image.dataobj), image.affine, f"{axes}.nii.gz")
        main(["measure", "cleaning", "--scan", str(ct), str(lungs), "--results", str(tmp_path / axes)])
        told[axes] = read_scan(tmp_path / axes)
    assert told["LAS"].equals(told["PSR"]) and list(told["LAS"].index) == list(ARMS)
    small = put(drawn.lung[:-1], drawn.affine, "small.nii.gz")
    assert main(["measure", "cleaning", "--scan", str(ct), str(small), "--results", str(tmp_path)]) == 1
    assert main(["measure", "cleaning"]) == 1
    told = capsys.readouterr().err
    assert "small.nii.gz" in told and "expected those of" in told and "--slices STORE" in told


def test_every_upper_end_is_measured_and_moves_what_is_found(drawn, put, seeing, tmp_path):
    ct, lungs = (put(a, drawn.affine, n) for a, n in ((drawn.hu, "ct.nii.gz"), (drawn.lung, "lungs.nii.gz")))
    main(["measure", "upper-bound", "--scan", str(ct), str(lungs), "--results", str(tmp_path)])
    ends = read_upper_bound(tmp_path)
    assert list(ends.index) == list(ENDS) and (ends > 0).all(axis=None)
    assert ends["lungs, DSC"].nunique() == len(ENDS)


def test_the_command_writes_what_the_table_reads_and_a_changed_record_is_refused(
    seeing, tiny_store, tmp_path
):
    main(["measure", "cleaning", "--slices", str(tiny_store), "--size", "64", "--results", str(tmp_path)])
    table = read_cleaning(tmp_path)
    assert list(table.index) == list(ARMS) and table.to_numpy().min() >= 0
    assert (table.xs("lungs, DSC", axis=1, level=1) <= 1).all(axis=None)
    path = tmp_path / cleaning.RECORD
    path.write_text(path.read_text().replace('"fold": 3', '"fold": 2'))
    with pytest.raises(ValueError, match="changed"):
        read_cleaning(tmp_path)


def test_lungs_that_folds_left_are_cleaned_without_a_network(tiny_store, tmp_path):
    store = read_store(tiny_store, size=64, progress=False)
    folder = tmp_path / "runs/paper/table2-lungs-patient-fold1"
    asked = ["measure", "cleaning", "--slices", str(tiny_store), "--size", "64", "--results", str(tmp_path)]
    assert main([*asked, "--runs", str(tmp_path / "runs")]) == 1, "no fold"
    folder.mkdir(parents=True)
    spoilt = store.lung.astype(np.uint8)
    spoilt[:, :3, :3] = 1  # a small third body
    save_masks(folder / "masks.npz", spoilt[:, None], fingerprint=store.fingerprint, weights_sha256="0")
    assert main([*asked, "--runs", str(tmp_path / "runs")]) == 0
    table = read_folds(tmp_path)
    assert list(table.columns) == ["fold 1"] and list(table.index) == list(ARMS)
    assert table.loc["all", "fold 1"] == table.loc["largest", "fold 1"] == 1 > table.loc["none", "fold 1"]


def test_what_is_committed_bears_out_the_page_of_limits():
    arms = read_scan(Path(__file__).resolve().parents[2] / "results")
    assert arms.loc["all", "lungs, DSC"] > 0.85 > 0.6 > arms.loc["none", "lungs, DSC"]
    assert arms.loc["all", "infected voxels"] < arms.loc["none", "infected voxels"] / 2
