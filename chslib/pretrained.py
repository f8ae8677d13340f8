"""Trained weights by name: half-precision safetensors with a sidecar, never unpickled.

    chslib/weights/<profile>/<run>.safetensors   every tensor of the network, float16 (counters as they are)
    chslib/weights/<profile>/<run>.json          sha256, how to build and feed it, the run's record, licence

An installed package holds those of `DEFAULT` and of its first stage; a checkout of the repository has all.
They were trained on data for non-commercial research, and are for research only, not for clinical use.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor, nn

from chslib.network import CHSNet, RAIUNet, build_network

FOLDER = Path(__file__).resolve().parent / "weights"
DEFAULT = "paper/table2-infection-patient-fold3"  # the cascade at 256x256 that was tried on new patients


def available(folder: str | Path = FOLDER) -> list[str]:
    """Names that `load_pretrained` knows, as `profile/run`."""
    return sorted(f"{p.parent.name}/{p.stem}" for p in Path(folder).glob("*/*.safetensors"))


def read_weights(name: str, *, folder: str | Path = FOLDER) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One file's tensors in float32, and its sidecar.

    Raises:
        FileNotFoundError: no such weights; the message lists the names there are.
        ValueError: a file that differs from its sidecar's checksum.
    """
    if name not in available(folder):
        names = ", ".join(available(folder)) or "none"
        raise FileNotFoundError(
            f"No weights {name!r} in {folder}; expected profile/run, one of: {names}. An installed package holds "
            "the default ones alone; folder= names the folder chslib/weights of a checkout."
        )
    path = Path(folder) / f"{name}.safetensors"
    content, sidecar = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    if (found := hashlib.sha256(content).hexdigest()) != sidecar["sha256"]:
        raise ValueError(
            f"{path} has sha256 {found}, its sidecar says {sidecar['sha256']}; the file is damaged or "
            "another one, fetch both again (git lfs or a shortened download often is the cause)."
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in load(content).items()}, sidecar


def load_pretrained(name: str = DEFAULT, *, folder: str | Path = FOLDER) -> nn.Module:
    """A trained network by its name, in evaluation mode, on the CPU.

    Args:
        name: `profile/run`, for example "cpu/table2-infection"; see `available`. A second stage
            comes as the whole cascade (`CHSNet`), with the first stage that it was trained behind;
            any other run as its one network (`RAIUNet`).
        folder: of the weights.

    Raises:
        FileNotFoundError, ValueError: see `read_weights`.

    Example:
        >>> network = load_pretrained("cpu/table2-infection")
        >>> network(torch.zeros(1, 1, 128, 128)).infection.shape
        torch.Size([1, 1, 128, 128])
    """
    state, sidecar = read_weights(name, folder=folder)
    settings, first, cascade = dict(sidecar["network"]), sidecar["first_stage"], sidecar["cascade"]
    if first and cascade == "concat":
        settings["in_channels"] = 2
    network: RAIUNet | CHSNet = build_network(settings.pop("arm"), **settings)
    network.load_state_dict(state)
    if first:
        lungs = load_pretrained(f"{sidecar['profile']}/{first}", folder=folder)
        network = CHSNet(lungs=lungs, infection=network, cascade=cascade)
    return network.eval()
