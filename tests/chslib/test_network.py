"""RAIU-Net and the cascade: counts, shapes, gradients, errors, and that they learn."""

import doctest
import re

import pytest
import torch
from torch import nn

import chslib.network
from chslib.loss import segmentation_loss
from chslib.network import (
    ARMS,
    DOUBLING,
    WIDTHS,
    CHSNet,
    RAIUNet,
    build_network,
    contour_map,
    count_parameters,
)

NARROW = (4, 6, 9, 13, 20)


# ---- parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arm, changes, expected",
    [
        ("bu", {}, 7_762_465),
        ("rib", {}, 1_498_299),
        ("rib-hp", {}, 1_676_155),
        ("full", {}, 1_905_739),
        ("full", {"widths": DOUBLING}, 2_778_601),
        ("full", {"pooling": "average"}, 1_905_739),
        ("full", {"shortcut_kernel": 1}, 1_899_491),
    ],
)
def test_an_arm_has_its_parameters(arm, changes, expected):
    assert count_parameters(build_network(arm, **changes)) == expected


def test_two_stages_count_twice_one_and_frozen_parameters_not_at_all():
    net = CHSNet()
    assert count_parameters(net) == 3_811_478 == 2 * 1_905_739
    net.infection.head.requires_grad_(False)
    assert count_parameters(net) == 3_811_478 - (WIDTHS[0] + 1)


# ---- shapes and gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("size", [(64, 64), (96, 128), (16, 16)])
def test_logits_have_the_shape_of_the_slice(arm, size):
    net = build_network(arm, widths=NARROW).eval()
    assert net(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_channels_follow_the_arguments():
    net = RAIUNet(in_channels=2, out_channels=3, widths=NARROW).eval()
    assert net(torch.rand(1, 2, 32, 16)).shape == (1, 3, 32, 16)


def test_maps_halve_four_times_and_take_the_ladder_of_widths():
    net, shapes = RAIUNet().eval(), []
    for block in (*net.encoder, net.bottleneck):
        block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    net(torch.rand(1, 1, 64, 32))
    assert shapes == [(32, 64, 32), (48, 32, 16), (72, 16, 8), (108, 8, 4), (162, 4, 2)]


@pytest.mark.parametrize("gate", ["sigmoid", "relu"])
@pytest.mark.parametrize("same_spectral", ["lowpass", "identity"])
@pytest.mark.parametrize("up_kernel, shortcut_kernel, pooling", [(2, 1, "hybrid"), (3, 3, "average")])
def test_every_alternative_of_the_register_runs(gate, same_spectral, up_kernel, shortcut_kernel, pooling):
    net = RAIUNet(
        widths=NARROW, gate=gate, same_spectral=same_spectral, up_kernel=up_kernel,
        shortcut_kernel=shortcut_kernel, pooling=pooling,
    ).eval()  # fmt: skip
    assert net(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("arm", ARMS)
def test_gradient_reaches_every_parameter(arm):
    torch.manual_seed(0)
    net = build_network(arm)
    x = torch.rand(2, 1, 32, 32)
    segmentation_loss(net(x), (x > 0.5).float()).backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_both_memory_formats_agree():
    torch.manual_seed(0)
    net, x = RAIUNet(widths=NARROW).eval(), torch.rand(2, 1, 32, 48)
    expected = net(x)
    net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_under_autocast_stays_close_to_single_precision(arm):
    torch.manual_seed(0)
    net = build_network(arm, widths=NARROW).to(memory_format=torch.channels_last)
    x = torch.rand(2, 1, 64, 64).to(memory_format=torch.channels_last)
    full = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(x)
    assert low.dtype == torch.bfloat16
    assert (low.float() - full).abs().mean() < 0.15 * full.std()  # some forty layers, each rounded
    segmentation_loss(low, (x > 0.5).float()).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.slow
def test_the_network_is_captured_whole_by_torch_compile():
    torch.manual_seed(0)
    net, x = RAIUNet(widths=(4, 6, 9)).eval(), torch.rand(1, 1, 64, 64)
    net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")  # no code is generated: quick
    torch.testing.assert_close(compiled(x), net(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_graph_takes_the_spectral_operators_as_they_are():
    net, x = RAIUNet(widths=(4, 6, 9)).eval(), torch.rand(1, 1, 32, 32)
    net(x)  # makes them
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch.compile(net, fullgraph=True, backend=backend, dynamic=False)(x)
    (graph,) = graphs
    assert "matmul" in graph.code and not {"cos", "arange"} & set(
        graph.code.replace("(", " ").replace(".", " ").split()
    )


@pytest.mark.parametrize("arm", ARMS)
def test_one_batch_can_be_learnt_by_heart(arm):
    torch.manual_seed(0)
    net = build_network(arm, widths=(6, 9, 13))
    row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    target = torch.stack(
        [((row - a) ** 2 + (column - b) ** 2 < 12).float()[None] for a, b in ((5, 5), (10, 8))]
    )
    x = 0.3 * torch.rand(2, 1, 16, 16) + 0.5 * target
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = segmentation_loss(net(x), target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


# ---- what is refused ---------------------------------------------------------------------------

SLICE = torch.zeros(1, 1, 32, 32)


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(1, 1, 50, 64), "50x64; both sides must divide by 16. Pad it to 64x64"),
        (torch.zeros(1, 1, 64, 33), "64x33; both sides must divide by 16. Pad it to 64x48"),
        (torch.zeros(1, 1, 0, 16), "0x16"),
        (SLICE.masked_fill(torch.eye(32, dtype=torch.bool), torch.nan), "32 NaN or infinite values"),
        (SLICE.index_fill(3, torch.tensor([0]), torch.inf), "32 NaN or infinite values"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_an_input_is_refused_with_what_came_and_the_cure(x, message, training):
    with pytest.raises(ValueError, match=re.escape(message)):
        RAIUNet(widths=NARROW).train(training)(x)


def test_the_padding_that_the_error_names_mends_the_slice():
    net, x = RAIUNet(widths=NARROW).eval(), torch.rand(1, 1, 50, 33)
    with pytest.raises(ValueError) as error:
        net(x)
    (left, right, top, bottom) = map(int, re.search(r"pad\(x, \((.*)\)\)", str(error.value))[1].split(","))
    assert net(nn.functional.pad(x, (left, right, top, bottom))).shape == (1, 1, 64, 48)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: RAIUNet(widths=(8,)), r"widths=\(8,\)"),
        (lambda: RAIUNet(widths=(8, 0)), r"widths=\(8, 0\)"),
        (lambda: RAIUNet(up_kernel=4), "up_kernel=4; expected 2 or 3"),
        (lambda: RAIUNet(pooling="mean"), "'mean'.*'hybrid', 'max'"),
        (lambda: RAIUNet(block="dense"), "'dense'.*'rib' or 'double-conv'"),
        (lambda: RAIUNet(gate="tanh"), "'tanh'.*sigmoid"),
        (lambda: RAIUNet(same_spectral="crop"), "'crop'.*lowpass"),
        (lambda: build_network("bigger"), "'bigger'.*rib-hp"),
        (lambda: CHSNet(cascade="add"), "'add'.*concat"),
        (lambda: contour_map(SLICE, SLICE, cascade="add"), "'add'.*concat"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- the cascade -------------------------------------------------------------------------------


class Threshold(nn.Module):
    """Lungs wherever a pixel is above a learnt level."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return x - self.level


def test_the_contour_map_keeps_the_lungs_and_zeroes_the_background():
    ct = torch.tensor([[0.2, 0.9], [0.4, 0.6]]).view(1, 1, 2, 2)
    mask = torch.tensor([[1, 0], [0, 1]]).view(1, 1, 2, 2)
    assert contour_map(ct, mask).flatten().tolist() == ct.mul(mask).flatten().tolist()
    both = contour_map(ct, mask, cascade="concat")
    assert both.dtype == ct.dtype and torch.equal(both, torch.stack([ct[:, 0], mask[:, 0].float()], 1))


@pytest.mark.parametrize("cascade, channels", [("mask", 1), ("concat", 2)])
def test_the_second_stage_sees_the_slice_through_the_predicted_lungs(cascade, channels):
    seen = []
    infection = RAIUNet(in_channels=channels, widths=NARROW).eval()
    infection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(2, 1, 32, 32)
    x[0, 0, 0, 0] = 0.5  # a logit of exactly 0, a probability of exactly 0.5: not lung
    out = CHSNet(lungs=Threshold(), infection=infection, cascade=cascade)(x)
    assert torch.equal(out.lungs, x - 0.5)
    assert torch.equal(seen[0], contour_map(x, (x > 0.5).float(), cascade=cascade))
    assert torch.equal(out.contour_map, seen[0])
    assert (out.contour_map[:, -1:][x <= 0.5] == 0).all()
    assert torch.equal(out.infection, infection(seen[0]))


def test_the_infection_teaches_nothing_to_the_lungs_network():
    torch.manual_seed(0)
    net = CHSNet(lungs=RAIUNet(widths=NARROW), infection=RAIUNet(widths=NARROW))
    net(torch.rand(2, 1, 32, 32)).infection.square().sum().backward()
    assert all(p.grad is None for p in net.lungs.parameters())
    assert all(p.grad is not None for p in net.infection.parameters())


def test_concatenation_gives_the_default_second_stage_two_channels():
    out = CHSNet(cascade="concat").eval()(torch.rand(1, 1, 16, 16))
    assert out.contour_map.shape == (1, 2, 16, 16) and out.infection.shape == (1, 1, 16, 16)


def test_the_examples_of_the_docstrings_run():
    result = doctest.testmod(chslib.network)
    assert result.attempted >= 3 and result.failed == 0
