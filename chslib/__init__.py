"""CHS-Net (Punn & Agarwal, arXiv 2012.07079), replicated: the network, its loss, and what the notebooks share."""

from chslib.loss import SegmentationLoss
from chslib.network import ARMS, CHSNet, RAIUNet, build_network
from chslib.pretrained import load_pretrained

__all__ = ["ARMS", "CHSNet", "RAIUNet", "SegmentationLoss", "build_network", "load_pretrained"]
__version__ = "0.1.0"
