"""Which volumes show the same scan: the leak that names do not tell.

The paper fuses MedSeg nr. 2 with Zenodo 3757476 (Sec. 4.1, Table 1). The nine volumes of the former
are very probably nine of the latter's Radiopaedia volumes, annotated by others: the fused set then
holds the same slices twice, and a random split trains on what it tests.

Pixels decide here, not names. Two volumes are compared in three steps:

1. Each slice becomes a small picture of its local contrast: difference of two blurs over the local
   deviation. A window, a clip or a gamma hardly changes it. Coarse pictures (32x32), all slices
   against all as a matrix product, choose the flip (none, up-down, left-right, both).
2. A few slices, matched, give the one zoom and shift that carries a volume onto the other
   (Fourier cross-correlation at 64x64, then a pattern search).
3. Fine pictures (128x128: vessels, bronchi, fissures) are correlated in that frame, and the best
   monotone matching of slices, in either order, is found by dynamic programming.

Outlines, tables and organs agree between any two chests, fine structure only within one scan.
Measured on the 17 real volumes (16 patients) of the prepared slices: the median correlation of
matched slices is at most 0.51 between patients, and at least 0.90 for 17 copies made by another
window, flips, other order, zoom, shift, noise and a quarter of the slices missing. Between the
phantom's patients, who share one plan, it is at most 0.72, and single slices reach 0.80. The two volumes of radiopaedia_10_85902
reach 0.85: probably one scan, thick and thin.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from threadpoolctl import threadpool_limits

from replication.data.fusing.picture_matching import (
    FLIPS,
    Pictures,
    first_fit,
    local_contrast,
    monotone,
    refit,
    shrink,
    unit,
    warp,
)  # fmt: skip
from replication.data.fusing.picture_matching import (
    flip as flipped,
)
from replication.data.names import SOURCES

SAME = 0.82  # correlation from which two slices show the same; see the numbers above
SHARE = 0.3  # of the shorter volume's slices that must do so: annotators keep different slices
SCREEN = (0.5, 0.75)  # correlation at 64x64, roughly and well fitted, below which a pair is left
STEADY = 0.7  # share of matched slices at one distance from which the volumes go slice by slice
VERDICTS = ("same scan", "one patient", "different")

_SCREEN_SIDE, _FINE_SIDE = 64, 128  # multiples of 32, the side of the coarse pictures
_ROUNDS = 6  # of fitting and matching, at most
_PICKS = 6  # slices that the zoom and shift are fitted to


@dataclass(frozen=True)
class _Match:
    """How `copy` lies on `original`; pairs are positions within the two volumes' slices."""

    copy: "_Volume"
    original: "_Volume"
    similarity: float
    share: float
    flip: str
    direction: int
    pairs: list[tuple[int, int]]
    steady: tuple[float, int]  # share of pairs at the commonest distance, and that distance
    verdict: str


def find_duplicates(rows: Iterable[Mapping[str, Any]], store: str | os.PathLike) -> dict[str, str]:
    """slice_id -> slice_id of the original, for every slice of a volume that repeats another's scan.

    A volume's original is the most similar volume before it in this order: coronacases,
    radiopaedia, medseg (Zenodo's release is the larger, and the one with independent results),
    then by name. So the answer does not depend on the order of rows. Chains are resolved: an
    original is never a duplicate.

    *Every* slice of such a volume gets an original, the one at its own height, or, where that one
    was dropped, the nearest: the scan is a known patient's, and a slice left out would count as
    another's (`splits.persons`).

    Volumes with one name in the column `patient` are never duplicates of each other: that they
    belong together is known. (Zenodo's radiopaedia_10_85902_1 and _3 look like one scan, thick and
    thin.)

    Args:
        rows: those of `slices.csv`: slice_id, source, volume, patient, slice_index (the position in
            the volume) and ct (path relative to `store`).
        store: folder of the store.

    Raises:
        FileNotFoundError, ValueError: a CT is missing or unreadable, or a row lacks a column.
    """
    best: dict[str, _Match] = {}
    for match in _compare(rows, store):
        known = best.get(match.copy.name)
        if match.verdict == "same scan" and (known is None or _closeness(match) > _closeness(known)):
            best[match.copy.name] = match
    originals: dict[str, str] = {}
    for match in sorted(best.values(), key=lambda m: m.copy.rank):  # an original before its copies
        for position, partner in enumerate(_partners(match)):
            name = match.original.ids[partner]
            originals[match.copy.ids[position]] = originals.get(name, name)
    return originals


def match_volumes(rows: Iterable[Mapping[str, Any]], store: str | os.PathLike) -> pd.DataFrame:
    """Every pair of volumes, the most similar first; arguments and errors as `find_duplicates`.

    Columns: `volume`, `original` (the earlier in the order above), their `slices` and
    `original_slices`; `similarity`, the median correlation of matched slices (for pairs that fail
    the screening, that of the screening, which lies higher than a close look's); `share`, the
    matched slices with a correlation of at least `SAME` per slice of the shorter volume; `flip`;
    `reversed`, whether the slices run the other way; `steady`, the share of matched slices at one
    distance of slice_index (1 where both hold the same slices); `close`, whether the pair passed the
    screening; `verdict`, one of `VERDICTS`.
    """
    told = [
        {
            "volume": m.copy.name, "original": m.original.name,
            "slices": len(m.copy.ids), "original_slices": len(m.original.ids),
            "similarity": m.similarity, "share": m.share, "flip": m.flip,
            "reversed": m.direction < 0, "steady": m.steady[0], "close": bool(m.pairs),
            "verdict": m.verdict,
        }
        for m in _compare(rows, store)
    ]  # fmt: skip
    columns = ["volume", "original", "slices", "original_slices", "similarity", "share", "flip",
               "reversed", "steady", "close", "verdict"]  # fmt: skip
    table = pd.DataFrame(told, columns=columns)
    order = ["close", "similarity", "volume", "original"]
    return table.sort_values(order, ascending=[False, False, True, True], ignore_index=True)


def _closeness(match: _Match) -> tuple[bool, float]:
    """Slice by slice beats similar: a thick and a thin reconstruction of a scan both resemble a copy."""
    return match.steady[0] >= STEADY, match.similarity


def _partners(match: _Match) -> list[int]:
    """For each slice of the copy the position of its original."""
    here, there = match.copy.index, match.original.index
    share, distance = match.steady
    if share >= STEADY:
        wanted = match.direction * here + distance
        return [int(np.abs(there - w).argmin()) for w in wanted]
    # Another spacing or numbering: only the matching tells, and a slice outside it takes the
    # original of its nearest neighbour within.
    matched = np.array([here[i] for i, _ in match.pairs])
    return [match.pairs[int(np.abs(matched - k).argmin())][1] for k in here]


# ---- volumes and their pictures --------------------------------------------------------------
class _Volume:
    """One volume's slices in order, as pictures of local contrast."""

    def __init__(self, rows: list[Mapping[str, Any]], store: Path) -> None:
        rows = sorted(rows, key=lambda row: (int(row["slice_index"]), row["slice_id"]))
        self.name, self.patient, self.source = (rows[0][c] for c in ("volume", "patient", "source"))
        self.rank = (SOURCES.index(self.source) if self.source in SOURCES else len(SOURCES), self.name)
        self.ids = [row["slice_id"] for row in rows]
        self.index = np.array([int(row["slice_index"]) for row in rows])
        self.grey = np.stack([_read(store / row["ct"]) for row in rows])

    @cached_property
    def coarse(self) -> Pictures:
        side = _SCREEN_SIDE
        pictures = local_contrast(self._small(side), inner=2.0, outer=6.0)
        return unit(shrink(pictures, 32), radius=1.0).reshape(-1, 32, 32)

    @cached_property
    def screen(self) -> NDArray[np.float16]:
        return local_contrast(self._small(_SCREEN_SIDE), inner=0.7, outer=4.0).astype(np.float16)

    @cached_property
    def fine(self) -> NDArray[np.float16]:
        """In half precision, as it is kept for a whole set of volumes."""
        return local_contrast(self.grey.astype(np.float32), inner=0.7, outer=3.0).astype(np.float16)

    def _small(self, side: int) -> Pictures:
        return shrink(self.grey.astype(np.float32), side)


def _read(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though a row names it as a ct image.")
    try:
        with Image.open(path) as image:
            small = image.convert("L").resize((_FINE_SIDE, _FINE_SIDE), Image.Resampling.BOX)
            return np.asarray(small)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} could not be read as an image ({error}); replace it or drop its row."
        ) from error


def _compare(rows: Iterable[Mapping[str, Any]], store: str | os.PathLike) -> list[_Match]:
    """All pairs of volumes, the later of the order as the copy of the earlier."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if lacks := {"slice_id", "source", "volume", "patient", "slice_index", "ct"} - set(row):
            raise ValueError(
                f"a row lacks {', '.join(sorted(lacks))}; expected the rows of slices.csv: {row}"
            )
        groups.setdefault(row["volume"], []).append(row)
    volumes = sorted((_Volume(group, Path(store)) for group in groups.values()), key=lambda v: v.rank)
    with threadpool_limits(
        1
    ):  # thousands of small products: threads that wait for each other take four times as long
        return [_compare_pair(copy, original) for original, copy in combinations(volumes, 2)]


def _compare_pair(copy: _Volume, original: _Volume) -> _Match:
    shorter = 1 if len(copy.ids) <= len(original.ids) else 0  # the axis to take maxima over
    target = original.coarse.reshape(len(original.ids), -1).T
    coarse = {f: flipped(copy.coarse, f).reshape(len(copy.ids), -1) @ target for f in FLIPS}
    # A chest is nearly symmetric, so that the coarse pictures may err between left and right.
    likely = sorted(coarse, key=lambda f: -np.sort(coarse[f].max(shorter))[-_PICKS:].mean())[:2]
    fits = []
    goal = original.screen.astype(np.float32)
    for flip in likely:
        best = coarse[flip].max(shorter)
        chosen = np.sort(np.argsort(-best, kind="stable")[:_PICKS])
        partner = coarse[flip].argmax(shorter)[chosen]
        i, j = (chosen, partner) if shorter else (partner, chosen)
        score, at = first_fit(flipped(copy.screen[i], flip).astype(np.float32), goal[j])
        fits.append((score, flip, at, i, j))
    score, flip, at, i, j = max(fits, key=lambda fit: fit[0])
    if score >= SCREEN[0]:
        pictures = flipped(copy.screen, flip).astype(np.float32)
        at = refit(pictures[i], goal[j], at, steps=(0.015, 0.5))
        found = unit(warp(pictures, at)) @ unit(goal).T
        score = float(np.quantile(found.max(shorter), 0.75))
    if score < SCREEN[1]:
        return _Match(copy, original, score, 0.0, flip, 1, [], (0.0, 0), "different")

    at = at * [1, 1, _FINE_SIDE / _SCREEN_SIDE, _FINE_SIDE / _SCREEN_SIDE]
    pictures, goal = flipped(copy.fine, flip).astype(np.float32), original.fine.astype(np.float32)
    fine = unit(goal).T
    direction, pairs = monotone(found)
    for _ in range(_ROUNDS):  # the first matching is of blurred slices and may be off by one
        # The better half: where volumes overlap in part, the rest has no true partner.
        level = np.median([found[p] for p in pairs]) if pairs else 0
        good = [p for p in pairs if found[p] >= level]
        if not good:
            break
        spread = np.unique(np.linspace(0, len(good) - 1, _PICKS).round().astype(int))
        i, j = np.array([good[k] for k in spread]).T
        at = refit(pictures[i], goal[j], at, steps=(0.01, _FINE_SIDE / 200))
        found = unit(warp(pictures, at)) @ fine
        before, (direction, pairs) = pairs, monotone(found)
        if pairs == before:
            break
    if not pairs:
        return _Match(copy, original, 0.0, 0.0, flip, direction, [], (0.0, 0), "different")
    values = np.array([found[p] for p in pairs])
    share = float((values >= SAME).sum() / min(found.shape))
    same = [p for p, value in zip(pairs, values, strict=True) if value >= SAME]
    verdict = "different"
    if share >= SHARE:
        verdict = "one patient" if copy.patient == original.patient else "same scan"
    steady = _steady(copy.index, original.index, direction, same)
    return _Match(
        copy, original, float(np.median(values)), share, flip, direction, same or pairs, steady, verdict
    )


def _steady(here: NDArray, there: NDArray, direction: int, pairs: list[tuple[int, int]]) -> tuple[float, int]:
    """Share of pairs at the commonest distance of slice_index, and that distance."""
    if not pairs:
        return 0.0, 0
    distances = np.array([there[j] - direction * here[i] for i, j in pairs])
    values, counts = np.unique(distances, return_counts=True)
    return float(counts.max() / len(pairs)), int(values[counts.argmax()])
