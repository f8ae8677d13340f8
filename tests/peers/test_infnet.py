"""Inf-Net: the trunk's block and every module against direct formulas, its loss."""

import math

import pytest
import torch
from by_hand import assert_same, normed, randn, resize
from torch import Tensor, nn
from torch.nn import functional as F

from replication.peers.infnet import (
    InfNet,
    PartialDecoder,
    ReceptiveField,
    ReverseAttention,
    edge_target,
    weighted_loss,
)
from replication.peers.res2net import Res2Net, Res2NetBlock

NARROW = {"widths": (32, 64, 128, 256), "blocks": (1, 1, 1, 1), "decoder_channels": 8}


# ---- the trunk ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "stride"), [(False, 1), (True, 1), (True, 2)])
def test_res2net_block_is_a_loop_over_four_groups(settled, first, stride):
    c_in, c_out = (12, 20) if first else (20, 20)
    block = settled(Res2NetBlock(c_in, c_out, stride=stride, first=first))
    w = block.width
    assert w == 2  # 20 / 4 * 26 / 64, rounded down
    x = randn(2, c_in, 8, 6)

    spread = normed(F.conv2d(x, block.spread.weight), block.spread_norm).clamp(min=0)
    y = []
    for i in range(4):
        part = spread[:, i * w : (i + 1) * w]
        if i == 3:
            y.append(F.avg_pool2d(part, 3, stride, 1) if first else part)
            continue
        if i > 0 and not first:
            part = part + y[i - 1]
        conv, norm, _ = block.groups[i]
        y.append(normed(F.conv2d(part, conv.weight, stride=stride, padding=1), norm).clamp(min=0))
    expected = normed(F.conv2d(torch.cat(y, 1), block.merge.weight), block.merge_norm)
    shortcut = x
    if first:
        _, conv, norm = block.shortcut
        pooled = x.unflatten(2, (-1, stride)).unflatten(4, (-1, stride)).mean((3, 5))
        shortcut = normed(F.conv2d(pooled, conv.weight), norm)
    assert_same(block(x), (expected + shortcut).clamp(min=0))


def test_only_the_first_block_of_a_stage_differs():
    trunk = Res2Net(widths=(16, 16, 32, 32), blocks=(3, 4, 6, 3))
    assert [len(stage) for stage in trunk.stages] == [3, 4, 6, 3]
    for i, stage in enumerate(trunk.stages):
        assert [block.first for block in stage] == [True] + [False] * (len(stage) - 1)
        assert stage[0].stride == (1 if i == 0 else 2)
    with pytest.raises(ValueError, match="first=True"):
        Res2NetBlock(8, 16)


def test_trunk_halves_to_a_thirty_second():
    trunk = Res2Net(in_channels=2, widths=(16, 24, 32, 64), blocks=(1, 2, 1, 1)).eval()
    shapes = [tuple(m.shape) for m in trunk(torch.rand(1, 2, 96, 32))]
    assert shapes == [(1, c, 96 // s, 32 // s) for c, s in ((16, 4), (24, 8), (32, 16), (64, 32))]


def test_stem_is_three_convolutions_and_a_max_pool(settled):
    trunk = settled(Res2Net(widths=(16, 16, 16, 16), blocks=(1, 1, 1, 1)))
    x = randn(1, 1, 32, 32)
    y = x
    for i, stride in ((0, 2), (3, 1), (6, 1)):
        y = normed(F.conv2d(y, trunk.stem[i].weight, stride=stride, padding=1), trunk.stem[i + 1]).relu()
    y = F.pad(y, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))  # zeros: y is not negative
    assert_same(trunk.stem(x), y)


# ---- its modules against direct formulas -------------------------------------------------------


def apply(block: nn.Module, x: Tensor, dilation: int = 1) -> Tensor:
    """CB by hand: "same" convolution without bias, then the norm."""
    conv, norm = block
    assert conv.bias is None
    pad = [side // 2 * dilation for side in conv.weight.shape[-2:]]
    return normed(F.conv2d(x, conv.weight, padding=pad, dilation=dilation), norm)


def test_receptive_field_is_four_branches(settled):
    block = settled(ReceptiveField(6, 3))
    x = randn(2, 6, 16, 12)
    branches = [apply(block.branches[0], x)]
    for k, branch in zip((3, 5, 7), list(block.branches)[1:]):
        sizes = [tuple(part[0].weight.shape[-2:]) for part in branch]
        assert sizes == [(1, 1), (1, k), (k, 1), (3, 3)]
        y = x
        for part, dilation in zip(branch, (1, 1, 1, k)):
            y = apply(part, y, dilation)
        branches.append(y)
    expected = apply(block.merge, torch.cat(branches, 1)) + apply(block.shortcut, x)
    assert_same(block(x), expected.clamp(min=0))


def up2(x: Tensor) -> Tensor:
    """Bilinear to twice the size with corners aligned, as a product with a small matrix per axis."""

    def matrix(n: int) -> Tensor:
        at = torch.arange(2 * n, dtype=torch.float64) * (n - 1) / (2 * n - 1)
        return (1 - (at[:, None] - torch.arange(n)).abs()).clamp(min=0)

    return matrix(x.shape[2]) @ x @ matrix(x.shape[3]).T


def test_partial_decoder_multiplies_then_concatenates(settled):
    d = settled(PartialDecoder(3))
    a, b, c = randn(2, 3, 2, 3), randn(2, 3, 4, 6), randn(2, 3, 8, 12)
    b1 = apply(d.a_to_b, up2(a)) * b
    c1 = apply(d.a_to_c, up2(up2(a))) * apply(d.b_to_c, up2(b)) * c
    b2 = apply(d.join_b, torch.cat([b1, apply(d.a_beside_b, up2(a))], 1))
    c2 = apply(d.join_c, torch.cat([c1, apply(d.ab_beside_c, up2(b2))], 1))
    expected = F.conv2d(apply(d.smooth, c2), d.head.weight, d.head.bias)
    got = d(a, b, c)
    assert got.shape == (2, 1, 8, 12)
    assert_same(got, expected)


@pytest.mark.parametrize(("kernel", "depth", "last"), [(5, 3, 1), (3, 2, 3)])
def test_reverse_attention_looks_where_the_map_saw_nothing(settled, kernel, depth, last):
    block = settled(ReverseAttention(6, 4, 2, kernel=kernel, depth=depth, last=last))
    x, previous, edge = randn(2, 6, 4, 4), randn(2, 1, 4, 4), randn(2, 2, 16, 16)
    # A quarter of the size without antialiasing: the mean of the middle 2x2 of each 4x4.
    small = edge.unflatten(2, (4, 4)).unflatten(4, (4, 4))[:, :, :, 1:3, :, 1:3].mean((3, 5))
    y = torch.cat([apply(block.reduce, x / (1 + previous.exp())), small], 1)
    assert len(block.refine) == depth
    for conv in block.refine:
        assert conv[0].weight.shape[-1] == kernel
        y = apply(conv, y).clamp(min=0)
    assert block.head[0].weight.shape[-1] == last
    assert_same(block(x, previous, edge), apply(block.head, y) + previous)


def test_the_network_wires_them(settled):
    n = settled(InfNet(**NARROW))
    x = randn(2, 1, 64, 96)
    x1, x2, x3, x4 = n.trunk(x)
    e = apply(n.edge[2], apply(n.edge[1], apply(n.edge[0], x1)))
    g = n.decoder(n.fields[2](x4), n.fields[1](x3), n.fields[0](x2))
    assert g.shape[-2:] == (8, 12)
    s4 = n.reverse4(x4, resize(g, 2, 3), e)
    s3 = n.reverse3(x3, resize(s4, 4, 6), e)
    s2 = n.reverse2(x2, resize(s3, 8, 12), e)
    out = n.all_outputs(x)
    assert_same(out.edge, resize(apply(n.edge_head, e), 64, 96))
    for got, expected in zip(out, (s2, s3, s4, g)):
        assert_same(got, resize(expected, 64, 96))
    assert_same(n(x), out.s2)
    assert (n.reverse4.refine[0][0].kernel_size, len(n.reverse4.refine)) == ((5, 5), 3)
    for reverse in (n.reverse3, n.reverse2):
        assert (reverse.refine[0][0].kernel_size, len(reverse.refine)) == ((3, 3), 2)


# ---- the loss ----------------------------------------------------------------------------------


def test_loss_of_two_pixels_by_hand():
    # Pixels 1, 0 at logits 0, log 3 (p = 1/2, 3/4). Their 31x31 surroundings hold one pixel of 961,
    # so the weights are 1 + 5 * 960/961 and 1 + 5 * 1/961.
    w1, w0 = 1 + 4800 / 961, 1 + 5 / 961
    bce = (w1 * math.log(2) + w0 * math.log(4)) / (w1 + w0)
    overlap, union = w1 / 2, w1 + w0 * 3 / 4  # p + m - pm is 1 where m is 1
    iou = 1 - (overlap + 1) / (union + 1)
    got = weighted_loss(torch.tensor([[[[0.0, math.log(3)]]]]), torch.tensor([[[[1.0, 0.0]]]]))
    assert got.item() == pytest.approx(bce + iou, rel=1e-5)


def test_loss_is_a_mean_over_images_and_sees_31_pixels():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 1, 40, 36), (torch.rand(2, 1, 40, 36) > 0.7).float()
    mask[1] = 0
    each = []
    for z, m in zip(logits.double()[:, 0], mask.double()[:, 0]):
        mean = F.pad(m, (15, 15, 15, 15)).unfold(0, 31, 1).unfold(1, 31, 1).mean((2, 3))
        w, p = 1 + 5 * (mean - m).abs(), 1 / (1 + (-z).exp())
        bce = -(w * (m * p.log() + (1 - m) * (1 - p).log())).sum() / w.sum()
        iou = 1 - ((w * p * m).sum() + 1) / ((w * (p + m - p * m)).sum() + 1)
        each.append((bce + iou).item())
    assert weighted_loss(logits, mask).item() == pytest.approx(sum(each) / 2, rel=1e-5)


def test_training_loss_is_four_maps_and_the_edge():
    torch.manual_seed(0)
    network = InfNet(**NARROW).eval()
    x, mask = torch.rand(2, 1, 64, 64), (torch.rand(2, 1, 64, 64) > 0.9).float()
    s2, s3, s4, g, edge = network.all_outputs(x)
    expected = sum(weighted_loss(m, mask) for m in (s2, s3, s4, g))
    p = torch.sigmoid(edge.double())
    target = edge_target(mask).double()
    expected += -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert network.training_loss(x, mask).item() == pytest.approx(expected.item(), rel=1e-4)


def test_loss_is_finite_at_extreme_logits_and_takes_bytes():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., 2:5, 2:5] = 1
    for logit in (-1e4, 1e4):
        assert torch.isfinite(weighted_loss(torch.full((1, 1, 8, 8), logit), mask))
    right = weighted_loss((mask.float() - 0.5) * 100, mask)
    assert right.item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="unsqueeze"):
        weighted_loss(torch.zeros(1, 1, 8, 8), mask[:, 0])


def test_edge_is_the_outline_two_pixels_wide():
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 2:5, 2:5] = 1
    expected = torch.zeros(7, 7)
    expected[1:6, 1:6] = 1
    expected[3, 3] = 0
    assert torch.equal(edge_target(mask)[0, 0], expected)
    assert torch.equal(edge_target(mask.bool()), edge_target(mask))
    assert edge_target(torch.ones(1, 1, 4, 4)).sum() == 0  # nothing ends at the image's border
    assert edge_target(torch.zeros(1, 1, 4, 4)).sum() == 0
