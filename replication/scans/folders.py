"""What of a folder is a scan, and why the rest is none: by what files hold, without reading voxels."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replication.data.names import PARTS, stem
from replication.data.reading.formats import has_simpleitk
from replication.data.reading.kinds import BY_SIMPLEITK, OTHERS, files_below, is_dicom, is_result, kind_of
from replication.data.reading.own import named_scans
from replication.data.reading.series import FEWEST
from replication.data.reading.slices import Slice, slices_of

NEVER = ("text", "pdf", "picture", "tiff", "numpy", "unknown")  # nobody takes these for a scan


@dataclass(frozen=True)
class LeftOut:
    """Something that is not read, and why; `amiss` where somebody may have meant it to be."""

    path: Path
    why: str
    amiss: bool = True

    def __str__(self) -> str:
        return f"{self.path}: left out: {self.why}"


@dataclass
class Folder:
    """Name of each scan's results -> the scan, what was left out, and what else is odd. One scan alone is called ""."""

    scans: dict[str, Path] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_through(path: str | os.PathLike, *, out: str | os.PathLike | None = None) -> Folder:
    """The scans at a path: one file, one DICOM folder, or a folder of such, with folders in it.

    A folder with DICOM files somewhere below is one scan; of one that `data fuse` reads, `ct` is looked through. Links are followed. Hidden files, results of
    `chs-net segment` and `out` are no input.

    Raises:
        FileNotFoundError: nothing there, or nothing that is a scan; the message says what was found.
        ValueError: results of `chs-net segment`, or two scans whose results would be one folder.
    """
    path = Path(path)
    if path.is_file():
        return Folder({"": path})
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such file or folder; expected a NIfTI file, a DICOM folder or a folder of such"
        )
    if is_result(path):
        raise ValueError(f"{path}: holds the results of chs-net segment; give the scan that they are of")
    if all(
        (path / part).is_dir() for part in PARTS
    ):  # annotated, as `data fuse` reads them: their masks are no scans
        ct, *masks = (path / part for part in PARTS)
        why = "masks of annotated scans"
        return Folder(dict(named_scans(ct)), [LeftOut(mask, why, amiss=False) for mask in masks])
    found, loose = Folder(), _loose_dicom(path)
    one = _belong_together(loose)
    here = _entries(path, found, Path(out).resolve() if out else None, with_dicom=not one)
    for name, entry in [*here, *([] if one else _multi_frame(loose, found))]:
        if name in found.scans:
            raise ValueError(f"{found.scans[name]} and {entry} would both be written to {name}/; rename one")
        found.scans[name] = entry
    if one:
        why = "it lies beside a DICOM series; segment it by itself"
        return Folder({"": path}, [*found.left_out, *(LeftOut(p, why) for p in found.scans.values())])
    for name, entry in found.scans.items():
        if above := next((n for n in found.scans if name.startswith(f"{n}/")), None):
            raise ValueError(
                f"{found.scans[above]} and {entry} would both be written to {above}/; rename one"
            )
    if not found.scans:
        told = "".join(f"\n  {one}" for one in found.left_out)
        raise FileNotFoundError(f"{path}: holds no NIfTI file and no folder with DICOM files{told}")
    found.notes = list(_split(found.scans.values()))
    return found


def _split(scans: Iterable[Path]) -> Iterator[str]:
    """Folders with DICOM files of one series: parts of one scan, or copies."""
    series: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in scans:
        held = _held(first)[0] if (first := next(filter(is_dicom, files_below(folder)), None)) else []
        if held and held[0].names[0]:
            series[held[0].names[0]].append(folder)
    for folders in series.values():
        if len(folders) > 1:
            yield (
                f"{', '.join(map(str, folders))}: the same series, read as {len(folders)} scans; if they are parts of one, put "
                "their files into one folder"
            )


def _loose_dicom(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.name[0] != "." and p.is_file() and is_dicom(p)]


def _belong_together(loose: list[Path]) -> bool:
    """Whether DICOM files that lie in a folder are one scan, and not multi-frame files that hold one each."""
    if any(p.name == "DICOMDIR" for p in loose):
        return True
    held = [_held(path)[0] for path in loose[:2]]
    if len(held) == 2 and min(map(len, held)) >= FEWEST:
        return held[0][0].names == held[1][0].names
    return len(loose) >= FEWEST


def _held(path: Path) -> tuple[list[Slice], str]:
    """The slices in a DICOM file, and why it is no scan by itself."""
    try:
        return slices_of(path), "one DICOM slice of a scan; give the folder with all of them"
    except ValueError as error:
        return [], f"a DICOM file that is no CT slice ({error})"


def _multi_frame(loose: list[Path], found: Folder) -> Iterator[tuple[str, Path]]:
    """Of DICOM files that lie alone, those that hold a scan each."""
    for path in loose:
        slices, why = _held(path)
        if len(slices) >= FEWEST:
            yield path.name.removesuffix(".dcm"), path
        else:
            found.left_out.append(LeftOut(path, why))


def _entries(
    folder: Path, found: Folder, out: Path | None, *, with_dicom: bool = True, above: tuple[Path, ...] = ()
) -> Iterator[tuple[str, Path]]:
    """Name and path of each scan in a folder; what is none goes to `found.left_out`."""
    above = (*above, folder.resolve())
    for entry in sorted(p for p in folder.iterdir() if p.name[0] != "."):
        name = (stem(entry.name) or entry.name.split(".")[0]) if entry.is_file() else entry.name
        if not entry.is_dir():
            why = _no_scan(entry)
            if why is None:
                yield name, entry
            elif why.why:
                found.left_out.append(why)
        elif entry.resolve() in above:
            found.left_out.append(LeftOut(entry, "a link to a folder that it lies in", amiss=False))
        elif entry.resolve() == out or is_result(entry):
            found.left_out.append(LeftOut(entry, "results of chs-net segment", amiss=False))
        elif _is_series(entry):
            if with_dicom:
                yield name, entry
        else:
            inside = [
                (f"{name}/{n}", p) for n, p in _entries(entry, found, out, with_dicom=with_dicom, above=above)
            ]
            if not inside and not any(one.path.is_relative_to(entry) for one in found.left_out):
                found.left_out.append(LeftOut(entry, "a folder without a scan", amiss=False))
            yield from inside


def _is_series(folder: Path) -> bool:
    """Whether a folder is one scan: DICOM files lie in it, or some lie below it and no scans of other kinds."""
    if any(p.is_file() and is_dicom(p) for p in folder.iterdir()):
        return True
    kinds = {kind_of(p) for p in files_below(folder)}
    return "dicom" in kinds and not kinds & {"nifti", *BY_SIMPLEITK}


def _no_scan(file: Path) -> LeftOut | None:
    """Why a file is no scan; None where it is one, an empty reason where DICOM tells it elsewhere."""
    if file.is_symlink() and not file.exists():
        return LeftOut(file, f"a link to nothing, {os.readlink(file)}")
    if not file.is_file():
        return LeftOut(file, "neither a file nor a folder", amiss=False)
    try:
        kind = kind_of(file)
    except OSError as error:
        return LeftOut(file, f"cannot be read ({error.strerror})")
    if kind == "dicom":
        return LeftOut(file, "")
    if kind in BY_SIMPLEITK and not has_simpleitk():
        return LeftOut(file, f"{BY_SIMPLEITK[kind]}; pip install chslib[formats] reads it")
    if kind in ("nifti", *BY_SIMPLEITK) or kind == "unknown" and stem(file.name):
        return None
    return LeftOut(file, OTHERS[kind], amiss=kind not in NEVER)
