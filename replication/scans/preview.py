"""A picture of a segmentation to look at first: whose, how much and by which weights; axial slices, and two views from the side."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from replication.data.reading.scan import Scan
from replication.scans.prepare import AS_STORED
from replication.scans.segment import Found

WINDOW = (-1250.0, 250.0)  # HU shown as black and white (register row 16)
LUNG, INFECTION = (86, 180, 233), (213, 94, 0)  # Okabe-Ito's sky blue and vermilion
ACROSS, DOWN, WIDTH, HEAD = 4, 3, 1200, 76  # slices across and down; pixels of the picture, and of its head
GAP = 4


def preview(scan: Scan, found: Found, *, weights: str, ml: dict[str, float]) -> Image.Image:
    """Up to twelve slices from the lowest with lung to the highest, then the body from the front and from its left.

    On slices and from the front, the patient's right is on the left of the picture. Each picture is cut to the body.

    Args:
        weights: their name. ml: of `lungs` and of `infection`.
    """
    held = np.flatnonzero(found.lungs.any((0, 1)))
    held = held if len(held) else np.arange(scan.shape[2])
    chosen = held[np.unique(np.linspace(0, len(held) - 1, ACROSS * DOWN).astype(int))]
    box = _body(scan, chosen)
    slices = [_axial(scan, found, k, box) for k in chosen]
    across = min(ACROSS, len(slices))
    rows = [_row(slices[:across])]
    rows += [_row(slices[i : i + across], most=rows[0].height) for i in range(across, len(slices), across)]
    rows.append(_row(_sides(scan, found, box)))
    sheet = Image.new("RGB", (WIDTH, HEAD + sum(row.height + GAP for row in rows)))
    _headline(sheet, scan, weights, ml)
    top = HEAD
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    return sheet


def _headline(sheet: Image.Image, scan: Scan, weights: str, ml: dict[str, float]) -> None:
    draw = ImageDraw.Draw(sheet)
    name = scan.path.name
    draw.text((10, 8), name if len(name) <= 70 else f"{name[:67]}...", fill="white", font_size=20)
    x = 10
    for text, colour in (
        (f"lungs {ml['lungs']:.0f} ml", LUNG), (f"called infected {ml['infection']:.0f} ml", INFECTION),
        (f"by {weights}", "white"), ("not for clinical use", "white"),
    ):  # fmt: skip
        draw.text((x, 42), text, fill=colour, font_size=18)
        x += round(draw.textlength(text, font_size=18)) + 28


def _body(scan: Scan, chosen: NDArray) -> tuple[slice, slice]:
    """Rows and columns of a picture that hold the body, with a rim; all of them where nothing stands out."""
    dense = np.zeros((scan.shape[1], scan.shape[0]), bool)
    limit = 80 if scan.intensity.windowed else -400
    for k in chosen:
        # Opened by a few pixels: the table and its cables are thin.
        dense |= ndimage.binary_opening(AS_STORED.picture(scan.plane(k)) > limit, iterations=3)
    if not dense.any():
        return slice(None), slice(None)
    rows, columns = (
        slice(max(int(held[0]) - 6, 0), int(held[-1]) + 7)
        for held in (np.flatnonzero(dense.any(a)) for a in (1, 0))
    )
    return rows, columns


def _axial(scan: Scan, found: Found, k: int, box: tuple[slice, slice]) -> Image.Image:
    parts = [
        AS_STORED.picture(p)[box] for p in (scan.plane(k), found.lungs[:, :, k], found.infection[:, :, k])
    ]
    tile = _outlined(*parts, mm=(scan.spacing[1], scan.spacing[0]), windowed=scan.intensity.windowed)
    return _labelled(tile, f"slice {k + 1} of {scan.shape[2]}", "RL")


def _sides(scan: Scan, found: Found, box: tuple[slice, slice]) -> list[Image.Image]:
    """The planes with the most infection, or else lung: coronal and sagittal, the head at the top."""
    held = found.infection if found.infection.any() else found.lungs
    x, y = (_fullest(held.sum(axes, dtype=np.int64)) for axes in ((1, 2), (0, 2)))
    rows, columns = box
    front = slice(
        None if rows.stop is None else max(scan.shape[1] - rows.stop, 0),
        None if rows.start is None else scan.shape[1] - rows.start,
    )
    views = []
    for at, cut, mm, name, letters in (
        ((slice(None), y), columns, scan.spacing[0], "coronal", "RL"),
        ((x, slice(None)), front, scan.spacing[1], "sagittal", "PA"),
    ):
        grey = np.stack([scan.plane(k)[at] for k in range(scan.shape[2])], 1)
        parts = [part.T[::-1, cut] for part in (grey, found.lungs[at], found.infection[at])]
        tile = _outlined(*parts, mm=(scan.spacing[2], mm), windowed=scan.intensity.windowed)
        views.append(_labelled(tile, name, letters))
    return views


def _fullest(counts: NDArray) -> int:
    """Where most is; of several such places the one in the middle."""
    most = np.flatnonzero(counts == counts.max())
    return int(most[np.abs(most - len(counts) // 2).argmin()])


def _outlined(
    grey: NDArray, lungs: NDArray, infection: NDArray, *, mm: tuple[float, float], windowed: bool
) -> Image.Image:
    """One plane in true proportions, some hundred pixels high, with both masks outlined."""
    low, high = (0.0, 255.0) if windowed else WINDOW
    shown = ((np.clip(grey, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    extent = shown.shape[0] * mm[0], shown.shape[1] * mm[1]
    rows, columns = (max(round(480 * e / max(extent)), 8) for e in extent)
    pixels = np.asarray(Image.fromarray(shown).resize((columns, rows), Image.Resampling.BILINEAR))
    pixels = np.repeat(pixels[..., None], 3, axis=2)
    for mask, colour in ((lungs, LUNG), (infection, INFECTION)):
        mask = np.asarray(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST)) > 0
        pixels[mask & ~ndimage.binary_erosion(mask, iterations=2)] = colour
    return Image.fromarray(pixels)


def _labelled(tile: Image.Image, text: str, sides: str) -> Image.Image:
    tile.info.update(text=text, sides=sides)  # drawn once its size is known
    return tile


def _row(tiles: list[Image.Image], *, most: int = 560) -> Image.Image:
    """Pictures side by side, as high as each other, over the whole width unless that makes them higher than `most`."""
    ratio = sum(tile.width / tile.height for tile in tiles)
    height = min(round((WIDTH - GAP * (len(tiles) - 1)) / ratio), most)
    row = Image.new("RGB", (WIDTH, height))
    x = 0
    for tile in tiles:
        shown = tile.resize((round(tile.width * height / tile.height), height), Image.Resampling.BILINEAR)
        draw = ImageDraw.Draw(shown)
        for where, text in (
            ((6, 4), tile.info["text"]), ((6, height // 2), tile.info["sides"][0]),
            ((shown.width - 16, height // 2), tile.info["sides"][1]),
        ):  # fmt: skip
            draw.text(where, text, fill="white", font_size=15, stroke_width=2, stroke_fill="black")
        row.paste(shown, (x, 0))
        x += shown.width + GAP
    return row
