"""Where the boxes and arrows of a graph go: in rows from top to bottom, or as an upright U.

Lengths are in inches and y runs downwards. What a box looks like is `replication.figures.network`'s affair.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

from replication.figures.dataflow import Graph

GAP = 0.16  # least distance of two boxes in a row, inches


@dataclass
class Box:
    """A node's place: centre (x to the right, y downwards), width and height, inches."""

    text: str
    colour: str
    w: float
    h: float
    x: float = 0.0
    y: float = 0.0


@dataclass
class Layout:
    """Boxes by node, and for every edge the points that its line passes."""

    boxes: dict[str, Box]
    lines: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)


def _spread(wanted: list[float], apart: list[float]) -> list[float]:
    """Positions in the given order, each at least `apart` from the one before, as near to the wanted as can be.

    Least squares by pooling adjacent violators.
    """
    offset = np.concatenate([[0.0], np.cumsum(apart)])
    blocks: list[list[float]] = []  # [mean, count]
    for value in np.asarray(wanted) - offset:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks.pop(-2), blocks.pop()
            blocks.append([(a * n + b * m) / (n + m), n + m])
    flat = [mean for mean, count in blocks for _ in range(int(count))]
    return [float(v) for v in np.array(flat) + offset]


def _ranks(graph: Graph) -> dict[str, int]:
    """Row of each node: below all that feed it; what nothing feeds, right above the first that needs it."""
    rank: dict[str, int] = {}
    while len(rank) < len(graph):
        for name, node in graph.items():
            if name not in rank and all(i in rank for i in node.inputs):
                rank[name] = max((rank[i] + 1 for i in node.inputs), default=0)
    for name, node in graph.items():
        if not node.inputs:
            rank[name] = min(rank[other.name] for other in graph.values() if name in other.inputs) - 1
    return rank


def _crossings(rows: list[list[str]], links: list[tuple[str, str]]) -> int:
    at = {name: (r, i) for r, row in enumerate(rows) for i, name in enumerate(row)}
    ends = [(at[a][0], at[a][1], at[b][1]) for a, b in links]
    return sum(r == s and (a - c) * (b - d) < 0 for (r, a, b), (s, c, d) in itertools.combinations(ends, 2))


def _ordered(rows: list[list[str]], links: list[tuple[str, str]]) -> list[list[str]]:
    """The order within each row that crosses fewest lines, from every order of the first."""
    best: tuple[int, list[list[str]]] | None = None
    for first in itertools.permutations(rows[0]):
        tried = [list(first), *(list(row) for row in rows[1:])]
        for sweep in range(8):
            at = {name: i for row in tried for i, name in enumerate(row)}
            for r in range(1, len(tried)) if sweep % 2 == 0 else range(len(tried) - 2, 0, -1):
                seen = {n: [at[a] for a, b in links if b == n] for n in tried[r]}
                if sweep % 2:
                    seen = {n: [at[b] for a, b in links if a == n] or seen[n] for n in tried[r]}
                tried[r].sort(key=lambda n, seen=seen: float(np.mean(seen[n] or [at[n]])))
                at |= {name: i for i, name in enumerate(tried[r])}
            crossed = _crossings(tried, links)
            if best is None or crossed < best[0]:
                best = crossed, [list(row) for row in tried]
    return best[1]


def layered(graph: Graph, boxes: dict[str, Box]) -> Layout:
    """Rows from top to bottom; a line that passes a row keeps a place in it."""
    rank, places = _ranks(graph), dict(boxes)
    chains: dict[tuple[str, str], list[str]] = {}
    for name, node in graph.items():
        for source in node.inputs:
            chains[source, name] = [f"{source}>{name}@{r}" for r in range(rank[source] + 1, rank[name])]
            for r, dummy in enumerate(chains[source, name], start=rank[source] + 1):
                places[dummy], rank[dummy] = Box("", "", 0.02, 0.0), r
    links = [link for (a, b), between in chains.items() for link in itertools.pairwise([a, *between, b])]
    rows = _ordered([[n for n in places if rank[n] == r] for r in range(max(rank.values()) + 1)], links)
    _across(rows, links, places)
    _straighten(rows, links, places)
    bands, y = [], 0.0
    for row in rows:
        height = max(places[n].h for n in row)
        bands.append((y, y + height))
        for name in row:
            places[name].y = y + height / 2
        y += height + (0.34 if len(row) > 1 else 0.26)
    layout = Layout(boxes)
    for (source, name), between in chains.items():
        leaving = {b: places[c[0] if c else b].x for (a, b), c in chains.items() if a == source}
        coming = {a: places[c[-1] if c else a].x for (a, b), c in chains.items() if b == name}
        a, b = boxes[source], boxes[name]
        passed = [(places[d].x, edge) for d in between for edge in bands[rank[d]]]
        layout.lines[source, name] = [
            (_port(a, leaving, name), a.y + a.h / 2), *passed, (_port(b, coming, source), b.y - b.h / 2),
        ]  # fmt: skip
    return layout


def _across(rows: list[list[str]], links: list[tuple[str, str]], places: dict[str, Box]) -> None:
    """Set every x: near what a node is linked to, nearest to what it alone is linked to."""
    below, above = ([link[side] for link in links] for side in (0, 1))
    beside: dict[str, list[tuple[str, int]]] = {name: [] for name in places}
    for a, b in links:
        weight = 8 if below.count(a) == above.count(b) == 1 else 1
        beside[a].append((b, weight))
        beside[b].append((a, weight))
    for row in rows:
        for i, name in enumerate(row):
            places[name].x = i - (len(row) - 1) / 2
    for sweep in range(120):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = [
                float(np.average([places[m].x for m, _ in beside[n]], weights=[w for _, w in beside[n]]))
                for n in row
            ]
            apart = [(places[a].w + places[b].w) / 2 + GAP for a, b in itertools.pairwise(row)]
            for name, x in zip(row, _spread(wanted, apart)):
                places[name].x = x


def _straighten(rows: list[list[str]], links: list[tuple[str, str]], places: dict[str, Box]) -> None:
    """Put what is linked only to one another on one vertical line, where nothing is in the way."""
    below, above = ([link[side] for link in links] for side in (0, 1))
    run_of = {name: [name] for name in places}
    for a, b in links:
        if below.count(a) == above.count(b) == 1:
            run_of[a] += run_of[b]
            for name in run_of[b]:
                run_of[name] = run_of[a]
    row_of = {name: row for row in rows for name in row}
    for run in sorted({id(run): run for run in run_of.values()}.values(), key=len, reverse=True):
        xs = [places[name].x for name in run]
        for x in (float(np.mean(xs)), max(xs), min(xs)):
            if all(
                abs(x - places[other].x) >= (places[name].w + places[other].w + GAP) / 2
                and (x < places[other].x) == (places[name].x < places[other].x)
                for name in run
                for other in row_of[name]
                if other != name
            ):
                for name in run:
                    places[name].x = x
                break


def _port(box: Box, far: dict[str, float], this: str) -> float:
    """Where a line leaves or enters a box: side by side, in the order of where they go or come from."""
    order = sorted(far, key=far.__getitem__)
    step = min(0.6 * box.w / len(order), 0.3)
    return box.x + (order.index(this) - (len(order) - 1) / 2) * step


def u_shaped(graph: Graph, boxes: dict[str, Box]) -> Layout:
    """The U of a `RAIUNet` upright: contraction on the left, attention between, expansion on the right."""
    depth = sum(name.startswith("encoder") for name in graph)
    joins = {graph[f"decoder.{i}"].inputs[0]: i for i in range(depth)}
    row: dict[str, tuple[int, float]] = {"bottleneck": (1, 3 * depth), "head": (2, -1.2), "output": (2, -2.4)}
    for name in graph:
        kind, _, number = name.partition(".")
        if kind in ("encoder", "pools", "attention", "decoder", "up"):
            column = {"encoder": 0, "pools": 0, "attention": 1}.get(kind, 2)
            below = {"pools": 1.5, "attention": 1.0, "up": 2.0}.get(kind, 0.0)
            row[name] = (column, 3 * int(number) + below)
        elif name in joins:
            row[name] = (2, 3 * joins[name] + 1.0)
        elif kind == "input":
            row[name] = (0, -1.2)
    wide = [max((boxes[n].w for n, (c, _) in row.items() if c == column), default=1.0) for column in range(3)]
    centres = np.cumsum([wide[0] / 2, (wide[0] + wide[1]) / 2 + 0.45, (wide[1] + wide[2]) / 2 + 0.45])
    step = max(box.h for name, box in boxes.items() if not name.startswith("pools")) + 0.24
    for name, (column, level) in row.items():
        boxes[name].x, boxes[name].y = float(centres[column]), level * step
    layout = Layout(boxes)
    for name, node in graph.items():
        for source in node.inputs:
            a, b = boxes[source], boxes[name]
            layout.lines[source, name] = [_border(a, b), _border(b, a)]
    return layout


def _border(box: Box, other: Box) -> tuple[float, float]:
    """Where the line from a box's centre to another's leaves the box."""
    dx, dy = other.x - box.x, other.y - box.y
    reach = min(box.w / 2 / abs(dx) if dx else np.inf, box.h / 2 / abs(dy) if dy else np.inf)
    return box.x + reach * dx, box.y + reach * dy
