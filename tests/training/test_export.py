"""A trained run's weights on their way to whoever uses them: from its folder, exported, by a name or a path."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from chslib.network import CHSNet
from chslib.pretrained import available, load_pretrained
from replication.cli import main
from replication.scans.weights import load_cascade
from replication.training.grid import get_run
from replication.training.networks import make_network
from replication.training.profiles import get_profile

ORIGIN = {"preparation": "window", "window": [-1000.0, 400.0], "size": 96, "scans": "Ward 7", "terms": "not to be passed on",
          "public": False, "ends": None}  # fmt: skip
LUNGS, INFECTION = "table2-lungs-patient-fold1", "table2-infection-patient-fold1"


@pytest.fixture
def left(tmp_path: Path) -> Callable[..., nn.Module]:
    """Leaves what a training leaves in `runs/smoke/<run>`; returns its network."""

    def leave(name: str, *, origin: dict | None = ORIGIN, **config: object) -> nn.Module:
        network = make_network(get_run(name), get_profile("smoke"))
        path = tmp_path / "runs" / "smoke" / name / "weights.pt"
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        run = get_run(name)
        record = {
            "run": name, "profile": "smoke", "started": "", "commit": "", "versions": {}, "fit": {"history": []},
            "config": {"widths": list(network.widths), "size": 64, "target": run.target, "protocol": run.protocol, **config},
            "data": {"origin": origin, "split": {"train": {"slices": 9, "without_infection": 4}}},
            "test": {"pooled": {"dsc": 0.5}, "patients": {"Mrs K": {}, "Mr L": {}}},
            "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }  # fmt: skip
        (path.parent / "record.json").write_text(json.dumps(record))
        return network

    return leave


def sha256(folder: Path, name: str) -> str:
    return json.loads((folder / "runs" / "smoke" / name / "record.json").read_text())["weights_sha256"]


def test_a_cascade_by_its_run_or_as_exported_says_the_same_true_things(left, tmp_path, capsys):
    torch.manual_seed(0)
    networks = {"lungs": left(LUNGS)}
    networks["infection"] = left(INFECTION, first_stage_weights=sha256(tmp_path, LUNGS))
    run, out = tmp_path / "runs" / "smoke" / INFECTION, tmp_path / "out"
    assert main(["weights", "export", str(out), "--weights", str(run)]) == 0
    assert available(out) == [f"smoke/{INFECTION}", f"smoke/{LUNGS}"]
    assert isinstance(load_pretrained(out / "smoke" / INFECTION), CHSNet)
    capsys.readouterr()
    for where in (run, out, out / "smoke" / INFECTION, f"{out}/smoke/{INFECTION}.safetensors"):
        cascade = load_cascade(where)
        for target, network in networks.items():
            stage = getattr(cascade, target)
            for (name, a), b in zip(
                network.state_dict().items(), stage.network.state_dict().values(), strict=True
            ):
                assert torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-6), name
            assert stage.size == 64 and stage.origin.__dict__ == ORIGIN and stage.without_infection == 4
        assert cascade.feed == "mask" and cascade.weights["name"] == f"smoke/{INFECTION}"
        assert main(["weights", "list", "--weights", str(where)]) == 0
        told = capsys.readouterr().out
        assert "cascade         64x64  Dice 0.500 of infection on 2 patients apart, window" in told
    sidecar = (out / "smoke" / f"{INFECTION}.json").read_text()
    assert (
        "Ward 7: not to be passed on" in sidecar
        and "--preparation window` makes them, [-1000, 400] HU" in sidecar
    )
    assert "Mrs K" not in sidecar and "Ma et al" not in sidecar and "minmax" not in sidecar


def test_a_network_for_infection_alone_has_the_default_first_stage_in_front(left, tmp_path):
    left("table4-bu")
    cascade = load_cascade(tmp_path / "runs")
    assert cascade.feed == "whole" and cascade.weights["lungs"] == "paper/table2-lungs-patient-fold3"
    assert (cascade.lungs.size, cascade.infection.size) == (256, 64)


REFUSED = {
    "no record": (lambda left, run: (left("table4-bu"), (run / "record.json").unlink()), "record.json is missing; train"),
    "other weights": (
        lambda left, run: (left("table4-bu"), torch.save(make_network(get_run("table4-bu"), get_profile("smoke")).state_dict(), run / "weights.pt")),
        "belong to different trainings",
    ),
    "slices of an unknown making": (lambda left, run: left("table4-bu", origin=None), "do not say how they were prepared"),
    "nothing": (lambda left, run: None, "No weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_truly_is_refused_and_nothing_is_written(what, left, tmp_path, capsys):
    made, says = REFUSED[what]
    run = tmp_path / "runs" / "smoke" / "table4-bu"
    made(left, run)
    assert main(["weights", "export", str(tmp_path / "out"), "--weights", str(run)]) == 1
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_other_weights_in_the_way_are_kept_unless_asked_otherwise(left, tmp_path, capsys):
    left("table4-bu")
    export = ["weights", "export", str(tmp_path), "--weights", str(tmp_path / "runs" / "smoke" / "table4-bu")]
    assert main(export) == 0 and main(export) == 0  # the same again
    sidecar = tmp_path / "smoke" / "table4-bu.json"
    sidecar.write_text(json.dumps({"mine": True}))
    assert main(export) == 1 and "other weights stand there" in capsys.readouterr().err
    assert json.loads(sidecar.read_text()) == {"mine": True}
    assert main([*export, "--replace"]) == 0 and "mine" not in sidecar.read_text()


@pytest.mark.parametrize(
    "name, says", [("beyond-context", "neighbouring slices"), ("table3-miniseg", "chslib does not build")]
)
def test_export_refuses_what_load_pretrained_could_not_build(name, says, left, tmp_path, capsys):
    left(name)
    run = tmp_path / "runs" / "smoke" / name
    assert main(["weights", "export", str(tmp_path / "out"), "--weights", str(run)]) == 1
    assert says in capsys.readouterr().err
