"""Table 3's five compared networks, by name: what each is, how to build it, how many parameters.

The paper gives no settings for them (register row 19), so each is a published architecture, up to what its file says,
trained from random weights by the recipe of all our runs (rows 59, 62).

What training and evaluation expect of a peer:
- ``network(image)``, (N, in, H, W), returns the one prediction: logits (N, 1, H, W);
- ``network.training_loss(image, mask) -> Tensor`` is optional. A network with more outputs or a
  loss of its own (Inf-Net, MiniSeg) has it, and is trained on it; the others are trained on
  ``segmentation_loss(network(image), mask)`` (Eq. 15). Every one is validated by Eq. 15;
- ``network.widths`` are its channels, part of a run's record.

A peer's file is imported when it is first built.
"""

import inspect
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pandas as pd
import torch
from torch import nn

from chslib.network import count_parameters

NARROW = (8, 12, 18, 27, 40)  # the smoke profile's widths


@dataclass(frozen=True)
class Peer:
    """A row of Table 3, or a network of one's own beside it (`OWN`), which has a label and a location.

    Attributes:
        label: as printed there.
        location: "module:class" of our network, below this package.
        paper: parameters as printed there.
        upstream: parameters of the published code, with its own input and output channels.
        source: that code, as owner/repository and, where it has several, the network.
        reason: why ours, upstream's and the paper's numbers differ, in a sentence.
        narrow: arguments that make it small, for the smoke profile.
    """

    label: str
    location: str
    paper: str = ""
    upstream: int = 0
    source: str = ""
    reason: str = ""
    narrow: dict[str, Any] = field(default_factory=dict)

    @property
    def network_class(self) -> type[nn.Module]:
        module, name = self.location.split(":")
        return getattr(import_module(f"{__name__}.{module}"), name)


PEERS: dict[str, Peer] = {
    "unet": Peer(
        label="U-Net [17]+VGG16",
        location="unet:UNet",
        paper="7.9M",
        upstream=7_759_521,
        source="MrGiovanni/UNetPlusPlus, U_Net: 32 filters",
        reason="Ours has batch norms (two numbers per filter) where upstream has biases (one); VGG16, which the "
        "paper names, has 14.7M in its convolutions, and 7.6M in the first four blocks that the linked code takes: "
        "with a decoder neither makes 7.9M.",
        narrow={"widths": NARROW},
    ),
    "unetpp": Peer(
        label="U-Net++ [21]+VGG16",
        location="unetpp:UNetPlusPlus",
        paper="9M",
        upstream=9_041_601,
        source="MrGiovanni/UNetPlusPlus, Nest_Net: 32 filters",
        reason="Ours has batch norms where upstream has biases, and no bias in its transposed convolutions; the "
        "paper's 9M cannot contain the whole of VGG16.",
        narrow={"widths": NARROW},
    ),
    "attention-unet": Peer(
        label="AU-Net [22]+VGG16",
        location="attention_unet:AttentionUNet",
        paper="8.7M",
        upstream=8_725_501,
        source="LeeJunHyun/Image_Segmentation, AttU_Net: 32 filters for its 64, 1 input channel for its 3",
        reason="The same layers as upstream, a two-dimensional reading of the network; the code that the paper "
        "links to is three-dimensional, and its 8.7M cannot contain the whole of VGG16.",
        narrow={"widths": NARROW},
    ),
    "infnet": Peer(
        label="Inf-Net [12]+Res2Net",
        location="infnet:InfNet",
        paper="33M",
        upstream=33_121_721,
        source="DengPingFan/Inf-Net: 33.12M, its last digits by our own count",
        reason="Upstream's trunk carries a classifier of 2,049,000 parameters that nothing uses, and takes 3 "
        "channels where ours takes 1.",
        narrow={"widths": (16, 32, 64, 128), "blocks": (1, 1, 1, 1), "decoder_channels": 4},
    ),
    "miniseg": Peer(
        label="MiniSeg [51]",
        location="miniseg:MiniSeg",
        paper="472K",
        upstream=82_912,
        source="yun-liu/MiniSeg",
        reason="Upstream takes 3 channels and predicts 2 maps, ours 1 and 1; 472K is what MiniSeg's first "
        "preprint says, the published and the released network have 83K.",
        narrow={"widths": (4, 8, 12, 16), "blocks": (1, 1, 1, 1)},
    ),
}


# Networks of one's own: a file in this folder and a line here each, `"mine": Peer(label="Mine", location="mine:Mine")`.
# They train under both protocols as `own-<key>` and stand below the paper's rows (book/own_network.md).
OWN: dict[str, Peer] = {}


def build_peer(name: str, **changes: Any) -> nn.Module:
    """A peer, untrained, with any argument of its class changed.

    Args:
        name: a key of `PEERS` or `OWN`.
        changes: e.g. ``**PEERS[name].narrow``.

    Raises:
        ValueError: no such peer, or an argument that its class does not have or refuses.

    Example:
        >>> build_peer("unet", widths=(8, 12, 18, 27, 40))(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 1, 32, 32])
    """
    if name not in PEERS | OWN:
        raise ValueError(
            f"Unknown peer {name!r}; expected one of {', '.join(PEERS | OWN)} (Table 3, and one's own)."
        )
    network = (PEERS | OWN)[name].network_class
    known = inspect.signature(network).parameters
    if unknown := [key for key in changes if key not in known]:
        raise ValueError(
            f"{network.__name__} got unknown arguments {', '.join(unknown)}; expected some of {', '.join(known)}."
        )
    return network(**changes)


def parameter_table() -> pd.DataFrame:
    """Table 3's column "Param.": a row per peer, indexed by its key.

    Columns: label; ours, counted on the network as built; paper, as printed; upstream; source; reason.
    """
    rows = {}
    for name, peer in PEERS.items():
        with torch.random.fork_rng(devices=[]):  # counting changes no run that is seeded before it
            ours = count_parameters(build_peer(name))
        rows[name] = {
            "label": peer.label,
            "ours": ours,
            "paper": peer.paper,
            "upstream": peer.upstream,
            "source": peer.source,
            "reason": peer.reason,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("peer")
