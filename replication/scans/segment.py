"""One scan through the cascade: pictures -> lungs -> cleaned -> infection -> masks in the scan's own space."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from chslib.inference import accelerator, folded, predict_masks
from chslib.network import contour_map
from replication.data.reading.orientation import LOOKED_AT, judge
from replication.data.reading.scan import Scan
from replication.data.slices.store import at_size
from replication.scans.cleaning import clean_lungs
from replication.scans.plausibility import implausible
from replication.scans.prepare import AS_STORED, Progress, padding, prepared, restored
from replication.scans.steps import Cleaning
from replication.scans.weights import Cascade, Stage

Bar = Callable[[str], Progress | None]  # a step's name -> what shows how far it is


@dataclass
class Found:
    """Masks of a scan, uint8 (x, y, slices) of its turned voxels, and what happened on the way."""

    lungs: NDArray[np.uint8]
    infection: NDArray[np.uint8]
    taken: dict[str, int] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)  # of how the scan lies, or what its numbers are
    warnings: list[str] = field(default_factory=list)  # these, and what else a reader has to know


def segment(
    scan: Scan, cascade: Cascade, *, cleaning: Cleaning, batch_size: int = 1, bar: Bar | None = None
) -> Found:
    """Lungs and infection of one scan.

    Args:
        cascade: trained, see `replication.scans.weights.load_cascade`.
        bar: shows progress; None: silent.
    """
    show = bar or (lambda _: None)
    first, second = cascade.lungs, cascade.infection
    inputs = prepared(scan, size=first.size, origin=first.origin, progress=show("prepare"))
    lungs = _masks(first, inputs, batch_size=batch_size, progress=show("lungs"))
    lungs, taken = clean_lungs(lungs, cleaning, hounsfield=_hounsfield(scan, first.size))
    doubts = [*scan.doubts, *_upside_down(scan, inputs[:, 0], lungs)]
    seen = np.flatnonzero(lungs.any((1, 2))) if cleaning.slices else np.arange(len(lungs))
    if (first.size, first.origin) != (second.size, second.origin):
        inputs = prepared(scan, size=second.size, origin=second.origin, progress=show("prepare"))
        lungs = np.stack([at_size(lung, second.size, "lung") for lung in lungs])
    infection = np.zeros_like(lungs)
    if len(seen):
        fed = _fed(inputs[seen], lungs[seen, None], cascade.feed)
        infection[seen] = _masks(second, fed, batch_size=batch_size, progress=show("infection"))
    if cleaning.inside:
        taken["inside"] = int((infection & ~lungs & 1).sum(dtype=np.int64))
        infection &= lungs
    found = Found(restored(lungs, scan), restored(infection, scan), taken, doubts)
    ml = float(np.prod(scan.spacing)) / 1000
    odd = implausible(
        lungs_ml=found.lungs.sum(dtype=np.int64) * ml, infection_ml=found.infection.sum(dtype=np.int64) * ml,
        scan_ml=found.lungs.size * ml, dsc={"lungs": first.dsc, "infection": second.dsc},
    )  # fmt: skip
    found.warnings = [*odd, *doubts, *scan.notes, *_warnings(lungs, infection, cascade)]
    return found


def _masks(stage: Stage, inputs: NDArray[np.uint8], **how: Any) -> NDArray[np.uint8]:
    """What a stage finds in its inputs (S, C, H, W): (S, H, W)."""
    return predict_masks(folded(stage.network).to(accelerator()), inputs, **how)[:, 0]


def _fed(inputs: NDArray[np.uint8], lungs: NDArray[np.uint8], feed: str) -> NDArray[np.uint8]:
    """The second network's inputs, from slices and lungs (S, 1, H, W)."""
    if feed == "whole":
        return inputs
    between = contour_map(torch.from_numpy(inputs), torch.from_numpy(lungs), cascade=feed).numpy()
    if feed == "concat":
        between[:, 1] *= 255  # the mask spans 0..255, as the CT does
    return between


def _hounsfield(scan: Scan, size: int) -> Callable[[int], NDArray] | None:
    if scan.intensity is None or scan.intensity.windowed:
        return None
    pads = padding((scan.shape[1], scan.shape[0]), (scan.spacing[1], scan.spacing[0]))

    def of(k: int) -> NDArray:
        picture = np.pad(AS_STORED.picture(scan.plane(k)), pads, constant_values=-1000)
        return cv2.resize(picture, (size, size), interpolation=cv2.INTER_NEAREST)

    return of


def _upside_down(scan: Scan, pictures: NDArray, lungs: NDArray) -> list[str]:
    """What the pixels say against the header, in words."""
    held = np.flatnonzero(lungs.any((1, 2)))
    chosen = held[np.linspace(0, len(held) - 1, min(LOOKED_AT, len(held))).astype(int)]
    if judge((pictures[k], lungs[k] > 0) for k in chosen).says != "upside down":
        return []
    return [
        f"the pixels show the body upside down, against {scan.axes}, how it is stored: a patient who lies on the belly, or "
        "a wrong header; --axes decides"
    ]


def _warnings(lungs: NDArray, infection: NDArray, cascade: Cascade) -> list[str]:
    """What a reader of the masks has to know, in words."""
    held = np.flatnonzero(lungs.any((1, 2)))
    if not len(held):
        return [
            "no lung was found: no chest, the wrong way up, a wrong preparation, or weights that learnt nothing"
        ]
    out = [
        f"the {end} slice still holds lung: the scan does not show all of it"
        for end, k in (("lowest", held[0]), ("highest", held[-1]))
        if k in (0, len(lungs) - 1) and lungs[k].mean() > 0.02
    ]
    if infection.any() and cascade.infection.without_infection == 0:
        out.append("the networks never saw a slice without infection: they find some in healthy lungs too")
    return out
