"""A drawn chest: where the tissues of a synthetic patient lie, and their Hounsfield units.

The paper's data are axial chest CT of COVID-19 patients (Sec. 4.1), too large and too restricted
to ship with tests. This module draws a stand-in from ellipses, capsules and noise.

Coordinates are millimetres seen on an upright slice: x to the right of the image (the patient's
left), y upwards (anterior), z towards the head. A *distance* is approximate, signed, in mm, and
negative inside. Every shape is painted with partial coverage at its rim, so small slices stay
smooth. Nothing here is meant to be diagnostic.
"""

from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
COARSE_MM, COARSE_STEP = 4.0, 4.0  # grid on which lungs are measured and vessels are grown
INFECTED_AT = 0.45  # opacity from which a pixel is labelled: annotators draw inside a fuzzy rim


def squircle(x: Array, y: Array, a: float, b: float, *, square: float = 0.0) -> Array:
    """Distance to an ellipse with half-axes a, b at the origin; `square` 1 fills its corners."""
    u, v = (x / a) ** 2, (y / b) ** 2
    k: Array = np.sqrt(u + v) + 1e-6
    slope = np.sqrt(u / a**2 + v / b**2) / k + 1e-6
    if square:
        k = k + square * (np.sqrt(np.sqrt(u * u + v * v)) - k)
    return (k - 1) / slope


def smooth_min(a: Array, b: Array, k: float) -> Array:
    """Union of two distances whose seam is rounded over k mm."""
    h = np.clip(0.5 + (0.5 / k) * (b - a), 0, 1)
    return b + h * (a - b) - k * h * (1 - h)


def ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, smooth between."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


class SmoothNoise:
    """Seeded noise without grid artefacts: a random lattice under cubic B-splines, unit spread."""

    def __init__(self, rng: np.random.Generator, *, cell: float, span: float = 800.0) -> None:
        self.cell, self.span = cell, span
        n = int(np.ceil(span / cell)) + 4
        self.lattice = rng.standard_normal((12, n, n)).astype(np.float32)
        self._known: dict[tuple, Array] = {}  # every slice of a volume has the same grid

    def _weights(self, mm: Array, n: int) -> Array:
        key = (len(mm), float(mm[0]), float(mm[-1]))
        if key not in self._known:
            self._known[key] = self._splines(mm, n)
        return self._known[key]

    def _splines(self, mm: Array, n: int) -> Array:
        t = np.abs((mm[:, None] + self.span / 2) / self.cell + 1 - np.arange(n)[None])
        cubic = np.where(t < 1, 2 / 3 - t * t + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        return (cubic / np.sqrt((cubic**2).sum(1, keepdims=True))).astype(np.float32)

    def at(self, columns: Array, rows: Array, z: float) -> Array:
        """Noise on the grid rows x columns (mm) at height z; decorrelates over `3 * cell` mm."""
        t = z / (3 * self.cell)
        i, f = int(np.floor(t)), t - np.floor(t)
        plane = (1 - f) * self.lattice[i % 12] + f * self.lattice[(i + 1) % 12]
        plane = plane / np.sqrt((1 - f) ** 2 + f**2)
        n = plane.shape[0]
        return self._weights(rows, n) @ plane.astype(np.float32) @ self._weights(columns, n).T


class Canvas:
    """One slice being painted: HU on a pixel grid, with the mm coordinates of each pixel."""

    def __init__(self, *, size: int, fov: float, shift: float, warp: NDArray, z: float) -> None:
        self.px = fov / size
        axis = ((np.arange(size) + 0.5) * self.px - fov / 2).astype(np.float32)
        self.columns, self.rows = axis, -axis - np.float32(shift)
        # A slow bend of the coordinates makes every ellipse a little irregular, as bodies are.
        bend = [
            sum(
                a * np.sin(p / length + phase + z / 80)
                for a, length, phase in zip((3.0, 1.6), (38.0, 17.0), phases, strict=True)
            )
            for p, phases in ((self.rows, warp[0]), (self.columns, warp[1]))
        ]
        self.x = (self.columns[None, :] + bend[0][:, None]).astype(np.float32)
        self.y = (self.rows[:, None] + bend[1][None, :]).astype(np.float32)
        self.hu = np.full((size, size), -1000.0, np.float32)

    def crop(self, inside: NDArray[np.bool_]) -> tuple["Canvas", tuple[slice, slice]]:
        """The canvas of the box around a region, sharing its pixels, and that box."""
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = copy(self)
        part.rows, part.columns = self.rows[box[0]], self.columns[box[1]]
        part.x, part.y, part.hu = self.x[box], self.y[box], self.hu[box]
        return part, box

    def cover(self, distance: Array) -> Array:
        """Share of each pixel that a shape covers, 0 to 1."""
        return np.clip(0.5 - distance / self.px, 0, 1)

    def fill(self, distance: Array, hu: float | Array) -> None:
        """Paint a shape given by its distance on the whole grid."""
        self.hu += self.cover(distance) * (hu - self.hu)

    def _box(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice] | None:
        pad = 6 + self.px  # the bend moves a shape by up to 4.6 mm
        top, bottom = np.searchsorted(-self.rows, (-y1 - pad, -y0 + pad))
        left, right = np.searchsorted(self.columns, (x0 - pad, x1 + pad))
        empty = top >= bottom or left >= right
        return None if empty else (slice(top, bottom), slice(left, right))

    def _blend(self, box: tuple[slice, slice], d: Array, hu: float, within: Array | None) -> None:
        if within is not None:
            d = np.maximum(d, within[box])
        self.hu[box] += self.cover(d) * (hu - self.hu[box])

    def ellipse(
        self,
        cx: float,
        cy: float,
        a: float,
        b: float,
        hu: float,
        *,
        tilt: float = 0.0,
        rim: tuple[float, float] | None = None,
        within: Array | None = None,
    ) -> None:
        """Paint an ellipse; `tilt` in radians, `rim` = (mm, HU) drawn around it first."""
        if min(a, b) <= 0.3:
            return
        reach = max(a, b) + (rim[0] if rim else 0)
        box = self._box(cx - reach, cx + reach, cy - reach, cy + reach)
        if box is None:
            return
        x, y = self.x[box] - cx, self.y[box] - cy
        if tilt:
            c, s = np.cos(tilt), np.sin(tilt)
            x, y = c * x + s * y, c * y - s * x
        d = squircle(x, y, a, b)
        if rim:
            self._blend(box, d - rim[0], rim[1], within)
        self._blend(box, d, hu, within)

    def capsule(
        self,
        p: tuple[float, float],
        q: tuple[float, float],
        r: float,
        hu: float,
        *,
        within: Array | None = None,
    ) -> None:
        """Paint a thick line from p to q with radius r; thinner than a pixel, it only fades."""
        box = self._box(min(p[0], q[0]) - r, max(p[0], q[0]) + r, min(p[1], q[1]) - r, max(p[1], q[1]) + r)
        if box is None:
            return
        x, y = self.x[box] - p[0], self.y[box] - p[1]
        dx, dy = q[0] - p[0], q[1] - p[1]
        t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
        self._blend(box, np.hypot(x - t * dx, y - t * dy) - r, hu, within)


@dataclass
class Chest:
    """One synthetic patient; two chests from equal generators are equal.

    Attributes are mm and HU. `lung_span` is the lowest and highest z that holds lung.
    """

    rng: np.random.Generator
    lung_span: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        u = self.rng.uniform
        self.width, self.depth = u(122, 136), u(84, 94)
        self.fat, self.breast = u(9, 22), u(0, 26) * (u() < 0.5)
        self.heart, self.blood = u(0.92, 1.12), u(36, 52) if u() < 0.8 else u(130, 190)
        self.dome = np.array([u(112, 124), u(102, 114)])
        self.gas, self.rib_phase, self.disc_phase = u(-4, 14), u(0, 26), u(0, 24)
        self.rail, self.wire, self.inflation = u() < 0.6, u() < 0.4, u(-25, 25)
        self.warp = u(0, 6.28, (2, 2))
        self.organ = SmoothNoise(self.rng, cell=9.0)
        self.fine = SmoothNoise(self.rng, cell=3.2)
        self._measure()

    # ---- regions -------------------------------------------------------------------------
    def cavity(self, x: Array, y: Array, z: float) -> Array:
        """Distance to the inside of the rib cage, tapering to the apex at z = 275."""
        p = min(max((z - 95) / 180, 0.0), 0.9995)
        taper = (1 - p**2.8) ** 0.5
        a, b = self.width * taper, self.depth * (1 - p**4) ** 0.5
        narrow = 1 - 0.06 * (1 - ramp(z, 0, 90))
        return squircle(x, y - 4 + 14 * p * p, a * narrow, max(b, 6), square=0.35)

    def body(self, x: Array, y: Array, z: float) -> Array:
        """Distance to the skin; arms lie beside the head, so the shoulders widen the top."""
        top = ramp(z, 185, 285)
        a, b = self.width + 21 + self.fat + 20 * top, self.depth + 24 + 0.6 * self.fat - 16 * top
        d = squircle(x, y + 6 + 4 * top, a, b, square=0.3)
        swell = self.breast * np.exp(-(((z - 150) / 45) ** 2))
        if swell > 2:
            bust = squircle(np.abs(x) - 72, y - self.depth + 2, 52, 26 + swell)
            d = smooth_min(d, bust, 14)
        return d

    def mediastinum(self, x: Array, y: Array, z: float) -> Array:
        """Distance to all that lies between the lungs: spine, heart, great vessels, hila."""
        levels = ([-95, -62, -40, 0, 40, 74, 100], [9, 18, 19, 19, 15, 6, 13])
        d = np.abs(x - 2) - np.interp(y, *levels).astype(np.float32)
        d = smooth_min(d, squircle(x, y + 60, 23, 34), 8)
        d = smooth_min(d, np.hypot(x - 19, y + 37) - 15, 8)
        for cx, cy, a, b, cz, h in (
            (18, 31, 60 * self.heart, 54 * self.heart, 132, 72),
            (0, 20, 38, 37, 205, 62),
            (0, 0, 33, 46, 262, 40),
            (-34, 2, 17, 21, 176, 26),
            (36, -2, 17, 20, 182, 26),
        ):
            s = 1 - ((z - cz) / h) ** 2
            if s > 0.02:
                d = smooth_min(d, squircle(x - cx, y - cy, a * s**0.5, b * s**0.5), 12)
        return d

    def domes(self, x: Array, y: Array, z: float) -> tuple[Array, Array]:
        """Distances to what lies under the right and the left half of the diaphragm."""
        out = []
        for (cx, cy, a, b), top in zip(((-56, 24, 78, 84), (60, 20, 70, 80)), self.dome, strict=True):
            s = max((top - z) / 72, 0.0) ** 0.5
            nothing = np.full(np.broadcast(x, y).shape, 99, np.float32)
            out.append(squircle(x - cx, y - cy, a * s, b * s, square=0.25) if s > 0.02 else nothing)
        return out[0], out[1]

    def lungs(self, x: Array, y: Array, z: float) -> Array:
        """Distance to the lungs: rib cage less mediastinum less diaphragm."""
        under = smooth_min(*self.domes(x, y, z), 10)
        outside = smooth_min(smooth_min(self.mediastinum(x, y, z), under, 8) - 1, under, 2)
        return -smooth_min(-self.cavity(x, y, z), outside, 7)

    def _measure(self) -> None:
        axis = np.arange(-150, 150, COARSE_MM, dtype=np.float32)
        x, y = np.meshgrid(axis, axis)
        levels = np.arange(-60, 290, COARSE_STEP)
        depth = np.stack([self.lungs(x, y, z) for z in levels])
        area = (depth < 0).sum((1, 2)) * COARSE_MM**2
        held = levels[area > 900]
        self.lung_span = (float(held[0]), float(held[-1]))
        z, r, c = np.nonzero((depth < -6) & (np.abs(x) > 15) & (area > 900)[:, None, None])
        inner = np.stack([axis[c], axis[r], levels[z]], 1).astype(np.float64)
        self.vessels = np.concatenate([self._grow(inner, side) for side in (-1, 1)])
        rim = (depth < -2) & (depth > -16) & (self._cavity_stack(x, y, levels) > -30)
        z, r, c = np.nonzero(rim & (area > 900)[:, None, None])
        self.pleura = np.stack([axis[c], axis[r], levels[z]], 1).astype(np.float64)

    def _cavity_stack(self, x: Array, y: Array, levels: NDArray) -> Array:
        return np.stack([self.cavity(x, y, z) for z in levels])

    def _grow(self, inner: NDArray, side: int) -> NDArray:
        """Segments (n, 7) = start, end, radius of a tree from the hilum to points of one lung.

        Each twig takes the points that it feeds, goes part of the way to their middle and
        splits them along their longest axis; the radius follows the number fed (Murray's law).
        """
        points = inner[inner[:, 0] * side > 0]
        points = points[self.rng.choice(len(points), min(1400, len(points)), replace=False)]
        points = points + self.rng.uniform(-2, 2, points.shape)
        stack = [(np.array([36.0 * side, -2.0, 178.0]), np.arange(len(points)))]
        segments = []
        while stack:
            start, fed = stack.pop()
            middle = points[fed].mean(0)
            end = middle if len(fed) == 1 else start + 0.42 * (middle - start)
            bend = (start + end) / 2 + self.rng.normal(0, 0.06, 3) * np.linalg.norm(end - start)
            radius = 0.52 * len(fed) ** 0.335
            segments += [(*start, *bend, radius), (*bend, *end, radius * 0.93)]
            if len(fed) > 1:
                off = points[fed] - middle
                along = off @ np.linalg.svd(off, full_matrices=False)[2][0]
                order = fed[np.argsort(along, kind="stable")]
                cut = min(max(int(len(fed) * self.rng.uniform(0.3, 0.7)), 1), len(fed) - 1)
                stack += [(end, order[:cut]), (end, order[cut:])]
        return np.array(segments)
