"""A trained RAIU-Net as ONNX, for a runtime without torch, such as the reader's browser.

The graph is written node by node from the network's own modules: no tracer, so that both sides of a slice and
the batch stay open. Weights and running statistics are stored in half precision, as they are in `chslib/weights`.
Batch normalisation is folded into its convolution in float32, by nodes that a runtime computes when it loads the graph.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from chslib.blocks import ResidualInceptionBlock
from chslib.pooling import HybridPool2d, SpectralPool2d
from replication.files import write_whole
from replication.scans.onnx_graph import Graph, Sides, Spectral
from replication.scans.report import NOT_CLINICAL
from replication.scans.weights import stages_of


class _Writer:
    """One network's forward pass, module by module, into a graph."""

    def __init__(self, graph: Graph) -> None:
        self.g, self.spectral = graph, Spectral(graph)

    # ---- convolutions ------------------------------------------------------------------------
    def _scale(self, norm: Any) -> tuple[str, str]:
        """What a batch normalisation multiplies by, and what it adds."""
        g = self.g
        gamma, beta, mean, var = map(g.weight, (norm.weight, norm.bias, norm.running_mean, norm.running_var))
        scale = g("Div", gamma, g("Sqrt", g("Add", var, g.value(norm.eps, np.float32))))
        return scale, g("Sub", beta, g("Mul", mean, scale))

    def _conv(
        self, x: str, weight: str, bias: str = "", norm: tuple[str, str] | None = None, **how: Any
    ) -> str:
        """Convolution with what follows it folded in; of `norm` only the factor where a bias is given."""
        if norm:
            weight = self.g("Mul", weight, self.g("Reshape", norm[0], self.g.value([-1, 1, 1, 1])))
        return self.g("Conv", x, weight, *([bias] if bias else []), **how)

    def _module(self, x: str, conv: Any, **how: Any) -> str:
        return self._conv(
            x, self.g.weight(conv.weight), "" if conv.bias is None else self.g.weight(conv.bias), **how
        )

    def _separable(self, x: str, parts: Any, *, relu: bool) -> str:
        """Depthwise separable convolution and its normalisation (Eq. 5)."""
        dsc, norm = parts[0], self._scale(parts[1])
        size = dsc.depthwise.kernel_size[0]
        weight = self.g.weight(dsc.pointwise.weight)
        if size == 1:
            weight = self.g(
                "Mul",
                weight,
                self.g("Reshape", self.g.weight(dsc.depthwise.weight), self.g.value([1, -1, 1, 1])),
            )
        else:
            x = self._module(x, dsc.depthwise, group=dsc.depthwise.groups, pads=[size // 2] * 4)
        x = self._conv(x, weight, norm[1], norm)
        return self.g("Relu", x) if relu else x

    def _hybrid(
        self, x: str, pool: Any, sides: Sides, *, deep: bool, norm: tuple[str, str] | None = None
    ) -> str:
        """Max and spectral pooling and the 1x1 over both (Sec. 3.1.1); the 1x1 of the spectral one where it is cheapest."""
        g, valid = self.g, pool.max.padding == "valid"
        of_max, of_spectral = pool.pointwise.weight.chunk(2, dim=1)
        how: dict[str, Any] = (
            {"kernel_shape": [2, 2], "strides": [2, 2]}
            if valid
            else {"kernel_shape": [3, 3], "pads": [1] * 4}
        )
        bias = norm[1] if norm else g.weight(pool.pointwise.bias)
        peaks = self._conv(g("MaxPool", x, **how), g.weight(of_max), bias, norm)
        first = not valid and of_spectral.shape[1] > of_spectral.shape[0]

        def mixed(y: str) -> str:
            return self._conv(y, g.weight(of_spectral), "", norm)

        low = mixed(x) if first else x
        low = (
            self.spectral.resampled(low, sides, self.spectral.halves(sides))
            if deep
            else self.spectral.halve(low, sides)
        )
        low = low if first else mixed(low)
        if not valid:
            low = (
                self.spectral.resampled(low, self.spectral.halves(sides), sides)
                if deep
                else self.spectral.double(low, sides, len(of_spectral))
            )
        return g("Add", peaks, low)

    # ---- blocks ------------------------------------------------------------------------------
    def _inception(self, x: str, ic: Any, sides: Sides, *, deep: bool) -> str:
        branches = [self._separable(x, dsc, relu=True) for dsc in ic.dsc]
        pooled = self._hybrid(x, ic.pool[0], sides, deep=deep, norm=self._scale(ic.pool[1]))
        branches.append(self.g("Relu", pooled))
        norm = self._scale(ic.norm_relu[0])
        merged = self._conv(
            self.g("Concat", *branches, axis=1), self.g.weight(ic.merge.weight), norm[1], norm
        )
        return self.g("Relu", merged)

    def _block(self, x: str, block: Any, sides: Sides, *, deep: bool = False) -> str:
        inner = x
        for ic in (block.ic1, block.ic2):
            inner = self._inception(inner, ic, sides, deep=deep)
        return self.g("Add", inner, self._separable(x, block.shortcut, relu=False))

    def _attention(self, skip: str, deep: str, ssd: Any) -> str:
        """Spectral depth, then spatial attention (Eqs. 8-12)."""
        g, depth, spatial = self.g, ssd.depth, ssd.spatial
        told = g("ReduceMean", skip, g.value([2, 3]), keepdims=1)
        for conv in (depth.descriptor[1], depth.descriptor[3]):
            told = g("Relu", self._module(told, conv))
        norm = self._scale(depth.refine[1])
        x = g("Relu", self._conv(g("Mul", told, skip), g.weight(depth.refine[0].weight), norm[1], norm))
        norm = self._scale(spatial.gamma[0])
        down = self._conv(x, g.weight(spatial.down.weight), "", norm, strides=[2, 2])
        gamma = g("Relu", g("Add", down, self._conv(deep, g.weight(spatial.deep.weight), norm[1], norm)))
        gate = "Sigmoid" if isinstance(spatial.descriptor[1], nn.Sigmoid) else "Relu"
        told = g(gate, self._module(gamma, spatial.descriptor[0]))
        told = g("Resize", told, "", g.value([1, 1, 2, 2], np.float32), mode="linear")
        norm = self._scale(spatial.refine[1])
        return self._conv(g("Mul", told, x), g.weight(spatial.refine[0].weight), norm[1], norm)

    def network(self, x: str, net: Any) -> None:
        """`RAIUNet.forward`; parts of a module have no type that torch could tell."""
        g = self.g
        shape = g("Shape", x)
        sides = [(g("Gather", shape, g.value(2)), g("Gather", shape, g.value(3)))]
        maps = []
        for block, pool in zip(net.encoder, net.pools):
            maps.append(self._block(x, block, sides[-1]))
            x = self._hybrid(maps[-1], pool, sides[-1], deep=False)
            sides.append(self.spectral.halves(sides[-1]))
        maps.append(self._block(x, net.bottleneck, sides[-1], deep=True))
        x = maps[-1]
        for k in reversed(range(len(net.decoder))):
            skip, up = self._attention(maps[k], maps[k + 1], net.attention[k]), net.up[k]
            crop = up.padding[0]
            x = g(
                "ConvTranspose", x, g.weight(up.weight), g.weight(up.bias), strides=[2, 2],
                pads=[crop] * 4, output_padding=[up.output_padding[0]] * 2,
            )  # fmt: skip
            x = self._block(g("Concat", x, skip, axis=1), net.decoder[k], sides[k])
        g("Conv", x, g.weight(net.head.weight), g.weight(net.head.bias), out="logits")


def to_onnx(network: Any, *, about: dict[str, str]) -> bytes:
    """A network as ONNX: `slices` float32 (N, C, H, W) in 0..1, sides that divide by 16, to `logits` (N, 1, H, W).

    Args:
        network: a `chslib.network.RAIUNet`.
        about: written into the file as its metadata.

    Raises:
        ValueError: not the paper's blocks, hybrid pooling and attention; weights that half precision does not hold.
    """
    spectral = all(
        isinstance(m.spectral, SpectralPool2d) for m in network.modules() if isinstance(m, HybridPool2d)
    )
    paper = isinstance(network.bottleneck, ResidualInceptionBlock) and len(network.attention) and spectral
    if not paper or not isinstance(network.pools[0], HybridPool2d):
        raise ValueError(
            "only networks of residual inception blocks, hybrid spectral pooling and attention can be exported"
        )
    graph = Graph()
    _Writer(graph).network("slices", network)
    sides = ["height", "width"]
    return graph.model(
        "RAIU-Net",
        {"slices": (1, ["batch", network.in_channels, *sides])},
        {"logits": (1, ["batch", 1, *sides])},
        about,
    )


def export_onnx(weights: str | Path, folder: str | os.PathLike) -> list[Path]:
    """Write trained weights as `<folder>/<profile>/<run>.onnx`, before a second stage its first; returns the files.

    Args:
        weights: see `replication.scans.weights.locate`.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: see `to_onnx`.
        ModuleNotFoundError: onnx is not installed.
    """
    paths = []
    for stage in stages_of(weights):
        told = stage.sidecar
        about: dict[str, str] = {
            key: str(told[key]) for key in ("sha256", "preparation", "licence") if key in told
        }
        about |= {"name": stage.name, "size": str(stage.size), "use": NOT_CLINICAL}
        path = Path(folder, f"{stage.name}.onnx")
        content = to_onnx(
            stage.network, about=about | ({"cascade": told["cascade"]} if told["first_stage"] else {})
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        paths.append(path)
    return paths
