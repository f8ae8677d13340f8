"""Boxes and arrows of a module, drawn from its own run (our Figs. 5-7 and 9-11).

`replication.figures.dataflow` says which part feeds which; the words in a box come from the part's attributes
(kernel, stride, channels) and from the shapes that went through. Lengths are in inches, and a
figure is as wide as its text needs, so that it can be read on a narrow screen.
"""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath
from torch import nn

from chslib.attention import SpectralSpatialDepthAttention
from chslib.blocks import DepthwiseSeparableConv2d, DoubleConv, InceptionConv, ResidualInceptionBlock
from chslib.network import RAIUNet, count_parameters
from chslib.pooling import GlobalSpectralPool2d, HybridPool2d, MaxPool2d, SpectralPool2d
from replication.figures.dataflow import Graph, Node, fold, trace
from replication.figures.layout import Box, Layout, layered, u_shaped
from replication.figures.style import BLUE, GREEN, SKY, VERMILION

FOLDED = (nn.BatchNorm2d, nn.ReLU, nn.Sigmoid)  # drawn in the box of what they follow
SIGNS = {"add": "+", "mul": "×"}  # a sign needs no shape
SHORT = {nn.BatchNorm2d: "BN", nn.ReLU: "ReLU", nn.Sigmoid: "sigmoid"}
POINTS, PAD, LINE = 9, 0.09, 0.155  # of a label: size in points; margin and line height in inches


def _channels(module: nn.Module) -> str:
    """What goes in and out of a part's convolutions: "32 → 48"."""
    convolutions = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    return f"{convolutions[0].in_channels} → {convolutions[-1].out_channels}"


def _convolution(m: nn.Conv2d | nn.ConvTranspose2d) -> str:
    kind = "transposed " if isinstance(m, nn.ConvTranspose2d) else ""
    kind = "depthwise " if m.groups == m.in_channels > 1 else kind
    stride = f", stride {m.stride[0]}" if m.stride[0] > 1 else ""
    return f"{kind}{m.kernel_size[0]}×{m.kernel_size[1]}{stride}\n{m.in_channels} → {m.out_channels}"


def _hybrid(m: HybridPool2d) -> str:
    low = "identity" if isinstance(m.spectral, nn.Identity) else "spectral"
    size = m.pointwise.kernel_size
    return (
        f"hybrid pooling\nmax, {low} ({m.max.padding})\n"
        f"{size[0]}×{size[1]}, {m.pointwise.in_channels} → {m.pointwise.out_channels}"
    )


def _double(m: DoubleConv) -> str:
    convolutions = [c for c in m if isinstance(c, nn.Conv2d)]
    size = convolutions[0].kernel_size
    return f"{len(convolutions)} × conv {size[0]}×{size[1]}\n{_channels(m)}"


# Kind -> its colour, and its words. The first that fits counts.
WORDS: list[tuple[type[nn.Module], str, Callable[[nn.Module], str]]] = [
    (RAIUNet, BLUE, lambda m: f"RAIU-Net\n{count_parameters(m):,} parameters"),
    (ResidualInceptionBlock, BLUE, lambda m: f"RIB\n{_channels(m)}"),
    (DoubleConv, BLUE, _double),
    (SpectralSpatialDepthAttention, GREEN, lambda m: "SSD"),
    (InceptionConv, BLUE, lambda m: f"inception conv\n{_channels(m)}"),
    (DepthwiseSeparableConv2d, BLUE, lambda m: "DSC {}×{}\n".format(*m.depthwise.kernel_size) + _channels(m)),
    (HybridPool2d, VERMILION, _hybrid),
    (MaxPool2d, VERMILION, lambda m: f"max pooling\n({m.padding})"),
    (SpectralPool2d, VERMILION, lambda m: f"spectral pooling\n({m.padding})"),
    (GlobalSpectralPool2d, VERMILION, lambda m: "global spectral\npooling (mean)"),
    (nn.ConvTranspose2d, SKY, _convolution),
    (nn.Conv2d, BLUE, _convolution),
]  # fmt: skip
WHOLE = tuple(kind for kind, _, _ in WORDS)  # kinds that are one box, unless they are what is drawn


def label(node: Node) -> str:
    """The words in a node's box: what it is, its channels, what is folded into it, (C x H x W) leaving it."""
    kind, _, which = node.name.partition(".")
    if kind in ("input", "output"):
        words = which.replace("_", " ") if which not in ("", "x", "input") else kind
        words = f"{kind} {which}" if which.isdigit() else words
    elif node.module is None:
        words = _operation(**node.call)
    else:
        words = type(node.module).__name__
        words = next((say(node.module) for k, _, say in WORDS if isinstance(node.module, k)), words)
        if isinstance(node.module, RAIUNet):
            words = f"{node.name}: {words}"
    if node.folded:
        words += "\n" + ", ".join(SHORT[type(m)] for m in node.folded)
    return words if words in SIGNS.values() else words + "\n" + " × ".join(map(str, node.shape))


def _operation(name: str, **settings: Any) -> str:
    if name == "interpolate":
        return f"up ×{settings['scale_factor']}\n{settings['mode']}"
    if name == "gt":
        return f"above {settings['value']}"
    return "concatenate" if name == "cat" else SIGNS.get(name, name)


def graph_of(
    module: nn.Module, *shapes: tuple[int, int, int], opened: tuple[type[nn.Module], ...] = ()
) -> Graph:
    """The graph of a block or network on zeros, with what is drawn in one box as one node.

    Args:
        module: what is drawn.
        shapes: (C, H, W) of each of its inputs.
        opened: kinds of part to look into. Any other of `WHOLE` is one box; normalisation and activation are
            in the box of what they follow.
    """
    whole = tuple(kind for kind in WHOLE if kind not in opened)
    return fold(trace(module, *(torch.zeros(1, *shape) for shape in shapes), whole=whole), FOLDED)


def _colour(node: Node) -> str:
    return next((colour for kind, colour, _ in WORDS if isinstance(node.module, kind)), "0.35")


def _box(node: Node) -> Box:
    text = label(node)
    lines = text.split("\n")
    wide = max(TextPath((0, 0), line, size=POINTS).get_extents().width for line in lines) / 72
    return Box(text, _colour(node), max(wide + 2 * PAD, 0.34), LINE * len(lines) + 1.5 * PAD)


def place(graph: Graph) -> Layout:
    """Where everything goes: the U of a whole network, rows from top to bottom for anything else."""
    boxes = {name: _box(node) for name, node in graph.items()}
    return (u_shaped if {"encoder.0", "decoder.0"} <= set(graph) else layered)(graph, boxes)


def plot_block(
    module: nn.Module, *shapes: tuple[int, int, int], opened: tuple[type[nn.Module], ...] = ()
) -> Figure:
    """A block or network as boxes and arrows, as it runs; arguments as in `graph_of`.

    Each box has the kind of part and its kernel, channels in and out, what follows it at once (BN, ReLU,
    sigmoid), and channels, height and width of what leaves it.
    """
    layout = place(graph_of(module, *shapes, opened=opened))
    boxes = layout.boxes.values()
    corners = [(b.x + sx * b.w / 2, b.y + sy * b.h / 2) for b in boxes for sx in (-1, 1) for sy in (-1, 1)]
    xs, ys = zip(*corners, *(point for line in layout.lines.values() for point in line))
    (left, right), (top, bottom) = ((min(v) - PAD, max(v) + PAD) for v in (xs, ys))
    figure = plt.figure(figsize=(right - left, bottom - top), dpi=120)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.axis("off")
    for line in layout.lines.values():
        axis.plot(*zip(*line[:-1]), color="0.45", lw=1.2, solid_joinstyle="round")
        axis.annotate("", line[-1], line[-2], arrowprops={
            "arrowstyle": "-|>", "color": "0.45", "lw": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9,
        })  # fmt: skip
    for box in boxes:
        corner = (box.x - box.w / 2, box.y - box.h / 2)
        axis.add_patch(FancyBboxPatch(
            corner, box.w, box.h, boxstyle="round,pad=0,rounding_size=0.06", fc="white", ec=box.colour, lw=1.5, zorder=3,
        ))  # fmt: skip
        axis.text(
            box.x, box.y, box.text, ha="center", va="center", fontsize=POINTS, linespacing=1.15, zorder=4
        )
    return figure
