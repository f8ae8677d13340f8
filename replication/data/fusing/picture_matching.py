"""How pictures of two scans are laid onto one another: local contrast, zoom and shift, the order of slices."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pictures = NDArray[np.float32]  # (slices, side, side)
FLIPS = {"none": (1, 1), "up-down": (-1, 1), "left-right": (1, -1), "both": (-1, -1)}


def shrink(pictures: Pictures, side: int) -> Pictures:
    """Means over square blocks, (slices, side, side)."""
    block = pictures.shape[1] // side
    return pictures.reshape(len(pictures), side, block, side, block).mean((2, 4))


def local_contrast(pictures: Pictures, *, inner: float, outer: float) -> Pictures:
    """Band-pass between two blurs (pixels), over its local deviation."""

    def blur(x: Pictures, sigma: float) -> Pictures:
        return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")

    band = blur(pictures, inner) - blur(pictures, outer)
    # The floor keeps air and clipped tissue from being blown up to full contrast.
    floor = 0.0625 * (band**2).mean((1, 2), keepdims=True) + 1e-6
    return band / np.sqrt(blur(band**2, outer) + floor)


@lru_cache
def _round_window(side: int, radius: float) -> Pictures:
    """1 in the middle, 0 outside `radius` (in half widths): no corners, table or field-of-view rim."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    return np.clip((radius - np.hypot(axis[:, None], axis[None])) / 0.1, 0, 1)


def unit(pictures: Pictures, *, radius: float = 0.8) -> NDArray[np.float32]:
    """(slices, pixels), windowed and normalised, so that a product of two is their correlation."""
    flat = (pictures * _round_window(pictures.shape[1], radius)).reshape(len(pictures), -1)
    flat -= flat.mean(1, keepdims=True)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)


def flip(pictures: NDArray, flip: str) -> NDArray:
    """One of `FLIPS`."""
    rows, columns = FLIPS[flip]
    return pictures[:, ::rows, ::columns]


@lru_cache(maxsize=512)
def _weights(side: int, zoom: float, shift: float) -> NDArray[np.float32]:
    """(side, side): what each sample along one axis takes of its two neighbours."""
    centre = (side - 1) / 2
    sampled = (np.arange(side) - centre) * zoom + centre + shift
    return np.clip(1 - np.abs(sampled[:, None] - np.arange(side)), 0, None).astype(np.float32)


def warp(pictures: Pictures, zoom_shift: NDArray) -> Pictures:
    """Zoom and shift (rows' zoom, columns' zoom, rows' shift, columns' shift), bilinear, as A X B^T."""
    side = pictures.shape[1]
    zoom_y, zoom_x, shift_y, shift_x = map(float, zoom_shift)  # a search moves one at a time
    rows, columns = _weights(side, zoom_y, shift_y), _weights(side, zoom_x, shift_x)
    return rows @ pictures @ columns.T  # type: ignore[return-value]  # numpy's types say float64


def first_fit(a: Pictures, b: Pictures) -> tuple[float, NDArray]:
    """Correlation, zoom and shift of a onto b, by Fourier cross-correlation over a range of zooms."""
    side, window = a.shape[1], _round_window(a.shape[1], 1.0)
    target = b * window
    spectrum, power = np.fft.rfft2(target), (target**2).sum((1, 2))
    reach = np.arange(-(side // 9), side // 9 + 1)
    best = (-np.inf, 1.0, 0, 0)
    for zoom in np.arange(0.88, 1.125, 0.03):
        moved = warp(a, np.array([zoom, zoom, 0, 0])) * window
        product = np.fft.irfft2(np.conj(np.fft.rfft2(moved)) * spectrum, s=(side, side))
        norm = np.sqrt((moved**2).sum((1, 2)) * power) + 1e-6
        peak = (product / norm[:, None, None]).mean(0)[np.ix_(reach, reach)]
        y, x = np.unravel_index(peak.argmax(), peak.shape)
        best = max(best, (float(peak[y, x]), float(zoom), int(reach[y]), int(reach[x])))
    value, zoom, y, x = best
    return value, np.array([zoom, zoom, -y * zoom, -x * zoom])


def refit(a: Pictures, b: Pictures, start: NDArray, *, steps: tuple[float, float]) -> NDArray:
    """A pattern search from `start`: one parameter at a time, then half the steps."""
    target = unit(b)

    def score(at: NDArray) -> float:
        return float((unit(warp(a, at)) * target).sum(1).mean())

    at, value = start, score(start)
    step = np.repeat(steps, 2)
    for _ in range(5):
        for _ in range(6):
            before = value
            for move in (sign * row for row in np.diag(step) for sign in (1, -1)):
                if (new := score(at + move)) > value + 1e-4:
                    at, value = at + move, new
            if value == before:
                break
        step = step / 2
    return at


def monotone(correlation: NDArray, *, least: float = 0.3) -> tuple[int, list[tuple[int, int]]]:
    """Direction and pairs of the monotone matching with the largest sum of correlation above `least`."""
    best: tuple[float, int, list[tuple[int, int]]] = (-1.0, 1, [])
    for direction in (1, -1):
        gain = correlation[:, ::direction] - least
        n, m = gain.shape
        total = np.zeros((n + 1, m + 1), np.float32)
        for i in range(n):
            total[i + 1, 1:] = np.maximum.accumulate(np.maximum(total[i, 1:], total[i, :-1] + gain[i]))
        if total[n, m] <= best[0]:
            continue
        i, j, pairs = n, m, []
        while i and j:
            if total[i, j] == total[i - 1, j]:
                i -= 1
            elif total[i, j] == total[i, j - 1]:
                j -= 1
            else:
                i, j = i - 1, j - 1
                pairs.append((i, j if direction == 1 else m - 1 - j))
        best = (float(total[n, m]), direction, pairs[::-1])
    return best[1], best[2]
