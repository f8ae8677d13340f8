"""A record from elsewhere is judged by what it says, by this history, and by the predictions sent along."""

import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import DATA, ROOT, a_record, signed, write

from replication.cli import main
from replication.evidence import incoming
from replication.evidence.incoming import judge_record
from replication.evidence.ledger import ledger
from replication.evidence.records import KNOWN_DATA
from replication.training.predictions import save_masks

HEAD = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
OURS = next(iter(KNOWN_DATA))


def sent(**changes) -> dict:
    record = a_record("table4-full", "cpu-30", data=changes.pop("data", OURS))
    return signed(record | {"commit": HEAD, "device": "Tesla T4"} | changes)


def test_a_record_from_elsewhere_counts_wherever_it_lies_and_is_marked_in_the_ledger(tmp_path, capsys):
    path = write(tmp_path, sent(), profile="downloads", name="table4-full (1)")
    assert main(["records", "check", str(path)]) == 0
    told = capsys.readouterr().out
    for words in ("cpu-30/table4-full", "add up to its scores: DSC 0.900", "2 of 30 epochs", "1360 prepared slices",
                  HEAD[:12], "Tesla T4, another machine than ours"):  # fmt: skip
        assert words in told
    path.unlink()
    write(tmp_path, sent())
    line = ledger(tmp_path).set_index("id").loc["t4-full-dsc"]
    assert line["ours"] == "0.900" and line["warning"] == "trained elsewhere, on Tesla T4"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (sent() | {"device": "NVIDIA H200"}, "digest"),
        (sent(schema=3), "schema 3"),
        (sent(config=sent()["config"] | {"batch_size": 64}), "batch_size=64"),
        (sent(slices=[[*row[:3], row[3] + 1, row[4]] for row in sent()["slices"]]), "add up to"),
        (sent(test=sent()["test"] | {"pooled": sent()["test"]["pooled"] | {"dsc": 0.99}}), "dsc is 0.99"),
        (sent(commit="c" * 40), "none of this history"),
        (sent(commit=HEAD + "-modified"), "none of this history"),
        (sent(commit="unknown"), "none of this history"),
    ],
)  # fmt: skip
def test_what_does_not_count_is_refused_by_name(tmp_path, capsys, record, why):
    path = write(tmp_path, record)
    assert main(["records", "check", str(path)]) == 1
    assert why in capsys.readouterr().err


def test_other_data_are_named_and_kept_out_of_the_project_s_results(tmp_path):
    path = write(tmp_path / "results", sent(data=DATA))
    assert any("other data than the committed" in line for line in judge_record(path))
    (tmp_path / "_toc.yml").touch()
    with pytest.raises(ValueError, match="KNOWN_DATA"):
        judge_record(path)
    write(tmp_path / "results", sent(), name="table4-bu")
    with pytest.raises(ValueError, match="may not be renamed"):
        judge_record(path.with_name("table4-bu.json"))


def test_predictions_are_counted_again(tmp_path, monkeypatch):
    record = sent()
    path, predictions = write(tmp_path, record), tmp_path / "masks.npz"
    masks, truth = np.zeros((2, 3, 128 * 128), np.uint8)
    for i, (_, tp, fp, fn, _) in enumerate(record["slices"]):
        truth[i, : tp + fn] = 1
        masks[i, :tp] = masks[i, tp + fn : tp + fn + fp] = 1
    masks, truth = (of.reshape(3, 1, 128, 128) for of in (masks, truth))
    store = SimpleNamespace(
        fingerprint=OURS, infection=truth[:, 0],
        table=pd.DataFrame({"slice_id": [row[0] for row in record["slices"]]}),
    )  # fmt: skip
    monkeypatch.setattr(incoming, "read_store", lambda *_, **__: store)

    def judged(masks, weights=record["weights_sha256"]) -> str:
        save_masks(predictions, masks, fingerprint=OURS, weights_sha256=weights)
        return judge_record(path, predictions=predictions, slices=tmp_path)[-1]

    assert judged(masks) == "the predictions give these counts, 3 slices"
    for wrong, why in ((dict(masks=1 - masks), "3 of 3 test slices, first a_000"), (dict(masks=masks, weights="w"), "other weights")):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            judged(**wrong)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 128, 128\), expected \(3, 1, 128, 128\)"):
        judged(masks[:1])
    predictions.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="no masks.npz of a run"):
        judge_record(path, predictions=predictions, slices=tmp_path)
    with pytest.raises(ValueError, match="give --slices"):
        judge_record(path, predictions=predictions)
    store.fingerprint = DATA
    with pytest.raises(ValueError, match="another store"):
        judged(masks)
