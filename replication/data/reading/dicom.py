"""One CT series -> its planes in Hounsfield units, and where they lie. pydicom reads headers and pixels.

`series` finds which files belong together, `stack` how they lie. Hounsfield units are stored numbers, rescaled; how a
viewer would show them (MONOCHROME1, a window) does not touch them.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from replication.data.reading.series import FEWEST, choose, series_in
from replication.data.reading.slices import Slice, group_items, slices_of
from replication.data.reading.stack import TOLD, TOLERANCE, fit


class Dicom:
    """One CT series of a folder, or of one multi-frame file. Planes are read when they are asked for.

    Attributes:
        path: the folder or file.
        series: the one that was chosen.
        slices: in the order of the planes.
        header: a NIfTI header that says where the planes lie.
        affine: (4, 4), RAS, mm.
        shape: (columns, rows, slices).
        notes: what was left out, and how far the slices lie from the even stack that was fitted to them.
    """

    def __init__(self, path: str | os.PathLike, *, series: str | None = None) -> None:
        """Read the headers.

        Args:
            series: which, as `Series.name`, number or UID; None: the only one.

        Raises:
            ValueError: no series, several and none named, or slices that form no even stack; with the
                one reason that holds, and its cure.
        """
        self.path = Path(path)
        found, self.notes = series_in(self.path, same=_same)
        if self.path.is_file() and sum(len(one.slices) for one in found) < FEWEST:
            raise ValueError(self._alone())
        self.series = choose(found, self.path, series, self.notes)
        self.notes += self.series.notes
        try:
            stack = fit(self.series.slices)
        except ValueError as error:
            raise ValueError(f"{self.path}: series {self.series} is no volume: {error}") from error
        if stack.deviation > TOLD:
            self.notes.append(
                f"slices lie up to {stack.deviation:.2g} mm off the even stack that was fitted to them (at most "
                f"{TOLERANCE} mm is allowed)"
            )
        self.slices, self.affine, self.shape = stack.slices, stack.affine, stack.shape
        image = nib.Nifti1Image(np.broadcast_to(np.int16(0), self.shape), self.affine)
        image.header.set_xyzt_units("mm")
        self.header = image.header
        self._unscaled: set[int] = set()

    def plane(self, k: int, *, finite: bool = False) -> NDArray:
        """Plane k, (columns, rows), in Hounsfield units by the slice's rescale tags; `finite` as of `nifti.Volume`.

        Raises:
            ValueError: its pixels cannot be decoded; names the file.
        """
        one = self.slices[k]
        try:
            pixels, sources = _decoded(one)
            if pixels.shape != one.shape:
                raise ValueError(f"pixels of shape {pixels.shape}, where its header says {one.shape}")
            slope, intercept = (_number(sources, name) for name in ("RescaleSlope", "RescaleIntercept"))
        except Exception as error:  # of pydicom and the decoders: all name the trouble, none the file
            lacks = "plugin" in str(error) or "dependencies" in str(error)
            raise ValueError(
                f"{one.path}: its pixels cannot be decoded ({type(error).__name__}: {error}); "
                + (
                    "pip install pylibjpeg[all]"
                    if lacks
                    else "the file is damaged or cut short, export it again"
                )
            ) from error
        if intercept is None:
            self._unscaled.add(k)
        if slope in (None, 1) and intercept in (None, 0):
            return pixels.T
        return pixels.T * np.float64(1 if slope is None else slope) + (intercept or 0)

    def finish(self) -> None:
        """After a pass over all planes: note what showed only there."""
        if self._unscaled:
            self.notes.append(f"{len(self._unscaled)} slices without a rescale intercept: taken as stored")

    def _alone(self) -> str:
        try:
            slices_of(self.path)
        except ValueError as error:
            return f"{self.path}: one DICOM file that is no CT slice ({error})"
        return f"{self.path}: one DICOM slice of a scan; give the folder with all of them: {self.path.parent}"


@lru_cache(maxsize=1)
def _file(path: Path) -> Any:
    """A file with its pixels; the last one is kept, because an enhanced one is asked once for each frame."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    data = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in data.file_meta:  # no preamble: as it was read
        implicit, little = data.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    for name, usual in (
        ("PhotometricInterpretation", "MONOCHROME2"),
        ("SamplesPerPixel", 1),
        ("BitsStored", data.BitsAllocated),
    ):
        if data.get(name) in (None, ""):
            setattr(data, name, usual)
    return data


def _decoded(one: Slice) -> tuple[NDArray, list[Any]]:
    """Stored numbers (rows, columns), and where the rescale tags may stand."""
    from pydicom.pixels import pixel_array

    data = _file(one.path)
    if one.frame is None:
        return pixel_array(data), [data]
    shared = next(iter(data.get("SharedFunctionalGroupsSequence") or []), None)
    sources = [*group_items(data.PerFrameFunctionalGroupsSequence[one.frame], shared), data]
    single = int(data.get("NumberOfFrames") or 1) == 1
    return pixel_array(data, index=None if single else one.frame), sources


def _number(sources: list[Any], name: str) -> float | None:
    for source in sources:
        if source.get(name) not in (None, ""):
            return float(source[name].value)
    return None


def _same(one: Slice, other: Slice) -> bool:
    """Whether two files show the same picture: in stored numbers and in how these are rescaled."""
    shown = []
    for each in (one, other):
        try:
            pixels, sources = _decoded(each)
        except Exception:  # a picture that cannot be read is told when it is
            return False
        shown.append(
            (pixels.tobytes(), [_number(sources, f"Rescale{name}") for name in ("Slope", "Intercept")])
        )
    return shown[0] == shown[1]
