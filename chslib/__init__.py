"""CHS-Net (Punn & Agarwal, arXiv 2012.07079), replicated: the network, its loss, and what the notebooks share."""

from typing import Any

from chslib.loss import SegmentationLoss
from chslib.network import ARMS, CHSNet, RAIUNet, build_network

__all__ = ["ARMS", "CHSNet", "RAIUNet", "SegmentationLoss", "build_network", "load_pretrained"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_pretrained":  # on demand, so that `python -m chslib.pretrained` runs the module once
        from chslib.pretrained import load_pretrained

        return load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
