"""One DICOM file -> its slices, from the header alone: where each lies, and what tells it from others.

A file of today's kind is one slice. An enhanced one holds a whole series as frames, whose geometry stands in
its functional groups (DICOM PS3.3, C.7.6.16). Anonymisers empty tags and exports leave some out; only what places
a slice must be there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replication.data.reading.kinds import unpacked

CT = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "converted CT",
}
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # secondary captures: a page of a report, or what a tool made of a CT
STANDARD = "1.2.840.10008."  # begins each class of the standard: others are a maker's own, or an anonymiser's
# What parts two phases that were stored as one series, in the order in which they are tried.
TIMES = (
    "TriggerTime", "SeriesDate", "SeriesTime", "AcquisitionDateTime", "FrameAcquisitionDateTime", "AcquisitionDate", "AcquisitionTime",
    "ContentDate", "ContentTime",
)  # fmt: skip
PARTING = (
    "AcquisitionNumber", "FrameAcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase", "NominalPercentageOfRespiratoryPhase",
    "NominalCardiacTriggerDelayTime", "SeriesNumber", "SeriesDescription", "ContrastBolusAgent", "ConvolutionKernel", "FilterType",
    "KVP", "ImageType", "StackID", "ImageComments", "ProtocolName", "SliceThickness", "ReconstructionDiameter", *TIMES,
)  # fmt: skip
NAMES = ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "PatientID", "StudyInstanceUID")
TELLING = [
    "SOPClassUID", "Modality", *NAMES,
    "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "InstanceNumber", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "RescaleIntercept", "RescaleSlope", "InConcatenationTotalNumber", *PARTING,
]  # fmt: skip
WANTED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}


@dataclass(frozen=True, eq=False)
class Slice:
    """One axial picture: where it lies, in DICOM's axes (left, back, head) and mm.

    Attributes:
        path, frame: file and, of a multi-frame one, which frame (from 0); else None.
        position: (3,) of the first pixel's centre.
        edges: (2, 3) the picture's upper and left side, from its first pixel to where the next picture would begin.
        shape: rows, columns.
        sources: where its tags stand: a frame's functional groups, and the file's head.
    """

    path: Path
    frame: int | None
    position: NDArray
    edges: NDArray
    shape: tuple[int, int]
    sources: list[Any]

    def text(self, tag: str) -> str:
        """What a tag says of this slice, or ""; of "folder", where its file lies."""
        if tag == "folder":
            return self.path.parent.name
        return next((text for source in self.sources if (text := _text(source, tag))), "")

    @property
    def names(self) -> tuple[str, ...]:
        """UID, number, description, patient and study, which name its series."""
        return tuple(self.text(tag) for tag in NAMES)


def slices_of(path: Path) -> list[Slice]:
    """The slices that a file holds.

    Raises:
        ValueError: why it holds none, in a few words; without the file's name.
    """
    import pydicom

    try:
        with pydicom.config.disable_value_validation():  # odd values are told here, where they matter
            head = read_file(path, stop_before_pixels=True, specific_tags=TELLING)
            if reason := _no_ct(head):
                raise ValueError(reason)
            return list(_frames(path, head))
    except ValueError:
        raise
    except Exception as error:  # pydicom's parsers raise many kinds on damaged files
        raise ValueError(f"not readable ({type(error).__name__})") from error


def read_file(path: Path, **how: Any) -> Any:
    """A DICOM file as pydicom reads it, with its preamble or without, packed by gzip or not."""
    import pydicom

    with unpacked(path) as file:
        return pydicom.dcmread(file, force=True, **how)


def _text(head: Any, tag: str) -> str:
    value = head.get(tag)
    return "" if value is None else str(value).strip()


def _no_ct(head: Any) -> str:
    """Why it is no CT slice, or "". A class or modality that DICOM does not know tells nothing: an anonymiser wrote it."""
    from pydicom.uid import UID

    sop_class = _text(head, "SOPClassUID") or _text(head.file_meta, "MediaStorageSOPClassUID")
    modality = _text(head, "Modality").upper()
    kinds = [str(kind).upper() for kind in head.get("ImageType") or []]
    if modality not in ("", "CT", "OT") and _is_modality(modality):
        return f"modality {modality}"
    if sop_class.startswith(STANDARD) and sop_class not in CT and not sop_class.startswith(CAPTURE):
        return f"no CT, but {UID(sop_class).name}"
    if not len(head):
        return "not readable (no element)"
    if "LOCALIZER" in kinds or "SCOUT" in kinds:
        return "localisers"
    if int(head.get("SamplesPerPixel") or 1) != 1:
        return "colour pictures"
    return ""


def _is_modality(word: str) -> bool:
    from pydicom.sr.codedict import codes

    return any(getattr(getattr(codes.cid33, name), "value", None) == word for name in codes.cid33.dir())


def _frames(path: Path, head: Any) -> Iterator[Slice]:
    groups = head.get("PerFrameFunctionalGroupsSequence") or []
    shared = next(iter(head.get("SharedFunctionalGroupsSequence") or []), None)
    if int(head.get("NumberOfFrames") or 1) > 1 and len(groups) != int(head.NumberOfFrames):
        raise ValueError("multi-frame files that do not place their frames")
    for frame, sources in enumerate([[*group_items(group, shared), head] for group in groups] or [[head]]):
        read = {name: _numbers(sources, name, count) for name, count in WANTED.items()}
        told = {name: value for name, value in read.items() if value is not None}
        if missing := [name for name in WANTED if name not in told]:
            raise ValueError(f"without {' and '.join(missing)}")
        shape = int(head.get("Rows") or 0), int(head.get("Columns") or 0)
        if min(shape) < 1 or max(shape) >= 2**15:
            raise ValueError("without Rows and Columns that can be a slice's")
        along_row, along_column = np.reshape(told["ImageOrientationPatient"], (2, 3))
        row_mm, column_mm = told["PixelSpacing"]
        if min(row_mm, column_mm) <= 0:
            raise ValueError("with a PixelSpacing that is not positive")
        yield Slice(
            path, frame if groups else None, told["ImagePositionPatient"],
            np.stack([along_row * column_mm * shape[1], along_column * row_mm * shape[0]]), shape, sources,
        )  # fmt: skip


def group_items(group: Any, shared: Any) -> list[Any]:
    """All items of a frame's functional groups, those of all frames behind them."""
    return [
        item
        for source in (group, shared)
        if source is not None
        for element in source
        if element.VR == "SQ"
        for item in element.value
    ]


def _numbers(sources: list[Any], name: str, count: int) -> NDArray | None:
    for source in sources:
        value = source.get(name)
        if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != count:
            continue
        try:
            numbers = np.array([as_number(v) for v in value])
        except (TypeError, ValueError):
            continue
        if np.isfinite(numbers).all():
            return numbers
    return None


def as_number(value: Any) -> float:
    """A decimal string; some computers write it with a comma."""
    return float(str(value).replace(",", "."))
