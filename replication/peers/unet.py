"""U-Net (Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv:1505.04597): a row of Table 3, [17] of the paper, there "7.9M".

It is the baseline BU of Tables 4-5, so it is that network under its own name, and a run of either
serves both tables: 7,762,465 parameters with 32 base filters.

    encoder   32 -> 64 -> 128 -> 256 -> bottleneck 512    two 3x3 + BN + ReLU, then 2x2 max pooling
    decoder   512 -> 256 -> 128 -> 64 -> 32               2x2 transposed convolution, concat, two 3x3
    head      1x1 -> logits

Where it differs from the original (register row 19): "same" padding, so that the sizes of output
and input agree; batch normalisation; 32 base filters, not 64; one logit map, not two classes.
"""

from chslib.network import ARMS, UNET_WIDTHS, RAIUNet


class UNet(RAIUNet):
    """U-Net: (N, in, H, W) -> logits (N, out, H, W); sides divisible by 2 per pooled stage, here 16.

    The same as ``build_network("bu")``, state dict included.

    Args:
        in_channels: channels of the input; a CT slice has 1.
        out_channels: maps to predict; 1 here (infection, or lungs).
        widths: channels of the stages and, last, of the bottleneck.

    Raises:
        ValueError: an argument outside the above; in `forward`, see `chslib.checks.check_input`.

    Example:
        >>> import torch
        >>> UNet()(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self, *, in_channels: int = 1, out_channels: int = 1, widths: tuple[int, ...] = UNET_WIDTHS
    ) -> None:
        changes = {"in_channels": in_channels, "out_channels": out_channels, "widths": widths}
        super().__init__(**{**ARMS["bu"], **changes})
