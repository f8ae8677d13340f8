"""Seeded synthetic CT volumes in the two formats of the paper's sources (Sec. 4.1).

They let every step, from NIfTI to a trained network, run without a download. A number measured on
them says that the code runs, never how well the method works.

`coronacases_*` are int16 in Hounsfield units; `radiopaedia_*` are uint8, already windowed to
0..255 (register row 16), and upside down relative to the former; `radiopaedia_7_85703_0` is also
reversed in z. As in the sources, `np.rot90` of a stored plane gives the picture.

`medseg_*` are twins, as MedSeg's nr. 2 very probably is of Zenodo's Radiopaedia volumes (`TWINS`):
the same drawn scan, upright, int16 HU in another window, on another grid, and annotated by another
hand with three classes.
"""

import gzip
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from replication.data.names import PARTS
from replication.data.phantom.anatomy import INFECTED_AT, Chest
from replication.data.phantom.drawing import AIR, Drawn, draw_scan, draw_slice
from replication.files import write_whole

DEFAULT_VOLUMES = (
    "coronacases_001", "coronacases_002", "coronacases_003", "coronacases_004", "coronacases_005",
    "radiopaedia_10_85902_1", "radiopaedia_10_85902_3", "radiopaedia_4_85506_1",
    "radiopaedia_7_85703_0", "radiopaedia_14_85914_0", "medseg_1", "medseg_2", "medseg_3",
)  # fmt: skip
TWINS = {
    "medseg_1": "radiopaedia_4_85506_1",
    "medseg_2": "radiopaedia_7_85703_0",
    "medseg_3": "radiopaedia_10_85902_1",
}
SIZES = {"coronacases": 512, "radiopaedia": 630, "medseg": 512}  # rows and columns
WINDOW = (AIR, 250.0)  # HU at which Zenodo's Radiopaedia volumes hold 0 and 255
MEDSEG_WINDOW = (-1000.0, 400.0)  # HU to which the twins are clipped
EFFUSION_IN = "medseg_2"
_MIXED = (
    "coronacases_001", "radiopaedia_4_85506_1", "coronacases_002", "radiopaedia_7_85703_0",
    "coronacases_003", "medseg_1", "coronacases_004", "radiopaedia_10_85902_1", "medseg_2",
    "coronacases_005", "radiopaedia_10_85902_3", "medseg_3", "radiopaedia_14_85914_0",
)  # fmt: skip
REVISION = 1  # raise when the drawing changes, so that volumes on disk are drawn again


@dataclass(frozen=True, kw_only=True)
class PhantomVolume:
    """One synthetic volume, stored as its source stores it.

    Attributes:
        name: volume name without a suffix.
        ct: (size, size, depth); int16 HU or uint8 windowed grey.
        lung: the same shape, uint8: 0, 1 left lung, 2 right lung.
        infection: the same shape, uint8: 0, 1; of a twin 0, 1 ground glass, 2 consolidation,
            3 pleural effusion.
        affine: (4, 4), voxel indices to mm (right, anterior, superior positive).
    """

    name: str
    ct: NDArray
    lung: NDArray[np.uint8]
    infection: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_volume(
    *,
    name: str,
    seed: int,
    size: int | None = None,
    depth: int = 16,
    lungless: float = 0.12,
    infected: float = 0.65,
    severity: float = 1.0,
) -> PhantomVolume:
    """Draw one volume. Equal arguments give equal voxels.

    Args:
        name: `coronacases_*`, `radiopaedia_*` or one of `TWINS`; decides format and orientation.
            The two `radiopaedia_10_85902_*` are one body scanned twice; a twin of equal arguments
            is the same scan of the same body as its original.
        seed: any integer >= 0; the name is mixed in, so volumes of one seed differ.
        size: rows and columns; None takes the source's own (512 or 630; a twin is then drawn at
            its original's 630 and resampled).
        depth: slices. They span abdomen to neck, so their spacing is about 300 mm / depth.
        lungless: share of slices without lung at either end (at least one slice each).
        infected: share of the lung's height, from the base upwards, that may bear opacities.
        severity: scales the number and the size of the opacities; 0 for none.

    Raises:
        ValueError: for an unknown kind of name, or a size, depth or share out of range.
    """
    kind, original = name.split("_")[0], TWINS.get(name, name)
    _check(name, size=size, depth=depth, seed=seed, lungless=lungless, infected=infected, severity=severity)
    grid = SIZES[original.split("_")[0]] if size is None else size  # what the scan is drawn on
    size = SIZES[kind] if size is None else size
    patient = "radiopaedia_10_85902" if original.startswith("radiopaedia_10_85902_") else original
    chest = Chest(np.random.default_rng([seed, zlib.crc32(patient.encode())]))
    rng = np.random.default_rng([seed, zlib.crc32(original.encode()), 1])
    windowed = original.startswith("radiopaedia")
    scan = draw_scan(chest, rng, windowed=windowed, infected=infected, severity=severity)
    annotate = _Annotator(name, seed, chest) if name in TWINS else _annotate

    low, high = chest.lung_span
    ends = max(1, round(lungless * depth))
    step = (high - low) / (depth - 2 * ends)
    heights = low + (np.arange(depth) - ends + 0.5) * step
    planes = []
    for z in heights.tolist():
        drawn = _resample(draw_slice(chest, scan, rng, z=z, size=grid), size)
        planes.append((drawn.hu, *annotate(drawn, z, scan.fov / size)))
    return _stored(name, planes, spacing=scan.fov / size, step=step)


def _check(
    name: str, *, size: int | None, depth: int, seed: int, lungless: float, infected: float, severity: float
) -> None:
    """Refuse what cannot be drawn, see `make_volume`."""
    kind = name.split("_")[0]
    if kind not in ("coronacases", "radiopaedia") and name not in TWINS:
        raise ValueError(
            f"volume name {name!r}: expected coronacases_* or radiopaedia_*, or a twin "
            f"({', '.join(TWINS)}), because the name decides the format"
        )
    size = SIZES[kind] if size is None else size
    if size < 32 or depth < 4 or seed < 0:
        raise ValueError(
            f"size {size}, depth {depth}, seed {seed}: expected size >= 32, depth >= 4, seed >= 0"
        )
    if not (0 <= lungless < 0.4 and 0 <= infected <= 1 and severity >= 0):
        raise ValueError(
            f"lungless {lungless}, infected {infected}, severity {severity}: expected 0..0.4, 0..1 and >= 0"
        )


def _stored(
    name: str, planes: list[tuple[NDArray, NDArray, NDArray]], *, spacing: float, step: float
) -> PhantomVolume:
    """Upright planes (ct, lung, infection) as their source stores them: axes, units, affine."""
    kind = name.split("_")[0]
    flipped = kind == "radiopaedia"
    # Upright rows and columns -> stored axes: rot90 of a stored plane is the upright picture,
    # or, from Radiopaedia, the picture upside down.
    turned = [
        np.stack([np.rot90(p[::-1] if flipped else p, -1) for p in part], axis=2)
        for part in zip(*planes, strict=True)
    ]
    affine = np.diag([-spacing, -spacing if flipped else spacing, step, 1.0])
    if name == "radiopaedia_7_85703_0":
        turned = [part[:, :, ::-1] for part in turned]
        affine[2, 2] = -step
    ct, lung, infection = turned
    affine[:3, 3] = -affine[:3, :3] @ (np.array(ct.shape) - 1) / 2
    if kind == "radiopaedia":
        ct = np.rint((np.clip(ct, *WINDOW) - WINDOW[0]) * (255 / (WINDOW[1] - WINDOW[0])))
    elif kind == "medseg":
        ct = np.rint(np.clip(ct, *MEDSEG_WINDOW))
    return PhantomVolume(
        name=name, ct=ct.astype(np.uint8 if kind == "radiopaedia" else np.int16),
        lung=lung, infection=infection, affine=affine,
    )  # fmt: skip


def mixed_volumes(number: int) -> list[str]:
    """The first `number` of `DEFAULT_VOLUMES` in an order that mixes sources.

    A twin comes after its original; six volumes are of all three sources and five patients, enough
    for five folds.

    Raises:
        ValueError: fewer than one, or more than there are.
    """
    if not 1 <= number <= len(_MIXED):
        raise ValueError(f"{number} volumes asked for; expected 1 to {len(_MIXED)}")
    return list(_MIXED[:number])


def write_phantoms(
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    volumes: Sequence[str] = DEFAULT_VOLUMES,
    depth: int = 16,
    size: int | None = None,
    progress: bool = False,
) -> list[str]:
    """Write volumes as `<folder>/{ct,lung,infection}/<volume>.nii.gz`; returns their names.

    Each file appears whole or not at all. A volume whose three files lie there already, drawn
    with the same arguments, is left alone; one drawn with others is drawn again.

    Raises:
        ValueError: as `make_volume`, or for a name that is given twice.
    """
    if len(set(volumes)) != len(volumes):
        raise ValueError(f"volumes {list(volumes)}: a name is given twice; give each once")
    folder = Path(folder)
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in tqdm(volumes, desc="drawing", unit="volume", disable=not progress):
        stamp = json.dumps({"phantom": REVISION, "seed": seed, "depth": depth, "size": size}, sort_keys=True)
        paths = {part: folder / part / f"{name}.nii.gz" for part in PARTS}
        if all(_stamp(path) == stamp for path in paths.values()):
            continue
        with threadpool_limits(1):  # thousands of small products
            volume = make_volume(name=name, seed=seed, size=size, depth=depth)
        for part, path in paths.items():
            image = nib.Nifti1Image(getattr(volume, part), volume.affine)
            image.header.set_xyzt_units("mm")
            image.header["descrip"] = stamp.encode()  # 80 bytes: enough for the arguments
            write_whole(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
    return list(volumes)


def _stamp(path: Path) -> str | None:
    """The arguments that a written volume carries in its header; None if it is not there."""
    try:
        return nib.Nifti1Image.from_filename(path).header["descrip"].item().decode()
    except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError):
        return None


def _resample(drawn: Drawn, size: int) -> Drawn:
    if drawn.hu.shape[0] == size:
        return drawn

    def resize(plane: NDArray, how: Image.Resampling) -> NDArray:
        return np.asarray(Image.fromarray(plane).resize((size, size), how))

    haze, core = (resize(p.astype(np.float32), Image.Resampling.BILINEAR) for p in (drawn.haze, drawn.core))
    hu, sides = resize(drawn.hu, Image.Resampling.BICUBIC), resize(drawn.sides, Image.Resampling.NEAREST)
    return Drawn(hu, sides, haze, core)


def _annotate(drawn: Drawn, z: float, spacing: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Lung and infection as Zenodo's annotators have them."""
    return drawn.sides, (drawn.haze > INFECTED_AT).astype(np.uint8)


class _Annotator:
    """Another hand on the same scan: other rims, three classes (register row 17)."""

    def __init__(self, name: str, seed: int, chest: Chest) -> None:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), 2])
        self.chest, self.effusion = chest, name == EFFUSION_IN
        self.generous = bool(rng.random() < 0.5)
        self.level = INFECTED_AT + rng.uniform(0.08, 0.2) * (-1 if self.generous else 1)

    def __call__(self, drawn: Drawn, z: float, spacing: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        voxels = 2 if drawn.hu.shape[0] >= 400 else 1  # about 1.5 mm, or the least there is
        cross = ndimage.generate_binary_structure(2, 1)
        lung = drawn.sides
        for _ in range(voxels):
            lung = (ndimage.grey_dilation if self.generous else ndimage.grey_erosion)(lung, footprint=cross)
        infection = ((drawn.haze > self.level) & (lung > 0)).astype(np.uint8)
        infection[(infection > 0) & (drawn.core > 0.5)] = 2
        if self.effusion:
            infection[self._crescent(lung == 1, z, spacing)] = 3
        return lung, infection

    def _crescent(self, lung: NDArray[np.bool_], z: float, spacing: float) -> NDArray[np.bool_]:
        """What lies within a centimetre of the back of one lung, less towards the head.

        The CT does not show it: the voxels of the scan are its original's.
        """
        low, high = self.chest.lung_span
        height = (z - low) / (0.3 * (high - low))
        if not (0 <= height < 1 and lung.any()):
            return np.zeros_like(lung)
        thick = max(1, round(10 * (1 - height) / spacing))
        row = np.arange(len(lung))[:, None]
        back = np.where(lung, row, -1).max(0)  # of each column: the spine is at the bottom
        held = np.flatnonzero(lung.any(1))
        return lung & (row > back - thick) & (row >= (held[0] + held[-1]) // 2)
