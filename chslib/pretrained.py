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
from torch import Tensor

from chslib.checks import check_grey
from chslib.network import CHSNet, RAIUNet, build_network

FOLDER = Path(__file__).resolve().parent / "weights"
DEFAULT = "paper/table2-infection-patient-fold3"  # the cascade at 256x256 that was tried on new patients


def available(folder: str | Path = FOLDER) -> list[str]:
    """Names that `load_pretrained` knows, as `profile/run`."""
    return sorted(f"{p.parent.name}/{p.stem}" for p in Path(folder).glob("*/*.safetensors"))


def _located(name: str | Path, folder: str | Path) -> Path:
    """The file of weights by their name, or by its own path."""
    stem = str(name).removesuffix(".safetensors")
    if stem in available(folder):
        return Path(folder) / f"{stem}.safetensors"
    if (path := Path(f"{stem}.safetensors")).is_file():
        return path
    names = ", ".join(available(folder)) or "none"
    raise FileNotFoundError(
        f"No weights {stem!r} in {folder}, and no file {path}; expected a path, or profile/run, one of: {names}. An "
        "installed package holds the default ones alone; folder= names the folder chslib/weights of a checkout."
    )


def read_weights(
    name: str | Path, *, folder: str | Path = FOLDER
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One file's tensors in float32, and its sidecar; `name` as of `load_pretrained`.

    Raises:
        FileNotFoundError: no such weights; the message lists the names there are.
        ValueError: a file that differs from its sidecar's checksum.
    """
    path = _located(name, folder)
    content, sidecar = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    if (found := hashlib.sha256(content).hexdigest()) != sidecar["sha256"]:
        raise ValueError(
            f"{path} has sha256 {found}, its sidecar says {sidecar['sha256']}; the file is damaged or "
            "another one, fetch both again (git lfs or a shortened download often is the cause)."
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in load(content).items()}, sidecar


def load_stage(name: str | Path, *, folder: str | Path = FOLDER) -> tuple[RAIUNet, dict[str, Any]]:
    """One network without what stands in front of it, in evaluation mode, and its sidecar; see `load_pretrained`."""
    state, sidecar = read_weights(name, folder=folder)
    settings = dict(sidecar["network"])
    if sidecar["first_stage"] and sidecar["cascade"] == "concat":
        settings["in_channels"] = 2
    network = build_network(settings.pop("arm"), **settings)
    network.load_state_dict(state)
    network.register_forward_pre_hook(check_grey)
    return network.eval(), sidecar


def load_pretrained(name: str | Path = DEFAULT, *, folder: str | Path = FOLDER) -> RAIUNet | CHSNet:
    """A trained network by its name or file, in evaluation mode, on the CPU.

    Args:
        name: `profile/run`, for example "cpu/table2-infection", see `available`; or the path of a file that
            `chs-net weights export` wrote. A second stage comes as the whole cascade (`CHSNet`), with the first
            stage that it was trained behind and that lies beside it; any other run as its one network (`RAIUNet`).
        folder: of the weights.

    Raises:
        FileNotFoundError, ValueError: see `read_weights`; in evaluation, see `chslib.checks.check_grey`.

    Example:
        >>> network = load_pretrained("cpu/table2-infection")
        >>> network(torch.zeros(1, 1, 128, 128)).infection.shape
        torch.Size([1, 1, 128, 128])
    """
    network, sidecar = load_stage(name, folder=folder)
    if not sidecar["first_stage"]:
        return network
    lungs, _ = load_stage(_located(name, folder).with_name(sidecar["first_stage"]), folder=folder)
    return CHSNet(lungs=lungs, infection=network, cascade=sidecar["cascade"]).eval()
