"""torch.hub on this checkout: what hubconf.py offers, with weights and without."""

import importlib.util
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from chslib import CHSNet, RAIUNet, load_pretrained
from chslib.pretrained import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
hubconf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hubconf)


def hub(entry: str, **arguments: object) -> torch.nn.Module:
    return torch.hub.load(str(ROOT), entry, source="local", **arguments)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_hub_needs_what_the_package_needs() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(hubconf.dependencies) == sorted(Requirement(line).name for line in needed)


@pytest.mark.parametrize("name", [DEFAULT, "cpu/table2-infection"])
def test_a_cascade_comes_with_its_weights(name: str) -> None:
    network = hub("chs_net") if name == DEFAULT else hub("chs_net", weights=name)
    assert isinstance(network, CHSNet) and not network.training
    assert same(network, load_pretrained(name))


def test_without_weights_a_network_is_drawn_anew() -> None:
    cascade, direct = hub("chs_net", pretrained=False), hub("raiu_net")
    assert (
        isinstance(cascade, CHSNet) and isinstance(direct, RAIUNet) and cascade.training and direct.training
    )
    assert not same(direct, hub("raiu_net"))
    with torch.inference_mode():
        assert direct(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", ["paper/table4-full", "paper/table2-lungs"])
def test_one_network_comes_with_its_weights(name: str) -> None:
    network = hub("raiu_net", pretrained=True, weights=name)
    assert not network.training and same(network, load_pretrained(name))


def test_weights_of_the_other_kind_and_unknown_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="are a RAIUNet, expected a CHSNet"):
        hub("chs_net", weights="paper/table4-full")
    with pytest.raises(ValueError, match="are a CHSNet, expected a RAIUNet"):
        hub("raiu_net", pretrained=True, weights=DEFAULT)
    with pytest.raises(FileNotFoundError, match="or profile/run, one of: cpu-30/table2-infection"):
        hub("chs_net", weights="cpu/nothing")
