"""Spectral depth and spatial attention against Eqs. 8-12 written out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.attention import (
    SpectralDepthAttention,
    SpectralSpatialAttention,
    SpectralSpatialDepthAttention,
)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def upsample_twice(x: Tensor) -> Tensor:
    """Bilinear, written out: each new pixel is 3/4 of its own old one and 1/4 of the next."""
    for axis in (-2, -1):
        size = x.shape[axis]
        own = torch.arange(size).repeat_interleave(2)
        side = (own + torch.tensor([-1, 1]).repeat(size)).clamp(0, size - 1)
        x = 0.75 * x.index_select(axis, own) + 0.25 * x.index_select(axis, side)
    return x


def depth_by_hand(x: Tensor, module: SpectralDepthAttention) -> Tensor:
    first, second = module.descriptor[1], module.descriptor[3]
    pooled = x.flatten(2).mean(2)
    hidden = F.relu(pooled @ first.weight[..., 0, 0].T + first.bias)
    a_d = F.relu(hidden @ second.weight[..., 0, 0].T + second.bias)  # Eq. 8
    return F.relu(
        norm(F.conv2d(a_d[..., None, None] * x, module.refine[0].weight), module.refine[1])
    )  # Eq. 9


def spatial_by_hand(f_d: Tensor, deep: Tensor, module: SpectralSpatialAttention, gate: str) -> Tensor:
    strided = F.conv2d(f_d, module.down.weight, stride=2)
    gamma = F.relu(norm(strided + F.conv2d(deep, module.deep.weight), module.gamma[0]))  # Eq. 10
    score = F.conv2d(gamma, module.descriptor[0].weight, module.descriptor[0].bias)
    a_s = upsample_twice(torch.sigmoid(score) if gate == "sigmoid" else F.relu(score))  # Eq. 11
    return norm(F.conv2d(a_s * f_d, module.refine[0].weight), module.refine[1])  # Eq. 12


def test_depth_descriptor_of_a_known_network_is_what_pencil_and_paper_give():
    module = SpectralDepthAttention(2).double()
    first, second = module.descriptor[1], module.descriptor[3]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)), first.bias.fill_(-1.0)
        second.weight.copy_(torch.tensor([0.5, -1.0]).view(2, 1, 1, 1)), second.bias.fill_(1.0)
    x = torch.tensor([[1.0, 3.0, 1.0, 3.0], [0.0, 4.0, 0.0, 0.0]]).double().view(1, 2, 2, 2)
    # Means 2 and 1; hidden 2*2 + 1*1 - 1 = 4; A_d = ReLU(0.5*4 + 1, -4 + 1) = (3, 0): above 1, and cut.
    assert module.descriptor(x).flatten().tolist() == [3, 0]


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_depth_attention_is_eqs_8_and_9(channels, settled):
    module, x = settled(SpectralDepthAttention(channels)), maps(3, channels, 6, 4)
    for bias in (module.descriptor[3].bias, module.refine[1].bias):  # else all of a narrow one may be cut
        nn.init.ones_(bias)
    y = module(x)
    assert y.shape == x.shape and (y > 0).any()
    torch.testing.assert_close(y, depth_by_hand(x, module), atol=1e-12, rtol=0)


@pytest.mark.parametrize("gate", ["sigmoid", "relu"])
@pytest.mark.parametrize("p, q, m, n", [(4, 6, 3, 5), (3, 3, 1, 2), (4, 8, 4, 4)])
def test_spatial_attention_is_eqs_10_to_12(gate, p, q, m, n, settled):
    module = settled(SpectralSpatialAttention(p, q, gate=gate))
    nn.init.constant_(module.descriptor[0].bias, 0.3)
    f_d, deep = maps(2, p, 2 * m, 2 * n), maps(2, q, m, n, seed=1)
    y = module(f_d, deep)
    assert y.shape == f_d.shape
    torch.testing.assert_close(y, spatial_by_hand(f_d, deep, module, gate), atol=1e-12, rtol=0)


def test_a_sigmoid_gate_stays_below_one_and_a_relu_gate_does_not():
    gamma = torch.full((1, 6, 2, 2), 50.0)
    for gate, top in (("sigmoid", 1.0), ("relu", 300.0)):
        descriptor = SpectralSpatialAttention(4, 6, gate=gate).descriptor
        nn.init.ones_(descriptor[0].weight), nn.init.zeros_(descriptor[0].bias)
        assert descriptor(gamma).max() == top and descriptor(-gamma).abs().max() < 1e-6


def test_ssd_is_depth_attention_and_then_spatial_attention_fed_by_it(settled):
    module = settled(SpectralSpatialDepthAttention(4, 6))
    skip, deep = maps(2, 4, 8, 6), maps(2, 6, 4, 3, seed=1)
    by_hand = spatial_by_hand(depth_by_hand(skip, module.depth), deep, module.spatial, "sigmoid")
    torch.testing.assert_close(module(skip, deep), by_hand, atol=1e-12, rtol=0)


def test_gradient_reaches_every_parameter_and_both_inputs():
    torch.manual_seed(0)
    module = SpectralSpatialDepthAttention(8, 12)
    for layer in (1, 3):  # a narrow descriptor may otherwise be cut everywhere
        nn.init.ones_(module.depth.descriptor[layer].bias)
    skip, deep = (torch.randn(2, c, s, s, requires_grad=True) for c, s in ((8, 8), (12, 4)))
    module(skip, deep).square().mul(torch.randn(2, 8, 8, 8)).sum().backward()
    tensors = {**dict(module.named_parameters()), "skip": skip, "deep": deep}
    assert [name for name, t in tensors.items() if t.grad is None or not t.grad.any()] == []


def test_an_unknown_gate_is_named_with_what_was_expected():
    with pytest.raises(ValueError, match="'tanh'.*sigmoid"):
        SpectralSpatialDepthAttention(4, 6, gate="tanh")
