"""MiniSeg (Qiu et al., "MiniSeg: An Extremely Minimum Network for Efficient COVID-19 Segmentation",
AAAI 2021, arXiv:2004.09750): a row of Table 3, [51] of the paper, there "472K".

472K is what the first preprint says of its network; the published network and the released one have
83K. This is the latter: two paths, o of attentive pyramids (AHSP) and l of light depthwise blocks
(DB), which meet before each block and between stages.

    encoder   8-24-32-64 channels at 1/2, 1/4, 1/8, 1/16; 2, 3, 8, 6 blocks
    decoder   back to 1/2, each scale fused with the encoder's o of that scale
    heads     1x1 at each of the four scales, upsampled; the finest is the prediction

The released network counts 82,912 with its four heads, which this one has for in_channels=3 and
out_channels=2 (lesion and background): with biases on the heads and on the four plain 1x1 of the
decoder, and none elsewhere. The last four, 128 numbers, stand before batch norms, and so change
nothing and get no gradient.

The prediction is the released network's. Its training differs in three things, read in its code but for the formula of
the class weights, which is that of a copy of its loader (the loader itself was not seen). They are had by
``MiniSeg(released=True)`` (register row 62; ``alt-miniseg`` of the grid):

- heads 2 to 4 read their maps after these were upsampled for the next scale, so that their logits are interpolated twice;
- channels are dropped before each head, 1 % of them;
- the loss is a cross entropy, the classes weighted by 1 / log(1.1 + their share), with heads 1 : 0.4 : 0.4 : 0.4. Ours is
  the mean over the heads of the loss of all networks here (Eq. 15).

Its augmentation, schedule and weight decay are in neither (row 62).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.checks import check_input
from chslib.fast.cpu import PointwiseConv2d
from chslib.loss import segmentation_loss

WIDTHS = (8, 24, 32, 64)
BLOCKS = (2, 3, 8, 6)
DILATIONS = (1, 2, 4, 8)
DIVISOR = 16
HEADS = (1.0, 0.4, 0.4, 0.4)  # released: weights of the heads' losses
DROPPED = 0.01  # released: share of channels before a head
INFECTED = (
    0.016  # of the pixels of our slices (`replication.data`); the released code counts its training set
)
CLASS_WEIGHTS = tuple(1 / math.log(1.1 + share) for share in (1 - INFECTED, INFECTED))


def _norm_act(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.PReLU(channels)


def _depthwise(channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        channels,
        kernel,
        stride=stride,
        padding=kernel // 2 * dilation,
        dilation=dilation,
        groups=channels,
        bias=False,
    )


class DownBlock(nn.Sequential):
    """DB: 1x1, depthwise 5x5 of the stride, BN, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            PointwiseConv2d(in_channels, out_channels, bias=False),
            _depthwise(out_channels, 5, stride=stride),
            *_norm_act(out_channels),
        )


class ConvBlock(nn.Sequential):
    """3x3 of the stride, BN, PReLU: what the first stage has in place of the pyramid."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            *_norm_act(out_channels),
        )


class AttentivePyramid(nn.Module):
    """AHSP, the attentive hierarchical spatial pyramid: H x W over ``stride``.

        r  = 1x1 to out/4 channels;   d_i = depthwise 3x3 of r, dilation 1, 2, 4, 8
        d1 += avgpool3x3(r);   d2 += d1;   d3 += d2;   d4 += d3
        att = sigmoid(1x1 in 4 groups of [d1..d4]), a map each;   d_i *= 1 + att_i
        PReLU(BN(1x1 in 4 groups of [d1..d4]))

    Args:
        in_channels, out_channels: C and out, a multiple of 4.
        stride: of the depthwise convolutions and the average.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        r, levels = out_channels // 4, len(DILATIONS)
        self.stride = stride
        self.reduce = PointwiseConv2d(in_channels, r, bias=False)
        self.levels = nn.ModuleList(_depthwise(r, 3, stride=stride, dilation=d) for d in DILATIONS)
        self.attend = nn.Conv2d(out_channels, levels, 1, groups=levels, bias=False)
        self.merge = nn.Conv2d(out_channels, out_channels, 1, groups=levels, bias=False)
        self.act = nn.Sequential(*_norm_act(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        r = self.reduce(x)
        finer = F.avg_pool2d(r, 3, stride=self.stride, padding=1)
        maps = []
        for level in self.levels:
            finer = level(r) + finer
            maps.append(finer)
        attention = torch.sigmoid(self.attend(torch.cat(maps, dim=1)))  # (N, 4, H, W)
        weighed = [d * (1 + a) for d, a in zip(maps, attention.split(1, dim=1))]
        return self.act(self.merge(torch.cat(weighed, dim=1)))


class Stage(nn.Module):
    """One stage of the encoder: both paths at stride 2, then ``blocks`` blocks.

    o = block(o in), l = DB(l in), both at stride 2;   s = o + l
    for each block:  o = block(s) + o;   in the first half also l = DB(s) + l;   s = o + l
    """

    def __init__(self, block: type[nn.Module], in_channels: int, out_channels: int, *, blocks: int) -> None:
        super().__init__()
        self.enter_o = block(in_channels, out_channels, stride=2)
        self.enter_l = DownBlock(in_channels, out_channels, stride=2)
        self.o_blocks = nn.ModuleList(block(out_channels, out_channels) for _ in range(blocks))
        self.l_blocks = nn.ModuleList(DownBlock(out_channels, out_channels) for _ in range(blocks // 2))

    def forward(self, o_path: Tensor, l_path: Tensor) -> tuple[Tensor, Tensor]:
        o_path, l_path = self.enter_o(o_path), self.enter_l(l_path)
        for i, block in enumerate(self.o_blocks):
            both = o_path + l_path
            o_path = block(both) + o_path
            if i < len(self.l_blocks):
                l_path = self.l_blocks[i](both) + l_path
        return o_path, l_path


class Exchange(nn.Module):
    """Between stages: BN(1x1 of [l, o]), its first half added to l, its second to o."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = PointwiseConv2d(2 * channels, 2 * channels, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)

    def forward(self, o_path: Tensor, l_path: Tensor) -> tuple[Tensor, Tensor]:
        to_l, to_o = self.norm(self.mix(torch.cat([l_path, o_path], dim=1))).chunk(2, dim=1)
        return o_path + to_o, l_path + to_l


class Fusion(nn.Module):
    """A step of the decoder: PReLU(F(up x) + BN(1x1 o)), where F is a 1x1, the sum of depthwise 3x3
    with dilations 1 and 2 of it, and BN."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = PointwiseConv2d(in_channels, out_channels, bias=False)
        self.near, self.far = (_depthwise(out_channels, 3, dilation=d) for d in (1, 2))
        self.norm = nn.BatchNorm2d(out_channels)
        self.lateral = nn.Sequential(
            PointwiseConv2d(out_channels, out_channels), nn.BatchNorm2d(out_channels)
        )
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor, o: Tensor) -> Tensor:
        y = self.reduce(_resize(x, o.shape[-2:]))
        return self.act(self.norm(self.near(y) + self.far(y)) + self.lateral(o))


def _resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class MiniSeg(nn.Module):
    """MiniSeg: (N, in, H, W) -> logits (N, out, H, W) of the finest head; sides divisible by 16.

    Args:
        in_channels: channels of the input; a CT slice has 1.
        out_channels: maps to predict; 1 here (infection, or lungs).
        widths: channels of the four stages, all but the first multiples of 4.
        blocks: blocks of each stage, at least 1; fewer make a quicker network.
        released: whether its training is that of the released code, see above; the same weights predict the same.

    Raises:
        ValueError: an argument outside the above; in `forward`, see `chslib.checks.check_input`;
            in training, a single slice of 16x16, whose deepest map is one pixel.

    Example:
        >>> MiniSeg()(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: tuple[int, ...] = WIDTHS,
        blocks: tuple[int, ...] = BLOCKS,
        released: bool = False,
    ) -> None:
        super().__init__()
        self.released = released
        widths = tuple(int(width) for width in widths)
        if len(widths) != 4 or min(widths) < 1 or any(width % 4 for width in widths[1:]):
            raise ValueError(
                f"widths={widths}; expected four, the last three multiples of 4 (the pyramid's levels), "
                f"e.g. {WIDTHS}."
            )
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(
                f"blocks={tuple(blocks)}; expected four numbers, each at least 1, e.g. {BLOCKS}."
            )
        self.in_channels, self.widths, self.divisor = in_channels, widths, DIVISOR
        kinds = (ConvBlock, AttentivePyramid, AttentivePyramid, AttentivePyramid)
        self.stages = nn.ModuleList(
            Stage(kind, c_in, c_out, blocks=count)
            for kind, c_in, c_out, count in zip(kinds, (in_channels, *widths), widths, blocks)
        )
        self.exchanges = nn.ModuleList(Exchange(width) for width in widths[:-1])
        self.deepest = nn.Sequential(PointwiseConv2d(widths[-1], widths[-1]), *_norm_act(widths[-1]))
        self.fusions = nn.ModuleList(Fusion(deep, c) for deep, c in zip(widths[1:], widths))
        self.heads = nn.ModuleList(PointwiseConv2d(width, out_channels) for width in widths)

    def all_outputs(self, x: Tensor) -> list[Tensor]:
        """Logits (N, out, H, W) of the four heads, upsampled (bilinear), the finest first."""
        check_input(x, self, divisor=DIVISOR)
        if self.training and tuple(x.shape) == (1, self.in_channels, DIVISOR, DIVISOR):
            raise ValueError(
                f"Got one slice of {DIVISOR}x{DIVISOR} in training; its deepest map is one pixel, of which a batch "
                "norm has no variance. Use larger slices, two or more at a time, or network.eval()."
            )
        o_path, l_path = x, x
        encoded = []  # o at 1/2, 1/4, 1/8, 1/16
        for i, stage in enumerate(self.stages):
            if i:
                o_path, l_path = self.exchanges[i - 1](o_path, l_path)
            o_path, l_path = stage(o_path, l_path)
            encoded.append(o_path)
        maps = [self.deepest(encoded[-1])]
        for i in reversed(range(len(self.fusions))):
            maps.insert(0, self.fusions[i](maps[0], encoded[i]))
        if self.released:
            maps[1:] = [_resize(m, finer.shape[-2:]) for finer, m in zip(maps, maps[1:])]
            maps = [F.dropout2d(m, DROPPED, self.training) for m in maps]
        return [_resize(head(m), x.shape[-2:]) for head, m in zip(self.heads, maps)]

    def forward(self, x: Tensor) -> Tensor:
        return self.all_outputs(x)[0]

    def training_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Deep supervision: the mean over the four heads of Eq. 15, as every network of ours has it; see above for ``released``.

        Args:
            image: (N, in, H, W).
            mask: (N, out, H, W), 0 or 1.
        """
        outputs = self.all_outputs(image)
        if not self.released:
            return torch.stack([segmentation_loss(logits, mask) for logits in outputs]).mean()
        weight = torch.where(mask > 0, CLASS_WEIGHTS[1], CLASS_WEIGHTS[0])
        losses = [F.binary_cross_entropy_with_logits(m, mask, weight, reduction="sum") for m in outputs]
        return sum(of * loss for of, loss in zip(HEADS, losses)) / weight.sum()
