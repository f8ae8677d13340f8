"""A scan's pictures as the weights expect them, and masks back at the pictures' own size.

Weights say how the slices were prepared that they were trained on (`replication.data.slices.origin`), and a scan's are
prepared alike. A picture that is not square, in millimetres, is padded first: stretching would bend the body.
Every slice of `minmax-clahe` has the same two ends (register row 70).
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from replication.data.fusing.preparation import minmax_clahe, windowed
from replication.data.reading.intensity import GREY
from replication.data.reading.orientation import Turn
from replication.data.reading.scan import Scan
from replication.data.slices.origin import Origin
from replication.data.slices.store import at_size

Progress = Callable[[range], Iterable[int]]
DARK = 0.01  # quantile of a picture that is its air: not its darkest pixel, which may be any number
AS_STORED = Turn()  # `Scan` has its planes in the axes that need no flip


def padding(shape: tuple[int, int], spacing: tuple[float, float]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels before and after the rows and the columns that make a picture square in millimetres.

    Args:
        shape: (rows, columns). spacing: (mm a row, mm a column).
    """
    side = max(n * mm for n, mm in zip(shape, spacing))
    spare = [round(side / mm) - n for n, mm in zip(shape, spacing)]
    rows, columns = ((n // 2, n - n // 2) for n in spare)
    return rows, columns


def prepared(scan: Scan, *, size: int, origin: Origin, progress: Progress | None = None) -> NDArray[np.uint8]:
    """Every slice of a scan as a network's input, uint8 (S, 1, size, size), from the feet upwards.

    Args:
        size: side of the slices as the network was trained on them.
        origin: how their store's slices were made, which were shrunk to that size.
    """
    out = np.empty((scan.shape[2], 1, size, size), np.uint8)
    pads = padding((scan.shape[1], scan.shape[0]), (scan.spacing[1], scan.spacing[0]))
    ends = scan.intensity.ends if np.isfinite(scan.intensity.ends).all() else None
    for k in (progress or iter)(range(len(out))):
        picture = AS_STORED.picture(scan.plane(k))
        if origin.preparation == "window":
            low, high = GREY if scan.intensity.windowed else origin.window or GREY
            grey = windowed(picture, size=origin.size, window=(low, high), pads=pads)
        else:
            if any(map(any, pads)):
                picture = np.pad(picture, pads, constant_values=np.quantile(picture, DARK))
            grey = minmax_clahe(picture, size=origin.size, ends=ends)
        out[k, 0] = at_size(grey, size, "ct")
    return out


def restored(masks: NDArray[np.uint8], scan: Scan) -> NDArray[np.uint8]:
    """Masks (S, size, size) as planes (x, y, S) of the scan: enlarged linearly, cut at a half, unpadded."""
    rows, columns = scan.shape[1], scan.shape[0]
    (top, bottom), (left, right) = padding((rows, columns), (scan.spacing[1], scan.spacing[0]))
    whole = (columns + left + right, rows + top + bottom)  # OpenCV: width first
    out = np.zeros((columns, rows, len(masks)), np.uint8, order="F")
    for k in np.flatnonzero(masks.any((1, 2))):
        grown = cv2.resize(masks[k].astype(np.float32), whole, interpolation=cv2.INTER_LINEAR) > 0.5
        out[:, :, k] = np.rot90(grown[top : top + rows, left : left + columns], -1)
    return out
