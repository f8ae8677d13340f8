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
from replication.data.reading.slices import Slice, as_number, group_items, read_file, slices_of
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
        told = {one.text("RescaleIntercept") for one in self.slices} - {""}
        self._intercept = as_number(told.pop()) if len(told) == 1 else None
        self._unscaled: set[int] = set()

    def plane(self, k: int, *, finite: bool = False) -> NDArray:
        """Plane k, (columns, rows), in Hounsfield units by the slice's rescale tags; `finite` as of `nifti.Volume`.

        Raises:
            ValueError: its pixels cannot be decoded; names the file.
        """
        one = self.slices[k]
        try:
            pixels, slope, intercept = _decoded(one)
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
            intercept = self._intercept
        return _scaled(pixels, slope, intercept).T

    def finish(self) -> None:
        """After a pass over all planes: note what showed only there."""
        if self._unscaled:
            taken = "as stored" if self._intercept is None else f"{self._intercept:g}, as the others have it"
            self.notes.append(f"{len(self._unscaled)} slices without a rescale intercept: taken {taken}")

    def _alone(self) -> str:
        try:
            slices_of(self.path)
        except ValueError as error:
            return f"{self.path}: one DICOM file that is no CT slice ({error}); give the folder with the scan"
        return f"{self.path}: one DICOM slice of a scan; give the folder with all of them: {self.path.parent}"


@lru_cache(maxsize=1)
def _file(path: Path) -> Any:
    """A file with its pixels; the last one is kept, because an enhanced one is asked once for each frame."""
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    data = read_file(path)
    syntax = UID(str(data.file_meta.get("TransferSyntaxUID") or "1"))
    if not syntax.is_transfer_syntax or syntax.is_encapsulated and not data["PixelData"].is_undefined_length:
        implicit, little = (
            data.original_encoding
        )  # gone, or of the pixels before they were unpacked: as it was read
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    data.PhotometricInterpretation = "MONOCHROME2"  # the numbers are wanted, however they are shown
    for name, usual in (("SamplesPerPixel", 1), ("BitsAllocated", 16), ("PixelRepresentation", 0)):
        if data.get(name) in (None, ""):
            setattr(data, name, usual)
    if data.get("BitsStored") in (None, ""):
        data.BitsStored = data.BitsAllocated
    return data


def _decoded(one: Slice) -> tuple[NDArray, float | None, float | None]:
    """Stored numbers (rows, columns), slope and intercept."""
    from pydicom.pixels import pixel_array

    data, sources = _file(one.path), []
    if one.frame is not None:
        shared = next(iter(data.get("SharedFunctionalGroupsSequence") or []), None)
        sources = group_items(data.PerFrameFunctionalGroupsSequence[one.frame], shared)
    several = int(data.get("NumberOfFrames") or 1) > 1
    pixels = pixel_array(data, index=one.frame if several else None)
    if pixels.shape != one.shape:
        raise ValueError(f"pixels of shape {pixels.shape}, where its header says {one.shape}")
    slope, intercept = (_number([*sources, data], f"Rescale{name}") for name in ("Slope", "Intercept"))
    return pixels, slope, intercept


def _scaled(pixels: NDArray, slope: float | None, intercept: float | None) -> NDArray:
    if slope in (None, 1) and intercept in (None, 0):
        return pixels
    return pixels * np.float64(1 if slope is None else slope) + (intercept or 0)


def _number(sources: list[Any], name: str) -> float | None:
    for source in sources:
        if source.get(name) not in (None, ""):
            return as_number(source[name].value)
    return None


def _same(one: Slice, other: Slice) -> bool:
    """Whether two files show the same picture, in Hounsfield units."""
    try:
        return np.array_equal(_scaled(*_decoded(one)), _scaled(*_decoded(other)))
    except Exception:  # a picture that cannot be read is told when it is
        return False
