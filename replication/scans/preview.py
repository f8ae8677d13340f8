"""A picture of a segmentation to look at first: axial slices with outlines, and one coronal view."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from replication.data.reading.scan import Scan
from replication.scans.prepare import AS_STORED
from replication.scans.segment import Found

WINDOW = (-1250.0, 250.0)  # HU shown as black and white (register row 16)
LUNG, INFECTION = (86, 180, 233), (213, 94, 0)  # Okabe-Ito's sky blue and vermilion
TILE, ACROSS, DOWN = 240, 4, 3  # pixels of a slice; slices across and down


def preview(scan: Scan, found: Found) -> Image.Image:
    """Up to twelve slices from the lowest with lung to the highest, left of the picture the patient's right; then coronal."""
    chosen = np.flatnonzero(found.lungs.any((0, 1)))
    if not len(chosen):
        chosen = np.arange(scan.shape[2])
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, ACROSS * DOWN).astype(int))]
    sheet = Image.new("RGB", (TILE * ACROSS, TILE * (DOWN + 1)))
    for i, k in enumerate(chosen):
        parts = [
            AS_STORED.picture(p) for p in (scan.plane(k), found.lungs[:, :, k], found.infection[:, :, k])
        ]
        tile = _tile(*parts, mm=(scan.spacing[1], scan.spacing[0]), windowed=scan.intensity.windowed)
        _label(tile, f"slice {k + 1} of {scan.shape[2]}")
        sheet.paste(tile, (i % ACROSS * TILE, i // ACROSS * TILE))
    sheet.paste(_coronal(scan, found), (0, DOWN * TILE))
    draw = ImageDraw.Draw(sheet)
    where = (TILE + 12, DOWN * TILE + 16)
    draw.text(where, "lungs", fill=LUNG, font_size=16)
    draw.text((where[0], where[1] + 22), "infection", fill=INFECTION, font_size=16)
    draw.text(
        (where[0], where[1] + 54),
        "R, L: the patient's right and left\nNot for clinical use.",
        fill="white",
        font_size=14,
    )
    return sheet


def _coronal(scan: Scan, found: Found) -> Image.Image:
    held = found.infection if found.infection.any() else found.lungs
    y = int(held.sum((0, 2), dtype=np.int64).argmax()) if held.any() else scan.shape[1] // 2
    grey = np.stack([scan.plane(k)[:, y] for k in range(scan.shape[2])], 1)  # (x, z)
    parts = [part.T[::-1] for part in (grey, found.lungs[:, y], found.infection[:, y])]  # head at the top
    tile = _tile(*parts, mm=(scan.spacing[2], scan.spacing[0]), windowed=scan.intensity.windowed)
    _label(tile, "coronal")
    return tile


def _tile(
    grey: NDArray, lungs: NDArray, infection: NDArray, *, mm: tuple[float, float], windowed: bool
) -> Image.Image:
    low, high = (0.0, 255.0) if windowed else WINDOW
    shown = ((np.clip(grey, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    extent = shown.shape[0] * mm[0], shown.shape[1] * mm[1]
    rows, columns = (max(round(TILE * e / max(extent)), 1) for e in extent)
    pixels = np.zeros((TILE, TILE, 3), np.uint8)
    top, left = (TILE - rows) // 2, (TILE - columns) // 2
    inner = pixels[top : top + rows, left : left + columns]
    inner[:] = np.asarray(Image.fromarray(shown).resize((columns, rows), Image.Resampling.BILINEAR))[
        ..., None
    ]
    for mask, colour in ((lungs, LUNG), (infection, INFECTION)):
        mask = np.asarray(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST)) > 0
        inner[mask & ~ndimage.binary_erosion(mask)] = colour
    return Image.fromarray(pixels)


def _label(tile: Image.Image, text: str) -> None:
    draw = ImageDraw.Draw(tile)
    draw.text((6, 4), text, fill="white", font_size=13)
    draw.text((6, TILE // 2 - 8), "R", fill="white", font_size=15)
    draw.text((TILE - 16, TILE // 2 - 8), "L", fill="white", font_size=15)
