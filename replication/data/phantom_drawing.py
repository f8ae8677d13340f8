"""One slice of a phantom, painted from the couch to the noise; `anatomy` says where things lie.

Distances, coordinates and units as in `anatomy`. Equal chests, scans and generators give equal
slices, voxel by voxel: change nothing here without raising `phantom.REVISION`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from replication.data.anatomy import Array, Canvas, Chest, SmoothNoise, ramp, smooth_min

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
    _table(whole, chest, z)
    _wire(whole, chest, body, z)
    # Most time goes into whole-grid arithmetic: work in the box of the body, then of the cavity.
    c, box = whole.crop(body < 2)
    texture, fine, patch = texture[box], fine[box], patch[box]
    cavity = chest.cavity(c.x, c.y, z)
    _wall(c, chest, body[box], cavity, texture, fine, z)
    _chest_bones(c, chest, cavity, fine, z)
    c.fill(cavity - 1.5, -72 + 12 * texture)
    _mediastinum(c, chest, cavity, z)
    chamber, inner = c.crop(cavity < 3)
    _abdomen(chamber, chest, cavity[inner], texture[inner], z)
    _spine(c, chest, fine, z)
    haze, core = np.zeros((2, size, size))
    sides = np.zeros((size, size), np.uint8)
    low, high = chest.lung_span
    if low <= z <= high:
        lung = chest.lungs(chamber.x, chamber.y, z)
        seen = _lung(chamber, chest, scan, lung, texture[inner], fine[inner], patch[inner], z)
        haze[box][inner], core[box][inner] = (np.where(lung < 0, part, 0) for part in seen)
        sides[box][inner] = np.where(chamber.x > 0, 1, 2) * (lung < 0)
    _central_airways(c, z)
    _noise(whole, scan, body, rng)
    return Drawn(whole.hu, sides, haze, core)


def _table(c: Canvas, chest: Chest, z: float) -> None:
    """A carbon-shell cradle with a foam core under the back, on some scanners with a rail."""
    back = -(chest.depth + 28 + 0.6 * chest.fat)
    straight_x, straight_y = np.broadcast_arrays(c.columns[None, :], c.rows[:, None])
    sag = straight_y - (back - 2 + 7e-4 * straight_x**2)
    c.fill(np.abs(sag + 14) - 14, -930)
    c.fill(np.abs(sag) - 0.9, -260)
    c.fill(np.abs(sag + 28) - 1.1, -180)
    if chest.rail and np.sin(z / 19) > -0.3:
        y = back - 44
        for p, q in (((-17, y), (17, y)), ((-17, y), (-11, y + 12)), ((17, y), (11, y + 12)),
                     ((-11, y + 12), (11, y + 12))):  # fmt: skip
            c.capsule(p, q, 1.6, 1500)


def _wire(c: Canvas, chest: Chest, body: Array, z: float) -> None:
    """A monitoring lead on the skin: metal, so that some slices reach the top of the HU scale."""
    if not chest.wire or not 100 < z < 230 or np.sin(z / 11) < -0.2:
        return
    x = 40 * np.sin(z / 37)
    column = body[:, np.searchsorted(c.columns, x)]
    y = float(c.rows[np.argmax(column < 0)])
    c.capsule((x - 5, y + 4), (x + 5, y + 4), 1.6, 4200)


def _wall(c: Canvas, chest: Chest, body: Array, cavity: Array, texture: Array, fine: Array, z: float) -> None:
    """Skin, fat and the muscles outside the ribs."""
    c.fill(body, 20)
    c.fill(body + 1.8, -102 + 7 * texture)
    under_skin = np.maximum(body + 4 + 0.45 * chest.fat, -50)
    shell = cavity - (11 + 2.5 * texture + 9 * np.clip(-c.y / 90, 0, 1))
    c.fill(np.maximum(shell, under_skin), 52 + 5 * fine)
    d, up = chest.depth, ramp(z, 170, 240)
    for s in (-1, 1):
        muscles = [
            (31, -d - 4, 27, 15, -0.12),  # erector spinae
            (76, -d + 8, 44 + 8 * up, 9 + 5 * up, 0.42),  # trapezius, latissimus
            (chest.width + 8, -28, 7 + 8 * up, 44, -0.12),  # latissimus, teres
        ]
        if z > 120:
            muscles.append((58, d + 6 - 10 * up, 46, 4 + 7 * ramp(z, 120, 200), -0.30))  # pectorals
        if up > 0.1:
            muscles += [
                (chest.width - 22, -52, 34 * up, 15 * up, 0.75),  # subscapularis
                (chest.width - 6, -66, 36 * up, 12 * up, 0.75),  # infraspinatus
                (chest.width + 18, 6, 20 * up, 30 * up, 0.2),  # deltoid and triceps
            ]
            neck = ramp(z, 232, 290)
            muscles += [
                (34, -42, 34 * neck, 26 * neck, 0.3),
                (30, 8, 17 * neck, 22 * neck, -0.4),
                (64, -58, 40 * neck, 20 * neck, 0.3),
                (80, 18, 40 * neck, 15 * neck, -0.2),
            ]
        for x, y, a, b, tilt in muscles:
            c.ellipse(s * x, y, a, b, 50, tilt=s * tilt, rim=(1.4, -85), within=body + 4 + 0.2 * chest.fat)


def _chest_bones(c: Canvas, chest: Chest, cavity: Array, fine: Array, z: float) -> None:
    """Ribs, sternum, scapulae, and the shoulder joint at the top."""
    angle = np.arctan2(np.abs(c.x), -(c.y + 8)).astype(np.float32) / np.float32(np.pi)
    # Each rib falls by 95 mm from spine (angle 0) to sternum (1), so a slice cuts it obliquely
    # and its cut travels around the wall from slice to slice.
    along = (z + chest.rib_phase + 95 * angle + 3 * np.sign(c.x)) % 28.0 - 14.0
    rib = np.hypot((cavity - 6.0) / 3.9, along / 5.6) - 1
    rib = np.where((angle > 0.04) & (angle < 0.9), rib * 3.9, 99)
    marrow = np.where(angle < 0.74, 240 + 60 * fine, 120)
    c.fill(rib, np.where(angle < 0.74, 1050, 160))
    c.fill(rib + 1.3, marrow)
    front = chest.depth + 4 + 9
    if 95 < z < 262:
        y = front - 13 * ramp(z, 180, 262) ** 2 - 7 * ramp(z, 225, 262)
        wide = 15 + 13 * ramp(z, 200, 240)
        c.ellipse(0, y, wide, 6.0, 620)
        c.ellipse(0, y, wide - 2, 4.2, 150)
    up = ramp(z, 165, 215)
    for s in (-1, 1):
        if up > 0.15:
            x, y = chest.width - 12, -60
            tip = (s * (x + 14), y + 26 + 10 * up)
            c.capsule((s * (x - 30 * up), y - 20 * up), (s * x, y + 4), 2.1, 950)
            c.capsule((s * x, y + 4), tip, 2.6, 900)
            if z > 222:
                c.capsule((s * x, y + 4), (s * (x + 20), y - 14), 2.4, 900)
        if z > 232:
            c.ellipse(s * (chest.width + 20), -22, 16, 17, 240, rim=(2.2, 1150))
        if z > 246:
            c.ellipse(s * 27, front - 32, 15, 7, 220, tilt=s * -0.5, rim=(1.6, 1000))


def _mediastinum(c: Canvas, chest: Chest, cavity: Array, z: float) -> None:
    """Heart, great vessels and oesophagus; unenhanced blood, or, in some patients, enhanced."""
    blood, h, within = chest.blood, chest.heart, cavity + 2
    s = 1 - ((z - 130) / 68) ** 2
    if s > 0.02:
        f = h * s**0.5
        c.ellipse(18, 32, 54 * f, 48 * f, 46, tilt=-0.45, within=within)
        c.ellipse(34, 26, 25 * f, 18 * f, blood - 4, tilt=-0.6, within=within)
        c.ellipse(0, 46, 27 * f, 17 * f, blood - 3, tilt=-0.4, within=within)
        c.ellipse(-12, 12, 22 * f, 19 * f, blood - 5, within=within)
    if z < 246:
        y = -37 + 12 * ramp(z, 190, 230)
        c.ellipse(19 - 3 * ramp(z, 60, 0), y, 12.5, 12.5, blood, rim=(1, 45))
    if 150 < z < 232:
        c.ellipse(-13, 24, 16, 16, blood, rim=(1, 45))  # ascending aorta
        c.ellipse(-31, 12, 9.5, 11, blood - 2)  # superior vena cava
    if 158 < z < 202:
        c.ellipse(14, 33, 14, 13, blood)  # pulmonary trunk and its branches
        if z < 192:
            c.capsule((10, 24), (-38, 4), 9, blood)
        c.capsule((17, 28), (36, 0), 9, blood)
    if 208 < z < 232:
        c.capsule((-11, 22), (17, -26), 12, blood)  # arch
    if z >= 228:
        for x, y, r in ((-14, 14, 7), (2, 8, 5), (15, 0, 5.5), (-25, 18, 8), (24, 14, 7)):
            c.ellipse(x, y, r, r, blood, rim=(0.8, 20))
    if z < 160:
        c.ellipse(-26, -6 + 10 * ramp(z, 60, 120), 12, 10, blood - 4)  # inferior vena cava
    c.ellipse(5, -28 + 4 * ramp(z, 150, 230), 8, 5.5, 38, tilt=0.3)  # oesophagus


def _abdomen(c: Canvas, chest: Chest, cavity: Array, texture: Array, z: float) -> None:
    """Liver, stomach with its gas, spleen: whatever lies under the diaphragm."""
    right, left = chest.domes(c.x, c.y, z)
    within = cavity + 3
    under = np.maximum(smooth_min(right, left, 10) + 2, within)
    if under.min() > 0:
        return
    c.fill(np.maximum(under, -c.y - 62), -92 + 8 * texture)
    c.fill(under, np.where(under > -3.5, 45, -92 + 8 * texture))
    c.ellipse(92, -36, 30, 42, 52, tilt=-0.5, rim=(1.5, -85), within=np.maximum(left, within) + 4)
    lobe = np.hypot((c.x + 6) / 1.9, c.y - 42) - 36 * ramp(100 - z, 0, 40)
    liver = np.maximum(smooth_min(right + 3, lobe, 14), within + 1)
    stomach = np.maximum(np.hypot((c.x - 52) / 1.15, c.y - 26) - 37, np.maximum(left, within) + 5)
    c.fill(stomach, 45)
    level = np.maximum(stomach + 4, chest.gas + 24 - c.y)
    c.fill(stomach + 4, 12 + 16 * texture)
    c.fill(level, -940)
    c.fill(np.maximum(liver, under), 58 + 3 * texture)
    for k, y in enumerate((10, 34, 52)):  # hepatic and portal veins
        c.capsule((-28, y - 8), (-84 + 9 * k, y - 14 + 16 * np.sin(z / 23 + k)), 3.2, 42,
                  within=liver + 5)  # fmt: skip
    if z < 75:
        for s in (-1, 1):  # crura, and the kidneys below
            c.capsule((s * 12, -22), (s * 24, -52), 4, 52, within=within)
            if z < 25:
                c.ellipse(s * 58, -58, 24, 28, 34, rim=(2.5, -90), within=within)


def _spine(c: Canvas, chest: Chest, fine: Array, z: float) -> None:
    """Vertebral body or disc, canal, arch and processes, with a period of 24 mm."""
    phase = ((z + chest.disc_phase) % 24.0) / 24.0
    disc, y = phase < 0.2, -56.0
    c.ellipse(0, y - 24, 25, 17, 55)
    if disc:
        c.ellipse(0, y, 18, 14.5, 85, rim=(1.2, 260))
    else:
        c.ellipse(0, y, 18, 14.5, 185, rim=(1.5, 820))
        marrow = np.hypot(c.x / 17, (c.y - y) / 13.5) * 13.5 - 13.5
        c.hu += c.cover(marrow) * 45 * fine
    for s in (-1, 1):  # pedicles, then laminae
        if phase > 0.3:
            c.capsule((s * 13, y - 9), (s * 13, y - 22), 3.6, 640)
        c.capsule((s * 13, y - 23), (s * 2, y - 35), 3.0, 850)
        if 0.35 < phase < 0.85:
            reach = 37 - 30 * abs(phase - 0.6)
            c.capsule((s * 13, y - 22), (s * reach, y - 30), 4.0, 640)
            c.capsule((s * 15, y - 23), (s * reach, y - 30), 1.8, 220)
    c.ellipse(0, y - 23.5, 9.5, 8.5, 12, rim=(1.6, 300))
    c.ellipse(0, y - 23.5, 5, 4.5, 38)
    length = 30 if phase > 0.45 else 15
    c.capsule((0, y - 35), (0, y - 35 - length * 0.7), 2.8, 760)


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


def _central_airways(c: Canvas, z: float) -> None:
    """Trachea, carina and main bronchi: outside the lung masks, as annotators have it."""
    if z > 200:
        c.ellipse(0, -4, 9.5, 8.5, -985, rim=(1.6, 20))
    elif z > 160:
        for s in (-1, 1):
            x = s * (7 + (200 - z) * (0.62 if s < 0 else 0.85))
            wide = 7.5 if z > 180 else 6.0
            c.ellipse(x, -7 - (200 - z) * 0.12, wide + 3, wide - 1, -985, rim=(1.5, 15))


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
