"""The network of a run: built by its arm, described for its record, loaded with the weights that it left."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chslib.network import ARMS, build_network, count_parameters
from replication.peers import OWN, PEERS, build_peer
from replication.training.grid import Run, run_settings
from replication.training.profiles import Profile
from replication.training.recipe import RECIPES, context_of


def make_network(run: Run, profile: Profile) -> nn.Module:
    """The untrained network of a run, channels_last; the caller seeds."""
    if run.arm in ARMS:
        changes = ({"widths": profile.widths} if profile.widths else {}) | run.network
        if run.first_stage and run.cascade == "concat":
            changes["in_channels"] = 2
        if context := context_of(run.recipe):
            changes["in_channels"] = 1 + 2 * context
        network: nn.Module = build_network(run.arm, **changes)
    else:
        network = build_peer(
            run.arm, **(((PEERS | OWN)[run.arm].narrow if profile.widths else {}) | run.network)
        )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its types leave it out


def run_config(run: Run, profile: Profile, network: nn.Module) -> dict[str, Any]:
    """Everything that decides a run's numbers, apart from data and code; part of its record."""
    widths: Any = network.widths
    config = run_settings(run, profile) | {
        "optimizer": "Adam",
        "loss": f"its own ({run.arm})" if hasattr(network, "training_loss") else run.loss,
        "augmentation": None,
        "widths": list(widths),
        "parameters": count_parameters(network),
    }
    return config | (RECIPES[run.recipe].config(passes=profile.beyond_passes) if run.recipe else {})


def load_weights(network: nn.Module, path: str | Path) -> str:
    """Load a state dict into a network; returns the sha256 of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a state dict, or holds a network of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; train its run first.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = {k: tuple(v.shape) for k, v in state.items()}
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(f"{path} is not a file of weights ({type(error).__name__}: {error}).") from error
    ours = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    if theirs != ours:
        key = next((k for k in ours if theirs.get(k) != ours[k]), None) or next(
            k for k in theirs if k not in ours
        )
        raise ValueError(
            f"{path} holds a network of another shape: {key} is {theirs.get(key, 'absent')} there and "
            f"{ours.get(key, 'absent')} here (widths {getattr(network, 'widths', '?')}). "
            "Build the network with the arm and widths of the run that wrote it, or delete the file and train again."
        )
    network.load_state_dict(state)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trained_network(run: Run, profile: Profile, record: dict[str, Any], runs: str | Path) -> nn.Module:
    """The network of a run with the weights that it left, known by its record's sha256.

    Args:
        record: the run's record; runs: folder that holds `<profile>/<run>/weights.pt`.

    Raises:
        FileNotFoundError, ValueError: see `load_weights`; weights that are not those of the record.
    """
    network = make_network(run, profile)
    found = load_weights(network, Path(runs) / profile.name / run.name / "weights.pt")
    if found != record["weights_sha256"]:
        raise ValueError(
            f"weights.pt of {run.name} has sha256 {found[:12]}, its record {record['weights_sha256'][:12]}; "
            "the two belong to different trainings, train the run again."
        )
    return network
