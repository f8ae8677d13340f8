"""The cascade that segments a scan, and what of it belongs into a report."""

from typing import Any

from chslib.network import CHSNet
from chslib.pretrained import DEFAULT, FOLDER, available, load_pretrained, read_weights


def load_cascade(name: str | None = None) -> tuple[CHSNet, dict[str, Any]]:
    """A trained cascade, and its name, the size of its slices and the sha256 of both files.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: weights of one network alone, or trained on slices prepared another way.
    """
    name = name or DEFAULT
    network, (_, sidecar) = load_pretrained(name), read_weights(name)
    if not isinstance(network, CHSNet):
        both = [n for n in available(FOLDER) if read_weights(n)[1]["first_stage"]]
        raise ValueError(f"{name} is one network alone; expected a cascade, one of {', '.join(both)}")
    first = read_weights(f"{sidecar['profile']}/{sidecar['first_stage']}")[1]
    return network, {
        "name": name, "size": sidecar["record"]["config"]["size"], "sha256": {"lungs": first["sha256"], "infection": sidecar["sha256"]},
    }  # fmt: skip
