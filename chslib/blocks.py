"""Depthwise separable convolution, inception convolution and the residual inception block
(Sec. 3.1, Eqs. 3-7, Figs. 4, 7 and 9), and the double convolution of the baseline U-Net [17].

All maps are (N, C, H, W). Every convolution here is followed by batch normalisation, so none
has a bias.
"""

from torch import Tensor, nn

from chslib.fast import gpu
from chslib.fast.cpu import PointwiseConv2d, conv1x1, conv1x1_of_parts
from chslib.pooling import HybridPool2d, MaxPool2d

POOLINGS = ("hybrid", "max", "average")


class DepthwiseSeparableConv2d(nn.Module):
    """DSC (Eq. 5, Fig. 4): one f x f filter per channel, then a 1x1 across channels.

    (N, C, H, W) -> (N, out, H, W) with "same" zero padding. Its cost against a standard
    convolution is Eq. 1: 1/out + 1/f^2.

    Args:
        in_channels, out_channels: C and out.
        kernel_size: f, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} is even; an odd one keeps H x W (register row 21).")
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, padding=kernel_size // 2, groups=in_channels, bias=False
        )
        self.pointwise = PointwiseConv2d(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise.kernel_size == (1, 1):
            # A 1x1 depthwise filter only scales its channel, and the 1x1 behind it is linear: the
            # scale goes into its weights. As a convolution it took ten times as long on a CPU.
            weight = self.pointwise.weight * self.depthwise.weight.view(1, -1, 1, 1)
            return conv1x1(x, weight, self.pointwise.bias)
        if gpu.usable(x):
            return self.pointwise(gpu.depthwise(x, self.depthwise.weight))
        return self.pointwise(self.depthwise(x))


def _norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    # No in-place ReLU: a shape error in a user's own block is then easier to trace, at no cost in time.
    return nn.BatchNorm2d(channels), nn.ReLU()


class InceptionConv(nn.Module):
    """IC (Eqs. 3-4, Fig. 9): DSCs with f = 1, 3, 5 and a pooling branch, each BN + ReLU,
    concatenated and merged by a 1x1 convolution with BN + ReLU.

    (N, C, H, W) -> (N, out, H, W). Each branch has ``out`` maps, as Eq. 3 writes them (all r).
    Sec. 1.4 names filters 2, 3 and 5 instead; Sec. 3.1.2 and Eq. 3 are followed (register row 21).

    Args:
        in_channels, out_channels: C and out.
        pooling: "hybrid" (the paper), "max" for the ablation arm without hybrid pooling, or "average":
            average in place of spectral pooling beside max pooling.
        same_spectral: see `HybridPool2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pooling: str = "hybrid", same_spectral: str = "lowpass"
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r}; expected one of {POOLINGS}.")
        self.dsc = nn.ModuleList(
            nn.Sequential(
                DepthwiseSeparableConv2d(in_channels, out_channels, kernel_size=f), *_norm_relu(out_channels)
            )
            for f in (1, 3, 5)
        )
        pool: nn.Module
        if pooling == "max":
            pool = nn.Sequential(
                MaxPool2d(padding="same"), PointwiseConv2d(in_channels, out_channels, bias=False)
            )
        else:
            beside = "average" if pooling == "average" else "spectral"
            pool = HybridPool2d(
                in_channels, out_channels, padding="same", beside_max=beside, same_spectral=same_spectral,
                bias=False,
            )  # fmt: skip
        self.pool = nn.Sequential(pool, *_norm_relu(out_channels))
        self.merge = PointwiseConv2d(4 * out_channels, out_channels, bias=False)
        self.norm_relu = nn.Sequential(*_norm_relu(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        branches = [*(dsc(x) for dsc in self.dsc), self.pool(x)]  # 4 x (N, out, H, W)
        return self.norm_relu(conv1x1_of_parts(branches, self.merge.weight, self.merge.bias))


class ResidualInceptionBlock(nn.Module):
    """RIB (Fig. 7): two inception convolutions, plus a 3x3 DSC + BN shortcut, added.

    (N, C, H, W) -> (N, out, H, W). The shortcut follows the text; the authors' sister code has
    a 1x1 (register row 8; ``shortcut_kernel=1``). No activation is named after the sum and none is applied (row 22).
    The valid pooling that Fig. 7 draws behind the block belongs to the network.

    Args:
        in_channels, out_channels: C and out (d and d').
        pooling, same_spectral: see `InceptionConv`.
        shortcut_kernel: f of the shortcut's DSC, odd.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        pooling: str = "hybrid",
        same_spectral: str = "lowpass",
        shortcut_kernel: int = 3,
    ) -> None:
        super().__init__()
        options = {"pooling": pooling, "same_spectral": same_spectral}
        self.ic1 = InceptionConv(in_channels, out_channels, **options)
        self.ic2 = InceptionConv(out_channels, out_channels, **options)
        self.shortcut = nn.Sequential(
            DepthwiseSeparableConv2d(in_channels, out_channels, kernel_size=shortcut_kernel),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ic2(self.ic1(x)) + self.shortcut(x)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with BN + ReLU: the block of the baseline U-Net (BU, Tables 4-5).

    (N, C, H, W) -> (N, out, H, W). Padding and BN are not given by the paper (register row 19).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            *_norm_relu(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            *_norm_relu(out_channels),
        )
