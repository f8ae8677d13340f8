"""MiniSeg: every block against direct formulas, the two paths, deep supervision."""

import pytest
import torch
from by_hand import assert_same, normed, randn, resize
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.loss import segmentation_loss
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


def test_training_loss_is_the_mean_over_the_heads():
    torch.manual_seed(0)
    network = MiniSeg(**NARROW).eval()
    x, mask = torch.rand(2, 1, 32, 32), (torch.rand(2, 1, 32, 32) > 0.8).float()
    each = [segmentation_loss(logits, mask).item() for logits in network.all_outputs(x)]
    assert len(set(each)) == 4
    assert network.training_loss(x, mask).item() == pytest.approx(sum(each) / 4, rel=1e-6)
    with pytest.raises(ValueError, match="unsqueeze"):
        network.training_loss(x, mask[:, 0])


def test_the_released_training_has_other_heads_and_another_loss(monkeypatch):
    torch.manual_seed(0)
    ours, theirs = (MiniSeg(**NARROW, released=released).double().eval() for released in (False, True))
    theirs.load_state_dict(ours.state_dict())
    x, mask = torch.rand(2, 1, 32, 32).double(), (torch.rand(2, 1, 32, 32) > 0.8).double()
    raw: list[Tensor] = []  # the heads' logits before they are brought up, the finest first
    for head in ours.heads:
        head.register_forward_hook(lambda module, inputs, output: raw.append(output))
    once, twice = ours.all_outputs(x), theirs.all_outputs(x)
    assert_same(twice[0], once[0])  # the prediction
    for i in (1, 2, 3):  # a 1x1 and an interpolation change places
        assert_same(twice[i], resize(resize(raw[i], *raw[i - 1].shape[-2:]), 32, 32))
        assert (twice[i] - once[i]).abs().max() > 1e-5
    # By hand: infection has 1.6 % of the pixels.
    weight = mask / torch.log(torch.tensor(1.116)) + (1 - mask) / torch.log(torch.tensor(2.084))
    cross = [-(mask * p.sigmoid().log() + (1 - mask) * (1 - p.sigmoid()).log()) for p in twice]
    each = [((weight * c).sum() / weight.sum()).item() for c in cross]
    expected = each[0] + 0.4 * sum(each[1:])
    assert theirs.training_loss(x, mask).item() == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr("replication.peers.miniseg.DROPPED", 0.5)
    assert [torch.equal(*(net.train()(x) for _ in range(2))) for net in (ours, theirs)] == [True, False]
