"""RAIU-Net (Fig. 6) and the cascade CHS-Net (Fig. 5), with the ablation arms of Tables 4-5.

                 x1.5 ladder (register row 1)
    encoder      32 -> 48 -> 72 -> 108 -> bottleneck 162       RIB, then valid hybrid pooling
    skips        SSD attention, fed by the layer below
    decoder      162 -> 108 -> 72 -> 48 -> 32                  3x3 transposed convolution, concat, RIB
    head         1x1 -> logits; the sigmoid of Sec. 3 is in the loss and the metrics

"Four stages" is read as four pooled stages and a bottleneck (register row 2), so the sides of
an input must divide by 16.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from chslib.attention import SpectralSpatialDepthAttention
from chslib.blocks import POOLINGS, DoubleConv, ResidualInceptionBlock
from chslib.checks import check_input
from chslib.fast.cpu import PointwiseConv2d
from chslib.pooling import HybridPool2d, MaxPool2d

WIDTHS = (32, 48, 72, 108, 162)  # "increase depth by 50%" (Sec. 3), from 32: register row 1
DOUBLING = (16, 32, 64, 128, 256)  # Eqs. 8-12 write p/2 -> p: the named alternative
UNET_WIDTHS = (32, 64, 128, 256, 512)  # the baseline U-Net that matches Table 3's 7.9M (row 19)

# Tables 4 and 5, row by row: the arms are arguments of one class.
ARMS: dict[str, dict[str, Any]] = {
    "bu": {
        "block": "double-conv",
        "pooling": "max",
        "attention": False,
        "widths": UNET_WIDTHS,
        "up_kernel": 2,
    },
    "rib": {"block": "rib", "pooling": "max", "attention": False, "widths": WIDTHS},
    "rib-hp": {"block": "rib", "pooling": "hybrid", "attention": False, "widths": WIDTHS},
    "full": {"block": "rib", "pooling": "hybrid", "attention": True, "widths": WIDTHS},
}


def check_widths(widths: Sequence[int], *, least: int = 1, why: str = "") -> tuple[int, ...]:
    """The channels of a U-shaped network as a tuple, the bottleneck last.

    Raises:
        ValueError: fewer than two, or one below `least`, for the reason `why`.
    """
    widths = tuple(int(width) for width in widths)
    if len(widths) < 2 or min(widths) < least:
        raise ValueError(
            f"widths={widths}; expected at least one stage and a bottleneck, each at least {least}"
            + (f": {why}." if why else ".")
        )
    return widths


class RAIUNet(nn.Module):
    """Residual attention inception U-Net (Sec. 3, Fig. 6): (N, in, H, W) -> logits (N, out, H, W).

    Args:
        in_channels: channels of the input; a CT slice has 1.
        out_channels: maps to predict; 1 here (lungs, or infection).
        widths: channels of the stages and, last, of the bottleneck (register rows 1 and 2).
        block: "rib", or "double-conv" for the baseline U-Net.
        pooling: "hybrid", "max" or "average", for the valid pooling and for the branch inside each RIB
            (`InceptionConv`).
        attention: SSD on the skip connections, or plain ones.
        gate: sigma of Eq. 11 (register row 7).
        same_spectral: "same" spectral pooling (register row 3).
        up_kernel: transposed convolution, 3 (default) or 2; not given by the paper (register row 1).
        shortcut_kernel: of the residual blocks, 3 (default) or 1 (register row 8).

    Raises:
        ValueError: an argument outside the above; in `forward`, see `chslib.checks.check_input`.

    Example:
        >>> RAIUNet()(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: tuple[int, ...] = WIDTHS,
        block: str = "rib",
        pooling: str = "hybrid",
        attention: bool = True,
        gate: str = "sigmoid",
        same_spectral: str = "lowpass",
        up_kernel: int = 3,
        shortcut_kernel: int = 3,
    ) -> None:
        super().__init__()
        widths = check_widths(widths)
        if up_kernel not in (2, 3):
            raise ValueError(f"up_kernel={up_kernel}; expected 2 or 3, the two that double H x W exactly.")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r}; expected one of {POOLINGS}.")
        self.in_channels, self.widths, self.divisor = in_channels, widths, 2 ** (len(widths) - 1)

        def make_block(c_in: int, c_out: int) -> nn.Module:
            if block == "rib":
                return ResidualInceptionBlock(
                    c_in, c_out, pooling=pooling, same_spectral=same_spectral, shortcut_kernel=shortcut_kernel
                )
            if block == "double-conv":
                return DoubleConv(c_in, c_out)
            raise ValueError(f"block={block!r}; expected 'rib' or 'double-conv'.")

        stages, bottleneck = widths[:-1], widths[-1]
        self.encoder = nn.ModuleList(make_block(i, o) for i, o in zip((in_channels, *stages), stages))
        beside = "average" if pooling == "average" else "spectral"
        self.pools = nn.ModuleList(
            MaxPool2d() if pooling == "max" else HybridPool2d(c, beside_max=beside) for c in stages
        )
        self.bottleneck = make_block(stages[-1], bottleneck)
        self.attention = nn.ModuleList(
            SpectralSpatialDepthAttention(c, deep, gate=gate)
            for c, deep in zip(stages, widths[1:])
            if attention
        )
        crop = up_kernel - 2  # 3x3 needs padding 1 and output padding 1 to double a side; 2x2 neither
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, c, up_kernel, stride=2, padding=crop, output_padding=crop)
            for c, deep in zip(stages, widths[1:])
        )
        self.decoder = nn.ModuleList(make_block(2 * c, c) for c in stages)
        self.head = PointwiseConv2d(stages[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self, divisor=self.divisor)
        maps = []  # F^1 .. F^4, then the bottleneck: halving sides, widths as in self.widths
        for block, pool in zip(self.encoder, self.pools):
            maps.append(block(x))
            x = pool(maps[-1])
        maps.append(self.bottleneck(x))
        x = maps[-1]
        for stage in reversed(range(len(self.decoder))):
            skip = maps[stage]
            if self.attention:
                skip = self.attention[stage](skip, maps[stage + 1])
            x = self.decoder[stage](torch.cat([self.up[stage](x), skip], dim=1))  # 2c -> c
        return self.head(x)


class CascadeOutput(NamedTuple):
    """What `CHSNet` returns: logits of both stages, each (N, 1, H, W), and the map between them."""

    lungs: Tensor
    infection: Tensor
    contour_map: Tensor


CASCADES = ("mask", "concat")


def contour_map(ct: Tensor, lungs: Tensor, *, cascade: str = "mask") -> Tensor:
    """The second stage's input from a slice and its lung mask (Sec. 1.3 and 4.3; register row 9).

    Args:
        ct: slice (N, 1, H, W).
        lungs: binary lung mask (N, 1, H, W): the first stage's prediction above 0.5 (or, as a
            named alternative, the truth).
        cascade: "mask": ct * lungs, one channel, so the background is discarded;
            "concat": ct and lungs, two channels.
    """
    if cascade == "mask":
        return ct * lungs
    if cascade == "concat":
        return torch.cat([ct, lungs.to(ct.dtype)], dim=1)
    raise ValueError(f"cascade={cascade!r}; expected one of {CASCADES}.")


class CHSNet(nn.Module):
    """The cascade (Fig. 5): slice -> lungs -> contour map -> infection.

    Args:
        lungs, infection: the two stages; by default two `RAIUNet` of the default widths.
        cascade: see `contour_map`.

    Example:
        >>> out = CHSNet()(torch.zeros(1, 1, 64, 64))
        >>> out.infection.shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(
        self, *, lungs: nn.Module | None = None, infection: nn.Module | None = None, cascade: str = "mask"
    ) -> None:
        super().__init__()
        if cascade not in CASCADES:
            raise ValueError(f"cascade={cascade!r}; expected one of {CASCADES}.")
        self.cascade = cascade
        self.lungs = lungs if lungs is not None else RAIUNet()
        self.infection = (
            infection if infection is not None else RAIUNet(in_channels=2 if cascade == "concat" else 1)
        )

    def forward(self, x: Tensor) -> CascadeOutput:
        lungs = self.lungs(x)
        between = contour_map(x, (lungs.detach() > 0).to(x.dtype), cascade=self.cascade)  # sigmoid > 0.5
        return CascadeOutput(lungs, self.infection(between), between)


def build_network(arm: str = "full", **changes: Any) -> RAIUNet:
    """One network of Tables 4-5 by the name of its arm, with any argument of `RAIUNet` changed.

    Raises:
        ValueError: an arm not in `ARMS`.
    """
    if arm not in ARMS:
        raise ValueError(f"arm={arm!r}; expected one of {tuple(ARMS)} (Tables 4 and 5).")
    return RAIUNet(**{**ARMS[arm], **changes})


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
