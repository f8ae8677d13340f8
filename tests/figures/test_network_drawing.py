"""A figure of a block follows the block: its words, its arrows, and nothing on top of anything else."""

import itertools
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from chslib.blocks import InceptionConv, ResidualInceptionBlock
from chslib.network import CHSNet, RAIUNet, build_network
from chslib.pooling import HybridPool2d
from replication.figures.dataflow import trace
from replication.figures.network import graph_of, label, place, plot_block

SMALL = (4, 6, 9)


def small(**changes) -> RAIUNet:
    return build_network(**{"widths": SMALL, **changes})


def labels(module: nn.Module, *shapes: tuple[int, int, int], **options) -> dict[str, str]:
    return {name: label(node) for name, node in graph_of(module, *shapes, **options).items()}


def blocks() -> dict[str, tuple]:
    net = small()
    pooled = nn.Sequential(OrderedDict(block=net.encoder[1], pool=net.pools[1]))
    return {
        "cascade": (CHSNet(lungs=small(), infection=small()), (1, 16, 16)),
        "network": (net, (1, 16, 16)),
        "network without attention": (small(attention=False), (1, 16, 16)),
        "baseline": (build_network("bu", widths=SMALL), (1, 16, 16)),
        "block": (pooled, (4, 8, 8)),
        "inception": (net.encoder[1].ic1, (4, 8, 8)),
        "inception, max": (InceptionConv(4, 6, pooling="max"), (4, 8, 8)),
        "depth": (net.attention[0].depth, (4, 8, 8)),
        "spatial": (net.attention[0].spatial, (4, 8, 8), (6, 4, 4)),
        "both attentions": (net.attention[0], (4, 8, 8), (6, 4, 4)),
        "hybrid pooling": (net.pools[0], (4, 8, 8)),
    }


# ---- arrows ------------------------------------------------------------------------------------


def test_the_arrows_of_a_residual_block_are_its_forward():
    graph = graph_of(ResidualInceptionBlock(4, 6), (4, 8, 8))
    assert {name: node.inputs for name, node in graph.items()} == {
        "input.x": [],
        "ic1": ["input.x"],
        "ic2": ["ic1"],
        "shortcut.0": ["input.x"],
        "add.0": ["ic2", "shortcut.0"],
        "output": ["add.0"],
    }


def test_a_part_whose_weights_alone_are_used_is_still_that_part():
    graph = graph_of(InceptionConv(4, 6), (4, 8, 8))  # its merge runs as one product for each branch
    assert graph["merge"].inputs == ["dsc.0.0", "dsc.1.0", "dsc.2.0", "pool.0"]
    assert graph_of(HybridPool2d(4), (4, 8, 8))["pointwise"].inputs == ["max", "spectral"]


def test_skips_go_through_the_attention_or_straight_to_the_concatenation():
    with_it, without = graph_of(small(), (1, 16, 16)), graph_of(small(attention=False), (1, 16, 16))
    assert with_it["attention.0"].inputs == ["encoder.0", "encoder.1"]
    assert with_it["attention.1"].inputs == ["encoder.1", "bottleneck"]
    assert with_it["cat.1"].inputs == ["up.0", "attention.0"]
    assert without["cat.1"].inputs == ["up.0", "encoder.0"]
    assert not any("attention" in name for name in without)


def test_a_changed_forward_changes_the_arrows():
    class NoShortcut(ResidualInceptionBlock):
        def forward(self, x: Tensor) -> Tensor:
            return self.ic2(self.ic1(x))

    graph = graph_of(NoShortcut(4, 6), (4, 8, 8))
    assert list(graph) == ["input.x", "ic1", "ic2", "output"]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_changes_no_arrow(memory_format):
    x = torch.zeros(1, 4, 8, 8).contiguous(memory_format=memory_format)
    graph = trace(InceptionConv(4, 6), x)
    assert graph["merge"].inputs == ["dsc.0.2", "dsc.1.2", "dsc.2.2", "pool.2"]


def test_tracing_leaves_the_module_as_it_was():
    net = small().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graph_of(net, (1, 16, 16))
    assert net.training and not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_several_outputs_are_several_boxes():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    graph = graph_of(Two(), (1, 8, 8))
    assert {n: (graph[n].inputs, graph[n].shape) for n in graph if "output" in n} == {
        "output.1": (["a"], (2, 8, 8)),
        "output.2": (["b"], (3, 8, 8)),
    }
    assert label(graph["output.2"]) == "output 2\n3 × 8 × 8"
    cascade = graph_of(CHSNet(lungs=small(), infection=small()), (1, 16, 16))
    assert [cascade[f"output.{n}"].inputs for n in ("lungs", "contour_map", "infection")] == [
        ["lungs"],
        ["mul.0"],
        ["infection"],
    ]
    assert label(cascade["gt.0"]).startswith("above 0")


# ---- words -------------------------------------------------------------------------------------


def test_words_follow_the_widths():
    assert labels(small(), (1, 16, 16))["bottleneck"] == "RIB\n6 → 9\n9 × 4 × 4"
    assert labels(small(widths=(8, 10, 12)), (1, 32, 32))["bottleneck"] == "RIB\n10 → 12\n12 × 8 × 8"


def test_words_follow_the_arm():
    full, bare = labels(small(), (1, 16, 16)), labels(small(pooling="max", attention=False), (1, 16, 16))
    assert full["pools.0"] == "hybrid pooling\nmax, spectral (valid)\n1×1, 8 → 4\n4 × 8 × 8"
    assert bare["pools.0"] == "max pooling\n(valid)\n4 × 8 × 8"
    assert full["attention.0"].startswith("SSD") and "attention.0" not in bare
    baseline = labels(build_network("bu", widths=SMALL), (1, 16, 16))
    assert baseline["encoder.1"] == "2 × conv 3×3\n4 → 6\n6 × 8 × 8"
    assert baseline["up.0"].startswith("transposed 2×2, stride 2") and "3×3" in full["up.0"]


def test_words_follow_kernels_gates_and_readings():
    ic = labels(InceptionConv(4, 6), (4, 8, 8))
    assert [ic[f"dsc.{i}.0"].split("\n")[0] for i in range(3)] == ["DSC 1×1", "DSC 3×3", "DSC 5×5"]
    assert ic["dsc.1.0"] == "DSC 3×3\n4 → 6\nBN, ReLU\n6 × 8 × 8"
    identity = labels(InceptionConv(4, 6, same_spectral="identity"), (4, 8, 8))
    assert "spectral (same)" in ic["pool.0"] and "identity (same)" in identity["pool.0"]
    for gate, word in (("sigmoid", "sigmoid"), ("relu", "ReLU")):
        spatial = small(gate=gate).attention[0].spatial
        assert labels(spatial, (4, 8, 8), (6, 4, 4))["descriptor.0"] == f"1×1\n6 → 1\n{word}\n1 × 4 × 4"


# ---- the figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", blocks())
def test_no_box_lies_on_another_and_no_line_on_a_box(name):
    graph = graph_of(*blocks()[name], opened=(ResidualInceptionBlock,) if name == "block" else ())
    layout = place(graph)
    for (a, p), (b, q) in itertools.combinations(layout.boxes.items(), 2):
        apart = max(abs(p.x - q.x) - (p.w + q.w) / 2, abs(p.y - q.y) - (p.h + q.h) / 2)
        assert apart > 0.05, (a, b)
    for (source, target), points in layout.lines.items():
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            for t in torch.linspace(0, 1, 101).tolist():
                x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
                for other, box in layout.boxes.items():
                    if other not in (source, target):
                        assert abs(x - box.x) > box.w / 2 or abs(y - box.y) > box.h / 2, (
                            source,
                            target,
                            other,
                        )


def test_the_text_of_a_box_fits_into_it_and_the_figure_a_narrow_screen():
    figure = plot_block(RAIUNet(), (1, 64, 64))
    assert figure.get_figwidth() < 5.5  # 9 points are then 8 pixels at 360
    axis = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    frames = [p.get_window_extent(renderer) for p in axis.patches]
    texts = [t for t in axis.texts if t.get_text()]
    assert len(frames) == len(texts) > 20
    for text, frame in zip(texts, frames):
        extent = text.get_window_extent(renderer)
        assert frame.x0 <= extent.x0 and extent.x1 <= frame.x1, text.get_text()
        assert frame.y0 <= extent.y0 and extent.y1 <= frame.y1, text.get_text()
