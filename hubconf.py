"""For `torch.hub.load`: the cascade and its one network, trained or not. Everything else is in chslib.

network = torch.hub.load("/path/to/this/checkout", "chs_net", source="local")
network = torch.hub.load("OWNER/NAME", "chs_net", weights="cpu/table2-infection")
"""

from chslib.network import CHSNet, RAIUNet
from chslib.pretrained import DEFAULT, load_pretrained

dependencies = ["torch", "numpy", "safetensors"]


def chs_net(*, pretrained: bool = True, weights: str = DEFAULT) -> CHSNet:
    """The cascade: slices (N, 1, H, W) in 0..1 -> logits `lungs` and `infection`.

    Args:
        pretrained: with weights, in evaluation mode; else drawn anew, in training mode.
        weights: `profile/run` of a second stage; `chslib.pretrained.available` lists the names.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: weights of one network alone.
    """
    return _checked(load_pretrained(weights), CHSNet, weights) if pretrained else CHSNet()


def raiu_net(*, pretrained: bool = False, weights: str = "paper/table4-full") -> RAIUNet:
    """One RAIU-Net: slices (N, 1, H, W) in 0..1 -> logits (N, 1, H, W).

    Args:
        pretrained: with weights, in evaluation mode; else drawn anew, in training mode.
        weights: `profile/run` of one network: by default the direct one, which finds infection in the whole
            slice; "paper/table2-lungs" finds lungs.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: weights of a cascade.
    """
    return _checked(load_pretrained(weights), RAIUNet, weights) if pretrained else RAIUNet()


def _checked(network, kind, weights):
    if not isinstance(network, kind):
        raise ValueError(
            f"weights={weights!r} are a {type(network).__name__}, expected a {kind.__name__}; "
            "chs_net takes cascades, raiu_net one network."
        )
    return network
