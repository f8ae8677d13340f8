"""MiniSeg: counts, every block against direct formulas, the two paths, deep supervision, gradients."""

import doctest
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import replication.peers.miniseg
from chslib.loss import segmentation_loss
from chslib.metrics import confusion, scores
from chslib.network import count_parameters
from replication.peers.miniseg import (
    AttentivePyramid,
    ConvBlock,
    DownBlock,
    Exchange,
    Fusion,
    MiniSeg,
    Stage,
)

NARROW = {"widths": (4, 8, 12, 16), "blocks": (1, 2, 2, 1)}


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


# ---- parameters, counted layer by layer without the code ---------------------------------------


def conv(i: int, o: int, k: int = 1) -> int:
    return i * o * k * k


def norm_act(c: int) -> int:
    return 2 * c + c


def light(i: int, o: int) -> int:
    return conv(i, o) + 25 * o + norm_act(o)


def pyramid(i: int, o: int) -> int:
    r = o // 4
    attention, merge = 4 * r, 4 * r * r
    return conv(i, r) + 4 * 9 * r + attention + merge + norm_act(o)


def plain(i: int, o: int) -> int:
    return conv(i, o, 3) + norm_act(o)


def fusion(i: int, o: int) -> int:
    return conv(i, o) + 2 * 9 * o + 2 * o + conv(o, o) + 2 * o + o


def miniseg_count(in_channels: int, classes: int, *, decoder_bias: bool = True) -> int:
    total, c = 0, in_channels
    for out, blocks, block in ((8, 2, plain), (24, 3, pyramid), (32, 8, pyramid), (64, 6, pyramid)):
        total += block(c, out) + light(c, out) + blocks * block(out, out) + blocks // 2 * light(out, out)
        c = out
    total += sum(conv(2 * c, 2 * c) + 2 * 2 * c for c in (8, 24, 32))
    total += conv(64, 64) + norm_act(64) + fusion(64, 32) + fusion(32, 24) + fusion(24, 8)
    total += decoder_bias * (64 + 32 + 24 + 8)
    return total + sum((c + 1) * classes for c in (8, 24, 32, 64))


def test_parameters_are_those_of_the_released_network():
    assert miniseg_count(3, 2) == 82_912
    assert count_parameters(MiniSeg(in_channels=3, out_channels=2)) == 82_912


def test_parameters_of_one_channel_in_and_out():
    network = MiniSeg()
    # Two input channels less for a 3x3 and a 1x1 to 8 maps, and one output less of four heads.
    assert count_parameters(network) == miniseg_count(1, 1) == 82_912 - 2 * 8 * (9 + 1) - (128 + 4) == 82_620
    assert miniseg_count(1, 1, decoder_bias=False) == 82_492
    assert network.widths == (8, 24, 32, 64)


# ---- blocks against direct formulas ------------------------------------------------------------


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    def broadcast(t: Tensor) -> Tensor:
        return t.view(1, -1, 1, 1)

    x = (x - broadcast(norm.running_mean)) / broadcast(norm.running_var + norm.eps).sqrt()
    return x * broadcast(norm.weight) + broadcast(norm.bias)


def prelu(x: Tensor, act: nn.PReLU) -> Tensor:
    assert act.weight.numel() == x.shape[1]  # a slope for each channel
    return x.clamp(min=0) + act.weight.view(1, -1, 1, 1) * x.clamp(max=0)


def mixed(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x)


def spread(x: Tensor, weight: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """Depthwise convolution: a sum of shifted maps, each times its tap."""
    k, (height, width) = weight.shape[-1], x.shape[-2:]
    reach = k // 2 * dilation
    padded = F.pad(x, (reach,) * 4)
    total = torch.zeros_like(x)
    for i in range(k):
        for j in range(k):
            shifted = padded[:, :, i * dilation :, j * dilation :][:, :, :height, :width]
            total += weight[:, 0, i, j].view(1, -1, 1, 1) * shifted
    return total[:, :, ::stride, ::stride]


def vary(module: nn.Module) -> nn.Module:
    """Gives each PReLU a slope of its own per channel; a fresh one has 0.25 everywhere."""
    for act in (m for m in module.modules() if isinstance(m, nn.PReLU)):
        nn.init.uniform_(act.weight, 0.1, 0.9)
    return module


@pytest.mark.parametrize("stride", [1, 2])
def test_down_block(settled, stride):
    block = vary(settled(DownBlock(3, 5, stride=stride)))
    pointwise, depthwise, norm, act = block
    x = randn(2, 3, 8, 12)
    expected = prelu(normed(spread(mixed(x, pointwise.weight), depthwise.weight, stride=stride), norm), act)
    assert depthwise.weight.shape == (5, 1, 5, 5)
    assert_same(block(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_block(settled, stride):
    block = vary(settled(ConvBlock(3, 5, stride=stride)))
    x = randn(2, 3, 8, 12)
    y = F.conv2d(x, block[0].weight, padding=1)[:, :, ::stride, ::stride]
    assert block[0].weight.shape[-1] == 3
    assert_same(block(x), prelu(normed(y, block[1]), block[2]))


@pytest.mark.parametrize("stride", [1, 2])
def test_attentive_pyramid(settled, stride):
    block = vary(settled(AttentivePyramid(6, 12, stride=stride)))
    x = randn(2, 6, 16, 20)
    r = mixed(x, block.reduce.weight)
    d1, d2, d3, d4 = (
        spread(r, level.weight, stride=stride, dilation=d) for level, d in zip(block.levels, (1, 2, 4, 8))
    )
    d1 = d1 + spread(r, torch.full((3, 1, 3, 3), 1 / 9, dtype=torch.float64), stride=stride)
    d2 = d2 + d1
    d3 = d3 + d2
    d4 = d4 + d3
    weighed = []
    for i, d in enumerate((d1, d2, d3, d4)):
        attention = 1 / (1 + (-mixed(d, block.attend.weight[i : i + 1])).exp())  # its own 3 channels
        d = d * (1 + attention)
        weighed.append(mixed(d, block.merge.weight[3 * i : 3 * (i + 1)]))
    expected = prelu(normed(torch.cat(weighed, 1), block.act[0]), block.act[1])
    assert block(x).shape == (2, 12, 16 // stride, 20 // stride)
    assert_same(block(x), expected)


def test_pyramid_needs_four_levels():
    with pytest.raises(ValueError, match="multiple of 4"):
        AttentivePyramid(4, 10)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_stage_of_two_paths(settled, blocks):
    stage = vary(settled(Stage(AttentivePyramid, 3, 4, blocks=blocks)))
    x_o, x_l = randn(2, 3, 8, 8), randn(2, 3, 8, 8)
    o, light_path = stage.enter_o(x_o), stage.enter_l(x_l)
    assert o.shape == light_path.shape == (2, 4, 4, 4)
    s = o + light_path
    for i in range(blocks):
        o = stage.o_blocks[i](s) + o
        if i < {1: 0, 2: 1, 3: 1}[blocks]:  # the first half, rounded down
            light_path = stage.l_blocks[i](s) + light_path
        s = o + light_path
    got_o, got_l = stage(x_o, x_l)
    assert_same(got_o, o)
    assert_same(got_l, light_path)


def test_exchange_adds_half_to_each_path(settled):
    exchange = settled(Exchange(3))
    o, light_path = randn(2, 3, 4, 4), randn(2, 3, 4, 4)
    z = normed(mixed(torch.cat([light_path, o], 1), exchange.mix.weight), exchange.norm)
    got_o, got_l = exchange(o, light_path)
    assert_same(got_l, light_path + z[:, :3])
    assert_same(got_o, o + z[:, 3:])


def resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def test_fusion(settled):
    f = vary(settled(Fusion(5, 3)))
    x, o = randn(2, 5, 4, 6), randn(2, 3, 8, 12)
    y = mixed(resize(x, 8, 12), f.reduce.weight)
    y = normed(spread(y, f.near.weight) + spread(y, f.far.weight, dilation=2), f.norm)
    side = normed(mixed(o, f.lateral[0].weight) + f.lateral[0].bias.view(1, -1, 1, 1), f.lateral[1])
    assert_same(f(x, o), prelu(y + side, f.act))


def test_the_network_wires_them(settled):
    n = vary(settled(MiniSeg(**NARROW, out_channels=2)))
    x = randn(2, 1, 48, 32)
    o1, l1 = n.stages[0](x, x)
    o2, l2 = n.stages[1](*n.exchanges[0](o1, l1))
    o3, l3 = n.stages[2](*n.exchanges[1](o2, l2))
    o4, _ = n.stages[3](*n.exchanges[2](o3, l3))
    conv1x1, norm, act = n.deepest
    y4 = prelu(normed(mixed(o4, conv1x1.weight) + conv1x1.bias.view(1, -1, 1, 1), norm), act)
    y3 = n.fusions[2](y4, o3)
    y2 = n.fusions[1](y3, o2)
    y1 = n.fusions[0](y2, o1)
    got = n.all_outputs(x)
    assert len(got) == 4
    for y, head, logits, side in zip((y1, y2, y3, y4), n.heads, got, (2, 4, 8, 16)):
        assert y.shape[-2:] == (48 // side, 32 // side)
        expected = mixed(y, head.weight) + head.bias.view(1, -1, 1, 1)
        assert_same(logits, resize(expected, 48, 32))
    assert_same(n(x), got[0])
    kinds = [{type(block) for block in (stage.enter_o, *stage.o_blocks)} for stage in n.stages]
    assert kinds == [{ConvBlock}] + 3 * [{AttentivePyramid}]
    assert [len(stage.o_blocks) for stage in n.stages] == list(NARROW["blocks"])


# ---- the network -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, NARROW])
@pytest.mark.parametrize(("batch", "height", "width"), [(4, 64, 64), (1, 48, 80), (2, 16, 16)])
def test_four_maps_of_the_inputs_size(arguments, batch, height, width):
    network = MiniSeg(**arguments)
    x = torch.rand(batch, 1, height, width)
    out = network.all_outputs(x)
    assert len(out) == 4
    assert all(m.shape == x.shape for m in out)
    assert network(x).shape == x.shape
    assert torch.isfinite(network(x)).all()
    assert out[0].min() < 0  # logits


def test_evaluation_is_repeatable_and_takes_each_slice_alone(settled):
    network = settled(MiniSeg())
    x = randn(3, 1, 64, 64)
    assert torch.equal(network(x), network(x))
    assert_same(network(x[1:2]), network(x)[1:2])
    assert_same(network.to(memory_format=torch.channels_last)(x), network(x))


# A constant before a batch norm is taken off again: these four biases never learn.
BEFORE_A_NORM = {"deepest.0.bias"} | {f"fusions.{i}.lateral.0.bias" for i in range(3)}


@pytest.mark.parametrize("arguments", [{}, NARROW])
def test_every_parameter_learns_but_biases_before_a_norm(arguments):
    torch.manual_seed(0)
    network = MiniSeg(**arguments).double()
    network.training_loss(randn(2, 1, 64, 64), (torch.rand(2, 1, 64, 64) > 0.8).double()).backward()
    silent = {k for k, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12}
    assert silent == BEFORE_A_NORM
    assert sum(p.numel() for k, p in MiniSeg().named_parameters() if k in BEFORE_A_NORM) == 128


def test_training_loss_is_the_mean_over_the_heads():
    torch.manual_seed(0)
    network = MiniSeg(**NARROW).eval()
    x, mask = torch.rand(2, 1, 32, 32), (torch.rand(2, 1, 32, 32) > 0.8).float()
    each = [segmentation_loss(logits, mask).item() for logits in network.all_outputs(x)]
    assert len(set(each)) == 4
    assert network.training_loss(x, mask).item() == pytest.approx(sum(each) / 4, rel=1e-6)
    with pytest.raises(ValueError, match="unsqueeze"):
        network.training_loss(x, mask[:, 0])


def test_it_overfits_two_slices():
    torch.manual_seed(0)
    network = MiniSeg(**NARROW)
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, 0, 8:32, 16:40], mask[1, 0, 30:50, 20:60] = 1, 1
    image = 0.3 * torch.rand(2, 1, 64, 64) + 0.6 * mask
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        network.training_loss(image, mask).backward()
        optimiser.step()
    assert scores(confusion(network(image) > 0, mask).sum(0))["dsc"] > 0.85


def test_bad_input_is_refused():
    network = MiniSeg(**NARROW)
    for call in (network, network.all_outputs, lambda x: network.training_loss(x, torch.zeros_like(x))):
        with pytest.raises(ValueError, match="divide by 16.*48x64"):
            call(torch.zeros(1, 1, 40, 64))
        with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\)"):
            call(torch.zeros(1, 3, 64, 64))
        with pytest.raises(ValueError, match="NaN"):
            call(torch.full((1, 1, 64, 64), math.nan))
    with pytest.raises(ValueError, match="one pixel"):
        network(torch.zeros(1, 1, 16, 16))
    assert network.eval()(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (8, 24, 32)}, "expected four"),
        ({"widths": (0, 24, 32, 64)}, "expected four"),
        ({"widths": (8, 22, 32, 64)}, "multiples of 4"),
        ({"blocks": (2, 0, 1, 1)}, "each at least 1"),
        ({"blocks": (2, 3, 8)}, "expected four"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MiniSeg(**arguments)


def test_examples():
    assert doctest.testmod(replication.peers.miniseg).failed == 0
