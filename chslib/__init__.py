"""CHS-Net (Punn & Agarwal, arXiv 2012.07079) in PyTorch: the network, its pooling layers, its loss, trained weights."""

from chslib.loss import segmentation_loss
from chslib.network import CHSNet, RAIUNet
from chslib.pooling import HybridPool2d, SpectralPool2d
from chslib.pretrained import load_pretrained

__all__ = ["CHSNet", "HybridPool2d", "RAIUNet", "SpectralPool2d", "load_pretrained", "segmentation_loss"]
__version__ = "0.1.0"
