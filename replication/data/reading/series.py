"""The files of a folder -> its CT series, each with its slices; which one is the scan.

Slices belong together that name one series and have one size, spacing and direction. Where an anonymiser has emptied
the series' UID, or made one up for every file, what is left decides: folder, study, patient, number, description.
Two phases that were stored as one series are two here.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from replication.data.reading.kinds import files_below, kind_of
from replication.data.reading.slices import CT, PARTING, TIMES, Slice, slices_of
from replication.data.reading.stack import TOLERANCE, fit, places

FEWEST = 3  # slices of a series that can be a scan
Same = Callable[[Slice, Slice], bool]  # whether two slices show one picture


@dataclass
class Series:
    """One series, or one phase of it.

    Attributes:
        uid, number, description: as its files have them, or "".
        slices: in no order.
        phase: tag and value that part it from the other phases, or "".
        name: what `--series` takes for it, once all are known.
        notes: what was left out of it.
    """

    uid: str
    number: str
    description: str
    slices: list[Slice]
    phase: tuple[str, str] = ("", "")
    name: str = ""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows, columns = self.slices[0].shape
        told = [self.description or "no description", f"{len(self.slices)} slices of {columns} x {rows}"]
        told += [f"{self.phase[0]} {self.phase[1]}"] if self.phase[0] else []
        return f"number {self.number or 'none'} ({', '.join([*told, self.uid or 'no UID'])})"


def find_series(files: Iterable[Path], *, same: Same) -> tuple[list[Series], list[str]]:
    """The CT series among files that can be scans, by number, and notes on what was left out."""
    left_out: Counter[str] = Counter()
    slices: list[Slice] = []
    for path in files:
        try:
            if (kind := kind_of(path)) != "dicom":
                left_out["empty" if kind == "empty" else "no DICOM"] += 1
            elif path.name != "DICOMDIR":
                slices += slices_of(path)
        except OSError as error:
            left_out[f"not readable ({error.strerror})"] += 1
        except ValueError as error:
            left_out[str(error)] += 1
    found: list[Series] = []
    for together in _grouped(slices):
        alike = _alike(_without_captures(together, left_out))
        for part in alike:
            if len(part) >= FEWEST and _held(part) >= FEWEST:
                found += _phases(part, same)
                continue
            why = f"of series with fewer than {FEWEST} slices"
            if len(part) >= FEWEST:
                why = f"pictures of fewer than {FEWEST} places (bolus tracking, or an export that lost ImagePositionPatient)"
            elif max(map(len, alike)) >= FEWEST:
                why = "of another size, spacing or direction than the rest of their series"
            left_out[why] += len({one.path for one in part})
    found.sort(key=lambda s: (s.number.zfill(8), s.uid, s.phase[1].zfill(8)))
    _name(found)
    return found, [f"{n} files left out: {why}" for why, n in sorted(left_out.items()) if n]


def _grouped(slices: list[Slice]) -> list[list[Slice]]:
    """Slices of one UID together; those of none by what is left. What hardly another slice has was made up, and is none."""
    told = [(*one.names, str(one.path.parent)) for one in slices]
    bearers = Counter(entry for names in told for entry in enumerate(names))
    groups: defaultdict[tuple, list[Slice]] = defaultdict(list)
    for one, names in zip(slices, told):
        uid, *others = (name if bearers[k, name] >= FEWEST else "" for k, name in enumerate(names))
        groups[(uid, others[2]) if uid else tuple(others)].append(one)
    return list(groups.values())


def _held(slices: list[Slice]) -> int:
    """At how many places they lie; where no direction tells it, each at its own."""
    try:
        return len(places(slices))
    except ValueError:  # its reader says why
        return len(slices)


def _without_captures(slices: list[Slice], left_out: Counter[str]) -> list[Slice]:
    """A page or a picture of the screen among the slices is none of them."""
    classes = {one.path: one.text("SOPClassUID") for one in slices}
    if not set(CT) & set(classes.values()):
        return slices
    captures = {path for path, told in classes.items() if told and told not in CT}
    left_out["secondary captures among the slices"] += len(captures)
    return [one for one in slices if one.path not in captures]


def _alike(slices: list[Slice]) -> list[list[Slice]]:
    """Parted by size, spacing and direction, as far as these move a corner."""
    parts: list[list[Slice]] = []
    for one in slices:
        for part in parts:
            first = part[0]
            if first.shape == one.shape and np.abs(first.edges - one.edges).max() <= TOLERANCE:
                part.append(one)
                break
        else:
            parts.append([one])
    return parts


def _phases(slices: list[Slice], same: Same) -> list[Series]:
    """One series, or its phases where a tag parts them; the same picture twice counts once."""
    uid, number, description, *_ = slices[0].names
    series = Series(uid, number, description, slices)
    try:
        by_place = places(slices)
    except ValueError:
        return [series]  # its reader says why
    if len(by_place) < len(slices):
        slices = [one for part in by_place for one in _once(part, same)]
        if copies := len(series.slices) - len(slices):
            series.notes.append(f"{copies} files left out: the same picture again")
            series.slices = slices
    even = _fits(slices)
    for tag in (*PARTING, "folder"):
        parts = defaultdict(list)
        for one in slices:
            parts[one.text(tag)].append(one)
        if (even and tag in TIMES) or not (phases := _apart(parts, slices, even=even)):
            continue
        if left := len(slices) - sum(map(len, phases.values())):
            series.notes.append(f"{left} files left out: of another {tag} than the rest of their series")
        return [
            Series(uid, number, description, part, (tag, value or "none"), notes=[*series.notes])
            for value, part in phases.items()
            for uid, number, description, *_ in [part[0].names]
        ]
    if even:
        return [series]
    for tag in ("InstanceNumber", *TIMES):
        if passes := _passes(slices, tag):
            return [
                Series(uid, number, description, part, (f"pass by {tag}", str(k + 1)), notes=[*series.notes])
                for k, part in enumerate(passes)
            ]
    return [series]


def _once(part: list[Slice], same: Same) -> list[Slice]:
    kept: list[Slice] = []
    for one in part:
        alike = (other for other in kept if all(one.text(tag) == other.text(tag) for tag in PARTING))
        if not any(same(one, other) for other in alike):
            kept.append(one)
    return kept


def _fits(slices: list[Slice]) -> bool:
    try:
        fit(slices)
    except ValueError:
        return False
    return True


def _apart(parts: dict[str, list[Slice]], slices: list[Slice], *, even: bool) -> dict[str, list[Slice]]:
    """The large parts, where each is a scan by itself: evenly stacked, or no place twice. Those of an even stack must interleave."""
    large = {value: part for value, part in parts.items() if len(part) >= FEWEST}
    if len(parts) < 2 or not large or sum(map(len, large.values())) < 0.8 * len(slices):
        return {}
    by_place, whole = places(slices), all(_fits(part) for part in large.values())
    if even:
        rank = {one: k for k, part in enumerate(by_place) for one in part}
        held = sorted(sorted(rank[one] for one in part) for part in parts.values())
        interleaved = large == parts and any(other[0] < one[-1] for one, other in pairwise(held))
        return large if whole and interleaved else {}
    doubled = len(large) > 1 and len(by_place) < len(slices)
    single = doubled and all(_held(part) == len(part) for part in large.values())
    return large if whole or single else {}


def _passes(slices: list[Slice], tag: str) -> list[list[Slice]]:
    """Where every place is held equally often: first, second, ... by a tag that is a number."""
    by_place = places(slices)
    times = len(slices) / len(by_place)
    try:
        told = {one: float(one.text(tag)) for one in slices}
    except ValueError:
        return []
    if times == 1 or any(len({told[one] for one in part}) != times for part in by_place):
        return []
    return [list(phase) for phase in zip(*(sorted(part, key=told.__getitem__) for part in by_place))]


def _name(found: list[Series]) -> None:
    """Give each what `--series` takes: number, else UID, else a place in the list; and its phase."""
    uids = defaultdict(set)
    for series in found:
        uids[series.number].add(series.uid)
    names = []
    for series in found:
        key = series.number if series.number and len(uids[series.number]) == 1 else series.uid
        names.append(f"{key}:{series.phase[1]}" if key and series.phase[0] else key)
    for k, (series, name) in enumerate(zip(found, names)):
        series.name = name if name and names.count(name) == 1 else f"no.{k + 1}"


def choose(found: list[Series], folder: Path, wanted: str | None, notes: list[str]) -> Series:
    """The series that is asked for, or the only one.

    Raises:
        ValueError: none, no such one, or several; the message lists them, and what to type for each.
    """
    listed = "\n".join(f"  --series {_quoted(one.name)}: {one}" for one in found)
    if not found:
        raise ValueError(f"{folder}: no CT series of {FEWEST} slices or more ({'; '.join(notes) or 'empty'})")
    if wanted is None and len(found) == 1:
        return found[0]
    chosen = [one for one in found if wanted in (one.name, one.uid, one.number)]
    chosen = [one for one in found if one.name == wanted] or chosen
    if wanted is not None and len(chosen) == 1:
        return chosen[0]
    if wanted is not None:
        raise ValueError(f"{folder}: {len(chosen)} series are called {wanted!r}; expected one of\n{listed}")
    what = (
        "phases of one series" if found[0].phase[0] and len({one.uid for one in found}) == 1 else "CT series"
    )
    raise ValueError(f"{folder}: {len(found)} {what}; name one, or take the others out:\n{listed}")


def _quoted(name: str) -> str:
    return f'"{name}"' if set(name) & set(" \\'()&;*$") else name


def series_in(path: str | os.PathLike, *, same: Same) -> tuple[list[Series], list[str]]:
    """`find_series` of a folder with all below it, or of one file."""
    path = Path(path)
    return find_series(files_below(path) if path.is_dir() else [path], same=same)
