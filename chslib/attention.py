"""Spectral spatial and depth attention, SSD (Sec. 3.2, Eqs. 8-12, Figs. 10 and 11).

The skip connection of layer l-1 carries F^{l-1} (N, p, 2m, 2n); the layer below it holds
F^l (N, q, m, n). Depth attention reweighs the maps of F^{l-1}; spatial attention then
weighs its pixels with the help of F^l. In the paper p is p/2 and q is p.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from chslib.fast.cpu import PointwiseConv2d
from chslib.pooling import GlobalSpectralPool2d

GATES = ("sigmoid", "relu")


class SpectralDepthAttention(nn.Module):
    """Spectral depth attention (Eqs. 8-9, Fig. 10): (N, p, H, W) -> (N, p, H, W).

    A_d = two ReLU-activated 1x1 convolutions (p -> p/2 -> p) of the globally pooled maps;
    F_d = ReLU(BN(1x1(A_d * F))). That ReLU leaves A_d unbounded above, unlike the sigmoid of
    squeeze-and-excitation; the text is followed (register row 23).

    Args:
        channels: p.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.descriptor = nn.Sequential(
            GlobalSpectralPool2d(),  # (N, p, 1, 1)
            PointwiseConv2d(channels, hidden),
            nn.ReLU(),
            PointwiseConv2d(hidden, channels),
            nn.ReLU(),
        )
        self.refine = nn.Sequential(
            PointwiseConv2d(channels, channels, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.refine(self.descriptor(x) * x)


class SpectralSpatialAttention(nn.Module):
    """Spectral spatial attention (Eqs. 10-12, Fig. 11): (N, p, 2m, 2n) and (N, q, m, n) -> (N, p, 2m, 2n).

    gamma = ReLU(BN(conv 2x2 stride 2 (F_d) + conv 1x1 (F^l))); A_s = Up(sigma(conv 1x1 (gamma)));
    F_s = BN(conv 1x1 (A_s * F_d)).

    The text strides over F^{l-1}, Eq. 10 over its depth attention F_d^{l-1}: the equation is
    followed (register row 24). sigma is "ReLU" in the text and a sigmoid in the sister code
    (row 7). The upsampling is not named; it is bilinear (row 25).

    Args:
        channels: p, maps of the skip connection.
        deep_channels: q, maps of the layer below.
        gate: sigma of Eq. 11, "sigmoid" or "relu".
    """

    def __init__(self, channels: int, deep_channels: int, *, gate: str = "sigmoid") -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate={gate!r}; expected one of {GATES}.")
        self.down = nn.Conv2d(channels, deep_channels, 2, stride=2, bias=False)
        self.deep = PointwiseConv2d(deep_channels, deep_channels, bias=False)
        self.gamma = nn.Sequential(nn.BatchNorm2d(deep_channels), nn.ReLU())
        self.descriptor = nn.Sequential(
            PointwiseConv2d(deep_channels, 1), nn.Sigmoid() if gate == "sigmoid" else nn.ReLU()
        )
        self.refine = nn.Sequential(PointwiseConv2d(channels, channels, bias=False), nn.BatchNorm2d(channels))

    def forward(self, depth_attended: Tensor, deep: Tensor) -> Tensor:
        gamma = self.gamma(self.down(depth_attended) + self.deep(deep))  # (N, q, m, n)
        attention = F.interpolate(
            self.descriptor(gamma), scale_factor=2, mode="bilinear", align_corners=False
        )  # (N, 1, 2m, 2n)
        return self.refine(attention * depth_attended)


class SpectralSpatialDepthAttention(nn.Module):
    """SSD, the attention of one skip connection: depth, then spatial.

    (N, p, 2m, 2n) and (N, q, m, n) -> (N, p, 2m, 2n). Arguments as in `SpectralSpatialAttention`.
    """

    def __init__(self, channels: int, deep_channels: int, *, gate: str = "sigmoid") -> None:
        super().__init__()
        self.depth = SpectralDepthAttention(channels)
        self.spatial = SpectralSpatialAttention(channels, deep_channels, gate=gate)

    def forward(self, skip: Tensor, deep: Tensor) -> Tensor:
        return self.spatial(self.depth(skip), deep)
