"""The committed weights: whole, small, loaded without unpickling, and still the networks of their records."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from chslib.inference import predict_masks, segment_volume
from chslib.metrics import confusion, scores
from chslib.network import CHSNet, RAIUNet
from chslib.pretrained import DEFAULT, FOLDER, available, load_pretrained, read_weights
from replication.data.phantom.volumes import make_volume
from replication.training.grid import get_run
from replication.training.networks import make_network
from replication.training.profiles import get_profile

ROOT = Path(__file__).resolve().parents[2]
CASCADES = [name for name in available() if get_run(name.split("/")[1]).first_stage]
PHANTOM = {  # Dice of a synthetic patient's lungs, infected pixels
    "cpu/table2-infection": (0.9205, 381),
    "cpu-30/table2-infection": (0.9240, 764),
    "paper/table2-infection-patient-fold3": (0.9794, 936),
}


def best_fold() -> str:
    """The patient fold of the headline with the highest Dice coefficient, of whatever profile."""
    records = [json.loads(p.read_text()) for p in (ROOT / "results").glob("*/table2-infection-patient-*")]
    best = max(
        (record for record in records if "test" in record),  # thresholds have records of their own
        key=lambda record: record["test"]["pooled"]["dsc"],
    )
    return f"{best['profile']}/{best['run']}"


def phantom_slices(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four slices of a synthetic volume as a network sees them, and their true lungs."""
    volume = make_volume(name="coronacases_001", seed=0, size=size, depth=9)
    planes = [3, 4, 5, 6]
    ct = np.stack([np.rot90(volume.ct[..., k]) for k in planes]).astype(np.float32)
    lungs = np.stack([np.rot90(volume.lung[..., k]) for k in planes]) > 0
    return torch.from_numpy((ct.clip(-1250, 250) + 1250) / 1500)[:, None], torch.from_numpy(lungs)[:, None]


def test_the_headline_and_the_best_fold_are_there_and_all_of_it_is_small():
    assert set(PHANTOM) == {"cpu/table2-infection", "cpu-30/table2-infection", best_fold()} == set(CASCADES)
    assert "paper/table2-lungs" in available()  # its second stage was cut short
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 36e6


@pytest.mark.parametrize("name", available())
def test_weights_belong_to_the_record_that_the_book_shows(name):
    state, sidecar = read_weights(name)
    record = json.loads((ROOT / "results" / f"{name}.json").read_text())
    assert sidecar["record"]["weights_sha256"] == record["weights_sha256"]
    assert sidecar["record"]["test"] == record["test"]
    assert "non-commercial" in sidecar["licence"] and "clinical" in sidecar["licence"]
    expected = make_network(get_run(sidecar["run"]), get_profile(sidecar["profile"])).state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}


def test_a_second_stage_comes_as_the_cascade_a_first_as_one_network():
    network = load_pretrained("cpu/table2-infection")
    assert isinstance(network, CHSNet) and not network.training
    assert isinstance(load_pretrained(), CHSNet) and DEFAULT in available()
    first = load_pretrained("cpu/table2-lungs")
    assert isinstance(first, RAIUNet)
    for a, b in zip(network.lungs.state_dict().values(), first.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", CASCADES)
def test_phantom_slices_give_a_fixed_value(name):
    """The lungs of a synthetic patient, found by a network that has seen none."""
    ct, lungs = phantom_slices(read_weights(name)[1]["record"]["config"]["size"])
    with torch.inference_mode():
        out = load_pretrained(name)(ct)
    dsc = float(scores(confusion(out.lungs > 0, lungs).sum(0))["dsc"])
    infected = int((out.infection > 0).sum())
    assert (dsc, infected) == (
        pytest.approx(PHANTOM[name][0], abs=2e-3),
        pytest.approx(PHANTOM[name][1], rel=0.02, abs=5),
    )


@pytest.mark.skipif(
    "CHS_REAL_SLICES" not in os.environ, reason="CHS_REAL_SLICES names no folder of the real slices"
)
@pytest.mark.parametrize("name", CASCADES)
def test_real_slices_give_the_record_s_value(name):
    from replication.data.slices.store import read_store

    record = json.loads((ROOT / "results" / f"{name}.json").read_text())
    store = read_store(os.environ["CHS_REAL_SLICES"], size=record["config"]["size"], progress=False)
    assert store.fingerprint == record["data"]["fingerprint"], "other slices than those of the record"
    of = {name: row for row, name in enumerate(store.table["slice_id"])}
    chosen = record["slices"][:: max(1, len(record["slices"]) // 100)][:100]
    rows = [of[entry[0]] for entry in chosen]
    found = segment_volume(load_pretrained(name), store.ct[rows]).infection
    counts = confusion(torch.from_numpy(found), torch.from_numpy(store.infection[rows]))
    ours = float(scores(counts.sum(0))["dsc"])
    assert ours == pytest.approx(float(scores(np.sum([e[1:] for e in chosen], 0))["dsc"]), abs=0.005)


def test_a_changed_byte_is_refused(tmp_path):
    shutil.copytree(FOLDER / "cpu", tmp_path / "cpu")
    path = tmp_path / "cpu" / "table2-lungs.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="sha256.*damaged"):
        load_pretrained("cpu/table2-lungs", folder=tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        load_pretrained("cpu/table2-infection", folder=tmp_path)


@pytest.mark.parametrize(
    "name", ["table2-lungs", "cpu/", "cpu/table9", "paper/table2-infection", "../weights/cpu/table2-lungs"]
)
def test_an_unknown_name_is_told_with_the_known_ones(name):
    with pytest.raises(FileNotFoundError, match=re.escape(", ".join(available()))):
        load_pretrained(name)


def test_loading_never_unpickles(monkeypatch):
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("torch.load was called"))
    monkeypatch.setattr("pickle.loads", lambda *a, **k: pytest.fail("pickle was called"))
    load_pretrained("cpu/table2-infection")


def test_slices_become_masks_of_both_stages_whatever_the_batch():
    ct = (phantom_slices(128)[0][:3, 0] * 255).byte().numpy()
    network = load_pretrained("cpu/table2-infection")
    found, again = segment_volume(network, ct, batch_size=2), segment_volume(network, ct, batch_size=3)
    assert found.lungs.any()
    for masks, others in zip(found, again, strict=True):
        assert masks.shape == ct.shape and masks.dtype == np.uint8 and set(np.unique(masks)) <= {0, 1}
        assert (masks == others).mean() > 0.999
    alone = predict_masks(load_pretrained("cpu/table2-lungs"), ct[:, None], batch_size=2)
    assert np.array_equal(alone[:, 0], found.lungs)
