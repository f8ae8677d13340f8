"""One volume -> its slices: orientation, intensities, what is dropped and why (paper, Sec. 4.1).

The paper gives neither intensity window nor filter: we window to [-1250, 250] HU (register row 16)
and drop slices without lung (row 15). Infection labels 1 and 2 count, pleural effusion (3) does
not (row 17). What other filters would have kept is counted beside, because the paper's 3560 of
829 + 3520 slices (Table 1) come from a filter that it only paraphrases.
"""

import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from replication.data.names import PARTS, patient_of, source_of
from replication.data.reading.intensity import BRIGHTEST, DARKEST, GREY, OUTLIERS, Intensity
from replication.data.reading.nifti import Volume
from replication.data.reading.orientation import LOOKED_AT, Turn, orient
from replication.data.reading.own import SOURCE, open_parts, orient_own
from replication.files import write_whole

LABELS = {"lung": 2, "infection": 3}  # the highest; lung: left and right
PREPARATIONS = ("window", "minmax-clahe")
EFFUSION = 3
SPIKE = 0.1  # of what lies between the ends (302 HU): one pixel that stands out so far is no anatomy (row 70)
MIDDLE = (0.2, 0.8)  # of the volume's slices: the recipe of the prepared real slices


def slices_of(
    name: str, paths: dict[str, Path], *, store: Path, settings: dict[str, Any], progress: bool = False
) -> dict[str, Any]:
    """Write the slices of one volume as PNGs and return its record (JSON types only).

    Args:
        name: canonical name, or any of one's own.
        paths: file of each of `PARTS`.
        store: its folder; `store/.fusion` takes what is unpacked.
        settings: `preparation`, `window` and `size`, as `fusion.fuse` explains them.
        progress: show a bar over the slices on stderr.

    Raises:
        ValueError: a file is unreadable, has another shape than the CT, or strange values.
    """
    with ExitStack() as stack:
        own = settings.get("own")
        parts: Mapping[str, Any] = open_parts(paths, own) if own else {
            part: Volume(paths[part], scratch=store / ".fusion") for part in PARTS
        }  # fmt: skip
        volumes = {part: stack.enter_context(volume) for part, volume in parts.items()}
        ct = volumes["ct"]
        for part in PARTS[1:]:
            if volumes[part].shape != ct.shape:
                raise ValueError(
                    f"{paths[part]}: shape {volumes[part].shape}, but {ct.path} has {ct.shape}; expected "
                    "equal shapes, take both files from the same release"
                )
        depth = ct.shape[2]
        bar = stack.enter_context(
            tqdm(total=2 * depth, desc=name, unit="plane", leave=False, disable=not progress)
        )
        seen = _survey(volumes, settings["window"], bar)
        samples = _samples(volumes, seen)
        turn, orientation = (
            orient_own(ct, samples, strict=own["strict"]) if own else orient(name, ct.affine, samples)
        )
        rows, dropped = _write_all(name, volumes, seen, turn, store, settings, bar)
    indices = np.arange(depth)[::-1] if turn.z else np.arange(depth)
    middle = _in_middle(indices, depth)
    counts = {
        "all": depth, "not_black": ~seen["black"], "with_lung": seen["lung"] > 0,
        "with_infection": seen["infection"] > 0, "middle_60": middle,
        "middle_60_with_infection": middle & (seen["infection"] > 0),
    }  # fmt: skip
    recipe = settings["preparation"] == "minmax-clahe"
    return {
        "volume": name, "rows": rows, "dropped": dict(sorted(dropped.items())), "slices_in": depth,
        "counts": {key: int(np.sum(kept)) for key, kept in counts.items()},
        "effusion_voxels": int(seen["effusion"].sum()), "already_windowed": seen["windowed"],
        "intensity": _recipe(seen["windowed"], settings) if recipe else "0..255 as stored"
        if seen["windowed"] else "HU window [{:g}, {:g}]".format(*settings["window"]),
        "orientation": orientation, "notes": [note for v in volumes.values() for note in v.notes],
    }  # fmt: skip


def _recipe(grey: bool, settings: dict[str, Any]) -> str:
    if "ends" not in settings:
        return "min-max of each slice, CLAHE"
    return "{} of [{:g}, {:g}], CLAHE".format(*(("grey", *GREY) if grey else ("HU", DARKEST, BRIGHTEST)))


def _survey(volumes: dict[str, Volume], window: tuple[float, float], bar: tqdm) -> dict[str, Any]:
    """The first pass: what every plane holds, and that every file can be read to its end.

    `lung`, `infection` and `effusion` count voxels; `windowed` says that the CT is within 0..255, a few voxels aside;
    `black` marks planes of one value, and planes that are dark: nothing in them is denser than the
    middle of the window (-500 HU, or 127 of 255), so there is air, at most lung, and no body.
    """
    depth = volumes["ct"].shape[2]
    seen: dict[str, Any] = {key: np.zeros(depth, np.int64) for key in ("lung", "infection", "effusion")}
    low, high = np.zeros((2, depth))
    outside = 0
    for k in range(depth):
        plane = volumes["ct"].plane(k)
        low[k], high[k] = plane.min(), plane.max()
        outside += int(np.count_nonzero((plane < GREY[0]) | (plane > GREY[1])))
        seen["lung"][k] = np.count_nonzero(volumes["lung"].mask(k, labels=LABELS["lung"]))
        labels = volumes["infection"].mask(k, labels=LABELS["infection"])
        seen["effusion"][k] = np.count_nonzero(labels == EFFUSION)
        seen["infection"][k] = np.count_nonzero(labels) - seen["effusion"][k]
        bar.update()
    for volume in volumes.values():
        volume.finish()
    seen["windowed"] = bool(outside <= OUTLIERS * np.prod(volumes["ct"].shape))
    seen["black"] = (low == high) | (high <= (127 if seen["windowed"] else np.mean(window)))
    return seen


def _samples(volumes: dict[str, Volume], seen: dict[str, Any]) -> Iterator[tuple[NDArray, NDArray]]:
    """Some slices with much lung, spread over the volume, for the anatomical rule."""
    full = np.flatnonzero((seen["lung"] >= 0.3 * seen["lung"].max()) & (seen["lung"] > 0) & ~seen["black"])
    chosen = np.unique(np.linspace(0, len(full) - 1, min(LOOKED_AT, len(full))).astype(int))
    for k in full[chosen]:
        # Outside the scanner's circle some write -2048 or -3024: darker than air tells nothing.
        grey = np.clip(volumes["ct"].plane(k), 0.0 if seen["windowed"] else -1024.0, 1e4)
        yield np.rot90(grey), np.rot90(volumes["lung"].mask(k, labels=LABELS["lung"]) > 0)


def _write_all(
    name: str, volumes: dict[str, Volume], seen: dict, turn: Turn, store: Path, settings: dict, bar: tqdm
) -> tuple[list[dict], dict[str, int]]:
    """The second pass: the rows of what is kept, and how many were dropped for which reason."""
    depth, size = volumes["ct"].shape[2], settings["size"]
    recipe = settings["preparation"] == "minmax-clahe"
    chooses = recipe and not settings.get("all_slices")
    shown = (0.0, 255.0) if seen["windowed"] else settings["window"]
    unit = Intensity("grey" if seen["windowed"] else "hounsfield")
    shrink = _cubic_mask if recipe else _nearest_mask
    rows: list[dict] = []
    dropped: dict[str, int] = {}
    for k in range(depth):
        index = depth - 1 - k if turn.z else k
        bar.update()
        reason = None
        if chooses and not _in_middle(index, depth):
            reason = "outside the middle 60 %"
        elif seen["black"][k]:
            reason = "black"
        else:
            lung, infection = (volumes[part].mask(k, labels=LABELS[part]) for part in PARTS[1:])
            infection = (infection > 0) & (infection != EFFUSION)
            # A lung of a few voxels may be lost in the resize: what counts is the slice's own mask.
            masks = [shrink(turn.picture(mask), size) for mask in (lung > 0, infection)]
            if not masks[0].any():
                reason = "no lung"
            elif chooses and not masks[1].any():
                reason = "no infection"
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        picture = turn.picture(volumes["ct"].plane(k))
        if not recipe:
            grey = windowed(picture, size=size, window=shown)
        elif "ends" in settings:
            unit.mend([picture := picture.copy()])
            grey = minmax_clahe(unit.apply(picture), size=size, ends=unit.ends)
        else:  # a store that was begun before slices had ends in common
            grey = minmax_clahe(picture, size=size)
        rows.append(
            write_slice(store, name, index, (grey, masks[0], masks[1]), patient=settings.get("patient"))
        )
    return sorted(rows, key=lambda row: row["slice_index"]), dropped


def _in_middle(index: Any, depth: int) -> Any:
    return (index >= int(MIDDLE[0] * depth)) & (index < int(MIDDLE[1] * depth))


def windowed(
    picture: NDArray, *, size: int, window: tuple[float, float], pads: Any = None
) -> NDArray[np.uint8]:
    """(H, W) HU -> (size, size) grey: window to 0..255, zeros to a square, antialiased bicubic.

    Args:
        pads: zeros before and after the rows and the columns, in place of those that make as many of both.
    """
    low, high = window
    grey = (np.clip(picture, low, high).astype(np.float32) - low) * (255 / (high - low))
    # Pillow's bicubic widens its kernel when it shrinks: that is the antialiasing.
    square = Image.fromarray(_square(grey) if pads is None else np.pad(grey, pads))
    small = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.rint(np.clip(np.asarray(small), 0, 255)).astype(np.uint8)


def minmax_clahe(
    picture: NDArray, *, size: int, ends: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """The recipe of the prepared real slices: cubic resize, stretch to 0..255, CLAHE (limit 7, 8x8 tiles).

    Args:
        ends: what is black and white, the same for every slice (register row 70). None: the slice's own
            darkest and brightest pixel, as the recipe has it; one voxel of metal then darkens all others.
    """
    import cv2  # only this recipe needs OpenCV

    if ends:
        picture = without_spikes(np.clip(picture, *ends), most=SPIKE * (ends[1] - ends[0]))
    # Beyond +-1e6 there is no intensity, and float32 would lose what lies between.
    grey = _cubic(np.clip(picture, -1e6, 1e6), size)
    low, high = ends or (grey.min(), grey.max())
    spread = max(float(high - low), 1e-6)  # a flat slice stays flat
    grey = (np.clip((grey - low) / spread, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(clipLimit=7.0, tileGridSize=(8, 8)).apply(grey), np.uint8)


def without_spikes(picture: NDArray, *, most: float) -> NDArray[np.float32]:
    """(H, W) in which each pixel that lies outside the range of its eight neighbours by more than `most` is the median of 3 x 3."""
    import cv2

    picture = np.ascontiguousarray(picture, np.float32)
    around = np.ones((3, 3), np.uint8)
    around[1, 1] = 0
    low, high = cv2.erode(picture, around), cv2.dilate(picture, around)
    return np.where((picture > high + most) | (picture < low - most), cv2.medianBlur(picture, 3), picture)


def _cubic(picture: NDArray, size: int) -> NDArray[np.float32]:
    import cv2

    small = cv2.resize(np.ascontiguousarray(picture, np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(small, np.float32)


def _cubic_mask(mask: NDArray, size: int) -> NDArray[np.bool_]:
    return _cubic(mask, size) > 0.25


def _nearest_mask(mask: NDArray, size: int) -> NDArray[np.bool_]:
    whole = Image.fromarray(_square(mask.astype(np.uint8)))
    return np.asarray(whole.resize((size, size), Image.Resampling.NEAREST)) > 0


def _square(picture: NDArray) -> NDArray:
    """Zeros around the shorter side: one volume is not square, and stretching bends bodies."""
    rows, columns = picture.shape
    spare = [(abs(rows - columns) * (side < max(rows, columns))) for side in (rows, columns)]
    return np.pad(picture, [(s // 2, s - s // 2) for s in spare])


def write_slice(
    store: Path,
    name: str,
    index: int,
    images: tuple[NDArray, NDArray, NDArray],
    *,
    patient: str | None = None,
) -> dict[str, Any]:
    """Write CT, lung and infection of one slice as PNGs; returns its row of `slices.csv`.

    Args:
        patient: of a scan of one's own; None: source and patient follow from the canonical name.
    """
    slice_id = f"{name}_{index:03d}"
    row: dict[str, Any] = {
        "slice_id": slice_id, "source": SOURCE if patient else source_of(name), "volume": name,
        "patient": patient or patient_of(name), "slice_index": index,
    }  # fmt: skip
    for part, image in zip(PARTS, images, strict=True):
        (store / part).mkdir(parents=True, exist_ok=True)
        row[part] = f"{part}/{slice_id}.png"
        picture = Image.fromarray(image.astype(np.uint8) * (1 if part == "ct" else 255))
        if part != "ct":
            picture = picture.convert("1", dither=Image.Dither.NONE)
        # Run-length matching: on noisy greys as small as zlib's level 6, and several times as fast.
        picture.save(content := io.BytesIO(), format="PNG", compress_level=6, compress_type=zlib.Z_RLE)
        write_whole(store / row[part], content.getvalue())
    row["lung_pixels"], row["infection_pixels"] = int(images[1].sum()), int(images[2].sum())
    row["has_infection"] = bool(images[2].any())
    return row
