"""One slice of a phantom, painted from the couch to the noise; `anatomy` says where things lie.

Distances, coordinates and units as in `anatomy`. Equal chests, scans and generators give equal
slices, voxel by voxel: change nothing here without raising `volumes.REVISION`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from replication.data.phantom import body as phantom_body
from replication.data.phantom.anatomy import Array, Canvas, Chest, SmoothNoise

AIR = -1250.0  # HU outside a round field of view: the low end of Zenodo's window (register row 16)


@dataclass(frozen=True)
class Drawn:
    """One upright slice.

    Attributes:
        hu: float32 HU.
        sides: uint8: 0, 1 left lung, 2 right lung.
        haze: 0..1 within the lung, 0 elsewhere: how opaque; annotators draw along a level.
        core: likewise: how consolidated.
    """

    hu: Array
    sides: NDArray[np.uint8]
    haze: NDArray[np.floating]
    core: NDArray[np.floating]


@dataclass(frozen=True)
class Scan:
    """How one scanner and one day look: what differs between two scans of one patient."""

    fov: float
    shift: float
    noise: float
    grain: float
    circle: bool
    blobs: NDArray[np.float64]  # (n, 7): centre, radii, density 0..1
    patch: SmoothNoise


def draw_scan(
    chest: Chest, rng: np.random.Generator, *, windowed: bool, infected: float, severity: float
) -> Scan:
    """Scanner, posture and opacities of one volume; arguments as `phantom.make_volume`."""
    low, high = chest.lung_span
    top = low + infected * (high - low)
    # Peripheral, posterior and basal: where COVID-19 pneumonia mostly starts.
    seats = chest.pleura[chest.pleura[:, 2] < top]
    blobs = np.zeros((0, 7))
    count = int(rng.integers(5, 15) * severity) if len(seats) else 0
    if count:
        weight = np.exp(-seats[:, 1] / 45 - (seats[:, 2] - low) / 140)
        centres = seats[rng.choice(len(seats), count, p=weight / weight.sum())]
        radii = np.exp(rng.normal(np.log(26), 0.42, (count, 1))) * rng.uniform(0.7, 1.4, (count, 3))
        radii *= np.array([1, 1, 1.5]) * severity**0.3
        radii[:, 2] = np.minimum(radii[:, 2], np.maximum(top - centres[:, 2], 3))
        blobs = np.hstack([centres, radii, rng.uniform(0, 1, (count, 1)) ** 1.5])
    return Scan(
        fov=rng.uniform(355, 375) if windowed else rng.uniform(385, 415),
        shift=rng.uniform(0, 10) if windowed else rng.uniform(18, 34),
        noise=rng.uniform(18, 55) if windowed else rng.uniform(10, 20),
        grain=rng.uniform(0.35, 0.6) if windowed else rng.uniform(0.6, 0.8),
        circle=windowed,
        blobs=blobs,
        patch=SmoothNoise(rng, cell=11.0),
    )


def draw_slice(chest: Chest, scan: Scan, rng: np.random.Generator, *, z: float, size: int) -> Drawn:
    """The slice at height z (mm); call it in the order of heights, since the noise is a stream."""
    whole = Canvas(size=size, fov=scan.fov, shift=scan.shift, warp=chest.warp, z=z)
    texture = chest.organ.at(whole.columns, whole.rows, z)
    fine = chest.fine.at(whole.columns, whole.rows, z)
    patch = scan.patch.at(whole.columns, whole.rows, z)
    body = chest.body(whole.x, whole.y, z)
    phantom_body.table(whole, chest, z)
    phantom_body.wire(whole, chest, body, z)
    # Most time goes into whole-grid arithmetic: work in the box of the body, then of the cavity.
    c, box = whole.crop(body < 2)
    texture, fine, patch = texture[box], fine[box], patch[box]
    cavity = chest.cavity(c.x, c.y, z)
    phantom_body.wall(c, chest, body[box], cavity, texture, fine, z)
    phantom_body.chest_bones(c, chest, cavity, fine, z)
    c.fill(cavity - 1.5, -72 + 12 * texture)
    phantom_body.mediastinum(c, chest, cavity, z)
    chamber, inner = c.crop(cavity < 3)
    phantom_body.abdomen(chamber, chest, cavity[inner], texture[inner], z)
    phantom_body.spine(c, chest, fine, z)
    haze, core = np.zeros((2, size, size))
    sides = np.zeros((size, size), np.uint8)
    low, high = chest.lung_span
    if low <= z <= high:
        lung = chest.lungs(chamber.x, chamber.y, z)
        seen = _lung(chamber, chest, scan, lung, texture[inner], fine[inner], patch[inner], z)
        haze[box][inner], core[box][inner] = (np.where(lung < 0, part, 0) for part in seen)
        sides[box][inner] = np.where(chamber.x > 0, 1, 2) * (lung < 0)
    phantom_body.central_airways(c, z)
    _noise(whole, scan, body, rng)
    return Drawn(whole.hu, sides, haze, core)


def _lung(
    c: Canvas,
    chest: Chest,
    scan: Scan,
    lung: Array,
    texture: Array,
    fine: Array,
    patch: Array,
    z: float,
) -> tuple[Array, Array]:
    """Parenchyma, opacities, vessels with their bronchi; returns haze and core, each 0..1."""
    haze = np.zeros_like(lung)
    core = np.zeros_like(lung)
    for x, y, zc, a, b, h, density in scan.blobs:
        if abs(z - zc) < 1.6 * h:
            f = 1 - np.sqrt(((c.x - x) / a) ** 2 + ((c.y - y) / b) ** 2 + ((z - zc) / h) ** 2)
            f += 0.22 * patch + 0.14 * texture + 0.07 * fine
            haze = np.maximum(haze, np.clip(f / 0.42 + 0.1, 0, 1))
            core = np.maximum(core, np.clip((f - 0.95 + 0.75 * density) / 0.2, 0, 1))
    haze *= haze * (3 - 2 * haze)
    air = -858 + chest.inflation - 0.45 * c.y + 9 * texture + 9 * fine
    ground_glass = air + haze * (265 + 45 * texture + 55 * fine)
    tissue = lung + 0.8
    c.fill(tissue, ground_glass)
    p, q, r = chest.vessels[:, :3], chest.vessels[:, 3:6], chest.vessels[:, 6]
    slab = 2.5
    near = np.flatnonzero((np.minimum(p[:, 2], q[:, 2]) < z + slab + r)
                          & (np.maximum(p[:, 2], q[:, 2]) > z - slab - r))  # fmt: skip
    for i in near:
        dz = q[i, 2] - p[i, 2]
        t = np.clip(((z - slab - p[i, 2]) / dz, (z + slab - p[i, 2]) / dz), 0, 1) if (
            abs(dz) > 1e-6) else np.array([0.0, 1.0])  # fmt: skip
        if t[0] == t[1] and abs(p[i, 2] + t[0] * dz - z) > slab + r[i]:
            continue
        a, b = p[i] + t[0] * (q[i] - p[i]), p[i] + t[1] * (q[i] - p[i])
        c.capsule(a[:2], b[:2], float(r[i]), 38, within=tissue)
        if r[i] > 1.9:
            off = np.array([1.7, 1.3]) * r[i]
            c.capsule(a[:2] + off, b[:2] + off, 0.62 * float(r[i]) + 0.7, -250, within=tissue)
            c.capsule(a[:2] + off, b[:2] + off, 0.62 * float(r[i]), -930, within=tissue)
    c.hu += c.cover(tissue) * core * 0.9 * (18 + 22 * fine - c.hu) * (c.hu > -900)
    return haze, core


def _noise(c: Canvas, scan: Scan, body: Array, rng: np.random.Generator) -> None:
    """Point spread, then correlated noise that grows inside the body, then the field of view."""
    size = c.hu.shape[0]
    c.hu = ndimage.gaussian_filter(c.hu, 0.45 / c.px, truncate=3)
    white = rng.standard_normal((size, size), dtype=np.float32)
    grain = ndimage.gaussian_filter(white, scan.grain / c.px, truncate=3)
    streak = ndimage.gaussian_filter1d(white[::-1], 5 / c.px, axis=1, truncate=2)
    grain = grain / grain.std() + 0.25 * streak / streak.std()
    c.hu += grain * scan.noise * (0.55 + 0.45 * np.clip(-body / 60, 0, 1))
    c.hu = np.clip(c.hu, -1024, 3071)
    if scan.circle:
        radius = np.hypot(c.columns[None, :], (c.rows + scan.shift)[:, None])
        c.fill(scan.fov / 2 - 1 - radius, AIR)
