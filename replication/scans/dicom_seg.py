"""Both masks as a DICOM segmentation of the series that they are of, written by highdicom.

Lungs and infection are two segments; each frame refers to its source slice, so that a PACS or a viewer lays it over
the scan. A SEG refers by UIDs: where an anonymiser took these, there is nothing to refer to.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chslib
from replication.data.reading.scan import Scan
from replication.scans.segment import Found

NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
# What each study has, if empty; anonymisers take the whole element.
OFTEN_GONE = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
              "StudyTime", "ReferringPhysicianName")  # fmt: skip


class Source:
    """The slices of a scan, to which a segmentation can refer."""

    def __init__(self, scan: Scan) -> None:
        """Read their headers.

        Raises:
            ValueError: no DICOM, UIDs that are gone, or a series of several multi-frame files.
        """
        import pydicom

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
        self.heads = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in paths]
        gone = [name for name in NEEDED if any(not head.get(name) for head in self.heads)]
        if gone or len({head.SOPInstanceUID for head in self.heads}) < len(paths):
            raise ValueError(
                f"{scan.path}: --dicom-seg refers to slices by their UIDs, but {', '.join(gone) or 'a SOPInstanceUID'} "
                f"{'is gone' if gone else 'stands for several slices'}; export the scan with them, or leave --dicom-seg out"
            )
        for head in self.heads:
            for name in (name for name in OFTEN_GONE if name not in head):
                setattr(head, name, None)

    def write(self, path: Path, found: Found, *, weights: str) -> None:
        """The masks of this scan, as a SEG with two binary segments."""
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
            segmentation = highdicom.seg.Segmentation(
                self.heads, self._pixels(found), "BINARY", segments, series_instance_uid=highdicom.UID(),
                series_number=900, sop_instance_uid=highdicom.UID(), instance_number=1, manufacturer="CHS-Net replication",
                manufacturer_model_name="chs-net segment", software_versions=chslib.__version__, device_serial_number="0",
                content_label="CHS_NET", content_description="Research software, not for diagnosis",
                series_description="Lungs and infection by CHS-Net, not for diagnosis",
            )  # fmt: skip
        segmentation.save_as(path)

    def _pixels(self, found: Found) -> NDArray[np.uint8]:
        """(frames, rows, columns, 2) as the source files, or the frames of the one file, stand."""
        masks = [np.asarray(self.scan.image(mask).dataobj).T for mask in (found.lungs, found.infection)]
        pixels = np.stack(masks, -1)
        if self.frames[0] is None:
            return pixels
        whole = np.zeros((int(self.heads[0].NumberOfFrames), *pixels.shape[1:]), np.uint8)
        whole[[frame for frame in self.frames if frame is not None]] = pixels
        return whole
