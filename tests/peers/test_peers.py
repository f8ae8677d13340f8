"""Table 3's five peers: counts, shapes, gradients, refusals; U-Net, U-Net++ and Attention U-Net against MONAI."""

import doctest
from importlib import import_module

import pandas as pd
import pytest
import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import TwoConv, UpCat
from torch import Tensor, nn

import replication.peers
from chslib.loss import segmentation_loss
from chslib.metrics import confusion, scores
from chslib.network import build_network, count_parameters
from replication.evidence.ledger import paper_numbers
from replication.peers import PEERS, build_peer, parameter_table
from replication.peers.attention_unet import AttentionGate, AttentionUNet
from replication.peers.miniseg import AttentivePyramid
from replication.peers.unet import UNet
from replication.peers.unetpp import UNetPlusPlus
from replication.training.grid import ROWS

NARROW = (8, 12, 18, 27, 40)
DOUBLING = (4, 8, 16, 32, 64)  # MONAI's decoders halve
FULL = (32, 64, 128, 256, 512)
UNETS = ("unet", "unetpp", "attention-unet")
SMALL = {
    **dict.fromkeys(UNETS, {"widths": NARROW}),
    "infnet": {"widths": (32, 64, 128, 256), "blocks": (1, 1, 1, 1), "decoder_channels": 8},
    "miniseg": {"widths": (4, 8, 12, 16), "blocks": (1, 2, 2, 1)},
}

each_unet = pytest.mark.parametrize("name", UNETS)
each_peer = pytest.mark.parametrize("name", PEERS)


def small(name: str, **changes) -> nn.Module:
    torch.manual_seed(0)
    return build_peer(name, **SMALL[name] | changes)


def loss_of(network: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """What a run trains it on: its own loss, where it has one."""
    own = getattr(network, "training_loss", lambda *batch: segmentation_loss(network(image), mask))
    return own(image, mask)


# ---- the registry and its counts ---------------------------------------------------------------


def test_the_registry_has_the_rows_of_table_3():
    rows = [row for row in ROWS if row.table == "Table 3"]
    assert [peer.label for peer in PEERS.values()] == [row.label for row in rows][:-1]  # the last is CHS-Net
    assert {row.arm for row in rows[1:-1]} == set(PEERS) - {"unet"}  # the first is the baseline's


def test_the_paper_s_counts_are_those_of_the_ledger():
    ledger = paper_numbers()
    printed = ledger.query("table == 'Table 3' and metric == 'Param.'").set_index("row")["value"]
    assert {peer.label: peer.paper for peer in PEERS.values()}.items() <= dict(printed).items()


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    state = torch.get_rng_state()
    table = parameter_table()
    assert torch.equal(torch.get_rng_state(), state)  # counting changes no run that is seeded before it
    return table


def test_the_paper_s_counts_are_near_ours_or_explained(table):
    paper = table["paper"].map(lambda s: float(s[:-1]) * {"M": 1e6, "K": 1e3}[s[-1]])
    apart = (table["ours"] / paper - 1).abs()
    assert list(apart[apart > 0.07].index) == ["miniseg"]
    assert "472K" in table.loc["miniseg", "reason"]


def test_the_table_counts_the_networks_as_published(table):
    assert list(table.index) == list(PEERS)
    assert list(table.columns) == ["label", "ours", "paper", "upstream", "source", "reason"]
    assert list(table["ours"]) == [7_762_465, 9_044_417, 8_725_501, 31_072_145, 82_620]
    assert list(table["upstream"]) == [7_759_521, 9_041_601, 8_725_501, 33_121_721, 82_912]
    assert list(table["paper"]) == ["7.9M", "9M", "8.7M", "33M", "472K"]
    assert all(r.endswith(".") and r.count(". ") == 0 for r in table["reason"])  # one sentence


def test_upstream_s_counts_are_ours_with_upstream_s_channels():
    infnet, classifier = build_peer("infnet", in_channels=3), 2048 * 1000 + 1000  # which nothing uses
    assert count_parameters(infnet) + classifier == PEERS["infnet"].upstream
    assert round((count_parameters(infnet.trunk) + classifier) / 1e6, 2) == 25.72  # Res2Net50 v1b
    miniseg = build_peer("miniseg", in_channels=3, out_channels=2)
    assert count_parameters(miniseg) == PEERS["miniseg"].upstream
    doubled = build_peer("attention-unet", in_channels=3, widths=tuple(2 * c for c in FULL))
    assert count_parameters(doubled) == 34_878_573


def test_the_table_counts_what_is_built(monkeypatch):
    monkeypatch.setattr(replication.peers, "PEERS", {"unet": PEERS["unet"]})
    monkeypatch.setattr(UNet.__init__, "__kwdefaults__", {**UNet.__init__.__kwdefaults__, "widths": (8, 12)})
    assert parameter_table().loc["unet", "ours"] == count_parameters(UNet(widths=(8, 12)))


@each_peer
def test_a_narrow_peer_keeps_the_convention_of_training(name):
    net = build_peer(name, **PEERS[name].narrow)
    assert count_parameters(net) < 150_000
    assert hasattr(net, "training_loss") == (name not in UNETS)
    loss = loss_of(net, image := torch.rand(2, 1, 64, 64), (image > 0.5).float())
    assert loss.shape == () and torch.isfinite(loss)


# ---- shapes, gradients, determinism, learning --------------------------------------------------


@each_peer
@pytest.mark.parametrize(("batch", "rows", "columns"), [(2, 2, 2), (1, 3, 5), (2, 1, 1)])
def test_logits_have_the_shape_of_the_slice(name, batch, rows, columns):
    net = small(name)
    x = torch.rand(batch, 1, rows * net.divisor, columns * net.divisor)
    logits = net(x)
    assert logits.shape == x.shape and torch.isfinite(logits).all() and logits.min() < 0
    outputs = getattr(net, "all_outputs", lambda x: [net(x)])(x)
    assert [m.shape for m in outputs] == [x.shape] * {"infnet": 5, "miniseg": 4}.get(name, 1)


@each_peer
def test_channels_and_widths_follow_the_arguments(name):
    maps = 1 if name == "infnet" else 3
    net = small(name, in_channels=2, out_channels=maps).eval()
    assert net(torch.rand(1, 2, 64, 32)).shape == (1, maps, 64, 32)
    assert net.widths == SMALL[name]["widths"] and net.in_channels == 2
    assert all(type(width) is int for width in net.widths)
    with pytest.raises(TypeError, match="positional"):
        type(net)(1, 1)


@each_unet
def test_maps_of_a_u_net_halve_four_times(name):
    net, shapes = small(name).eval(), []
    for block in [*net.encoder, *([net.bottleneck] if name == "unet" else [])]:
        block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    net(torch.rand(1, 1, 64, 32))
    assert shapes == [(8, 64, 32), (12, 32, 16), (18, 16, 8), (27, 8, 4), (40, 4, 2)]
    assert build_peer(name).widths == FULL and PEERS[name].narrow == {"widths": NARROW}
    assert build_peer(name, widths=[6, 9, 13])(torch.rand(2, 1, 20, 12)).shape == (2, 1, 20, 12)


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


@each_peer
def test_the_biases_before_norms_are_as_many_as_the_docstring_says(name):
    net = build_peer(name)
    count = sum(bias.numel() for bias in biases_before_norms(net).values())
    assert count == {"attention-unet": 3908, "miniseg": 128}.get(name, 0)
    assert not count or f"{count:,}" in import_module(type(net).__module__).__doc__


@each_peer
def test_evaluation_is_repeatable_slice_by_slice_and_the_same_in_channels_last(name, settled):
    net, x = settled(small(name)), torch.rand(3, 1, 64, 96, dtype=torch.float64)
    expected = net(x)
    assert torch.equal(net(x), expected)
    torch.testing.assert_close(net(x[1:2]), expected[1:2], rtol=1e-9, atol=1e-9)
    net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    seen = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.num_features > 1:
            module.register_forward_hook(
                lambda _, __, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)
    assert seen and (all(seen) or name not in UNETS)


@each_peer
def test_the_seed_decides_the_weights(name):
    first, again = small(name).state_dict(), small(name).state_dict()
    other = build_peer(name, **SMALL[name]).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@each_unet
def test_logits_are_no_probabilities(name, settled):
    net = settled(small(name))
    nn.init.constant_(net.head.bias, -7.0)
    nn.init.zeros_(net.head.weight)
    assert (net(torch.rand(1, 1, 16, 16, dtype=torch.float64)) == -7).all()


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


def copy_encoder(ours: list[nn.Module], theirs: list[nn.Module]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        copy_weights(a, b)


def monai_up(deep: int, skip: int, c: int, **layers) -> UpCat:
    return UpCat(2, deep, skip, c, "relu", "batch", dropout=0.0, upsample="deconv", **layers)


def test_unet_is_monai_basic_unet(settled):
    w, ours = DOUBLING, settled(UNet(widths=DOUBLING))
    theirs = BasicUNet(2, 1, 1, (*w, w[0]), act="relu", norm="batch", bias=False)
    theirs.upcat_1 = monai_up(w[1], w[0], w[0], bias=False)  # MONAI's last one does not halve
    copy_encoder(
        [*ours.encoder, ours.bottleneck],
        [theirs.conv_0, theirs.down_1, theirs.down_2, theirs.down_3, theirs.down_4],
    )
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
    w, ours = DOUBLING, settled(UNetPlusPlus(widths=DOUBLING))
    theirs = BasicUNetPlusPlus(2, 1, 1, (*w, w[0]), act="relu", norm="batch", bias=False)
    for j in range(1, 5):  # MONAI's do not halve at the top level
        setattr(theirs, f"upcat_0_{j}", monai_up(w[1], j * w[0], w[0], bias=False))
    copy_encoder(list(ours.encoder), [getattr(theirs, f"conv_{i}_0") for i in range(5)])
    for j in range(1, 5):
        for i in range(5 - j):
            step = getattr(theirs, f"upcat_{i}_{j}")
            copy_weights(ours.up[j - 1][i], step.upsample)
            copy_weights(ours.nested[j - 1][i], step.convs)
    copy_weights(ours.head, theirs.final_conv_0_4)
    x = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs.double().eval()(x)[0])


def copy_gate(ours: AttentionGate, theirs: AttentionBlock) -> None:
    for a, b in ((ours.of_gate, theirs.W_g), (ours.of_skip, theirs.W_x), (ours.psi, theirs.psi)):
        copy_weights(a, b)


def test_attention_gate_is_monai_attention_block(settled):
    ours, theirs = settled(AttentionGate(10)), AttentionBlock(2, f_int=5, f_g=10, f_l=10)
    copy_gate(ours, theirs)
    skip, gate = torch.randn(2, 2, 10, 8, 6, dtype=torch.float64).unbind()
    torch.testing.assert_close(ours(skip, gate), theirs.double().eval()(g=gate, x=skip))


class GatedUpCat(UpCat):
    """MONAI's decoder step with MONAI's gate on the skip, which MONAI itself has elsewhere only."""

    def __init__(self, deep: int, c: int) -> None:
        super().__init__(2, deep, c, c, "relu", "batch", bias=True)
        self.upsample = nn.Sequential(
            nn.UpsamplingNearest2d(scale_factor=2), TwoConv(2, deep, c, "relu", "batch", True)
        )
        del self.upsample[1].conv_1  # one convolution, not two
        self.gate = AttentionBlock(2, f_int=c // 2, f_g=c, f_l=c)

    def forward(self, x: Tensor, x_e: Tensor) -> Tensor:
        x = self.upsample(x)
        return self.convs(torch.cat([self.gate(g=x, x=x_e), x], dim=1))


def test_attention_unet_is_a_gated_monai_basic_unet(settled):
    w, ours = DOUBLING, settled(AttentionUNet(widths=DOUBLING))
    theirs = BasicUNet(2, 1, 1, (*w, w[0]), act="relu", norm="batch", bias=True)
    copy_encoder(
        list(ours.encoder), [theirs.conv_0, theirs.down_1, theirs.down_2, theirs.down_3, theirs.down_4]
    )
    for i, (c, deep) in enumerate(zip(w, w[1:])):
        step = GatedUpCat(deep, c)
        setattr(theirs, f"upcat_{i + 1}", step)
        copy_weights(ours.up[i], step.upsample)
        copy_weights(ours.decoder[i], step.convs)
        copy_gate(ours.gates[i], step.gate)
    copy_weights(ours.head, theirs.final_conv)
    x = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs.double().eval()(x))


def test_unet_is_the_baseline_of_tables_4_and_5(settled):
    ours, baseline = settled(UNet(widths=NARROW)), build_network("bu", widths=NARROW)
    baseline.load_state_dict(ours.state_dict())  # strict: the same keys
    x = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    assert torch.equal(ours(x), baseline.double().eval()(x))


# ---- errors ------------------------------------------------------------------------------------


@each_peer
@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(1, 3, 64, 64), r"shape \(1, 3, 64, 64\); expected \(N, 1, H, W\)"),
        (torch.zeros(64, 64), r"shape \(64, 64\); expected \(N, 1, H, W\)"),
        (
            torch.zeros(1, 1, 72, 64),
            r"slice of 72x64; both sides must divide by (16|32). Pad it to (80|96)x64",
        ),
        (torch.zeros(1, 1, 64, 64, dtype=torch.uint8), "dtype torch.uint8; expected floating point"),
        (torch.full((1, 1, 64, 64), float("nan")), "4096 NaN or infinite values"),
    ],
)
def test_input_that_cannot_be_taken_is_refused(name, x, message):
    net = small(name)
    assert net.divisor == (32 if name == "infnet" else 16)
    for mode in (True, False):
        with pytest.raises(ValueError, match=message):
            net.train(mode)(x)
    if name not in UNETS:
        with pytest.raises(ValueError, match=message):
            net.training_loss(x, torch.zeros_like(x))


@pytest.mark.parametrize("name", ["infnet", "miniseg"])
def test_one_pixel_at_the_deepest_has_no_variance_to_train_on(name):
    net = small(name)
    x = torch.zeros(1, 1, net.divisor, net.divisor)
    with pytest.raises(ValueError, match="one pixel"):
        net(x)
    assert net.eval()(x).shape == x.shape


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


def test_a_pyramid_has_four_levels():
    with pytest.raises(ValueError, match="multiple of 4"):
        AttentivePyramid(4, 10)
