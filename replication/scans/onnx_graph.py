"""Nodes of an ONNX graph, and the spectral operators as such nodes, for sides that only the input tells.

Halving a side is half of its even samples and a product with the odd ones, as in `chslib.pooling`; the dense form is for
the bottleneck, whose side may be odd.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

Sides = tuple[str, str]  # names of two numbers in the graph: rows, columns
OPSET, IR = 18, 8


class Graph:
    """Nodes in order of computation; each value goes by its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._known: dict[Any, str] = {}

    def __call__(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        from onnx import helper

        out = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def value(self, array: Any, dtype: Any = np.int64) -> str:
        """A constant."""
        from onnx import numpy_helper

        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"c{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def weight(self, tensor: Any) -> str:
        """A tensor that half precision holds, stored as such, in float32.

        Raises:
            ValueError: it does not hold it.
        """
        array = tensor.detach().float().numpy()
        half = array.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), array):
            raise ValueError(
                f"weights of shape {array.shape} are no half-precision numbers; export the run's weights first"
            )
        stored = self.value(half, np.float16)
        key = ("cast", stored)
        if key not in self._known:
            self._known[key] = self("Cast", stored, to=1)
        return self._known[key]

    def of(self, key: Any, make: Callable[[], str]) -> str:
        """What `make` gives, made once for each key."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def top(self, x: str, k: str, **attributes: Any) -> str:
        """The k (1,) largest along an axis, in order."""
        from onnx import helper

        out = f"TopK_{len(self.nodes)}"
        self.nodes.append(helper.make_node("TopK", [x, k], [out, f"{out}_at"], **attributes))
        return out

    def model(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        about: dict[str, str] | None = None,
    ) -> bytes:
        """The whole as a file, checked.

        Args:
            inputs, outputs: name -> ONNX's number of the type, and the shape, of numbers and names.
            about: written into the file as its metadata.
        """
        from onnx import checker, helper

        given, made = (
            [helper.make_tensor_value_info(key, *of) for key, of in all_of.items()]
            for all_of in (inputs, outputs)
        )
        whole = helper.make_graph(self.nodes, name, given, made, self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(whole, opset_imports=opsets, ir_version=IR, producer_name="chs-net")
        helper.set_model_props(model, about or {})
        checker.check_model(model)
        return model.SerializeToString(deterministic=True)


class Spectral:
    """Spectral pooling by 2, and back (`chslib.pooling`); each operator is worked out once for each side."""

    def __init__(self, graph: Graph) -> None:
        self.g = graph

    def _odd_columns(self, half: str) -> str:
        """`chslib.pooling`'s operator on the odd samples, (half, half), in its closed form.

        With d = 2i - j brought to -half..half: (-1)^((d - 1) / 2) cot(pi d / size) / size, for odd halves 1 / sin.
        """
        g, zero, one, two = self.g, self.g.value(0), self.g.value(1), self.g.value(2)
        size, i = g("Mul", half, two), g("Range", zero, half, one)
        rows, columns = g("Mul", g("Unsqueeze", i, one), two), g("Add", g("Mul", i, two), one)
        d = g("Sub", g("Mod", g("Add", g("Sub", rows, columns), half), size), half)
        angle = g("Div", g("Mul", self._float(d), g.value(math.pi, np.float32)), self._float(size))
        sign = g("Sub", one, g("Mul", two, g("Mod", g("Div", g("Sub", g("Add", d, size), one), two), two)))
        # d + size is positive, so that Div rounds down; it moves the sign by that of half, which is undone here.
        turned = g("Sub", one, g("Mul", two, g("Mod", half, two)))
        top = g("Where", g("Equal", g("Mod", half, two), zero), g("Cos", angle), g.value(1, np.float32))
        top = g("Mul", top, self._float(g("Mul", sign, turned)))
        return g("Div", g("Div", top, g("Sin", angle)), self._float(size))

    def _dense(self, size: str, out: str) -> str:
        """`chslib.pooling.spectral_operator`, (out, size), as products of cosines and of sines."""
        g, zero, one, two = self.g, self.g.value(0), self.g.value(1), self.g.value(2)
        kept = g("Min", size, out)
        k = g("Range", zero, g("Add", g("Div", kept, two), one), one)
        single = g("Or", g("Equal", k, zero), g("Equal", g("Mul", k, two), kept))
        weight = g("Where", single, g.value(1, np.float32), g.value(2, np.float32))

        def angles(n: str) -> str:
            turns = g("Mod", g("Mul", g("Unsqueeze", g("Range", zero, n, one), one), k), n)
            return g("Div", g("Mul", self._float(turns), g.value(2 * math.pi, np.float32)), self._float(n))

        a, b = angles(out), angles(size)
        parts = [
            g("MatMul", g("Mul", g(f, a), weight), g("Transpose", g(f, b), perm=[1, 0]))
            for f in ("Cos", "Sin")
        ]
        return g("Div", g("Add", *parts), self._float(size))

    def _float(self, x: str) -> str:
        return self.g("Cast", x, to=1)

    def halve(self, x: str, sides: Sides) -> str:
        """(N, C, 2h, 2w) -> (N, C, h, w)."""
        g = self.g
        odd = [g.of(("odd", n), partial(self._odd_columns, n)) for n in self.halves(sides)]
        one, two, three, far = (g.value([v]) for v in (1, 2, 3, 2**62))
        half = g.value(0.5, np.float32)
        even = g("Slice", x, g.value([0]), far, three, two)
        rest = g("Slice", x, one, far, three, two)
        x = g("Add", g("Mul", even, half), g("MatMul", rest, g("Transpose", odd[1], perm=[1, 0])))
        even = g("Slice", x, g.value([0]), far, two, two)
        rest = g("Slice", x, one, far, two, two)
        return g("Add", g("Mul", even, half), g("MatMul", odd[0], rest))

    def double(self, x: str, sides: Sides, channels: int) -> str:
        """(N, C, h, w) -> (N, C, 2h, 2w); `sides` are those of the result."""
        g, two = self.g, self.g.value(2, np.float32)
        h, w = self.halves(sides)
        up = [
            g.of(("up", n), partial(g, "Mul", g.of(("odd", n), partial(self._odd_columns, n)), two))
            for n in (h, w)
        ]
        below = g("MatMul", g("Transpose", up[0], perm=[1, 0]), x)
        x = self._shaped(g("Concat", x, below, axis=3), channels, sides[0], w)  # rows one after the other
        last = g.value([4])
        beside = g("Concat", g("Unsqueeze", x, last), g("Unsqueeze", g("MatMul", x, up[1]), last), axis=4)
        return self._shaped(beside, channels, *sides)

    def _shaped(self, x: str, channels: int, rows: str, columns: str) -> str:
        g, at = self.g, self.g.value([0])
        parts = [g.value([-1, channels]), g("Unsqueeze", rows, at), g("Unsqueeze", columns, at)]
        return g("Reshape", x, g.of(("shape", channels, rows, columns), lambda: g("Concat", *parts, axis=0)))

    def halves(self, sides: Sides) -> Sides:
        g = self.g
        rows, columns = (g.of(("half", n), partial(self._half, n)) for n in sides)
        return rows, columns

    def _half(self, n: str) -> str:
        return self.g("Max", self.g("Div", n, self.g.value(2)), self.g.value(1))

    def resampled(self, x: str, sides: Sides, to: Sides) -> str:
        g = self.g
        a, b = (g.of(("dense", *pair), partial(self._dense, *pair)) for pair in zip(sides, to))
        return g("MatMul", a, g("MatMul", x, g("Transpose", b, perm=[1, 0])))
