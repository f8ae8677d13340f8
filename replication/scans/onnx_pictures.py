"""What `replication.scans.prepare` does to pictures, as ONNX graphs: for a runtime without OpenCV, such as the reader's browser.

The graphs hold OpenCV's arithmetic: cubic resize that does not smooth before it shrinks, CLAHE in 8 x 8 tiles of bytes, linear enlarging.
"""

import numpy as np

from replication.data.fusing.preparation import SPIKE
from replication.data.reading.intensity import NOTHING
from replication.scans.onnx_graph import Graph
from replication.scans.prepare import DARK

CLIP, TILES, LEVELS = 7.0, 8, 256  # of `preparation.minmax_clahe`
ROWS, COLUMNS, END = [2], [3], 2**62
FLOAT, UINT8, INT64 = 1, 2, 7  # ONNX's numbers of types
PICTURE = {"picture": (FLOAT, [1, 1, "rows", "columns"]), "square": (INT64, [2])}


def picture_graph(size: int) -> bytes:
    """A picture as a network's input: `prepare.prepared` of one slice.

    Inputs: `picture` float32 (1, 1, rows, columns) in HU or grey; `square` int64 (2,), rows and columns that make it square
    in mm; `ends` float32 (2,), what is black and white. Outputs: `equalised` uint8 (1, 1, size, size), and `stretched`, the
    same before CLAHE.

    Args:
        size: side of the network's slices, which the tiles divide.
    """
    g = Graph()
    low, high = (g("Gather", "ends", g.value(i)) for i in (0, 1))
    spread = g("Sub", high, low)
    shape = g("Slice", g("Shape", "picture"), g.value([2]), g.value([4]))
    padded = _padded(g, _padding(g, shape), _air(g, shape))
    plain = _without_spikes(g, g("Clip", padded, low, high), g("Mul", spread, g.value(SPIKE, np.float32)))
    small = g(
        "Resize", plain, "", "", g.value([1, 1, size, size]), mode="cubic", cubic_coeff_a=-0.75,
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    share = g("Clip", g("Div", g("Sub", small, low), spread), *(g.value(v, np.float32) for v in (0, 1)))
    grey = g("Cast", g("Mul", share, g.value(255, np.float32)), to=INT64)  # cut to whole ones
    g("Cast", grey, to=UINT8, out="stretched")
    g("Cast", _clahe(g, grey, size), to=UINT8, out="equalised")
    outputs = {name: (UINT8, [1, 1, size, size]) for name in ("equalised", "stretched")}
    return g.model("picture", PICTURE | {"ends": (FLOAT, [2])}, outputs)


def hounsfield_graph(size: int) -> bytes:
    """A picture's HU where a network's pixels lie, by the nearest one, air around it: what `cleaning.clean_lungs` asks for.

    Inputs: `picture` and `square` as of `picture_graph`. Output: `hounsfield` float32 (1, 1, size, size).
    """
    g = Graph()
    shape = g("Slice", g("Shape", "picture"), g.value([2]), g.value([4]))
    x = _padded(g, _padding(g, shape), g.value(NOTHING, np.float32))
    sides = g("Shape", x)
    for axis, out in ((2, ""), (3, "hounsfield")):
        at = g("Div", g("Mul", g.value(np.arange(size)), g("Gather", sides, g.value(axis))), g.value(size))
        x = g("Gather", x, at, axis=axis, out=out)
    return g.model("hounsfield", PICTURE, {"hounsfield": (FLOAT, [1, 1, size, size])})


def mask_graph(size: int) -> bytes:
    """A mask at its picture's own size: enlarged linearly, cut at a half, unpadded (`prepare.restored`).

    Inputs: `mask` uint8 (1, 1, size, size) of 0 and 1; `shape` int64 (2,), rows and columns of the picture; `square` as
    of `picture_graph`. Output: `restored` uint8 (1, 1, rows, columns).
    """
    g = Graph()
    before, _ = _padding(g, "shape")
    sides = g("Concat", g.value([1, 1]), "square", axis=0)
    grown = g("Resize", g("Cast", "mask", to=FLOAT), "", "", sides, mode="linear")
    inside = g("Greater", grown, g.value(0.5, np.float32))
    g(
        "Cast",
        g("Slice", inside, before, g("Add", before, "shape"), g.value([2, 3])),
        to=UINT8,
        out="restored",
    )
    inputs = {"mask": (UINT8, [1, 1, size, size]), "shape": (INT64, [2]), "square": (INT64, [2])}
    return g.model("mask", inputs, {"restored": (UINT8, [1, 1, "rows", "columns"])})


def _padding(g: Graph, shape: str) -> tuple[str, str]:
    """`prepare.padding`: pixels before and after the rows and the columns, each (2,)."""
    spare = g("Sub", "square", shape)
    before = g("Div", spare, g.value(2))
    return before, g("Sub", spare, before)


def _padded(g: Graph, pads: tuple[str, str], value: str) -> str:
    none = g.value([0, 0])
    return g("Pad", "picture", g("Concat", none, pads[0], none, pads[1], axis=0), value)


def _air(g: Graph, shape: str) -> str:
    """The quantile `prepare.DARK` of the picture, as numpy has it."""
    last = g("Sub", g("ReduceProd", shape, keepdims=0), g.value(1))
    at = g("Mul", g("Cast", last, to=FLOAT), g.value(DARK, np.float32))
    below = g("Cast", at, to=INT64)
    above = g("Min", g("Add", below, g.value(1)), last)
    darkest = g.top(
        g("Reshape", "picture", g.value([-1])),
        g("Reshape", g("Add", above, g.value(1)), g.value([1])),
        axis=0,
        largest=0,
    )
    return _between(
        g, g("Gather", darkest, below), g("Gather", darkest, above), g("Sub", at, g("Cast", below, to=FLOAT))
    )


def _without_spikes(g: Graph, x: str, most: str) -> str:
    """`preparation.without_spikes`: the range is that of the neighbours there are, the median repeats the edge."""

    def shifted(padded: str) -> list[str]:
        ends = {0: -2, 1: -1, 2: END}
        of_rows = [g("Slice", padded, g.value([i]), g.value([ends[i]]), g.value(ROWS)) for i in ends]
        return [
            g("Slice", y, g.value([i]), g.value([ends[i]]), g.value(COLUMNS)) for y in of_rows for i in ends
        ]

    pads = g.value([0, 0, 1, 1, 0, 0, 1, 1])
    far = np.finfo(np.float32).max
    most_of, least_of = (shifted(g("Pad", x, pads, g.value(v, np.float32))) for v in (-far, far))
    high, low = g("Max", *most_of[:4], *most_of[5:]), g("Min", *least_of[:4], *least_of[5:])
    spike = g("Or", g("Greater", x, g("Add", high, most)), g("Less", x, g("Sub", low, most)))
    nine = g("Concat", *shifted(g("Pad", x, pads, mode="edge")), axis=1)
    five = g.top(nine, g.value([5]), axis=1)
    median = g("Slice", five, g.value([4]), g.value([5]), g.value([1]))
    return g("Where", spike, median, x)


def _clahe(g: Graph, grey: str, size: int) -> str:
    """OpenCV's CLAHE of whole numbers int64 (1, 1, size, size) in 0..255."""
    tile = size // TILES
    area, limit = tile * tile, max(int(CLIP * tile * tile / LEVELS), 1)
    tiles = g("Reshape", grey, g.value([TILES, tile, TILES, tile]))
    tiles = g("Reshape", g("Transpose", tiles, perm=[0, 2, 1, 3]), g.value([TILES**2, area]))
    zeros, ones = (g("Expand", g.value(v), g.value([TILES**2, n])) for v, n in ((0, LEVELS), (1, area)))
    counts = g("ScatterElements", zeros, tiles, ones, axis=1, reduction="add")
    cut = g("Min", counts, g.value(limit))
    over = g("ReduceSum", g("Sub", counts, cut), g.value([1]), keepdims=1)
    each, levels = g("Div", over, g.value(LEVELS)), g.value(np.arange(LEVELS))
    rest = g("Sub", over, g("Mul", each, g.value(LEVELS)))
    stride = g("Max", g("Div", g.value(LEVELS), g("Max", rest, g.value(1))), g.value(1))
    one_more = g(
        "And", g("Equal", g("Mod", levels, stride), g.value(0)), g("Less", g("Div", levels, stride), rest)
    )
    summed = g("CumSum", g("Add", g("Add", cut, each), g("Cast", one_more, to=INT64)), g.value(1))
    tables = g(
        "Round",
        g("Mul", g("Cast", summed, to=FLOAT), g.value(np.float32(255) / np.float32(area), np.float32)),
    )
    flat = g("Reshape", tables, g.value([-1]))

    at = np.arange(size, dtype=np.float32) * np.float32(1 / tile) - np.float32(0.5)
    first = np.floor(at).astype(int)
    weight, ends = at - first, np.stack([first.clip(0), (first + 1).clip(max=TILES - 1)]) * LEVELS
    x, y = (g.value(weight.reshape(shape), np.float32) for shape in ((1, 1, 1, -1), (1, 1, -1, 1)))

    def of(row: int, column: int) -> str:
        table = g(
            "Add", g.value(TILES * ends[row].reshape(1, 1, -1, 1)), g.value(ends[column].reshape(1, 1, 1, -1))
        )
        return g("Gather", flat, g("Add", grey, table))

    above, below = (_between(g, of(row, 0), of(row, 1), x) for row in (0, 1))
    return g("Round", _between(g, above, below, y))


def _between(g: Graph, a: str, b: str, share: str) -> str:
    return g("Add", g("Mul", a, g("Sub", g.value(1, np.float32), share)), g("Mul", b, share))
