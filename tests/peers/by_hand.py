"""What the peers' blocks are written out with, to be held against them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    def broadcast(t: Tensor) -> Tensor:
        return t.view(1, -1, 1, 1)

    x = (x - broadcast(norm.running_mean)) / broadcast(norm.running_var + norm.eps).sqrt()
    return x * broadcast(norm.weight) + broadcast(norm.bias)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
