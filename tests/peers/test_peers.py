"""Table 3's peers: U-Net, U-Net++ and Attention U-Net against MONAI and by hand; the registry of all five."""

import doctest
import re

import pandas as pd
import pytest
import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import TwoConv, UpCat
from torch import Tensor, nn

import replication.peers.attention_unet
import replication.peers.unet
import replication.peers.unetpp
from chslib.loss import segmentation_loss
from chslib.network import build_network, count_parameters
from replication.evidence.ledger import paper_numbers
from replication.peers import PEERS, build_peer, parameter_table
from replication.peers.attention_unet import AttentionGate, AttentionUNet
from replication.peers.unet import UNet
from replication.peers.unetpp import UNetPlusPlus
from replication.training.grid import ROWS

NARROW = (8, 12, 18, 27, 40)
DOUBLING = (4, 8, 16, 32, 64)  # MONAI's decoders halve
FULL = (32, 64, 128, 256, 512)
UNETS = {"unet": UNet, "unetpp": UNetPlusPlus, "attention-unet": AttentionUNet}

each_unet = pytest.mark.parametrize("network", UNETS.values(), ids=UNETS)
each_peer = pytest.mark.parametrize("name", PEERS)


# ---- parameters, counted layer by layer without the code ---------------------------------------


def conv(i: int, o: int, k: int, *, bias: bool) -> int:
    return i * o * k * k + bias * o


def double_conv(i: int, o: int, *, bias: bool, norm: bool) -> int:
    return conv(i, o, 3, bias=bias) + conv(o, o, 3, bias=bias) + norm * 4 * o


def encoder(w: tuple[int, ...], *, channels: int = 1, **layers: bool) -> int:
    return sum(double_conv(i, o, **layers) for i, o in zip((channels, *w), w))


def unet(w: tuple[int, ...], **layers: bool) -> int:
    total = encoder(w, **layers) + conv(w[0], 1, 1, bias=True)
    for c, deep in zip(w, w[1:]):
        total += conv(deep, c, 2, bias=True) + double_conv(2 * c, c, **layers)
    return total


def unetpp(w: tuple[int, ...], *, up_bias: bool, **layers: bool) -> int:
    total = encoder(w, **layers) + conv(w[0], 1, 1, bias=True)
    for i in range(len(w) - 1):
        for j in range(1, len(w) - i):
            total += conv(w[i + 1], w[i], 2, bias=up_bias) + double_conv((j + 1) * w[i], w[i], **layers)
    return total


def attention_unet(w: tuple[int, ...], *, channels: int = 1) -> int:
    layers = {"bias": True, "norm": True}
    total = encoder(w, channels=channels, **layers) + conv(w[0], 1, 1, bias=True)
    for c, deep in zip(w, w[1:]):
        gate = 2 * (conv(c, c // 2, 1, bias=True) + 2 * (c // 2)) + conv(c // 2, 1, 1, bias=True) + 2
        total += conv(deep, c, 3, bias=True) + 2 * c + gate + double_conv(2 * c, c, **layers)
    return total


NORMED, BIASED = {"bias": False, "norm": True}, {"bias": True, "norm": False}


@pytest.mark.parametrize(
    "network, expected, by_hand",
    [
        (UNet, 7_762_465, lambda w: unet(w, **NORMED)),
        (UNetPlusPlus, 9_044_417, lambda w: unetpp(w, up_bias=False, **NORMED)),
        (AttentionUNet, 8_725_501, attention_unet),
    ],
)
def test_parameters_count_exactly_what_their_layers_add_up_to(network, expected, by_hand):
    assert count_parameters(network()) == expected == by_hand(FULL)
    assert count_parameters(network(widths=NARROW)) == by_hand(NARROW)


def test_upstream_counts_what_its_layers_add_up_to():
    assert PEERS["unet"].upstream == unet(FULL, **BIASED)
    assert PEERS["unetpp"].upstream == unetpp(FULL, up_bias=True, **BIASED)
    assert PEERS["attention-unet"].upstream == attention_unet(FULL)
    # As published, with 64 filters and 3 channels.
    assert attention_unet(tuple(2 * c for c in FULL), channels=3) == 34_878_573
    assert PEERS["infnet"].upstream == count_parameters(build_peer("infnet", in_channels=3)) + 2_049_000
    miniseg = build_peer("miniseg", in_channels=3, out_channels=2)
    assert PEERS["miniseg"].upstream == count_parameters(miniseg)


# ---- shapes, gradients, determinism ------------------------------------------------------------


@each_unet
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (16, 16)])
def test_logits_have_the_shape_of_the_slice(network, size):
    assert network(widths=NARROW).eval()(torch.rand(2, 1, *size)).shape == (2, 1, *size)


@each_unet
def test_widths_and_channels_follow_the_arguments(network):
    net = network(in_channels=2, out_channels=3, widths=[6, 9, 13]).eval()  # two poolings: divides by 4
    assert net.widths == (6, 9, 13)
    assert net(torch.rand(1, 2, 20, 12)).shape == (1, 3, 20, 12)
    assert network().widths == FULL


@each_unet
def test_arguments_are_keyword_only(network):
    with pytest.raises(TypeError, match="positional"):
        network(1, 1)


@each_unet
def test_maps_halve_four_times(network):
    net, shapes = network(widths=NARROW).eval(), []
    for block in [*net.encoder, *([net.bottleneck] if network is UNet else [])]:
        block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    net(torch.rand(1, 1, 64, 32))
    assert shapes == [(8, 64, 32), (12, 32, 16), (18, 16, 8), (27, 8, 4), (40, 4, 2)]


def biases_before_norms(module: nn.Module) -> set[int]:
    """Ids of the biases that the batch norm right behind them takes out again."""
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    pairs = zip(layers, layers[1:])
    return {
        id(a.bias)
        for a, b in pairs
        if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d) and a.bias is not None
    }


@each_unet
def test_gradient_reaches_every_parameter_that_can_have_one(network):
    torch.manual_seed(0)
    net, x = network(widths=NARROW).double(), torch.rand(4, 1, 32, 32, dtype=torch.float64)
    segmentation_loss(net(x), (x > 0.5).double()).backward()
    redundant = biases_before_norms(net)
    size = {n: float(p.grad.abs().max()) for n, p in net.named_parameters() if id(p) not in redundant}
    assert {n for n, g in size.items() if not g > 1e-9} == set()
    rest = [p for p in net.parameters() if id(p) in redundant]
    # Exactly zero but for rounding: U-Net and U-Net++ have none of these.
    assert all(float(p.grad.abs().max()) < 1e-9 for p in rest)
    assert bool(rest) == (network is AttentionUNet)


def test_attention_unet_has_as_many_redundant_biases_as_it_says():
    net = AttentionUNet()
    redundant = biases_before_norms(net)
    count = sum(p.numel() for p in net.parameters() if id(p) in redundant)
    assert f"{count:,}" == "3,908"
    assert "3,908" in replication.peers.attention_unet.__doc__


@each_unet
def test_evaluation_is_deterministic_and_slice_by_slice(network):
    torch.manual_seed(0)
    net, x = network(widths=NARROW), torch.rand(3, 1, 32, 48)
    net(x)  # the norms have seen something
    net.eval()
    assert torch.equal(net(x), net(x))
    torch.testing.assert_close(torch.cat([net(x[i : i + 1]) for i in range(3)]), net(x), atol=1e-5, rtol=0)


@each_unet
def test_the_same_seed_makes_the_same_network(network):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(network(widths=NARROW).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))
    assert not all(torch.equal(a, b) for a, b in zip(states[0].values(), states[2].values()))


@each_unet
def test_both_memory_formats_agree_and_channels_last_stays(network, settled):
    net, x = settled(network(widths=NARROW)), torch.rand(2, 1, 32, 48, dtype=torch.float64)
    expected = net(x)
    net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    seen = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.num_features > 1:
            module.register_forward_hook(
                lambda _, __, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    torch.testing.assert_close(net(x), expected)
    assert seen and all(seen)


@each_unet
def test_logits_are_no_probabilities(network, settled):
    net = settled(network(widths=NARROW))
    nn.init.constant_(net.head.bias, -7.0)
    nn.init.zeros_(net.head.weight)
    assert (net(torch.rand(1, 1, 16, 16, dtype=torch.float64)) == -7).all()


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


@each_unet
@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(1, 3, 32, 32), r"shape (1, 3, 32, 32); expected (N, 1, H, W)"),
        (torch.zeros(32, 32), r"shape (32, 32); expected (N, 1, H, W)"),
        (torch.zeros(1, 1, 40, 32), r"slice of 40x32; both sides must divide by 16. Pad it to 48x32"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), r"dtype torch.uint8; expected floating point"),
        (torch.full((1, 1, 32, 32), float("nan")), r"1024 NaN or infinite values"),
    ],
)
def test_input_that_cannot_be_taken_is_refused(network, x, message):
    for mode in (True, False):
        with pytest.raises(ValueError, match=re.escape(message)):
            network(widths=NARROW).train(mode)(x)


@each_unet
@pytest.mark.parametrize("widths", [(8,), (8, 0, 4)])
def test_widths_that_make_no_network_are_refused(network, widths):
    with pytest.raises(ValueError, match=re.escape(f"widths={widths}; expected at least one stage")):
        network(widths=widths)


def test_a_gate_needs_two_channels():
    with pytest.raises(ValueError, match="each at least 2"):
        AttentionUNet(widths=(1, 2))


# ---- the registry ------------------------------------------------------------------------------


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


def test_the_table_counts_the_networks_it_names(table):
    assert list(table.index) == list(PEERS)
    assert list(table.columns) == ["label", "ours", "paper", "upstream", "source", "reason"]
    assert dict(table["ours"]) == {
        "unet": 7_762_465,
        "unetpp": 9_044_417,
        "attention-unet": 8_725_501,
        "infnet": 31_072_145,
        "miniseg": 82_620,
    }
    assert list(table["upstream"]) == [7_759_521, 9_041_601, 8_725_501, 33_121_721, 82_912]
    assert list(table["paper"]) == ["7.9M", "9M", "8.7M", "33M", "472K"]
    for reason in table["reason"]:
        assert reason.endswith(".") and reason.count(". ") == 0  # one sentence


def test_the_table_counts_what_is_built(monkeypatch):
    monkeypatch.setattr(replication.peers, "PEERS", {"unet": PEERS["unet"]})
    monkeypatch.setattr(UNet.__init__, "__kwdefaults__", {**UNet.__init__.__kwdefaults__, "widths": NARROW})
    assert parameter_table().loc["unet", "ours"] == unet(NARROW, **NORMED)


@each_peer
def test_a_narrow_peer_keeps_the_convention_of_training(name):
    torch.manual_seed(0)
    net = build_peer(name, **PEERS[name].narrow)
    assert count_parameters(net) < 150_000
    assert all(isinstance(width, int) for width in net.widths)
    image = torch.rand(2, 1, 64, 64)
    mask = (image > 0.5).float()
    logits = net(image)
    assert logits.shape == mask.shape
    own = getattr(net, "training_loss", None)
    assert bool(own) == (name in ("infnet", "miniseg"))
    loss = own(image, mask) if own else segmentation_loss(logits, mask)
    assert loss.shape == () and torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", UNETS)
def test_build_peer_builds_the_class_with_its_changes(name):
    net = build_peer(name, widths=NARROW, in_channels=2)
    assert type(net) is UNETS[name]
    assert net.widths == NARROW and net.in_channels == 2
    assert type(build_peer(name)) is UNETS[name] and build_peer(name).widths == FULL
    assert PEERS[name].narrow == {"widths": NARROW}


def test_an_unknown_peer_or_argument_is_refused():
    with pytest.raises(
        ValueError, match="Unknown peer 'unet3'; expected one of unet, unetpp, attention-unet"
    ):
        build_peer("unet3")
    with pytest.raises(
        ValueError, match="UNetPlusPlus got unknown arguments width; expected some of in_channels"
    ):
        build_peer("unetpp", width=8)
    with pytest.raises(ValueError, match="unknown arguments blocks"):
        build_peer("unet", blocks=(1, 1))


def test_each_learns_one_batch():
    torch.manual_seed(0)
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, 8:20, 6:18], mask[1, :, 14:26, 10:28] = 1, 1
    image = mask * 0.5 + torch.rand_like(mask) * 0.2
    for network in UNETS.values():
        net = network(widths=(8, 12))
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
        for _ in range(25):
            optimizer.zero_grad()
            loss = segmentation_loss(net(image), mask)
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.1, network.__name__


@pytest.mark.parametrize(
    "module",
    [replication.peers, replication.peers.unet, replication.peers.unetpp, replication.peers.attention_unet],
    ids=lambda module: module.__name__,
)
def test_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
