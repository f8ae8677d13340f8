"""The 1x1 convolution across channels: half of the network's work (Eqs. 3, 5, 8-12)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of maps (N, C, H, W) with weights (out, C, 1, 1): (N, out, H, W).

    On a CPU and in channels_last the maps already are a matrix (N*H*W, C), so one plain product
    does it; the general convolution would reorder its input and, on one thread, fall back to a
    form that copies every map.
    """
    if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


class PointwiseConv2d(nn.Conv2d):
    """`conv1x1` as a module; weights, initialisation and counts are those of ``nn.Conv2d``."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return conv1x1(x, self.weight, self.bias)
