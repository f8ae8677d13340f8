"""Attention U-Net (Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas",
MIDL 2018, arXiv:1804.03999): a row of Table 3, [22] of the paper, there "8.7M".

A U-Net whose skips are weighed, pixel by pixel, by what the decoder already knows.

    encoder   32 -> 64 -> 128 -> 256 -> bottleneck 512    two 3x3 + BN + ReLU, then 2x2 max pooling
    decoder   512 -> 256 -> 128 -> 64 -> 32               up, gate the skip, concat, two 3x3
    up        nearest x2, then 3x3 + BN + ReLU
    head      1x1 -> logits

The original is three-dimensional. This is the two-dimensional form in common use, whose size with
32 base filters is the paper's: 8,725,501 parameters (8.73M). With copied weights it equals
LeeJunHyun/Image_Segmentation with half the filters. The original has 6,472,784. There

- a convolution of its own makes the gating signal, and the weights are made on the coarser grid and interpolated; here the
  decoder's map at the resolution of the skip gates, and the gate has batch norms;
- each scale has two gates, here one;
- a 1x1 convolution and a batch norm follow the gate, here nothing;
- maps are upsampled by interpolation alone, here a convolution follows;
- the first skip is not gated, here it is; the supervision is deep, here it is not.

Its convolutions keep the biases of that form, though a batch norm follows each: they change nothing
(their gradient is zero) but the count, of which they are 3,908.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.checks import check_input
from chslib.fast.cpu import PointwiseConv2d
from chslib.network import UNET_WIDTHS, check_widths


def _conv_norm_relu(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()


class BiasedDoubleConv(nn.Sequential):
    """Two 3x3 convolutions with BN + ReLU, as `chslib.blocks.DoubleConv`, and with biases."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            *_conv_norm_relu(in_channels, out_channels), *_conv_norm_relu(out_channels, out_channels)
        )


class UpConv(nn.Sequential):
    """Nearest neighbour x2, then 3x3 + BN + ReLU: (N, C, H, W) -> (N, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2), *_conv_norm_relu(in_channels, out_channels))


class AttentionGate(nn.Module):
    """Additive attention (Eqs. 1-2 of Oktay et al.), from a gating signal g to a weight per pixel.

        alpha = sigmoid(BN(psi(ReLU(BN(W_x x) + BN(W_g g)))))        x, g (N, C, H, W); alpha (N, 1, H, W)
        out   = alpha * x

    Args:
        channels: C, of both the skip x and the gating signal g; half as many inside.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.of_gate = nn.Sequential(PointwiseConv2d(channels, inner), nn.BatchNorm2d(inner))
        self.of_skip = nn.Sequential(PointwiseConv2d(channels, inner), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(PointwiseConv2d(inner, 1), nn.BatchNorm2d(1))

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        return skip * torch.sigmoid(self.psi(F.relu(self.of_skip(skip) + self.of_gate(gate))))


class AttentionUNet(nn.Module):
    """Attention U-Net: (N, in, H, W) -> logits (N, out, H, W); sides divisible by 2 per pooled stage, here 16.

    Args:
        in_channels: channels of the input; a CT slice has 1.
        out_channels: maps to predict; 1 here (infection, or lungs).
        widths: channels of the stages, each at least 2, and, last, of the bottleneck.

    Raises:
        ValueError: an argument outside the above; in `forward`, see `chslib.checks.check_input`.

    Example:
        >>> AttentionUNet()(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self, *, in_channels: int = 1, out_channels: int = 1, widths: tuple[int, ...] = UNET_WIDTHS
    ) -> None:
        super().__init__()
        widths = check_widths(widths, least=2, why="a gate works on half the channels")
        self.in_channels, self.widths, self.divisor = in_channels, widths, 2 ** (len(widths) - 1)
        stages = widths[:-1]
        self.encoder = nn.ModuleList(BiasedDoubleConv(i, o) for i, o in zip((in_channels, *widths), widths))
        self.up = nn.ModuleList(UpConv(deep, c) for c, deep in zip(stages, widths[1:]))
        self.gates = nn.ModuleList(AttentionGate(c) for c in stages)
        self.decoder = nn.ModuleList(BiasedDoubleConv(2 * c, c) for c in stages)
        self.head = PointwiseConv2d(stages[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self, divisor=self.divisor)
        maps: list[Tensor] = []  # halving sides, widths as in self.widths
        for stage, block in enumerate(self.encoder):
            maps.append(block(F.max_pool2d(maps[-1], 2) if stage else x))
        y = maps[-1]
        for stage in reversed(range(len(self.decoder))):
            y = self.up[stage](y)
            skip = self.gates[stage](maps[stage], y)
            y = self.decoder[stage](torch.cat([skip, y], dim=1))  # 2c -> c
        return self.head(y)
