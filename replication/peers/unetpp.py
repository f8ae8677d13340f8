"""U-Net++ (Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation",
DLMIA 2018, arXiv:1807.10165): a row of Table 3, [21] of the paper, there "9M".

A U-Net whose skips pass through blocks of their own. With X^{i,j} at level i (down) and column j
(right), Eq. 1 of Zhou et al.:

    X^{i,0} = H(pool(X^{i-1,0}))                                 the encoder of a U-Net
    X^{i,j} = H([X^{i,0}, ..., X^{i,j-1}, up(X^{i+1,j-1})])      all before it, and the one below

    X00 - X01 - X02 - X03 - X04 -> 1x1 -> logits
       X10 - X11 - X12 - X13
          X20 - X21 - X22                    H: two 3x3 + BN + ReLU;  up: 2x2 transposed convolution
             X30 - X31
                X40

Without deep supervision, which the original leaves optional. Where it differs from the published
code (MrGiovanni/UNetPlusPlus): batch normalisation in place of biases, no dropout and no penalty on
weights (1e-4 there), PyTorch's initial weights (he_normal there), all as in our U-Net, so that the nesting
sets the two apart; and no bias in the transposed convolutions, where batch norms leave it nothing to do but at
the borders. ReLU is theirs since August 2018, ELU before. 9,044,417 parameters (9.04M).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.blocks import DoubleConv
from chslib.checks import check_input
from chslib.fast.cpu import PointwiseConv2d
from chslib.network import UNET_WIDTHS, check_widths


class UNetPlusPlus(nn.Module):
    """U-Net++: (N, in, H, W) -> logits (N, out, H, W); sides divisible by 2 per pooled stage, here 16.

    Args:
        in_channels: channels of the input; a CT slice has 1.
        out_channels: maps to predict; 1 here (infection, or lungs).
        widths: channels of the levels i = 0, 1, ..., the bottleneck last.

    Raises:
        ValueError: an argument outside the above; in `forward`, see `chslib.checks.check_input`.

    Example:
        >>> UNetPlusPlus()(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self, *, in_channels: int = 1, out_channels: int = 1, widths: tuple[int, ...] = UNET_WIDTHS
    ) -> None:
        super().__init__()
        widths = check_widths(widths)
        self.in_channels, self.widths, self.divisor = in_channels, widths, 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(DoubleConv(i, o) for i, o in zip((in_channels, *widths), widths))
        # Columns j = 1, 2, ...: entry [j-1][i] belongs to X^{i,j}; each column is one level shorter.
        self.up, self.nested = nn.ModuleList(), nn.ModuleList()
        for column in range(1, len(widths)):
            levels = list(zip(widths, widths[1:]))[: len(widths) - column]
            # No bias: the batch norm behind the next convolution takes a constant out again.
            self.up.append(
                nn.ModuleList(nn.ConvTranspose2d(deep, c, 2, stride=2, bias=False) for c, deep in levels)
            )
            self.nested.append(nn.ModuleList(DoubleConv((column + 1) * c, c) for c, _ in levels))
        self.head = PointwiseConv2d(widths[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self, divisor=self.divisor)
        rows: list[list[Tensor]] = []  # rows[i][j] is X^{i,j}
        for level, block in enumerate(self.encoder):
            rows.append([block(F.max_pool2d(rows[-1][0], 2) if level else x)])
        for column, (ups, blocks) in enumerate(zip(self.up.children(), self.nested.children()), start=1):
            for level, (up, block) in enumerate(zip(ups.children(), blocks.children())):
                below = up(rows[level + 1][column - 1])
                rows[level].append(block(torch.cat([*rows[level], below], dim=1)))  # (j+1)c -> c
        return self.head(rows[0][-1])
