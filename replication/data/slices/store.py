"""The slice store: a folder with `slices.csv` and three PNGs a slice, read as a torch Dataset.

The phantom, the official downloads and prepared real slices all end in this format (Sec. 4.1:
256 x 256 slices, each with a lung mask and an infection mask).
"""

import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from replication.data.names import PARTS
from replication.data.slices.origin import Origin, read_origin

COLUMNS = ("slice_id", "source", "volume", "patient", "slice_index", "ct", "lung", "infection")
TEXT = (*(c for c in COLUMNS if c != "slice_index"), "duplicate_of")  # "000" is a name, not a number
NUMBERS = ("slice_index", "lung_pixels", "infection_pixels")
REPEATS = 5  # lines that `check_store` gives to one kind of problem
TARGETS = {"lungs": "lung", "infection": "infection"}  # stage of the cascade -> column of the store


def read_table(store: str | Path) -> pd.DataFrame:
    """Read and check `slices.csv`, one row a slice.

    Raises:
        FileNotFoundError: no such folder, or no `slices.csv` in it.
        ValueError: an empty table, a missing column, an empty cell, or a slice_id twice.
    """
    store = Path(store)
    path = store / "slices.csv"
    if not store.is_dir():
        raise FileNotFoundError(
            f"{store}: no such folder; expected a slice store (slices.csv, ct/, lung/, infection/)."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; expected a slice store. Make one with: chs-net data fuse VOLUMES {store}"
        )
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str))
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} could not be read as CSV ({error}); expected the columns {', '.join(COLUMNS)}."
        ) from error
    if missing := [c for c in COLUMNS if c not in table.columns]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}.")
    if table.empty:
        raise ValueError(f"{path} holds no slice, only a header; expected one row a slice.")
    if (empty := table[list(COLUMNS)].isna().any(axis=1)).any():
        rows = ", ".join(str(i + 2) for i in np.flatnonzero(empty)[:5])
        raise ValueError(
            f"{path} has empty cells in line {rows}; every one of {', '.join(COLUMNS)} is needed."
        )
    for column in [c for c in NUMBERS if c in table.columns]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        if (wrong := numbers.isna()).any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"{path}, line {row + 2}: {column} is {table[column].iloc[row]!r}; expected a number."
            )
        table[column] = numbers.astype(int)
    if (twice := table["slice_id"].duplicated()).any():
        raise ValueError(
            f"{path} names {table['slice_id'][twice].iloc[0]!r} more than once; slice_id must be unique."
        )
    return table


def _read_png(path: Path, kind: str) -> np.ndarray:
    """One PNG as uint8 (H, W): 0..255 for a CT, 0/1 for a mask."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though slices.csv names it as a {kind} image.")
    try:
        with Image.open(path) as image:
            if kind == "ct" and image.mode != "L":
                raise ValueError(f"{path} has mode {image.mode}; expected an 8-bit grey CT (mode L).")
            # A palette's indices are the mask; its colours are decoration.
            pixels = np.asarray(image if image.mode in ("L", "P") else image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} could not be read as an image ({error}); replace it or drop its row."
        ) from error
    if kind == "ct":
        return pixels
    values = np.unique(pixels)
    if not (set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}):
        raise ValueError(
            f"{path} holds values {values[:6].tolist()}...; expected a two-valued mask (1-bit PNG, or 0/255)."
        )
    return (pixels > 0).astype(np.uint8)


def _read_slice(store: Path, row: "pd.Series") -> dict[str, np.ndarray]:
    images = {kind: _read_png(store / row[kind], kind) for kind in PARTS}
    shape = images["ct"].shape
    for kind in ("lung", "infection"):
        if images[kind].shape != shape:
            raise ValueError(
                f"{store / row[kind]} is {images[kind].shape[0]}x{images[kind].shape[1]} but its CT is "
                f"{shape[0]}x{shape[1]}; a mask must have the size of its slice."
            )
    return images


def at_size(pixels: np.ndarray, size: int, kind: str) -> np.ndarray:
    """A square slice (side, side) at the size that a network is trained on: a CT by area averaging, a mask by its nearest."""
    if pixels.shape == (size, size):
        return pixels
    how = Image.Resampling.BOX if kind == "ct" else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((size, size), how))


def check_store(store: str | Path, *, progress: bool = False) -> list[str]:
    """Everything that is wrong with a store, a line each; an empty list for a good one.

    Unlike `read_store`, which stops at the first problem, this reads every image. Of each kind of
    problem the first `REPEATS` are told, then how many more there are. Unknown columns are fine, and
    so is infection outside the lung mask, which annotators do draw.
    """
    store = Path(store)
    try:
        table = read_table(store)
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    problems = _table_problems(table, store / "slices.csv")
    shapes: dict[tuple[int, int], int] = {}
    rows = (row for _, row in table.iterrows())
    for row in tqdm(rows, total=len(table), desc="check", unit="slice", disable=not progress):
        if outside := [row[kind] for kind in PARTS if _leaves(row[kind])]:
            problems["path"] += [
                f"{store}: {row['slice_id']} names {path!r}, outside the store; expected a relative path below it."
                for path in outside
            ]
            continue
        try:
            images = _read_slice(store, row)
        except (FileNotFoundError, ValueError) as error:
            problems["image"].append(str(error))
            continue
        shapes[images["ct"].shape] = shapes.get(images["ct"].shape, 0) + 1
        if not images["ct"].any():
            problems["black"].append(f"{store / row['ct']} is all black; drop its row.")
        if not images["lung"].any():
            problems["no lung"].append(
                f"{store / row['lung']} is empty; a slice without lung has no place here."
            )
        for kind in ("lung", "infection"):
            pixels = int(images[kind].sum())
            stated = row.get(f"{kind}_pixels")
            if stated is not None and int(stated) != pixels:
                problems["pixels"].append(
                    f"{store / row[kind]} has {pixels} positive pixels; slices.csv says {int(stated)}."
                )
    named = {os.path.normpath(path) for kind in PARTS for path in table[kind]}
    for kind in PARTS:
        found = sorted(p.relative_to(store) for p in (store / kind).rglob("*.png"))
        problems["unnamed"] += [
            f"{store / path} is named by no row of slices.csv; delete it or add its row."
            for path in found
            if str(path) not in named
        ]
    if oblong := [shape for shape in shapes if shape[0] != shape[1]]:
        problems["oblong"].append(
            f"{store} holds slices of {oblong[0][0]}x{oblong[0][1]}; expected square ones."
        )
    if len(shapes) > 1:
        problems["sizes"].append(
            f"{store} mixes slice sizes: "
            + ", ".join(f"{n} of {h}x{w}" for (h, w), n in shapes.items())
            + "."
        )
    return [line for kind in problems.values() for line in _capped(kind)]


def _capped(lines: list[str]) -> list[str]:
    more = len(lines) - REPEATS
    return (
        lines
        if more <= 0
        else [*lines[: REPEATS - 1], f"{lines[REPEATS - 1]} (and {more} more of this kind)"]
    )


def _leaves(path: str) -> bool:
    """Whether a path of the table points outside the store, by its letters: links are allowed."""
    return os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir


def _table_problems(table: pd.DataFrame, path: Path) -> defaultdict[str, list[str]]:
    """What `slices.csv` says against itself, by kind."""
    problems: defaultdict[str, list[str]] = defaultdict(list)
    for column in ("patient", "source"):
        for volume, names in table.groupby("volume")[column].unique().items():
            if len(names) > 1:
                problems[column].append(
                    f"{path}: volume {volume} has the {column}s {', '.join(sorted(names))}; expected one."
                )
    twice = table[table.duplicated(["volume", "slice_index"], keep=False)]
    for (volume, index), ids in twice.groupby(["volume", "slice_index"])["slice_id"]:
        problems["index"].append(
            f"{path}: {', '.join(ids)} are all slice_index {index} of {volume}; expected one slice a position."
        )
    for kind in PARTS:
        for name, ids in table[table.duplicated(kind, keep=False)].groupby(kind)["slice_id"]:
            problems["shared"].append(
                f"{path}: {', '.join(ids)} share the {kind} image {name}; expected one each."
            )
    if {"has_infection", "infection_pixels"} <= set(table):
        for name, flag, pixels in zip(table["slice_id"], table["has_infection"], table["infection_pixels"]):
            if str(flag).lower() not in (("true", "1") if pixels > 0 else ("false", "0")):
                problems["flag"].append(
                    f"{path}: {name} has has_infection {flag}, but {pixels} infection_pixels; expected {pixels > 0}."
                )
    if "duplicate_of" in table:
        of = dict(zip(table["slice_id"], table["duplicate_of"]))
        for name, original in of.items():
            if pd.isna(original):
                continue
            if original == name:
                fault = "itself; leave the cell of an original empty"
            elif original not in of:
                fault = f"{original!r}, which no row has; name a slice of this store"
            elif pd.notna(of[original]):
                fault = f"{original}, itself a duplicate of {of[original]}; name the first original"
            else:
                continue
            problems["duplicate"].append(f"{path}: {name} is a duplicate of {fault}.")
    return problems


@dataclass
class SliceStore:
    """A store in memory at one size.

    Attributes:
        table: one row a slice, as in `slices.csv`.
        ct, lung, infection: uint8 arrays (S, size, size); CT 0..255, masks 0/1.
        fingerprint: sha256 over ids and decoded pixels at their stored size, so that a lossless
            re-encoding keeps it and any changed pixel changes it.
        origin: how the slices were prepared, of whose scans; None: not known.
    """

    table: pd.DataFrame
    ct: np.ndarray
    lung: np.ndarray
    infection: np.ndarray
    fingerprint: str
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.table)


def read_store(store: str | Path, *, size: int, progress: bool = True) -> SliceStore:
    """Read a whole store into memory, CT resized by area averaging and masks by nearest neighbour.

    Args:
        store: folder with `slices.csv`.
        size: side of the square slices that come out, pixels; a multiple of 16 for the network.

    Raises:
        FileNotFoundError, ValueError: as `read_table`; or a missing or unreadable image, a mask of
            another size or with more than two values, slices of more than one shape.
    """
    store = Path(store)
    table = read_table(store)
    digest = hashlib.sha256()
    stacks = {kind: np.empty((len(table), size, size), dtype=np.uint8) for kind in PARTS}
    rows = (row for _, row in table.iterrows())
    shape = None
    bar = tqdm(
        rows, total=len(table), desc=f"reading {store.name}", unit="slice", disable=not progress, leave=False
    )
    for i, row in enumerate(bar):
        images = _read_slice(store, row)
        shape = shape or images["ct"].shape
        if images["ct"].shape != shape or shape[0] != shape[1]:
            raise ValueError(
                f"{store / row['ct']} is {images['ct'].shape}; expected square slices of one size ({shape[0]}x{shape[0]})."
            )
        digest.update(row["slice_id"].encode())
        for kind in PARTS:
            digest.update(images[kind].tobytes())
            stacks[kind][i] = at_size(images[kind], size, kind)
    fingerprint = digest.hexdigest()
    return SliceStore(table=table, fingerprint=fingerprint, origin=read_origin(store, fingerprint), **stacks)
