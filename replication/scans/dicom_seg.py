"""Both masks as a DICOM segmentation of the series that they are of, written by highdicom.

Lungs and infection are two segments; each frame refers to its source slice, so that a PACS or a viewer lays it over
the scan. A SEG refers by UIDs: where an anonymiser took these, there is nothing to refer to.
"""

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

import chslib
from replication.data.reading.scan import Scan
from replication.data.reading.slices import read_file
from replication.scans.segment import Found

SHARED = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
# What each study has, if empty; anonymisers take the whole element.
OFTEN_GONE = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
              "StudyTime", "ReferringPhysicianName")  # fmt: skip


class Source:
    """The slices of a scan, to which a segmentation can refer."""

    def __init__(self, scan: Scan) -> None:
        """Read their headers, and try with one picture whether highdicom takes them.

        Raises:
            ValueError: no DICOM, UIDs that are gone or not one, a series of several multi-frame files, or what
                highdicom finds wrong.
        """
        if scan.dicom is None:
            raise ValueError(
                f"{scan.path}: --dicom-seg refers to DICOM slices, and this is no DICOM; leave it out"
            )
        self.scan, slices = scan, scan.dicom.slices
        paths = list(dict.fromkeys(one.path for one in slices))
        self.frames = [one.frame for one in slices]
        if self.frames[0] is not None and len(paths) > 1:
            raise ValueError(
                f"{scan.path}: --dicom-seg refers to one multi-frame file, and here are {len(paths)}"
            )
        self.heads = [read_file(path, stop_before_pixels=True) for path in paths]
        told = {
            name: [head.get(name) for head in self.heads]
            for name in ("SOPClassUID", "SOPInstanceUID", *SHARED)
        }
        why = [f"{name} is gone" for name, uids in told.items() if not all(uids)]
        why = why or [f"{name} differs from slice to slice" for name in SHARED if len(set(told[name])) > 1]
        if len(set(told["SOPInstanceUID"])) < len(paths):
            why = why or ["a SOPInstanceUID stands for several slices"]
        if why:
            raise ValueError(
                f"{scan.path}: --dicom-seg refers to slices by their UIDs, but {', '.join(why)}; export the scan with them, "
                "or leave --dicom-seg out"
            )
        for head in self.heads:
            for name in (name for name in OFTEN_GONE if name not in head):
                setattr(head, name, None)
        self._place(scan.dicom.affine)
        frames = 1 if self.frames[0] is None else int(self.heads[0].NumberOfFrames)
        trial = np.zeros((frames, *slices[0].shape, 2), np.uint8)
        trial[self.frames[0] or 0] = 1
        try:
            self._segmentation(trial, weights="")
        except Exception as error:  # of highdicom and pydicom: many kinds, none names the scan
            raise ValueError(
                f"{scan.path}: highdicom writes no DICOM SEG of it ({type(error).__name__}: {error}); leave --dicom-seg out"
            ) from error

    def write(self, path: Path, found: Found, *, weights: str) -> None:
        """The masks of this scan, as a SEG with two binary segments."""
        self._segmentation(self._pixels(found), weights=weights).save_as(path)

    def _place(self, ras: NDArray) -> None:
        """Give the headers the even stack's geometry: their own is rounded, noisy or not whole, which highdicom refuses."""
        import pydicom

        affine = np.diag([-1, -1, 1, 1]) @ ras
        spacing = nib.affines.voxel_sizes(affine)
        row = affine[:3, 0] / spacing[0]
        column = np.cross(np.cross(row, affine[:3, 1]), row)
        measures, orientation = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing = [f"{spacing[k]:.8g}" for k in (1, 0)]
        measures.SliceThickness = measures.SpacingBetweenSlices = f"{spacing[2]:.8g}"
        turned = np.r_[row, column / np.linalg.norm(column)]
        orientation.ImageOrientationPatient = [f"{v:.10f}" for v in turned]
        positions = []
        for k in range(len(self.frames)):
            positions.append(pydicom.Dataset())
            positions[k].ImagePositionPatient = [f"{v:.6f}" for v in affine[:3] @ [0, 0, k, 1]]
        if self.frames[0] is None:
            for head, position in zip(self.heads, positions):
                for item in (measures, orientation, position):
                    head.update(item)
            return
        head = self.heads[0]
        shared = next(iter(head.get("SharedFunctionalGroupsSequence") or []), pydicom.Dataset())
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        head.SharedFunctionalGroupsSequence = [shared]
        for frame, group in enumerate(head.PerFrameFunctionalGroupsSequence):
            if frame in self.frames:
                group.PlanePositionSequence = [positions[self.frames.index(frame)]]
            else:  # of another phase or a localiser: its mask is empty, and its place must be none of theirs
                group.PlanePositionSequence = [pydicom.Dataset()]
                group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 10000 + frame]

    def _segmentation(self, pixels: NDArray[np.uint8], *, weights: str) -> Any:
        import highdicom
        from pydicom.sr.codedict import codes

        algorithm = highdicom.AlgorithmIdentificationSequence(
            name="CHS-Net replication", version=chslib.__version__, family=codes.cid7162.ArtificialIntelligence,
            parameters={"weights": weights},
        )  # fmt: skip
        how: dict[str, Any] = {"algorithm_type": "AUTOMATIC", "algorithm_identification": algorithm}
        colours = {"Lungs": (86, 180, 233), "Infection": (213, 94, 0)}  # as of the preview
        meant = {
            "Lungs": (codes.SCT.AnatomicalStructure, codes.SCT.Lung),
            "Infection": (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion),
        }
        segments = [
            highdicom.seg.SegmentDescription(
                k + 1, name, *meant[name], **how, anatomic_regions=[codes.SCT.Lung] if k else None,
                display_color=highdicom.color.CIELabColor.from_rgb(*colours[name]),
            )
            for k, name in enumerate(meant)
        ]  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that an anonymiser wrote
            return highdicom.seg.Segmentation(
                self.heads[: len(pixels)], pixels, "BINARY", segments, series_instance_uid=highdicom.UID(),
                series_number=900, sop_instance_uid=highdicom.UID(), instance_number=1, manufacturer="CHS-Net replication",
                manufacturer_model_name="chs-net segment", software_versions=chslib.__version__, device_serial_number="0",
                content_label="CHS_NET", content_description="Research software, not for diagnosis",
                series_description="Lungs and infection by CHS-Net, not for diagnosis",
            )  # fmt: skip

    def _pixels(self, found: Found) -> NDArray[np.uint8]:
        """(frames, rows, columns, 2) as the source files, or the frames of the one file, stand."""
        masks = [np.asarray(self.scan.image(mask).dataobj).T for mask in (found.lungs, found.infection)]
        pixels = np.stack(masks, -1)
        if self.frames[0] is None:
            return pixels
        whole = np.zeros((int(self.heads[0].NumberOfFrames), *pixels.shape[1:]), np.uint8)
        whole[[frame for frame in self.frames if frame is not None]] = pixels
        return whole
