"""NIfTI volumes -> one slice store, the paper's data fusion (Sec. 4.1, Fig. 8).

    volumes/ct/<volume>.nii.gz          store/slices.csv      one row per slice, written last
    volumes/lung/<volume>.nii.gz   ->   store/store.json      what was done, kept and dropped
    volumes/infection/<volume>.nii.gz   store/{ct,lung,infection}/<slice_id>.png

A store without `slices.csv` is unfinished: call `fuse` again and it goes on where it stopped.
`store/.fusion/` remembers the finished volumes.

The paper gives neither intensity window nor filter: we window to [-1250, 250] HU (register row 16)
and drop slices without lung (row 15). Infection labels 1 and 2 count, pleural effusion (3) does
not (row 17).
"""

import csv
import gzip
import json
import os
import re
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

PARTS = ("ct", "lung", "infection")
COLUMNS = (
    "slice_id", "source", "volume", "patient", "slice_index", "ct", "lung", "infection",
    "lung_pixels", "infection_pixels", "has_infection",
)  # fmt: skip
SOURCES = ("coronacases", "radiopaedia")
PREPARATIONS = ("window", "minmax-clahe")
REVERSED_IN_Z = ("radiopaedia_7_85703_0",)
REPEATED_STUDIES = ("radiopaedia_10_85902",)  # one patient, several volumes
INFECTION_LABELS = (1, 2)
REVISION = 1  # raise when the pixels change, so that an old store is not mixed with new slices


def patient_of(volume: str) -> str:
    """The patient that a volume shows: 20 volumes are 19 patients."""
    return next((s for s in REPEATED_STUDIES if volume.startswith(s + "_")), volume)


def source_of(volume: str) -> str:
    """`coronacases` or `radiopaedia`; ValueError for a name that tells neither."""
    source = volume.split("_")[0]
    if source not in SOURCES:
        raise ValueError(
            f"volume {volume!r}: expected a name that begins with coronacases_ or radiopaedia_, "
            "because orientation and patient follow from it; rename the three files"
        )
    return source


def fuse(
    volumes: str | os.PathLike,
    store: str | os.PathLike,
    *,
    size: int = 256,
    window: tuple[float, float] = (-1250.0, 250.0),
    preparation: str = "window",
    workers: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Turn every volume under `volumes` into slices; returns what `store.json` says.

    The order of rows and every byte are the same for any number of workers.

    Args:
        volumes: folder with `ct`, `lung` and `infection`, each holding the same file names.
        store: folder to write. A finished volume whose files have not changed is not redone.
        size: rows and columns of the slices.
        window: HU shown as 0 and 255. Volumes already within 0..255 are taken as they are.
        preparation: `window`: every slice with lung, padded to a square, antialiased resize.
            `minmax-clahe`: the recipe of the prepared real slices: slices from 20 % to 80 % of
            the volume that hold infection, cubic resize, per-slice min-max, CLAHE (clip limit
            7, 8x8 tiles); masks cubic, threshold 0.25. It does not use `window`.
        workers: processes; volumes are shared out between them.
        progress: show a bar on stderr.

    Raises:
        FileNotFoundError: `volumes` or its `ct` folder does not exist or holds no volume.
        ValueError: a volume is unreadable, lacks a mask, has another shape or strange values,
            or the store was begun with other settings.
    """
    volumes, store = Path(volumes), Path(store)
    if preparation not in PREPARATIONS:
        raise ValueError(f"preparation {preparation!r}: expected one of {', '.join(PREPARATIONS)}")
    if size < 8 or workers < 1 or not window[0] < window[1]:
        raise ValueError(
            f"size {size}, workers {workers}, window {window}: "
            "expected size >= 8, workers >= 1 and a window that rises"
        )
    settings = {
        "preparation": preparation, "window": [float(v) for v in window], "size": size,
        "revision": REVISION,
    }  # fmt: skip
    found = find_volumes(volumes)
    memory = store / ".fusion"
    _begin(memory, settings)
    done: dict[str, dict] = {}
    for name, paths in found.items():
        record = _read_json(memory / f"{name}.json")
        if record and record["files"] == _fingerprint(paths) and _complete(store, record):
            done[name] = record
    absent = {p.stem for p in memory.glob("*.json")} - set(found) - {"settings"}
    if len(done) == len(found) and not absent and (store / "slices.csv").exists():
        return _finish(store, settings, done)
    (store / "slices.csv").unlink(missing_ok=True)
    for name in absent:
        _forget(store, name)

    todo = [name for name in found if name not in done]
    work = partial(_fuse_volume, store=store, settings=settings)
    with tqdm(total=len(found), initial=len(done), unit="volume", disable=not progress) as bar:
        if workers == 1 or len(todo) < 2:
            for name in todo:
                done[name] = work(name, found[name])
                bar.update()
        else:
            # spawn: a fork of a process that already runs torch's threads can hang.
            with ProcessPoolExecutor(min(workers, len(todo)), get_context("spawn")) as pool:
                jobs = {pool.submit(work, name, found[name]): name for name in todo}
                try:
                    for job in as_completed(jobs):
                        done[jobs[job]] = job.result()
                        bar.update()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    return _finish(store, settings, done)


def find_volumes(volumes: str | os.PathLike) -> dict[str, dict[str, Path]]:
    """Names and files of the volumes in a folder, sorted; see `fuse` for layout and errors."""
    folder = Path(volumes)
    if not (folder / "ct").is_dir():
        raise FileNotFoundError(
            f"{folder / 'ct'}: no such folder; expected ct, lung and infection with one .nii.gz "
            "per volume (python -m chslib.data phantom writes such a folder)"
        )
    # A leading dot marks a file that somebody is still writing.
    scans = [p for p in sorted((folder / "ct").iterdir()) if _name(p) and p.name[0] != "."]
    if not scans:
        raise FileNotFoundError(f"{folder / 'ct'}: holds no .nii.gz or .nii file")
    found = {}
    for scan in scans:
        name = _name(scan)
        source_of(name)
        if name in found:
            raise ValueError(f"{scan.parent}: {name} lies there twice; keep .nii or .nii.gz")
        found[name] = {"ct": scan}
        for part in PARTS[1:]:
            choices = [folder / part / f"{name}{suffix}" for suffix in (".nii.gz", ".nii")]
            path = next((p for p in choices if p.exists()), None)
            if path is None:
                raise ValueError(
                    f"{name}: the {part} mask {choices[0]} is missing; "
                    f"put it there, or take {scan.name} out of {scan.parent}"
                )
            found[name][part] = path
    return found


def _name(path: Path) -> str | None:
    match = re.fullmatch(r"(.+?)\.nii(\.gz)?", path.name)
    return match[1] if match else None


# ---- one volume ----------------------------------------------------------------------------
class _Stored:
    """The planes of one NIfTI file, read one at a time; errors name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self:
            if path.suffix == ".gz":  # planes never reach the checksum at the end: read to it once
                with gzip.open(path) as packed:
                    while packed.read(1 << 20):
                        pass
            # One open handle reads a gzip once; without it every plane unpacks from the start.
            self.image = nib.load(path, keep_file_open=True)
        self.shape = self.image.shape
        if len(self.shape) != 3:
            raise ValueError(f"{path}: shape {self.shape}; expected 3 dimensions (x, y, slice)")

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        # nibabel raises ValueError, too, when a plane is not all there.
        kinds = (EOFError, OSError, ValueError, zlib.error, nib.filebasedimages.ImageFileError)
        if isinstance(error, kinds):
            raise ValueError(
                f"{self.path}: cannot be read to its end ({error}); the file is damaged or cut "
                "short, fetch it again"
            ) from error

    def plane(self, k: int) -> NDArray:
        with self:
            plane = np.asanyarray(self.image.dataobj[:, :, k])
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise ValueError(
                f"{self.path}: slice {k} holds NaN or infinite voxels; expected finite "
                "intensities, replace them (for air: -1000 HU) or fetch the file again"
            )
        return plane

    def mask(self, k: int, allowed: tuple[int, ...]) -> NDArray:
        plane = self.plane(k)
        strange = ~np.isin(plane, allowed)
        if strange.any():
            values = np.unique(plane[strange])[:5].tolist()
            raise ValueError(
                f"{self.path}: slice {k} holds the values {values}; expected only "
                f"{', '.join(map(str, allowed))}; is this another kind of mask?"
            )
        return plane


def _fuse_volume(name: str, paths: dict[str, Path], *, store: Path, settings: dict) -> dict:
    """Write the slices of one volume, then its record, whose presence says that it is done."""
    _forget(store, name)
    files = _fingerprint(paths)  # before reading: a file that changes meanwhile is done again
    ct, lung, infection = (_Stored(paths[part]) for part in PARTS)
    for mask in (lung, infection):
        if mask.shape != ct.shape:
            raise ValueError(
                f"{mask.path}: shape {mask.shape}, but {ct.path} has {ct.shape}; expected equal "
                "shapes, take both files from the same release"
            )
    source, depth = source_of(name), ct.shape[2]
    extremes = [(p.min(), p.max()) for p in map(ct.plane, range(depth))]
    low, high = min(e[0] for e in extremes), max(e[1] for e in extremes)
    windowed = bool(low >= 0 and high <= 255)
    recipe = settings["preparation"] == "minmax-clahe"
    rows, dropped = [], {}
    for k in range(depth):
        index = depth - 1 - k if name in REVERSED_IN_Z else k
        truth = lung.mask(k, (0, 1, 2)), infection.mask(k, (0, 1, 2, 3))
        planes = ct.plane(k), truth[0] > 0, np.isin(truth[1], INFECTION_LABELS)
        planes = [_upright(p, source) for p in planes]
        if recipe:
            images = _minmax_clahe(*planes, size=settings["size"])
        else:
            shown = (0.0, 255.0) if windowed else settings["window"]
            images = _windowed(*planes, size=settings["size"], window=shown)
        reason = None
        if recipe and not int(0.2 * depth) <= index < int(0.8 * depth):
            reason = "outside the middle 60 %"
        elif not images[1].any():
            reason = "no lung"
        elif recipe and not images[2].any():
            reason = "no infection"
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        rows.append(_write_slice(store, name, index, images))
    rows.sort(key=lambda row: row["slice_index"])
    record = {
        "volume": name, "files": files, "rows": rows, "dropped": dropped,
        "slices_in": depth, "already_windowed": windowed,
    }  # fmt: skip
    _write_json(store / ".fusion" / f"{name}.json", record)
    return record


def _upright(plane: NDArray, source: str) -> NDArray:
    """The picture with the spine at the bottom and the patient's right on the left."""
    picture = np.rot90(plane)
    return picture[::-1] if source == "radiopaedia" else picture


def _windowed(
    ct: NDArray, lung: NDArray, infection: NDArray, *, size: int, window: tuple[float, float]
) -> tuple[NDArray, NDArray, NDArray]:
    low, high = window
    grey = (np.clip(ct.astype(np.float32), low, high) - low) * (255 / (high - low))
    # Pillow's bicubic widens its kernel when it shrinks: that is the antialiasing.
    grey = Image.fromarray(_square(grey)).resize((size, size), Image.Resampling.BICUBIC)
    masks = [
        np.asarray(
            Image.fromarray(_square(m.astype(np.uint8))).resize((size, size), Image.Resampling.NEAREST)
        ).astype(bool)
        for m in (lung, infection)
    ]
    return np.rint(np.clip(np.asarray(grey), 0, 255)).astype(np.uint8), *masks


def _square(plane: NDArray) -> NDArray:
    """Zeros around the shorter side: one volume is not square, and stretching bends bodies."""
    rows, columns = plane.shape
    spare = [(abs(rows - columns) * (side < max(rows, columns))) for side in (rows, columns)]
    return np.pad(plane, [(s // 2, s - s // 2) for s in spare])


def _minmax_clahe(
    ct: NDArray, lung: NDArray, infection: NDArray, *, size: int
) -> tuple[NDArray, NDArray, NDArray]:
    import cv2  # only this recipe needs OpenCV

    def shrink(plane: NDArray) -> NDArray:
        plane = np.ascontiguousarray(plane, np.float32)
        return cv2.resize(plane, (size, size), interpolation=cv2.INTER_CUBIC)

    grey = shrink(ct)
    spread = max(float(grey.max() - grey.min()), 1e-6)  # a flat slice stays flat
    grey = ((grey - grey.min()) / spread * 255).astype(np.uint8)
    grey = cv2.createCLAHE(clipLimit=7.0, tileGridSize=(8, 8)).apply(grey)
    return grey, shrink(lung) > 0.25, shrink(infection) > 0.25


def _write_slice(
    store: Path, name: str, index: int, images: tuple[NDArray, NDArray, NDArray]
) -> dict[str, Any]:
    slice_id = f"{name}_{index:03d}"
    row = {
        "slice_id": slice_id, "source": source_of(name), "volume": name,
        "patient": patient_of(name), "slice_index": index,
    }  # fmt: skip
    for part, image in zip(PARTS, images, strict=True):
        (store / part).mkdir(parents=True, exist_ok=True)
        row[part] = f"{part}/{slice_id}.png"
        picture = Image.fromarray(image.astype(np.uint8) * (1 if part == "ct" else 255))
        if part != "ct":
            picture = picture.convert("1", dither=Image.Dither.NONE)
        picture.save(store / row[part], compress_level=6)
    row["lung_pixels"], row["infection_pixels"] = int(images[1].sum()), int(images[2].sum())
    row["has_infection"] = bool(images[2].any())
    return row


# ---- the store's memory ----------------------------------------------------------------------
def _begin(memory: Path, settings: dict) -> None:
    before = _read_json(memory / "settings.json")
    if before is not None and before != settings:
        raise ValueError(
            f"{memory.parent}: this store was begun with {before}, now {settings} is asked; "
            "choose another folder or delete this one"
        )
    if before is None and (memory.parent / "slices.csv").exists():
        raise ValueError(
            f"{memory.parent}: holds a slices.csv that no fusion wrote here; choose another folder"
        )
    memory.mkdir(parents=True, exist_ok=True)
    if before is None:
        _write_json(memory / "settings.json", settings)


def _finish(store: Path, settings: dict, done: dict[str, dict]) -> dict[str, Any]:
    records = [done[name] for name in sorted(done)]
    rows = [row for record in records for row in record["rows"]]
    if not rows:
        raise ValueError(
            f"{store}: every slice of {len(records)} volumes was dropped "
            f"({[r['dropped'] for r in records][:3]}); are the masks those of these volumes?"
        )
    told = {
        "preparation": settings["preparation"], "window": settings["window"],
        "size": settings["size"], "slices_in": sum(r["slices_in"] for r in records),
        "slices_out": len(rows),
        "volumes": {
            r["volume"]: {
                "slices_in": r["slices_in"], "slices_out": len(r["rows"]),
                "dropped": dict(sorted(r["dropped"].items())),
                "already_windowed": r["already_windowed"],
            }
            for r in records
        },
    }  # fmt: skip
    _write_json(store / "store.json", told)
    temporary = store / f".slices.{os.getpid()}.csv"
    with open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, store / "slices.csv")
    return told


def _forget(store: Path, name: str) -> None:
    """Remove what an earlier or interrupted run left of a volume."""
    (store / ".fusion" / f"{name}.json").unlink(missing_ok=True)
    for part in PARTS:
        for path in (store / part).glob(f"{name}_*.png"):
            if re.fullmatch(rf"{re.escape(name)}_\d{{3,}}\.png", path.name):
                path.unlink()


def _complete(store: Path, record: dict) -> bool:
    return all((store / row[part]).exists() for row in record["rows"] for part in PARTS)


def _fingerprint(paths: dict[str, Path]) -> dict[str, list]:
    stats = {part: path.stat() for part, path in paths.items()}
    return {part: [paths[part].name, s.st_size, s.st_mtime_ns] for part, s in stats.items()}


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # never written, or spoilt: either way the volume is done again


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}.part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
