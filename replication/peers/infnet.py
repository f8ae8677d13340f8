"""Inf-Net (Fan et al., "Inf-Net: Automatic COVID-19 Lung Infection Segmentation from CT Images",
IEEE TMI 2020, arXiv:2004.14133): a row of Table 3, [12] of the paper, there "33M".

    trunk     Res2Net50 v1b -> x1..x4, 256/512/1024/2048 channels at 1/4..1/32
    global    receptive-field blocks on x2..x4, partial decoder -> a map at 1/8
    edge      x1 -> features E at 1/4, and an edge map
    reverse   x4, x3, x2 in turn, each looking where the map before it sees nothing -> S4, S3, S2

S2, made at 1/8 of the size and upsampled, is the prediction; all five maps are trained. Where we
differ from the published network:
- it starts from ImageNet weights, ours from random ones: none can be downloaded by a network built
  here, and the other networks of Table 3 start from random weights too;
- its trunk carries a 1000-way classifier that nothing uses (2,049,000 parameters: 33.12M with it,
  31.07M without), ours does not;
- its first convolution takes 3 channels, ours 1, the slice: 2 * 32 * 9 = 576 weights fewer;
- its edge targets came with its data, ours are computed from the mask (`edge_target`); the only edges that its code
  makes are Canny's, and ours mark 2.4 times as many pixels;
- its paper weighs the pixels of the cross entropy, and so does ours. Its script passes ``reduce='none'``, which torch reads
  as the mean: the cross entropy that was run is unweighted.
With copied weights all five outputs equal the released network's to the last bit.
The semi-supervised training of Semi-Inf-Net is no part of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.checks import check_input
from chslib.fast.cpu import PointwiseConv2d
from replication.peers.res2net import BLOCKS, WIDTHS, Res2Net

DIVISOR = 32


class ConvNorm(nn.Sequential):
    """CB: convolution k x k (or kh x kw) with "same" padding, no bias, then BN; no activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | tuple[int, int], *, dilation: int = 1
    ) -> None:
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        if (kh, kw) == (1, 1):
            conv: nn.Module = PointwiseConv2d(in_channels, out_channels, bias=False)
        else:
            padding = (kh // 2 * dilation, kw // 2 * dilation)
            conv = nn.Conv2d(
                in_channels, out_channels, (kh, kw), padding=padding, dilation=dilation, bias=False
            )
        super().__init__(conv, nn.BatchNorm2d(out_channels))


class ReceptiveField(nn.Module):
    """RFB: four branches that see 1, 3-, 5- and 7-fold dilated neighbourhoods; C -> out channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        c = out_channels
        self.branches = nn.ModuleList([ConvNorm(in_channels, c, 1)])
        for k in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    ConvNorm(in_channels, c, 1),
                    ConvNorm(c, c, (1, k)),
                    ConvNorm(c, c, (k, 1)),
                    ConvNorm(c, c, 3, dilation=k),
                )
            )
        self.merge = ConvNorm(4 * c, c, 3)
        self.shortcut = ConvNorm(in_channels, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([branch(x) for branch in self.branches], dim=1)
        return F.relu(self.merge(seen) + self.shortcut(x))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class PartialDecoder(nn.Module):
    """The parallel partial decoder: a, b, c at 1/32, 1/16, 1/8 -> the global map (N, 1) at 1/8.

    Shallower maps are multiplied by the deeper ones, then all are concatenated, from deep to
    shallow; every convolution is its own.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.a_to_b, self.a_to_c, self.b_to_c = (ConvNorm(c, c, 3) for _ in range(3))
        self.a_beside_b, self.ab_beside_c = ConvNorm(c, c, 3), ConvNorm(2 * c, 2 * c, 3)
        self.join_b, self.join_c = ConvNorm(2 * c, 2 * c, 3), ConvNorm(3 * c, 3 * c, 3)
        self.smooth = ConvNorm(3 * c, 3 * c, 3)
        self.head = PointwiseConv2d(3 * c, 1)

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        a_at_b = _double(a)
        b1 = self.a_to_b(a_at_b) * b
        c1 = self.a_to_c(_double(a_at_b)) * self.b_to_c(_double(b)) * c
        b2 = self.join_b(torch.cat([b1, self.a_beside_b(a_at_b)], dim=1))
        c2 = self.join_c(torch.cat([c1, self.ab_beside_c(_double(b2))], dim=1))
        return self.head(self.smooth(c2))


class ReverseAttention(nn.Module):
    """What the map P before it left out: (1 - sigmoid(P)) * x, with the edge features, refines P.

    Args:
        in_channels: channels of x.
        channels: channels inside.
        edge_channels: channels of E.
        kernel, depth: the convolutions between, ``depth`` of kernel x kernel, each + ReLU.
        last: kernel of the convolution to one map.
    """

    def __init__(
        self, in_channels: int, channels: int, edge_channels: int, *, kernel: int, depth: int, last: int
    ) -> None:
        super().__init__()
        self.reduce = ConvNorm(in_channels, channels, 1)
        ins = (channels + edge_channels, *(channels,) * (depth - 1))
        self.refine = nn.ModuleList(ConvNorm(i, channels, kernel) for i in ins)
        self.head = ConvNorm(channels, 1, last)

    def forward(self, x: Tensor, previous: Tensor, edge: Tensor) -> Tensor:
        """x (N, C, h, w), the previous map (N, 1, h, w), E (N, e, H/4, W/4) -> logits (N, 1, h, w)."""
        y = self.reduce((1 - torch.sigmoid(previous)) * x)
        y = torch.cat([y, _resize(edge, x)], dim=1)
        for conv in self.refine:
            y = F.relu(conv(y))
        return self.head(y) + previous


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class InfNetOutput(NamedTuple):
    """Logits (N, 1, H, W): the prediction first, then the coarser maps, and the edge map."""

    s2: Tensor
    s3: Tensor
    s4: Tensor
    global_map: Tensor
    edge: Tensor


class InfNet(nn.Module):
    """Inf-Net: (N, in, H, W) -> logits (N, 1, H, W) of S2; sides divisible by 32.

    Args:
        in_channels: channels of the input; a CT slice has 1.
        out_channels: 1; reverse attention turns one map about.
        widths: channels of x1..x4. Smaller ones, with fewer `blocks`, make a quick one.
        blocks: residual blocks of the trunk's stages.
        decoder_channels: of the receptive-field blocks (32). The edge branch and reverse
            attention 3 and 2 have twice as many, reverse attention 4 eight times.

    Raises:
        ValueError: an argument outside the above; in `forward`, see `chslib.checks.check_input`;
            in training, a single slice of 32x32, whose deepest map is one pixel.

    Example:
        >>> narrow = InfNet(widths=(32, 64, 128, 256), blocks=(1, 1, 1, 1), decoder_channels=8)
        >>> narrow(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: tuple[int, ...] = WIDTHS,
        blocks: tuple[int, ...] = BLOCKS,
        decoder_channels: int = 32,
    ) -> None:
        super().__init__()
        if out_channels != 1:
            raise ValueError(f"out_channels={out_channels}; expected 1: Inf-Net predicts one map.")
        if decoder_channels < 1:
            raise ValueError(f"decoder_channels={decoder_channels}; expected at least 1.")
        widths = tuple(int(width) for width in widths)
        self.in_channels, self.widths, self.divisor = in_channels, widths, DIVISOR
        c, e = decoder_channels, 2 * decoder_channels
        self.trunk = Res2Net(in_channels=in_channels, widths=widths, blocks=blocks)
        self.fields = nn.ModuleList(ReceptiveField(width, c) for width in widths[1:])
        self.decoder = PartialDecoder(c)
        self.edge = nn.Sequential(ConvNorm(widths[0], e, 1), ConvNorm(e, e, 3), ConvNorm(e, e, 3))
        self.edge_head = ConvNorm(e, 1, 3)
        self.reverse4 = ReverseAttention(widths[3], 8 * c, e, kernel=5, depth=3, last=1)
        self.reverse3 = ReverseAttention(widths[2], e, e, kernel=3, depth=2, last=3)
        self.reverse2 = ReverseAttention(widths[1], e, e, kernel=3, depth=2, last=3)

    def all_outputs(self, x: Tensor) -> InfNetOutput:
        """The five maps, each upsampled to H x W (bilinear)."""
        check_input(x, self, divisor=DIVISOR)
        if self.training and tuple(x.shape) == (1, self.in_channels, DIVISOR, DIVISOR):
            raise ValueError(
                f"Got one slice of {DIVISOR}x{DIVISOR} in training; its deepest map is one pixel, of which a batch "
                "norm has no variance. Use larger slices, two or more at a time, or network.eval()."
            )
        x1, x2, x3, x4 = self.trunk(x)
        c, b, a = (field(deep) for field, deep in zip(self.fields, (x2, x3, x4)))
        edge = self.edge(x1)
        global_map = self.decoder(a, b, c)
        s4 = self.reverse4(x4, _resize(global_map, x4), edge)
        s3 = self.reverse3(x3, _resize(s4, x3), edge)
        s2 = self.reverse2(x2, _resize(s3, x2), edge)
        return InfNetOutput(*(_resize(m, x) for m in (s2, s3, s4, global_map, self.edge_head(edge))))

    def forward(self, x: Tensor) -> Tensor:
        return self.all_outputs(x).s2

    def training_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Inf-Net's own loss: `weighted_loss` of the four maps, summed, plus the mean BCE of the edge.

        Args:
            image: (N, in, H, W).
            mask: (N, 1, H, W), 0 or 1.
        """
        *maps, edge = self.all_outputs(image)
        # The maps first: their loss says what is wrong with a mask.
        of_maps = sum(weighted_loss(logits, mask) for logits in maps)
        return F.binary_cross_entropy_with_logits(edge.float(), edge_target(mask)) + of_maps


def edge_target(mask: Tensor) -> Tensor:
    """The outline of a mask (N, 1, H, W), 0 or 1: dilated minus eroded, each by 3x3.

    Two pixels wide, one on either side of the contour; a mask cut off by the image's border has
    none there. The paper's Inf-Net trained on edge maps made from the same masks.
    """
    mask = mask.float()  # max-pooling pads with -inf, so what lies outside neither dilates nor erodes
    return F.max_pool2d(mask, 3, stride=1, padding=1) + F.max_pool2d(-mask, 3, stride=1, padding=1)


def weighted_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Weighted BCE + weighted IoU loss: pixels unlike their surroundings, the contours, count more.

        w = 1 + 5 |mean of m over 31x31 - m|                   (beyond the border m is 0)
        BCE = sum(w bce) / sum(w),   IoU = 1 - (sum(w p m) + 1) / (sum(w (p + m - p m)) + 1)

    over the pixels of each image, then the mean over images. Computed in float32.

    Args:
        logits: (N, 1, H, W), before the sigmoid.
        mask: same shape, 0 or 1.

    Raises:
        ValueError: shapes differ.
    """
    if logits.shape != mask.shape:
        raise ValueError(
            f"The loss got logits of shape {tuple(logits.shape)} and a mask of shape {tuple(mask.shape)}; "
            "expected the same, e.g. mask.unsqueeze(1) for a mask without its channel axis."
        )
    logits, m = logits.float(), mask.float()
    p, axes = torch.sigmoid(logits), (1, 2, 3)
    w = 1 + 5 * (F.avg_pool2d(m, 31, stride=1, padding=15) - m).abs()
    bce = F.binary_cross_entropy_with_logits(logits, m, reduction="none")
    bce = (w * bce).sum(axes) / w.sum(axes)
    overlap, both = (w * p * m).sum(axes), (w * (p + m)).sum(axes)
    return (bce + 1 - (overlap + 1) / (both - overlap + 1)).mean()
