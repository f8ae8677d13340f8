"""Fast forms on a CPU, each as exact as its plain one: the 1x1 convolution as one product, the half-band operator.

The 1x1 convolution across channels is half of the network's work (Eqs. 3, 5, 8-12).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.fast import gpu


def _rows(x: Tensor) -> Tensor | None:
    """Maps (N, C, H, W) as the matrix (N*H*W, C) that they already are in channels_last, on a CPU or by our kernels."""
    if (x.device.type == "cpu" or gpu.usable(x)) and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).flatten(0, 2)
    return None


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of maps (N, C, H, W) with weights (out, C, 1, 1): (N, out, H, W).

    On a CPU and in channels_last the maps already are a matrix, so one plain product does it; the
    general convolution would reorder its input and, on one thread, fall back to a form that copies
    every map.
    """
    return conv1x1_of_parts([x], weight, bias)


def conv1x1_of_parts(parts: list[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of maps that stand side by side, without copying them there.

    A 1x1 over a concatenation is the sum of a 1x1 over each part.

    Args:
        parts: maps (N, C_i, H, W).
        weight: (out, sum of C_i, 1, 1).
    """
    weights = torch.split(weight, [part.shape[1] for part in parts], dim=1)
    rows = [
        _rows(part) for part in parts
    ]  # by itself: torch cannot compile a name that is bound within a list
    matrices = [matrix for matrix in rows if matrix is not None]
    if len(matrices) < len(parts):
        maps = [F.conv2d(part, w, b) for part, w, b in zip(parts, weights, [bias] + [None] * len(parts))]
        return sum(maps[1:], start=maps[0])
    n, _, height, width = parts[0].shape
    out = F.linear(matrices[0], weights[0].flatten(1), bias)
    # In place there is no map more, and none to add; autocast casts for the other form alone.
    add = torch.addmm if torch.is_autocast_enabled(out.device.type) else Tensor.addmm_
    for matrix, w in zip(matrices[1:], weights[1:], strict=True):
        out = add(out, matrix, w.flatten(1).t())
    return out.view(n, height, width, -1).permute(0, 3, 1, 2)


class PointwiseConv2d(nn.Conv2d):
    """`conv1x1` as a module; weights, initialisation and counts are those of ``nn.Conv2d``."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return conv1x1(x, self.weight, self.bias)


def halve(x: Tensor, odd_columns: Tensor) -> Tensor:
    """Spectral pooling by 2 along the axis before the last: (N, 2h, K) -> (N, h, K).

    Half of the even samples, plus one product with the odd ones: half the work of the dense
    operator, to the same rounding error.

    Args:
        odd_columns: what the dense operator does to the odd samples, (h, h).
    """
    even, odd = torch.unflatten(x, 1, (-1, 2)).unbind(2)  # views of (N, h, 2, K): no copy
    return torch.baddbmm(even, odd_columns.expand(len(x), -1, -1), odd, beta=0.5)


def double(x: Tensor, odd_columns: Tensor) -> Tensor:
    """Band-limited upsampling by 2 along the axis before the last: (N, h, K) -> (N, 2h, K).

    The even samples are the given ones; the odd ones are one product, by the transpose of
    that of `halve`.
    """
    odd = torch.matmul(2 * odd_columns.t(), x)
    return torch.stack([x, odd], dim=2).flatten(1, 2)
