"""The trunk of Inf-Net: Res2Net50 v1b, 26w x 4s (Gao et al., "Res2Net: A New Multi-scale Backbone
Architecture", TPAMI 2019, arXiv:1904.01169), without its classifier.

    stem      three 3x3 convolutions, 32-32-64, the first of stride 2; 3x3 max-pool of stride 2
    stages    3, 4, 6, 3 blocks of 256, 512, 1024, 2048 channels at 1/4, 1/8, 1/16, 1/32

Version 1b differs from the first in that stem, and in shortcuts that average-pool before their 1x1
instead of striding it. All maps are (N, C, H, W); no convolution has a bias, each has a batch norm.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.fast.cpu import PointwiseConv2d

WIDTHS = (256, 512, 1024, 2048)
BLOCKS = (3, 4, 6, 3)
SCALE = 4  # 4s: groups of channels in a block
BASE_WIDTH = 26  # 26w: channels of a group where the block's plain width would be 64


class Res2NetBlock(nn.Module):
    """The residual block with hierarchical groups (their Sec. 3.1, Fig. 2b): H x W over ``stride``.

    1x1 to four groups x1..x4 of w = floor(out/4 * 26/64) channels, K = 3x3 conv + BN + ReLU, then

        inner block      y1 = K1(x1),  y2 = K2(x2 + y1),  y3 = K3(x3 + y2),  y4 = x4
        first of a stage y1 = K1(x1),  y2 = K2(x2),       y3 = K3(x3),       y4 = avgpool3x3(x4)

    and 1x1 of their concat, plus the shortcut, ReLU. The first of a stage has the stride, if any,
    and adds nothing between groups: its x and y would differ in size.

    Args:
        in_channels, out_channels: C and out; out a multiple of 4.
        stride: 1 or 2.
        first: the block opens a stage; its shortcut is then avgpool(stride) and 1x1 + BN.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        if not first and (stride != 1 or in_channels != out_channels):
            raise ValueError(
                f"Got {in_channels} -> {out_channels} channels at stride {stride}; only the first block of a "
                "stage may change them: pass first=True."
            )
        self.first, self.stride = first, stride
        self.width = max(1, out_channels // 4 * BASE_WIDTH // 64)
        self.spread = PointwiseConv2d(in_channels, SCALE * self.width, bias=False)
        self.spread_norm = nn.BatchNorm2d(SCALE * self.width)
        self.groups = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(self.width, self.width, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(self.width),
                nn.ReLU(),
            )
            for _ in range(SCALE - 1)
        )
        self.merge = PointwiseConv2d(SCALE * self.width, out_channels, bias=False)
        self.merge_norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                PointwiseConv2d(in_channels, out_channels, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = F.relu(self.spread_norm(self.spread(x))).chunk(SCALE, dim=1)
        outputs: list[Tensor] = []
        for part, group in zip(parts, self.groups):
            outputs.append(group(part if self.first or not outputs else part + outputs[-1]))
        # Zeros of the border count in this average, as they do by default in torch.
        outputs.append(F.avg_pool2d(last, 3, stride=self.stride, padding=1) if self.first else last)
        y = self.merge_norm(self.merge(torch.cat(outputs, dim=1)))
        return F.relu(y + self.shortcut(x))


class Res2Net(nn.Module):
    """(N, in, H, W) -> four maps, ``widths`` channels at 1/4, 1/8, 1/16 and 1/32 of H x W.

    Args:
        in_channels: channels of the input. The published trunk has 3.
        widths: channels of the four stages, multiples of 4. The stem has widths[0] / 8 channels,
            then widths[0] / 4.
        blocks: blocks of each stage.

    Raises:
        ValueError: not four stages, a width that is not a multiple of 8 (first stage) or 4, or a
            stage without a block.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        widths: tuple[int, ...] = WIDTHS,
        blocks: tuple[int, ...] = BLOCKS,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or widths[0] % 8 or any(w % 4 or w < 4 for w in widths) or widths[0] < 8:
            raise ValueError(
                f"widths={tuple(widths)}; expected four, the first a multiple of 8 and the others of 4, "
                f"e.g. {WIDTHS}."
            )
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(
                f"blocks={tuple(blocks)}; expected four numbers, each at least 1, e.g. {BLOCKS}."
            )
        half, stem = widths[0] // 8, widths[0] // 4
        layers: list[nn.Module] = []
        for c_in, c_out, stride in ((in_channels, half, 2), (half, half, 1), (half, stem, 1)):
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            ]
        self.stem = nn.Sequential(*layers, nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.ModuleList()
        for stage, (c_in, c_out, count) in enumerate(zip((stem, *widths), widths, blocks)):
            first = Res2NetBlock(c_in, c_out, stride=1 if stage == 0 else 2, first=True)
            self.stages.append(nn.Sequential(first, *(Res2NetBlock(c_out, c_out) for _ in range(count - 1))))
        for module in self.modules():
            # On the meta device, where networks are only counted, a draw imports torch's compiler: seconds.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
