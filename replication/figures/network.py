"""The network as a teacher would draw it: the cascade (Fig. 5), the U (Fig. 6), its blocks (Figs. 7 and 9 to 11).

Where a thing stands is said here; what it is called is read off the module that is drawn: kernels, channels,
and the shapes of what leaves each part on a real pass. Lengths are inches, so that a figure is as wide as its text.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from chslib.attention import SpectralDepthAttention, SpectralSpatialAttention
from chslib.blocks import InceptionConv, ResidualInceptionBlock
from chslib.network import CHSNet, RAIUNet, count_parameters
from chslib.pooling import HybridPool2d
from replication.figures.style import BLUE, GREEN, SKY, VERMILION

GREY, POINTS = "0.35", 9
STEP, DROP = 0.36, 0.72  # of the U, from one level to the next, inches
Shapes = dict[str, tuple[int, ...]]


@torch.no_grad()
def traced_shapes(network: Any, *, size: int = 256) -> Shapes:
    """Output shape (C, H, W) of every named part of a network, recorded while one slice runs through."""
    shapes: Shapes = {}

    def watch(name: str, part: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return part.register_forward_hook(lambda _part, _in, out: shapes.update({name: tuple(out.shape[1:])}))

    handles = [watch(name, part) for name, part in network.named_modules() if name]
    training = network.training
    try:
        network.eval()(torch.zeros(1, network.in_channels, size, size))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return shapes


def conv_words(m: Any) -> str:
    """Kernel, stride and channels of a convolution."""
    stride = f", stride {m.stride[0]}" if m.stride[0] > 1 else ""
    return f"{m.kernel_size[0]}×{m.kernel_size[1]}{stride}\n{m.in_channels} → {m.out_channels}"


def _dsc(m: Any) -> str:
    f = m.depthwise.kernel_size
    return f"DSC {f[0]}×{f[1]}\n{m.depthwise.in_channels} → {m.pointwise.out_channels}"


def _pool(m: nn.Module) -> str:
    return "hybrid pooling" if isinstance(m, HybridPool2d) else "max pooling"


# ---- the U and the cascade -----------------------------------------------------------------------


def _u(axis: Axes, shapes: Shapes, *, x: float, y: float, scale: float, words: bool) -> None:
    """Bars as tall as their maps (by levels) and as wide as their channels, left down and right up."""
    depth = sum(name.startswith("decoder.") and name.count(".") == 1 for name in shapes)
    step, drop = STEP * scale, DROP * scale
    most = shapes["bottleneck"][0]
    for level in range(depth + 1):
        left, right = x + level * step, x + (2 * depth - level) * step
        base, tall = y - level * drop, (0.62 - 0.09 * level) * scale
        for name, at, colour in (("encoder", left, BLUE), ("decoder", right, SKY)):
            part = f"{name}.{level}" if level < depth else "bottleneck"
            if level == depth and name == "decoder":
                continue
            wide = scale * (0.08 + 0.2 * shapes[part][0] / most)
            axis.add_patch(plt.Rectangle((at - wide / 2, base), wide, tall, fc=colour, ec="none"))
            if words:  # beside the bar: the arrows come and go above and below it
                beside, side = (-1, "right") if name == "encoder" and level < depth else (1, "left")
                ink = colour if name == "encoder" else "0.1"
                place = at + beside * (wide / 2 + 0.04), base + tall
                _words(axis, place, str(shapes[part][0]), side, "top", color=ink, weight="bold")
        if level < depth:
            _arrow(axis, (left, base), (left + step, base - drop + tall - 0.02 * scale), VERMILION)
            _arrow(axis, (right - step, base - drop + tall - 0.02 * scale), (right, base), SKY)
            gate, middle = f"attention.{level}" in shapes, base + tall / 2
            ends = (left + 0.2 * scale, middle), (right - 0.2 * scale, middle)
            _arrow(axis, *ends, GREEN if gate else GREY)
            if words:
                side = "{1} × {2}".format(*shapes[f"encoder.{level}"])
                _words(axis, (x - 0.4, middle), side, "right", color=GREY)
                if gate:
                    box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": GREEN}
                    _words(axis, ((left + right) / 2, middle), "SSD", "center", color=GREEN, bbox=box)


def _words(axis: Axes, at: tuple[float, float], words: str, ha: str, va: str = "center", **look: Any) -> None:
    axis.text(*at, words, ha=ha, va=va, fontsize=POINTS, **look)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    axis.annotate("", end, start, zorder=1, arrowprops={
        "arrowstyle": "-|>", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9,
    })  # fmt: skip


def _canvas(left: float, right: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    figure = plt.figure(figsize=(right - left, top - bottom), dpi=144)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.axis("off")
    return figure, axis


def plot_network(network: RAIUNet, *, size: int = 256) -> Figure:
    """One network as a U (Fig. 6): channels above each bar, sides on the left, what joins them by colour."""
    shapes = traced_shapes(network, size=size)
    depth = len(network.decoder)
    figure, axis = _canvas(-1.2, STEP * 2 * depth + 0.85, -DROP * depth - 1.0, 1.12)
    _u(axis, shapes, x=0, y=0, scale=1, words=True)
    end, foot = STEP * 2 * depth, -DROP * depth
    block = "RIB" if isinstance(network.bottleneck, ResidualInceptionBlock) else "double convolution"
    channels = f"{network.in_channels} channel{'s' * (network.in_channels > 1)}"
    _words(axis, (0, 0.86), f"slice, {channels}", "center", "bottom")
    _arrow(axis, (0, 0.84), (0, 0.64))
    _words(axis, (end, 0.86), f"1×1, {shapes['head'][0]} map of logits", "center", "bottom")
    _arrow(axis, (end, 0.64), (end, 0.84))
    side = "{1} × {2}".format(*shapes["bottleneck"])
    _words(axis, (depth * STEP, foot - 0.12), side, "center", "top", color=GREY)
    kernel = "{}×{}".format(*next(network.up.children()).kernel_size)  # type: ignore[misc]
    keys = [(BLUE, f"{block}, contraction"), (VERMILION, f"{_pool(network.pools[0])}, half"),
            (SKY, f"transposed {kernel}, twice; concatenation; {block}")]  # fmt: skip
    for row, (colour, words) in enumerate(keys):
        axis.text(-1.1, foot - 0.42 - 0.2 * row, "■ ", color=colour, fontsize=POINTS + 2, va="center")
        _words(axis, (-0.9, foot - 0.42 - 0.2 * row), words, "left")
    return figure


def plot_cascade(network: CHSNet, *, size: int = 256) -> Figure:
    """The cascade (Fig. 5): the slice, the network for the lungs, the contour map, the network for the infection."""
    figure, axis = _canvas(-1.25, 3.45, -4.1, 0.95)
    how = "slice × lungs" if network.cascade == "mask" else "slice and lungs"
    rows = [
        (network.lungs, "CT slice", "lungs,\nlogits > 0", 0.0),
        (network.infection, f"contour map:\n{how}", "infection", -2.5),
    ]
    for stage, given, found, y in rows:
        shapes = traced_shapes(stage, size=size)
        _u(axis, shapes, x=0.55, y=y + 0.35, scale=0.5, words=False)
        _words(axis, (-0.02, y + 0.5), f"{given}\n{stage.in_channels} × {size} × {size}", "right")
        _arrow(axis, (0.05, y + 0.5), (0.4, y + 0.5))
        _arrow(axis, (2.35, y + 0.5), (2.6, y + 0.5))
        _words(axis, (2.68, y + 0.5), found, "left")
        name = type(stage).__name__.replace("RAIUNet", "RAIU-Net")
        told = f"{name}\n{count_parameters(stage):,} parameters"
        _words(axis, (0.55 + 4 * STEP * 0.5, y - 1.16), told, "center", "top")
    for x in (-0.6, 2.95):  # slice and lungs meet in the contour map
        axis.plot([x, x], [0.25, -1.6], color=GREY, lw=1.3)
    axis.plot([-0.6, 2.95], [-1.6, -1.6], color=GREY, lw=1.3)
    _arrow(axis, (-0.6, -1.58), (-0.6, -1.68))
    return figure


# ---- the blocks ----------------------------------------------------------------------------------


class Box(NamedTuple):
    """A box of a drawing: its column and row, its words, its colour."""

    column: float
    row: float
    words: str
    colour: str = GREY


def plot_boxes(boxes: Mapping[str, Box], arrows: Iterable[tuple[str, str]], *, wide: float = 1.15) -> Figure:
    """Boxes on a grid and arrows from the foot of one to the head of another."""
    tall = {name: 0.13 + 0.155 * (box.words.count("\n") + 1) for name, box in boxes.items()}
    half = {name: 0.12 + 0.036 * max(map(len, box.words.split("\n"))) for name, box in boxes.items()}
    columns, rows = [b.column for b in boxes.values()], [b.row for b in boxes.values()]
    figure, axis = _canvas(
        (min(columns) - 0.5) * wide,
        (max(columns) + 0.5) * wide,
        -0.72 * max(rows) - 0.4,
        0.4 - 0.72 * min(rows),
    )
    at = {name: (box.column * wide, -0.72 * box.row) for name, box in boxes.items()}
    for a, b in arrows:
        (xa, ya), (xb, yb) = at[a], at[b]
        if ya == yb:
            side = np.sign(xb - xa)
            _arrow(axis, (xa + side * half[a], ya), (xb - side * half[b], yb))
        else:
            _arrow(axis, (xa, ya - tall[a] / 2), (xb + 0.12 * np.sign(xa - xb), yb + tall[b] / 2))
    for name, box in boxes.items():
        style = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": box.colour, "lw": 1.5}
        _words(axis, at[name], box.words, "center", linespacing=1.15, bbox=style, zorder=3)
    return figure


def _maps(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def plot_residual_block(block: ResidualInceptionBlock, pool: nn.Module, shape: tuple[int, ...]) -> Figure:
    """The residual inception block with the pooling behind it (Fig. 7), fed with maps of a shape (C, H, W)."""
    out = block.ic2.merge.out_channels
    boxes = {
        "in": Box(0.5, 0, f"in\n{_maps(shape)}"),
        "ic1": Box(0, 1, f"inception conv\n{shape[0]} → {block.ic1.merge.out_channels}", BLUE),
        "ic2": Box(0, 2, f"inception conv\n{block.ic1.merge.out_channels} → {out}", BLUE),
        "short": Box(1, 1.5, _dsc(block.shortcut[0]) + "\nBN", BLUE),
        "sum": Box(0.5, 3, "+"),
        "pool": Box(0.5, 3.9, f"{_pool(pool)}\n{out} → {out}, half", VERMILION),
    }
    return plot_boxes(
        boxes,
        [("in", "ic1"), ("ic1", "ic2"), ("in", "short"), ("ic2", "sum"), ("short", "sum"), ("sum", "pool")],
        wide=1.5,
    )


def plot_inception(block: InceptionConv, shape: tuple[int, ...]) -> Figure:
    """The inception convolution (Fig. 9): its branches side by side, merged by a 1x1."""
    out, pool = block.merge.out_channels, block.pool[0]
    kind = f"{_pool(pool)}\n1×1" if isinstance(pool, HybridPool2d) else "max pooling\n1×1"
    boxes = {"in": Box(1.5, 0, f"in\n{_maps(shape)}")}
    dscs = [_dsc(next(dsc.children())) for dsc in block.dsc]
    boxes |= {f"f{i}": Box(i, 1.1, f"{dsc}\nBN, ReLU", BLUE) for i, dsc in enumerate(dscs)}
    boxes["pool"] = Box(3, 1.1, f"{kind}, {shape[0]} → {out}\nBN, ReLU", VERMILION)
    boxes["merge"] = Box(1.5, 2.3, f"concatenation, 1×1\n{block.merge.in_channels} → {out}\nBN, ReLU", BLUE)
    branches = [name for name in boxes if name not in ("in", "merge")]
    return plot_boxes(boxes, [*(("in", b) for b in branches), *((b, "merge") for b in branches)], wide=1.2)


def plot_depth_attention(block: SpectralDepthAttention, shape: tuple[int, ...]) -> Figure:
    """Spectral depth attention (Eqs. 8-9, Fig. 10)."""
    convolutions = [m for m in block.descriptor if isinstance(m, nn.Conv2d)]
    boxes = {
        "in": Box(0, 0, f"in\n{_maps(shape)}"),
        "mean": Box(1.15, 1, f"global spectral pooling\n(mean) {shape[0]} × 1 × 1", VERMILION),
        **{f"c{i}": Box(1.15, 2 + i, conv_words(c) + "\nReLU", GREEN) for i, c in enumerate(convolutions)},
        "times": Box(0, 3, "×"),
        "refine": Box(0, 4, conv_words(block.refine[0]) + "\nBN, ReLU", GREEN),
    }
    arrows = [
        ("in", "mean"),
        ("mean", "c0"),
        ("c0", "c1"),
        ("c1", "times"),
        ("in", "times"),
        ("times", "refine"),
    ]
    return plot_boxes(boxes, arrows, wide=1.7)


def plot_spatial_attention(
    block: SpectralSpatialAttention, shape: tuple[int, ...], deep: tuple[int, ...]
) -> Figure:
    """Spectral spatial attention (Eqs. 10-12, Fig. 11): maps of a skip connection and of the layer below."""
    gate = "sigmoid" if isinstance(block.descriptor[1], nn.Sigmoid) else "ReLU"
    boxes = {
        "in": Box(0, 0, f"depth attended\n{_maps(shape)}"),
        "below": Box(2, 0, f"deep\n{_maps(deep)}"),
        "down": Box(1, 1, conv_words(block.down), GREEN),
        "deep": Box(2, 1, conv_words(block.deep), GREEN),
        "sum": Box(1.5, 2, "+, BN, ReLU"),
        "gate": Box(1.5, 3, conv_words(block.descriptor[0]) + f"\n{gate}", GREEN),
        "up": Box(1.5, 4, "up ×2, bilinear", GREEN),
        "times": Box(0, 4, "×"),
        "refine": Box(0, 5, conv_words(block.refine[0]) + "\nBN", GREEN),
    }
    arrows = [("in", "down"), ("below", "deep"), ("down", "sum"), ("deep", "sum"), ("sum", "gate"), ("gate", "up"),
              ("up", "times"), ("in", "times"), ("times", "refine")]  # fmt: skip
    return plot_boxes(boxes, arrows, wide=1.45)
