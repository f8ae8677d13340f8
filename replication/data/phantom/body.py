"""The organs around the lungs of a phantom's slice, from the couch to the airways; `anatomy` says where they lie.

Units as in `anatomy`. Change nothing here without raising `volumes.REVISION`.
"""

import numpy as np

from replication.data.phantom.anatomy import Array, Canvas, Chest, ramp, smooth_min


def table(c: Canvas, chest: Chest, z: float) -> None:
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


def wire(c: Canvas, chest: Chest, body: Array, z: float) -> None:
    """A monitoring lead on the skin: metal, so that some slices reach the top of the HU scale."""
    if not chest.wire or not 100 < z < 230 or np.sin(z / 11) < -0.2:
        return
    x = 40 * np.sin(z / 37)
    column = body[:, np.searchsorted(c.columns, x)]
    y = float(c.rows[np.argmax(column < 0)])
    c.capsule((x - 5, y + 4), (x + 5, y + 4), 1.6, 4200)


def wall(c: Canvas, chest: Chest, body: Array, cavity: Array, texture: Array, fine: Array, z: float) -> None:
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


def chest_bones(c: Canvas, chest: Chest, cavity: Array, fine: Array, z: float) -> None:
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


def mediastinum(c: Canvas, chest: Chest, cavity: Array, z: float) -> None:
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


def abdomen(c: Canvas, chest: Chest, cavity: Array, texture: Array, z: float) -> None:
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


def spine(c: Canvas, chest: Chest, fine: Array, z: float) -> None:
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


def central_airways(c: Canvas, z: float) -> None:
    """Trachea, carina and main bronchi: outside the lung masks, as annotators have it."""
    if z > 200:
        c.ellipse(0, -4, 9.5, 8.5, -985, rim=(1.6, 20))
    elif z > 160:
        for s in (-1, 1):
            x = s * (7 + (200 - z) * (0.62 if s < 0 else 0.85))
            wide = 7.5 if z > 180 else 6.0
            c.ellipse(x, -7 - (200 - z) * 0.12, wide + 3, wide - 1, -985, rim=(1.5, 15))
