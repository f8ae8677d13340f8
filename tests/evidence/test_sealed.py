"""The sealed test: its scores follow from its counts, and its weights are those of the records."""

import json
from pathlib import Path

import numpy as np
import pytest

from chslib.metrics import scores

ROOT = Path(__file__).resolve().parents[2]
SEALED = json.loads((ROOT / "results/sealed-test.json").read_text(encoding="utf-8"))
PARTS = [
    (name, part) for name, of in SEALED["evaluated"].items() for part in ("lungs", "infection") if part in of
]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_scores_follow_from_the_counts_of_each_slice(name, part):
    of, size = SEALED["evaluated"][name][part], SEALED["evaluated"][name]["size"]
    counts = np.array([row[1:] for row in of["slices"]])
    assert (counts.sum(1) == size**2).all()
    pooled = scores(counts.sum(0))
    for score, value in of["pooled"].items():
        assert value == pytest.approx(float(pooled[score]), abs=6e-5), score
    for volume, number in SEALED["volumes"].items():
        rows = counts[[row[0].startswith(volume + "_") for row in of["slices"]]]
        assert len(rows) == number
        assert of["patients_dsc"][volume] == pytest.approx(float(scores(rows.sum(0))["dsc"]), abs=6e-5)


@pytest.mark.parametrize("name", SEALED["evaluated"])
def test_weights_are_those_of_the_record_and_nobody_sealed_was_trained_on(name):
    path = ROOT / "results" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{name} has no record here")
    record, of = json.loads(path.read_text(encoding="utf-8")), SEALED["evaluated"][name]
    assert of["weights_sha256"] == record["weights_sha256"]
    assert of["own_test_dsc"] == pytest.approx(record["test"]["pooled"]["dsc"], abs=6e-5)
    for part in record["data"]["split"].values():
        assert not set(part["patients"]) & set(SEALED["volumes"])
