"""A trained run's weights on their way to `load_pretrained`."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from chslib.network import CHSNet
from chslib.pretrained import available, load_pretrained
from replication.cli import main
from replication.training.export import export_weights
from replication.training.grid import get_run
from replication.training.networks import make_network
from replication.training.profiles import get_profile

ROOT = Path(__file__).resolve().parents[2]


def test_export_refuses_weights_of_another_training(tmp_path):
    with pytest.raises(FileNotFoundError, match="train table2-lungs first"):
        export_weights("table2-lungs", profile="cpu", results=tmp_path, runs=tmp_path, folder=tmp_path)
    folder = tmp_path / "cpu" / "table2-lungs"
    folder.mkdir(parents=True)
    network = make_network(get_run("table2-lungs"), get_profile("cpu"))
    torch.save(network.state_dict(), folder / "weights.pt")
    with pytest.raises(ValueError, match="belong to different trainings"):
        export_weights(
            "table2-lungs", profile="cpu", results=ROOT / "results", runs=tmp_path, folder=tmp_path
        )
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_export_refuses_a_network_of_neighbouring_slices(tmp_path):
    with pytest.raises(ValueError, match="beyond-context reads neighbouring slices"):
        export_weights(
            "beyond-context", profile="cpu", results=tmp_path, runs=tmp_path, folder=tmp_path / "weights"
        )
    assert not list(tmp_path.iterdir())


def test_what_is_exported_comes_back_to_half_precision(tmp_path):
    torch.manual_seed(0)
    network = make_network(get_run("table4-bu"), get_profile("cpu"))
    folder = tmp_path / "runs" / "cpu" / "table4-bu"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "weights.pt")
    record = {
        "config": {"widths": list(network.widths)}, "test": {}, "started": "", "commit": "", "versions": {}, "fit": {},
        "weights_sha256": hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest(),
    }  # fmt: skip
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "table4-bu.json").write_text(json.dumps(record))
    path = export_weights(
        "table3-unet", profile="cpu", results=tmp_path, runs=tmp_path / "runs", folder=tmp_path / "out"
    )  # another name of the same run
    assert path.name == "table4-bu.safetensors" and available(tmp_path / "out") == ["cpu/table4-bu"]
    loaded = load_pretrained("cpu/table4-bu", folder=tmp_path / "out")
    for (name, a), b in zip(network.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-6), name
    assert [p for p in (tmp_path / "out").rglob("*") if p.name.endswith(".part")] == []


def test_the_command_exports_a_second_stage_with_its_first(tmp_path, capsys):
    names = ("table2-lungs-patient-fold1", "table2-infection-patient-fold1")
    (tmp_path / "cpu").mkdir()
    for name in names:
        network = make_network(get_run(name), get_profile("cpu"))
        path = tmp_path / "runs" / "cpu" / name / "weights.pt"
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        record = {
            "config": {"widths": list(network.widths)}, "test": {}, "started": "", "commit": "", "versions": {}, "fit": {},
            "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }  # fmt: skip
        (tmp_path / "cpu" / f"{name}.json").write_text(json.dumps(record))
    where = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs"), "--weights", str(tmp_path / "out")]
    assert main(["weights", "export", names[1], *where]) == 0
    assert available(tmp_path / "out") == sorted(f"cpu/{name}" for name in names)
    assert isinstance(load_pretrained(f"cpu/{names[1]}", folder=tmp_path / "out"), CHSNet)
    assert capsys.readouterr().out.count("safetensors: 3.9 MB") == 2
    assert main(["weights", "list", "--weights", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == sorted(f"cpu/{name}" for name in names)
    assert main(["weights", "export", "table2-lungs", *where]) == 1
    assert (
        capsys.readouterr().err.startswith("error: ")
        and main(["weights", "list", "--weights", str(tmp_path / "no")]) == 0
    )
