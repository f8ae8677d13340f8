"""The network as a first version would write it: same weights, same maps, no care for speed.

Each class below is one of `chslib` with its `forward` written out literally: 1x1 convolutions as
convolutions, branches concatenated and then merged, "same" spectral pooling at full size and
before its 1x1, spectral pooling by the dense operator. `plain` swaps them into a network, whose
weights stay where they are; `chslib` in the default memory format and with the default allocator
is then the plain version that the fast one is measured against.
"""

import torch
from torch import Tensor, nn

from chslib import blocks, pooling
from chslib.fast import cpu as pointwise


class PlainPointwise(pointwise.PointwiseConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, x)


class PlainDSC(blocks.DepthwiseSeparableConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class PlainInceptionConv(blocks.InceptionConv):
    def forward(self, x: Tensor) -> Tensor:
        branches = [*(dsc(x) for dsc in self.dsc), self.pool(x)]
        return self.norm_relu(self.merge(torch.cat(branches, dim=1)))


class PlainSpectralPool(pooling.SpectralPool2d):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        a = pooling.spectral_operator(height, height // 2)
        b = pooling.spectral_operator(width, width // 2)
        if self.padding == "same":  # down and up again, as one map of full size
            a = pooling.spectral_operator(height // 2, height) @ a
            b = pooling.spectral_operator(width // 2, width) @ b
        return a.to(x.dtype) @ x @ b.to(x.dtype).t()


class PlainHybridPool(pooling.HybridPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(torch.cat([self.max(x), self.spectral(x)], dim=1))


PLAIN = {
    pointwise.PointwiseConv2d: PlainPointwise,
    blocks.DepthwiseSeparableConv2d: PlainDSC,
    blocks.InceptionConv: PlainInceptionConv,
    pooling.SpectralPool2d: PlainSpectralPool,
    pooling.HybridPool2d: PlainHybridPool,
}


def plain(network: nn.Module) -> nn.Module:
    """The same network, in place, with plain forms of its parts; returns it."""
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return network.to(memory_format=torch.contiguous_format)
