"""One scan through the cascade: pictures -> lungs -> cleaned -> infection -> masks in the scan's own space."""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from chslib.inference import accelerator, folded, predict_masks
from chslib.network import CHSNet, contour_map
from replication.data.reading.orientation import LOOKED_AT, judge
from replication.data.reading.scan import Scan
from replication.scans.cleaning import clean_lungs
from replication.scans.prepare import AS_STORED, padding, prepared, restored
from replication.scans.steps import Cleaning

Bar = Callable[[str], Callable[[range], object]]  # a step's name -> what shows how far it is


@dataclass
class Found:
    """Masks of a scan, uint8 (x, y, slices) of its turned voxels, and what happened on the way."""

    lungs: NDArray[np.uint8]
    infection: NDArray[np.uint8]
    taken: dict[str, int] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)  # of how the scan lies, or what its numbers are
    warnings: list[str] = field(default_factory=list)  # these, and what else a reader has to know


def segment(
    scan: Scan, network: CHSNet, *, size: int, cleaning: Cleaning, batch_size: int = 4, bar: Bar | None = None
) -> Found:
    """Lungs and infection of one scan.

    Args:
        network: a trained cascade, see `chslib.load_pretrained`.
        size: side of the slices that it was trained on, pixels.
        bar: shows progress; None: silent.
    """
    show = bar or (lambda _: None)
    network = folded(network).to(accelerator())
    inputs = prepared(scan, size=size, progress=show("prepare"))
    how = {"batch_size": batch_size}
    lungs = predict_masks(network.lungs, inputs, **how, progress=show("lungs"))[:, 0]
    lungs, taken = clean_lungs(lungs, cleaning, hounsfield=_hounsfield(scan, size))
    seen = np.flatnonzero(lungs.any((1, 2))) if cleaning.slices else np.arange(len(lungs))
    infection = np.zeros_like(lungs)
    if len(seen):
        between = contour_map(
            torch.from_numpy(inputs[seen]), torch.from_numpy(lungs[seen, None]), cascade=network.cascade
        ).numpy()
        if network.cascade == "concat":
            between[:, 1] *= 255
        infection[seen] = predict_masks(network.infection, between, **how, progress=show("infection"))[:, 0]
    if cleaning.inside:
        taken["inside"] = int((infection & ~lungs & 1).sum(dtype=np.int64))
        infection &= lungs
    doubts = [*scan.doubts, *_upside_down(scan, inputs[:, 0], lungs)]
    warnings = [*doubts, *scan.notes, *_warnings(lungs, infection)]
    return Found(restored(lungs, scan), restored(infection, scan), taken, doubts, warnings)


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


def _warnings(lungs: NDArray, infection: NDArray) -> list[str]:
    """What a reader of the masks has to know, in words."""
    held = np.flatnonzero(lungs.any((1, 2)))
    if not len(held):
        return ["no lung was found: is this a chest, and the right way up?"]
    out = [
        f"the {end} slice still holds lung: the scan does not show all of it"
        for end, k in (("lowest", held[0]), ("highest", held[-1]))
        if k in (0, len(lungs) - 1) and lungs[k].mean() > 0.02
    ]
    if infection.any():
        out.append("the networks never saw a slice without infection: they find some in healthy lungs too")
    return out
