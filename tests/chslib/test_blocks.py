"""DSC, inception convolution and residual inception block against Eqs. 1 and 3-5 written out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.blocks import DepthwiseSeparableConv2d, DoubleConv, InceptionConv, ResidualInceptionBlock
from chslib.pooling import SpectralPool2d

ARMS = [("hybrid", "lowpass"), ("hybrid", "identity"), ("max", "lowpass")]


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    mean, var, scale, shift = (
        t.view(1, -1, 1, 1) for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    return (x - mean) / (var + bn.eps).sqrt() * scale + shift


def dsc(x: Tensor, module: DepthwiseSeparableConv2d) -> Tensor:
    """Eq. 5: one filter a channel, then across the channels."""
    depthwise = module.depthwise.weight
    y = F.conv2d(x, depthwise, padding=depthwise.shape[-1] // 2, groups=x.shape[1])
    return F.conv2d(y, module.pointwise.weight)


def inception(x: Tensor, module: InceptionConv, *, pooling: str, same_spectral: str) -> Tensor:
    """Eqs. 3 and 4."""
    branches = [F.relu(norm(dsc(x, branch[0]), branch[1])) for branch in module.dsc]
    pool, bn = module.pool[:2]
    pooled = F.max_pool2d(x, 3, 1, 1)
    if pooling == "hybrid":
        spectral = SpectralPool2d(padding="same")(x) if same_spectral == "lowpass" else x
        pooled = F.conv2d(torch.cat([pooled, spectral], 1), pool.pointwise.weight)
    else:
        pooled = F.conv2d(pooled, pool[1].weight)
    together = torch.cat([*branches, F.relu(norm(pooled, bn))], 1)
    return F.relu(norm(F.conv2d(together, module.merge.weight), module.norm_relu[0]))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_dsc_is_its_two_convolutions_with_their_gradients(kernel_size, memory_format):
    module = DepthwiseSeparableConv2d(3, 5, kernel_size=kernel_size).double()
    x = maps(2, 3, 6, 8).contiguous(memory_format=memory_format).requires_grad_()
    ours, literal = module(x), dsc(x, module)
    torch.testing.assert_close(ours, literal, atol=1e-12, rtol=0)
    inputs = [x, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), inputs),
        torch.autograd.grad(literal.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("f", [1, 3, 5])
@pytest.mark.parametrize("c_in, c_out", [(3, 5), (32, 48)])
def test_dsc_costs_eq_1_of_a_standard_convolution(c_in, c_out, f):
    standard = nn.Conv2d(c_in, c_out, f, bias=False)
    share = count(DepthwiseSeparableConv2d(c_in, c_out, kernel_size=f)) / count(standard)
    assert share == pytest.approx(1 / c_out + 1 / f**2, rel=1e-12)


@pytest.mark.parametrize("pooling, same_spectral", ARMS)
def test_inception_convolution_is_eq_3_in_its_literal_form(pooling, same_spectral, settled):
    options = {"pooling": pooling, "same_spectral": same_spectral}
    module, x = settled(InceptionConv(3, 5, **options)), maps(2, 3, 8, 6)
    y = module(x)
    assert y.shape == (2, 5, 8, 6) and (y > 0).any() and (y >= 0).all()
    torch.testing.assert_close(y, inception(x, module, **options), atol=1e-10, rtol=0)


def test_inception_convolution_has_filters_1_3_5_of_r_maps_each():
    module = InceptionConv(3, 5)
    assert [branch[0].depthwise.kernel_size for branch in module.dsc] == [(1, 1), (3, 3), (5, 5)]
    assert module.merge.weight.shape == (5, 20, 1, 1)


@pytest.mark.parametrize("pooling, same_spectral", ARMS)
def test_residual_block_adds_the_shortcut_to_the_double_inception(pooling, same_spectral, settled):
    options = {"pooling": pooling, "same_spectral": same_spectral}
    block, x = settled(ResidualInceptionBlock(3, 5, **options)), maps(2, 3, 8, 8)
    residual = inception(inception(x, block.ic1, **options), block.ic2, **options)
    shortcut = norm(dsc(x, block.shortcut[0]), block.shortcut[1])
    y = block(x)
    torch.testing.assert_close(y, residual + shortcut, atol=1e-10, rtol=0)
    assert (y < 0).any()  # no activation behind the sum


@pytest.mark.parametrize(
    "module",
    [
        DepthwiseSeparableConv2d(3, 4, kernel_size=1),
        *(InceptionConv(3, 4, pooling=p, same_spectral=s) for p, s in ARMS),
        *(ResidualInceptionBlock(3, 4, pooling=p, same_spectral=s) for p, s in ARMS),
        DoubleConv(3, 4),
    ],
    ids=lambda m: type(m).__name__,
)
def test_gradient_reaches_every_parameter(module):
    torch.manual_seed(0)
    module(torch.randn(2, 3, 8, 8)).square().sum().backward()
    dead = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_no_convolution_in_front_of_a_norm_has_a_bias():
    for module in (ResidualInceptionBlock(3, 4), DoubleConv(3, 4)):
        assert all(m.bias is None for m in module.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: DepthwiseSeparableConv2d(3, 4, kernel_size=2), "kernel_size=2 is even"),
        (lambda: InceptionConv(3, 4, pooling="mean"), "'mean'.*hybrid"),
        (lambda: ResidualInceptionBlock(3, 4, same_spectral="crop"), "'crop'.*lowpass"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
