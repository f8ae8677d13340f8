"""A drawing of the network tells the truth of the code, and nothing in it lies on top of anything else."""

import itertools
import re
from collections.abc import Callable

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from torch import nn

from chslib.attention import SpectralDepthAttention, SpectralSpatialAttention
from chslib.blocks import InceptionConv, ResidualInceptionBlock
from chslib.network import CHSNet, RAIUNet, build_network, count_parameters
from chslib.pooling import HybridPool2d, MaxPool2d
from replication.figures import network as drawing

SMALL = (4, 6, 9)
DRAWN: dict[str, Callable[[], Figure]] = {
    "cascade": lambda: drawing.plot_cascade(CHSNet(lungs=small(), infection=small()), size=16),
    "network": lambda: drawing.plot_network(build_network("full"), size=256),
    "baseline": lambda: drawing.plot_network(build_network("bu"), size=256),
    "block": lambda: drawing.plot_residual_block(
        ResidualInceptionBlock(32, 48), HybridPool2d(48), (32, 128, 128)
    ),
    "inception": lambda: drawing.plot_inception(InceptionConv(32, 48), (32, 128, 128)),
    "depth": lambda: drawing.plot_depth_attention(SpectralDepthAttention(48), (48, 128, 128)),
    "spatial": lambda: drawing.plot_spatial_attention(
        SpectralSpatialAttention(48, 72), (48, 128, 128), (72, 64, 64)
    ),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def small(**changes) -> RAIUNet:
    return build_network(**{"widths": SMALL, **changes})


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


@pytest.mark.parametrize("name", DRAWN)
def test_no_words_lie_on_others_or_outside(name):
    figure = DRAWN[name]()
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert not [
        1 for a, b in itertools.combinations(boxes, 2) if a.shrunk(0.96, 0.9).overlaps(b.shrunk(0.96, 0.9))
    ]
    assert figure.get_size_inches()[0] <= 5.6  # readable where a column is narrow


def test_the_u_has_the_channels_and_sides_of_the_network():
    network = small().train()
    shown = words(drawing.plot_network(network, size=16))
    assert network.training and not any(part._forward_hooks for part in network.modules())
    assert [shown.count(str(width)) for width in SMALL] == [2, 2, 1]
    assert {"16 × 16", "8 × 8", "4 × 4", "SSD", "slice, 1 channel"} <= set(shown)
    assert any("transposed 3×3" in s for s in shown) and any("hybrid pooling" in s for s in shown)
    wider = words(drawing.plot_network(small(widths=(5, 6, 9), in_channels=2, up_kernel=2), size=32))
    assert wider.count("5") == 2 and "4" not in wider and "slice, 2 channels" in wider and "32 × 32" in wider
    assert any("transposed 2×2" in s for s in wider)


def test_an_arm_without_a_part_is_drawn_without_it():
    plain = " ".join(words(drawing.plot_network(build_network("bu", widths=SMALL), size=16)))
    assert (
        "SSD" not in plain and "max pooling" in plain and "double convolution" in plain and "RIB" not in plain
    )


def test_the_cascade_names_what_goes_between_and_both_sizes():
    net = CHSNet(lungs=small(), infection=small(in_channels=2), cascade="concat")
    shown = " ".join(words(drawing.plot_cascade(net, size=16)))
    assert "slice and lungs" in shown and "2 × 16 × 16" in shown
    for stage in (net.lungs, net.infection):
        assert f"{count_parameters(stage):,} parameters" in shown


@pytest.mark.parametrize(
    ("module", "draw"),
    [
        (InceptionConv(4, 7), lambda m: drawing.plot_inception(m, (4, 8, 8))),
        (InceptionConv(4, 7, pooling="max"), lambda m: drawing.plot_inception(m, (4, 8, 8))),
        (SpectralDepthAttention(10), lambda m: drawing.plot_depth_attention(m, (10, 8, 8))),
        (SpectralSpatialAttention(5, 8, gate="relu"), lambda m: drawing.plot_spatial_attention(m, (5, 8, 8), (8, 4, 4))),
    ],
)  # fmt: skip
def test_every_convolution_of_a_block_is_drawn_with_its_channels(module, draw):
    shown = " ".join(words(draw(module)))
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d) and not name.endswith("depthwise"):
            first = part.in_channels // (
                2 if isinstance(module, InceptionConv) and name.endswith("pool.0.pointwise") else 1
            )
            assert f"{first} → {part.out_channels}" in shown, name
    assert ("sigmoid" in shown) == any(isinstance(m, nn.Sigmoid) for m in module.modules())
    assert shown.count("BN") == sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def test_a_residual_block_is_drawn_with_its_shortcut_and_the_pooling_behind_it():
    shown = words(drawing.plot_residual_block(ResidualInceptionBlock(4, 6), MaxPool2d(), (4, 8, 8)))
    assert "DSC 3×3\n4 → 6\nBN" in shown and "max pooling\n6 → 6, half" in shown
    assert [s for s in shown if re.match("inception conv", s)] == [
        "inception conv\n4 → 6",
        "inception conv\n6 → 6",
    ]
