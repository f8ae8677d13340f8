"""One CT series -> its planes in Hounsfield units, and where they lie. pydicom reads headers and pixels.

`series` finds which files belong together, `stack` how they lie. Hounsfield units are stored numbers, rescaled; how a
viewer would show them (MONOCHROME1, a window) does not touch them.
"""

import os
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from replication.data.reading.series import FEWEST, choose, series_in
from replication.data.reading.slices import Slice, as_number, read_file, slices_of
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
        parts = len({one.path for one in self.series.slices})
        total = self.series.slices[0].text("InConcatenationTotalNumber")
        if total.isdigit() and parts < int(total):
            raise ValueError(
                f"{self.path}: {parts} of {total} files of one scan; give the folder with all of them"
            )
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
        told = Counter(one.text("RescaleIntercept") for one in self.slices)
        unscaled = told.pop("", 0)
        self._intercept = next(iter(told)) if len(told) == 1 else ""
        if unscaled:
            taken = f"{self._intercept}, as the others have it" if self._intercept else "as stored"
            self.notes.append(f"{unscaled} slices without a rescale intercept: taken {taken}")

    def plane(self, k: int, *, finite: bool = False) -> NDArray:
        """Plane k, (columns, rows), in Hounsfield units by the slice's rescale tags; `finite` as of `nifti.Volume`.

        Raises:
            ValueError: its pixels cannot be decoded; names the file.
        """
        one = self.slices[k]
        try:
            return _hounsfield(one, self._intercept).T
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
        implicit, little = data.original_encoding  # it is gone, or of before the pixels were unpacked
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    data.PhotometricInterpretation = "MONOCHROME2"  # the numbers are wanted, however they are shown
    for name, usual in (("SamplesPerPixel", 1), ("BitsAllocated", 16), ("PixelRepresentation", 0)):
        if data.get(name) in (None, ""):
            setattr(data, name, usual)
    if data.get("BitsStored") in (None, ""):
        data.BitsStored = data.BitsAllocated
    return data


def _hounsfield(one: Slice, intercept: str = "") -> NDArray:
    """A picture (rows, columns), rescaled; by an intercept where it has none."""
    from pydicom.pixels import pixel_array

    data = _file(one.path)
    several = int(data.get("NumberOfFrames") or 1) > 1
    pixels = pixel_array(data, index=one.frame if several else None)
    if pixels.shape != one.shape:
        raise ValueError(f"pixels of shape {pixels.shape}, where its header says {one.shape}")
    slope = as_number(one.text("RescaleSlope") or 1)
    offset = as_number(one.text("RescaleIntercept") or intercept or 0)
    return pixels if (slope, offset) == (1, 0) else pixels * np.float64(slope) + offset


def _same(one: Slice, other: Slice) -> bool:
    """Whether two files show the same picture, in Hounsfield units."""
    try:
        return np.array_equal(_hounsfield(one), _hounsfield(other))
    except Exception:  # a picture that cannot be read is told when it is
        return False
