"""Table 3's five peers: counts as published, shapes, gradients, learning, refusals; what each computes, and against MONAI."""

import doctest
import math
from importlib import import_module

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

from chslib.loss import segmentation_loss
from chslib.metrics import confusion, scores
from chslib.network import build_network, count_parameters
from replication.evidence.ledger import paper_numbers
from replication.peers import PEERS, build_peer, parameter_table
from replication.peers.attention_unet import AttentionGate
from replication.peers.infnet import edge_target, weighted_loss
from replication.peers.unet import UNet
from replication.peers.unetpp import UNetPlusPlus
from replication.training.grid import ROWS

UNETS = ("unet", "unetpp", "attention-unet")
# The smoke profile's, with stages of several blocks.
SMALL = {name: peer.narrow for name, peer in PEERS.items()}
SMALL["infnet"] = SMALL["infnet"] | {"widths": (32, 32, 64, 96), "blocks": (1, 1, 1, 2)}
SMALL["miniseg"] = SMALL["miniseg"] | {"blocks": (1, 2, 3, 1)}

each_peer = pytest.mark.parametrize("name", PEERS)


def small(name: str, **changes) -> nn.Module:
    torch.manual_seed(0)
    return build_peer(name, **SMALL[name] | changes)


def loss_of(network: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """What a run trains it on: its own loss, where it has one."""
    own = getattr(network, "training_loss", lambda *batch: segmentation_loss(network(image), mask))
    return own(image, mask)


# ---- the registry and its counts ---------------------------------------------------------------


def test_the_registry_has_the_rows_of_table_3_and_the_paper_s_counts():
    rows = [row for row in ROWS if row.table == "Table 3"]
    assert [peer.label for peer in PEERS.values()] == [row.label for row in rows][:-1]  # the last is CHS-Net
    assert {row.arm for row in rows[1:-1]} == set(PEERS) - {"unet"}  # the first is the baseline's
    printed = paper_numbers("Table 3").query("metric == 'Param.'").set_index("row")["value"]
    assert {peer.label: peer.paper for peer in PEERS.values()}.items() <= dict(printed).items()


def test_the_table_counts_the_networks_as_published():
    state = torch.get_rng_state()
    table = parameter_table()
    assert torch.equal(torch.get_rng_state(), state)  # counting changes no run that is seeded before it
    assert list(table.index) == list(PEERS)
    assert list(table.columns) == ["label", "ours", "paper", "upstream", "source", "reason"]
    assert list(table["ours"]) == [7_762_465, 9_044_417, 8_725_501, 31_072_145, 82_620]
    assert list(table["upstream"]) == [7_759_521, 9_041_601, 8_725_501, 33_121_721, 82_912]
    assert all(r.endswith(".") and r.count(". ") == 0 for r in table["reason"])  # one sentence
    paper = table["paper"].map(lambda s: float(s[:-1]) * {"M": 1e6, "K": 1e3}[s[-1]])
    apart = (table["ours"] / paper - 1).abs()
    assert list(apart[apart > 0.07].index) == ["miniseg"] and "472K" in table.loc["miniseg", "reason"]


def test_upstream_s_counts_are_ours_with_upstream_s_channels():
    infnet, classifier = build_peer("infnet", in_channels=3), 2048 * 1000 + 1000  # which nothing uses
    assert count_parameters(infnet) + classifier == PEERS["infnet"].upstream
    assert round((count_parameters(infnet.trunk) + classifier) / 1e6, 2) == 25.72  # Res2Net50 v1b
    miniseg = build_peer("miniseg", in_channels=3, out_channels=2)
    assert count_parameters(miniseg) == PEERS["miniseg"].upstream
    doubled = build_peer("attention-unet", in_channels=3, widths=(64, 128, 256, 512, 1024))
    assert count_parameters(doubled) == 34_878_573


# ---- shapes, gradients, learning ---------------------------------------------------------------


@each_peer
def test_logits_have_the_shape_of_the_slice(name):
    net = small(name)
    assert net.widths == SMALL[name]["widths"] and count_parameters(net) < 150_000
    assert hasattr(net, "training_loss") == (name not in UNETS)
    x = torch.rand(1, 1, 3 * net.divisor, 5 * net.divisor)
    assert [m.shape for m in outputs_of(net, x)] == [x.shape] * {"infnet": 5, "miniseg": 4}.get(name, 1)
    maps = 1 if name == "infnet" else 3
    assert small(name, in_channels=2, out_channels=maps)(torch.rand(2, 2, 64, 32)).shape == (2, maps, 64, 32)
    with pytest.raises(TypeError, match="positional"):
        type(net)(1, 1)


@pytest.mark.parametrize("name", UNETS)
def test_a_u_net_may_be_less_deep(name):
    net = build_peer(name, widths=[6, 9, 13])
    assert net.divisor == 4 and net(torch.rand(2, 1, 20, 12)).shape == (2, 1, 20, 12)


def biases_before_norms(module: nn.Module) -> dict[str, Tensor]:
    """The biases that the batch norm right behind them takes out again."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    pairs = [(n, a) for (n, a), (_, b) in zip(layers, layers[1:]) if isinstance(b, nn.BatchNorm2d)]
    return {f"{n}.bias": a.bias for n, a in pairs if isinstance(a, nn.Conv2d) and a.bias is not None}


@each_peer
def test_every_parameter_learns_but_biases_before_a_norm(name):
    net = small(name).double()
    # On a smaller slice Inf-Net's dilations reach past the deepest maps, and a few biases never learn.
    side = 256 if name == "infnet" else 64
    image = torch.rand(2, 1, side, side, dtype=torch.float64)
    loss_of(net, image, (image > 0.8).double()).backward()
    silent = {n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-10}
    assert silent == set(biases_before_norms(net))
    count = sum(bias.numel() for bias in biases_before_norms(build_peer(name)).values())
    assert count == {"attention-unet": 3908, "miniseg": 128}.get(name, 0)
    assert not count or f"{count:,}" in import_module(type(net).__module__).__doc__


@each_peer
def test_it_overfits_two_slices(name):
    net = small(name, **({"widths": (8, 12)} if name in UNETS else {}))
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, 0, 8:32, 16:40], mask[1, 0, 30:50, 20:60] = 1, 1
    image = 0.3 * torch.rand(2, 1, 64, 64) + 0.6 * mask
    optimiser = torch.optim.Adam(net.parameters(), 3e-3 if name == "infnet" else 1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        loss_of(net, image, mask).backward()
        optimiser.step()
    assert scores(confusion(net(image) > 0, mask).sum(0))["dsc"] > 0.85


@each_peer
def test_examples_in_the_docstrings_hold(name):
    result = doctest.testmod(import_module(PEERS[name].network_class.__module__))
    assert result.attempted and not result.failed


# ---- what each computes ------------------------------------------------------------------------


def outputs_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    return list(getattr(net, "all_outputs", lambda x: [net(x)])(x))


def drawn(net: nn.Module, draw: np.random.RandomState) -> nn.Module:
    """In evaluation, with weights and batch norms' statistics of a generator that stays the same for ever."""
    net = net.double().eval()
    for name, tensor in net.state_dict().items():
        of = torch.from_numpy(draw.standard_normal(tensor.numel())).view(tensor.shape)
        if tensor.ndim > 1:
            tensor.copy_(of * (0.8 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():  # a scale, a slope or a variance; a shift or a mean
            tensor.copy_(1 + 0.3 * of.abs() if name.endswith(("weight", "var")) else 0.2 * of)
    return net


# Every output and the training loss, as the networks gave them that were held, layer by layer, against formulas written
# out by hand, and the U-Nets against MONAI's. Released: MiniSeg's own training.
COMPUTED = {
    ("unet", False): (-0.009641611355, 0.642182827),
    ("unetpp", False): (-2.1897478, 0.6941133738),
    ("attention-unet", False): (5.090329517, 0.8153986335),
    ("infnet", False): (35.21313028, 2.926608412, 5.734037969, 8.96581732, 35.08675602, 7.355653763),
    ("miniseg", False): (21903.80503, 8929.336899, 14272.20026, 11732.70248, 144.8372345),
    ("miniseg", True): (21903.80503, 8590.435191, 15127.56995, 9858.990535, 632.6939253),
}


@pytest.mark.parametrize(("name", "released"), [*((name, False) for name in PEERS), ("miniseg", True)])
def test_a_network_computes_what_was_held_against_formulas(name, released):
    draw = np.random.RandomState(0)
    net = drawn(small(name, **({"released": True} if released else {})), draw)
    x, mask = torch.from_numpy(draw.random_sample((2, 2, 1, 64, 96))), torch.zeros(2, 1, 64, 96).double()
    mask[..., 20:40, 30:60] = 1
    outputs = outputs_of(net, x[0])
    found = [(m * (x[1] - 0.5)).sum().item() for m in outputs]
    assert torch.equal(net(x[0]), outputs[0])
    assert [*found, loss_of(net, x[0], mask).item()] == pytest.approx(COMPUTED[name, released], rel=1e-6)
    torch.testing.assert_close(net(x[0, 1:]), outputs[0][1:])  # slice by slice
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(x[0]), outputs[0])


# ---- against MONAI, with copied weights --------------------------------------------------------

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Layer by layer, in order of registration; a bias that only theirs has becomes zero."""
    ours_, theirs_ = ([m for m in net.modules() if isinstance(m, LAYERS)] for net in (ours, theirs))
    for a, b in zip(ours_, theirs_, strict=True):
        assert a.weight.shape == b.weight.shape
        assert a.bias is None or b.bias is not None
        state = a.state_dict()
        b.load_state_dict({k: state.get(k, torch.zeros_like(v)) for k, v in b.state_dict().items()})


def monai_up(deep: int, skip: int, c: int, **layers) -> UpCat:
    return UpCat(2, deep, skip, c, "relu", "batch", dropout=0.0, upsample="deconv", **layers)


def test_unet_is_monai_basic_unet(settled):
    w = (4, 8, 16, 32, 64)  # MONAI's decoders halve
    ours = settled(UNet(widths=w))
    theirs = BasicUNet(2, 1, 1, (*w, w[0]), act="relu", norm="batch", bias=False)
    theirs.upcat_1 = monai_up(w[1], w[0], w[0], bias=False)  # MONAI's last one does not halve
    levels = [theirs.conv_0, theirs.down_1, theirs.down_2, theirs.down_3, theirs.down_4]
    for mine, level in zip([*ours.encoder, ours.bottleneck], levels, strict=True):
        copy_weights(mine, level)
    for i in range(4):
        step, c = getattr(theirs, f"upcat_{i + 1}"), w[i]
        copy_weights(ours.up[i], step.upsample)
        copy_weights(ours.decoder[i], step.convs)
        first = step.convs.conv_0.conv.weight.data
        first.copy_(torch.cat([first[:, c:], first[:, :c]], dim=1))  # ours is [up, skip], theirs [skip, up]
    copy_weights(ours.head, theirs.final_conv)
    x = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs.double().eval()(x))


def test_unetpp_is_monai_basic_unet_plus_plus(settled):
    w = (4, 8, 16, 32, 64)
    ours = settled(UNetPlusPlus(widths=w))
    theirs = BasicUNetPlusPlus(2, 1, 1, (*w, w[0]), act="relu", norm="batch", bias=False)
    for j in range(1, 5):  # MONAI's do not halve at the top level
        setattr(theirs, f"upcat_0_{j}", monai_up(w[1], j * w[0], w[0], bias=False))
    for i, block in enumerate(ours.encoder):
        copy_weights(block, getattr(theirs, f"conv_{i}_0"))
    for j in range(1, 5):
        for i in range(5 - j):
            step = getattr(theirs, f"upcat_{i}_{j}")
            copy_weights(ours.up[j - 1][i], step.upsample)
            copy_weights(ours.nested[j - 1][i], step.convs)
    copy_weights(ours.head, theirs.final_conv_0_4)
    x = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs.double().eval()(x)[0])


def test_attention_gate_is_monai_attention_block(settled):
    ours, theirs = settled(AttentionGate(10)), AttentionBlock(2, f_int=5, f_g=10, f_l=10)
    for a, b in ((ours.of_gate, theirs.W_g), (ours.of_skip, theirs.W_x), (ours.psi, theirs.psi)):
        copy_weights(a, b)
    skip, gate = torch.randn(2, 2, 10, 8, 6, dtype=torch.float64).unbind()
    torch.testing.assert_close(ours(skip, gate), theirs.double().eval()(g=gate, x=skip))


def test_unet_is_the_baseline_of_tables_4_and_5(settled):
    ours, baseline = settled(small("unet")), build_network("bu", **SMALL["unet"])
    baseline.load_state_dict(ours.state_dict())  # strict: the same keys
    x = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    assert torch.equal(ours(x), baseline.double().eval()(x))


# ---- their losses ------------------------------------------------------------------------------


def test_inf_net_s_loss_of_two_pixels_by_hand():
    # Pixels 1, 0 at logits 0, log 3 (p = 1/2, 3/4). Their 31x31 surroundings hold one pixel of 961,
    # so the weights are 1 + 5 * 960/961 and 1 + 5 * 1/961.
    w1, w0 = 1 + 4800 / 961, 1 + 5 / 961
    bce = (w1 * math.log(2) + w0 * math.log(4)) / (w1 + w0)
    overlap, union = w1 / 2, w1 + w0 * 3 / 4  # p + m - pm is 1 where m is 1
    iou = 1 - (overlap + 1) / (union + 1)
    got = weighted_loss(torch.tensor([[[[0.0, math.log(3)]]]]), torch.tensor([[[[1.0, 0.0]]]]))
    assert got.item() == pytest.approx(bce + iou, rel=1e-5)


def test_inf_net_s_loss_is_finite_at_extreme_logits_and_takes_bytes():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., 2:5, 2:5] = 1
    for logit in (-1e4, 1e4):
        assert torch.isfinite(weighted_loss(torch.full((1, 1, 8, 8), logit), mask))
    assert weighted_loss((mask.float() - 0.5) * 100, mask).item() == pytest.approx(0, abs=1e-5)


def test_edge_is_the_outline_two_pixels_wide():
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 2:5, 2:5] = 1
    expected = torch.zeros(7, 7)
    expected[1:6, 1:6] = 1
    expected[3, 3] = 0
    assert torch.equal(edge_target(mask)[0, 0], expected)
    for nothing in (torch.ones(1, 1, 4, 4, dtype=torch.bool), torch.zeros(1, 1, 4, 4)):
        assert edge_target(nothing).sum() == 0  # nothing ends at the image's border


def test_miniseg_s_released_training_drops_channels(monkeypatch):
    monkeypatch.setattr("replication.peers.miniseg.DROPPED", 0.5)
    x = torch.rand(2, 1, 32, 32)
    for released in (False, True):
        net = small("miniseg", released=released)
        assert torch.equal(net(x), net(x)) != released


# ---- what is refused ---------------------------------------------------------------------------


@each_peer
def test_input_that_cannot_be_taken_is_refused(name):
    net = small(name)
    assert net.divisor == (32 if name == "infnet" else 16)
    x = torch.zeros(1, 1, 72, 64)
    for take in (net, net.eval(), getattr(net, "all_outputs", net)):
        with pytest.raises(ValueError, match=rf"72x64; .* divide by {net.divisor}. Pad it to (80|96)x64"):
            take(x)
    if name in UNETS:
        return
    with pytest.raises(ValueError, match="unsqueeze"):
        net.training_loss(torch.zeros(1, 1, 64, 64), torch.zeros(1, 64, 64))
    deepest = torch.zeros(1, 1, net.divisor, net.divisor)  # one pixel there has no variance to train on
    assert net(deepest).shape == deepest.shape
    with pytest.raises(ValueError, match="one pixel"):
        net.train()(deepest)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        *((name, {"widths": (8,)}, r"widths=\(8,\); expected at least one stage") for name in UNETS),
        *((name, {"widths": (8, 0, 4)}, r"widths=\(8, 0, 4\); expected at least one") for name in UNETS),
        ("attention-unet", {"widths": (1, 2)}, "each at least 2"),
        ("infnet", {"out_channels": 2}, "one map"),
        ("infnet", {"decoder_channels": 0}, "at least 1"),
        ("infnet", {"widths": (16, 32, 64)}, "expected four"),
        ("infnet", {"widths": (12, 32, 64, 64)}, "multiple of 8"),
        ("infnet", {"widths": (16, 32, 64, 66)}, "of 4"),
        ("infnet", {"blocks": (1, 1, 0, 1)}, "each at least 1"),
        ("infnet", {"blocks": (1, 1)}, "expected four"),
        ("miniseg", {"widths": (8, 24, 32)}, "expected four"),
        ("miniseg", {"widths": (0, 24, 32, 64)}, "expected four"),
        ("miniseg", {"widths": (8, 22, 32, 64)}, "multiples of 4"),
        ("miniseg", {"blocks": (2, 0, 1, 1)}, "each at least 1"),
        ("miniseg", {"blocks": (2, 3, 8)}, "expected four"),
        ("unet3", {}, "Unknown peer 'unet3'; expected one of unet, unetpp, attention-unet"),
        ("unetpp", {"width": 8}, "UNetPlusPlus got unknown arguments width; expected some of in_channels"),
    ],
)
def test_what_makes_no_network_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_peer(name, **arguments)
