"""NIfTI volumes -> one slice store, the paper's data fusion (Sec. 4.1, Fig. 8).

    volumes/ct/<volume>.nii.gz          store/slices.csv      one row per slice, written last
    volumes/lung/<volume>.nii.gz   ->   store/store.json      what was done, kept and dropped
    volumes/infection/<volume>.nii.gz   store/{ct,lung,infection}/<slice_id>.png

A store without `slices.csv` is unfinished: call `fuse` again and it goes on where it stopped.
`store/.fusion/` remembers the finished volumes and who is writing. What happens to one volume
stands in `preparation`, which way up it goes in `orientation`, how its files are found in `own` and read in `nifti`.
"""

import csv
import gzip
import io
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from replication.data.fusing.preparation import PREPARATIONS, slices_of
from replication.data.names import PARTS, source_of
from replication.data.reading.intensity import BRIGHTEST, DARKEST, GREY, PATCH
from replication.data.reading.own import SOURCE, Own, find_scans, patient_of
from replication.files import alone, read_json, write_json, write_whole

COLUMNS = (
    "slice_id", "source", "volume", "patient", "slice_index", "ct", "lung", "infection",
    "lung_pixels", "infection_pixels", "has_infection", "duplicate_of",
)  # fmt: skip
REVISION = 2  # raise when the pixels change, so that an old store is not mixed with new slices


def fuse(
    volumes: str | os.PathLike,
    store: str | os.PathLike,
    *,
    size: int = 256,
    window: tuple[float, float] = (-1250.0, 250.0),
    preparation: str = "window",
    workers: int = 1,
    progress: bool = True,
    published: bool = False,
    own: Own | None = None,
    all_slices: bool = False,
    stated: dict[str, str] | None = None,
    patience: float = 0,
) -> dict[str, Any]:
    """Turn every volume under `volumes` into slices; returns what `store.json` says.

    The order of rows and every byte are the same for any number of workers. Memory stays at a few
    planes a worker; the disk holds, for a moment, what one volume a worker takes unpacked.

    Args:
        volumes: folder with `ct`, `lung` and `infection`, each holding the same volumes (`reading.own`).
        store: folder to write. A finished volume whose files have not changed is not redone.
        size: rows and columns of the slices.
        window: HU shown as 0 and 255. Volumes already within 0..255 are taken as they are.
        preparation: `window`: every slice with lung, padded to a square, antialiased resize, masks
            by nearest neighbour.
            `minmax-clahe`: the recipe of the prepared real slices: slices from 20 % to 80 % of
            the volume that hold infection, cubic resize, per-slice min-max, CLAHE (clip limit
            7, 8x8 tiles); masks cubic, threshold 0.25. It does not use `window`. The ends of the
            stretch are the same for every slice (register row 70), not each slice's own as in that
            recipe; a store that was begun with its slices' own goes on with them.
        workers: processes; volumes are shared out between them.
        progress: show a bar on stderr, over the planes where only one volume is left to do.
        published: the volumes are those of the paper's sources, or phantoms, under any of the names that
            `names.canonical` knows; how they lie and whose they are follows from these (register row 55).
            Otherwise headers decide, and names may be any.
        own: how volumes that are not published are read.
        all_slices: `minmax-clahe` keeps every slice with lung, as `window` does.
        stated: `name` of the scans and `licence`, in words; `data.slices.origin` reads them. What is not
            given stays as the store has it.
        patience: seconds to wait for another process that is writing the store.

    Raises:
        FileNotFoundError: `volumes` or its `ct` folder does not exist or holds no volume.
        ValueError: files are missing or named twice; the store was begun with other settings, or
            another process is writing it; or volumes could not be read. Then all others were
            finished, the error lists each failed one, and a rerun redoes only those.
    """
    volumes, store = Path(volumes), Path(store)
    if preparation not in PREPARATIONS:
        raise ValueError(f"preparation {preparation!r}: expected one of {', '.join(PREPARATIONS)}")
    if size < 8 or workers < 1 or not window[0] < window[1]:
        raise ValueError(
            f"size {size}, workers {workers}, window {window}: "
            "expected size >= 8, workers >= 1 and a window that rises"
        )
    settings: dict[str, Any] = {
        "preparation": preparation, "window": [float(v) for v in window], "size": size,
        "revision": REVISION, **({} if published else {"own": (own or Own()).settings()}),
        **({"all_slices": True} if all_slices and preparation == "minmax-clahe" else {}),
    }  # fmt: skip
    if preparation == "minmax-clahe":
        settings["ends"] = {"hounsfield": [DARKEST, BRIGHTEST], "grey": list(GREY), "patch": PATCH}
        before = read_json(store / ".fusion" / "settings.json")
        if before and "ends" not in before:  # begun when each slice had its own: it keeps them
            del settings["ends"]
    found = find_scans(volumes, published=published)
    whose = {} if published else {
        name: patient_of(name, paths["ct"], volumes, settings["own"]["patients"]) for name, paths in found.items()
    }  # fmt: skip
    memory = store / ".fusion"
    _check_settings(memory, settings)
    memory.mkdir(parents=True, exist_ok=True)
    with alone(memory, what="fusion", patience=patience):
        _check_settings(memory, settings)  # again: somebody may have begun it meanwhile
        write_json(memory / "settings.json", settings)
        told = _fuse(found, whose, store, settings, workers, progress)
        if news := {k: v for k, v in (stated or {}).items() if told.get("stated", {}).get(k) != v}:
            told["stated"] = told.get("stated", {}) | news
            write_json(store / "store.json", told)
        return told


def _fuse(
    found: dict, whose: dict, store: Path, settings: dict, workers: int, progress: bool
) -> dict[str, Any]:
    memory = store / ".fusion"
    for left in memory.glob(".*.part"):  # of a process that was killed while it wrote
        left.unlink()
    done: dict[str, dict] = {}
    for name, paths in found.items():
        record = read_json(memory / f"{name}.json")
        if record and record["files"] == _fingerprint(paths) and _complete(store, record):
            done[name] = record
    absent = {p.stem for p in memory.glob("*.json")} - set(found) - {"settings"}
    told = read_json(store / "store.json")
    if len(done) == len(found) and not absent and told and (store / "slices.csv").exists():
        return told
    (store / "slices.csv").unlink(missing_ok=True)
    for name in absent:
        _forget(store, name)

    todo = [name for name in found if name not in done]
    failed: dict[str, Exception] = {}
    bar = tqdm(total=len(found), initial=len(done), unit="volume", disable=not progress or len(todo) == 1)

    def settle(name: str, result: Callable[[], dict]) -> None:
        try:
            done[name] = result()
        except Exception as error:  # the others go on; what failed is raised at the end
            failed[name] = error
        bar.update()

    work = partial(
        _fuse_volume, store=store, settings=settings, whose=whose, progress=progress and len(todo) == 1
    )
    with bar:
        if workers == 1 or len(todo) < 2:
            for name in todo:
                settle(name, partial(work, name, found[name]))
        else:
            # spawn: a fork of a process that already runs torch's threads can hang.
            with ProcessPoolExecutor(min(workers, len(todo)), get_context("spawn")) as pool:
                jobs = {pool.submit(work, name, found[name]): name for name in todo}
                try:
                    for job in as_completed(jobs):
                        settle(jobs[job], job.result)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    if failed:
        lines = [f"  {name}: {_reason(failed[name])}" for name in sorted(failed)]
        raise ValueError(
            f"{len(failed)} of {len(found)} volumes could not be fused; the others are kept, and after "
            "mending these a rerun does only them:\n" + "\n".join(lines)
        ) from next(iter(failed.values()))
    return _finish(store, settings, [done[name] for name in sorted(done)], told.get("stated"))


def _fuse_volume(
    name: str, paths: dict[str, Path], *, store: Path, settings: dict, whose: dict, progress: bool
) -> dict[str, Any]:
    """Write the slices of one volume, then its record, whose presence says that it is done."""
    _forget(store, name)
    files = _fingerprint(paths)  # before reading: a file that changes meanwhile is done again
    if name in whose:
        settings = settings | {"patient": whose[name]}
    record = slices_of(name, paths, store=store, settings=settings, progress=progress)
    record |= {"drawn": _is_drawn(paths["ct"]), "files": files}
    write_json(store / ".fusion" / f"{name}.json", record)
    return record


def _reason(error: Exception) -> str:
    if isinstance(error, BrokenExecutor):
        return "a worker process ended abruptly (killed, or out of memory?); try fewer workers"
    return str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"


# ---- the store's memory ----------------------------------------------------------------------
def _check_settings(memory: Path, settings: dict) -> None:
    before = read_json(memory / "settings.json")
    if before and before != settings:
        raise ValueError(
            f"{memory.parent}: this store was begun with {before}, now {settings} is asked; "
            "choose another folder or delete this one"
        )
    if not before and (memory.parent / "slices.csv").exists():
        raise ValueError(
            f"{memory.parent}: holds a slices.csv that no fusion wrote here; choose another folder"
        )


def _finish(store: Path, settings: dict, records: list[dict], stated: dict | None) -> dict[str, Any]:
    rows = [row for record in records for row in record["rows"]]
    if not rows:
        raise ValueError(
            f"{store}: every slice of {len(records)} volumes was dropped "
            f"({[r['dropped'] for r in records][:3]}); are the masks those of these volumes?"
        )
    from replication.data.fusing.duplicates import find_duplicates

    copies = find_duplicates(rows, store)
    for row in rows:
        row["duplicate_of"] = copies.get(row["slice_id"], "")
    counts: dict[str, Counter] = {}
    for record in records:
        source = SOURCE if "own" in settings else source_of(record["volume"])
        counts.setdefault(source, Counter()).update(record["counts"])
    told = {
        "preparation": settings["preparation"], "window": settings["window"],
        **{k: v for k, v in (*((k, settings.get(k)) for k in ("all_slices", "ends")), ("stated", stated)) if v},
        "size": settings["size"], "slices_in": sum(r["slices_in"] for r in records),
        "slices_out": len(rows), "counts": {source: dict(c) for source, c in counts.items()},
        "duplicates": _copied_volumes(rows),
        "volumes": {
            r["volume"]: {
                "slices_in": r["slices_in"], "slices_out": len(r["rows"]),
                **{k: v for k, v in r.items() if k not in ("volume", "files", "rows", "slices_in")},
            }
            for r in records
        },
    }  # fmt: skip
    write_json(store / "store.json", told)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(store / "slices.csv", table.getvalue())
    return told


def _copied_volumes(rows: list[dict]) -> dict[str, str]:
    """Volume -> the volume that most of its duplicate slices repeat."""
    volume = {row["slice_id"]: row["volume"] for row in rows}
    copies: dict[str, Counter] = {}
    for row in rows:
        if row["duplicate_of"]:
            copies.setdefault(row["volume"], Counter())[volume[row["duplicate_of"]]] += 1
    return {name: originals.most_common(1)[0][0] for name, originals in copies.items()}


def _forget(store: Path, name: str) -> None:
    """Remove what an earlier or interrupted run left of a volume."""
    (store / ".fusion" / f"{name}.json").unlink(missing_ok=True)
    own = re.compile(
        rf"(\.\d+\.)?{re.escape(name)}_\d{{3,}}\.png(\.part)?"
    )  # parts: of a run that was killed
    for part in PARTS:
        for path in (store / part).glob(f"*{name}_*.png*"):
            if own.fullmatch(path.name):
                path.unlink()


def _complete(store: Path, record: dict) -> bool:
    return all((store / row[part]).exists() for row in record["rows"] for part in PARTS)


def _fingerprint(paths: dict[str, Path]) -> dict[str, list]:
    files = {part: [p for p in path.rglob("*") if p.is_file()] or [path] for part, path in paths.items()}
    stats = {part: [path.stat() for path in of] for part, of in files.items()}
    return {
        part: [paths[part].name, sum(s.st_size for s in of), max(s.st_mtime_ns for s in of)]
        for part, of in stats.items()
    }


def _is_drawn(path: Path) -> bool:
    """Whether a volume says of itself that it is a phantom's, as `replication.data.phantom` writes it."""
    if path.is_dir():
        return False
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as file:
        return b'"phantom"' in file.read(348)[148:228]  # NIfTI's descrip
