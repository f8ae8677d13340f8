"""A drawn chest stored in any way: every axis order and sign, NIfTI or DICOM, and networks that see what is there."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations
from torch import Tensor, nn

from replication.data.reading.scan import Scan
from replication.scans.weights import Cascade, Stage

CASES = Path(os.environ.get("CHS_CASES", "/nowhere"))  # a small CT, stored in many ways
WITH_CASES = pytest.mark.skipif(not CASES.is_dir(), reason="CHS_CASES names no folder of stored cases")
EVERY_WAY = ["".join(p) for o in itertools.permutations(("LR", "AP", "SI")) for p in itertools.product(*o)]
SIZE, DEPTH = 64, 12


@dataclass(frozen=True)
class Drawn:
    """A chest in LAS, HU, with its masks and affine (4, 4), mm."""

    hu: np.ndarray
    lung: np.ndarray
    infection: np.ndarray
    affine: np.ndarray


def stored(array: np.ndarray, affine: np.ndarray, axes: str) -> nib.Nifti1Image:
    """The same voxels in another order, with the affine that says so."""
    image = nib.Nifti1Image(array, affine)
    turn = orientations.ornt_transform(nib.io_orientation(affine), orientations.axcodes2ornt(tuple(axes)))
    turned = image.as_reoriented(turn)
    return nib.Nifti1Image(np.asanyarray(turned.dataobj), turned.affine)


def voxels(scan: Scan) -> np.ndarray:
    """All planes, (x, y, slices)."""
    return np.stack([scan.plane(k) for k in range(scan.shape[2])], 2)


def dicom_slices(hu: np.ndarray, affine: np.ndarray, *, axes: str = "LPS", **tags: object) -> list:
    """An axial series, feet first or as the axes have it. Tags overwrite those of every slice; None takes one away."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    image = stored(hu, affine, axes)
    voxels, ras = np.asanyarray(image.dataobj), image.affine
    lps = np.diag([-1, -1, 1, 1]) @ ras
    spacing = nib.affines.voxel_sizes(ras)
    series, study = generate_uid(), generate_uid(entropy_srcs=["study"])
    slices = []
    for k in range(voxels.shape[2]):
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.SeriesInstanceUID, one.StudyInstanceUID = series, study
        one.FrameOfReferenceUID = study
        one.Modality, one.ImageType, one.SeriesNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], 2
        one.PatientID, one.SeriesDescription = "drawn", "chest"
        one.InstanceNumber = k + 1
        one.ImagePositionPatient = [float(f"{v:.6f}") for v in lps[:3] @ [0, 0, k, 1]]
        one.ImageOrientationPatient = [
            float(f"{v:.9f}") for v in np.r_[lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]]
        ]
        one.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        one.SliceThickness = float(spacing[2])
        one.Rows, one.Columns = voxels.shape[1], voxels.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.PixelData = (voxels[:, :, k].T.astype(np.int32) + 1024).clip(0).astype("<u2").tobytes()
        for tag, value in tags.items():
            if value is None:
                delattr(one, tag)
            else:
                setattr(one, tag, value)
        slices.append(one)
    return slices


def put_dicom(folder: Path, slices: list, **how: object) -> Path:
    """One file a slice, named so that their order tells nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, one in enumerate(slices):
        one.save_as(folder / f"{(k * 7) % 31:02d}_{k}.dcm", **({"enforce_file_format": True} | how))
    return folder


def write_dicom(
    folder: Path, hu: np.ndarray, affine: np.ndarray, *, axes: str = "LPS", **tags: object
) -> Path:
    """A series of `dicom_slices` in a folder."""
    return put_dicom(folder, dicom_slices(hu, affine, axes=axes, **tags))


class Dark(nn.Module):
    """Finds what is darker than a level, or between two; no network to train."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.edges = nn.Parameter(torch.tensor([low, high]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(x[:, :1] - self.edges[0], self.edges[1] - x[:, :1])


def cascade_of(
    lungs: nn.Module,
    infection: nn.Module,
    *,
    size: int = SIZE,
    feed: str = "mask",
    name: str = "eyes",
    **origin: Any,
) -> Cascade:
    """A cascade of two networks, as trained on slices of a size, by default prepared by minmax-clahe."""
    made = {
        "preparation": "minmax-clahe",
        "window": None,
        "size": size,
        "scans": "",
        "terms": "",
        "public": True,
    }
    sidecar = {
        "first_stage": "first", "cascade": feed, "origin": made | origin, "trained_on": {"without_infection": 0},
        "record": {"config": {"size": size}, "test": {}},
    }  # fmt: skip
    stages = (Stage(Path(name), network.eval(), sidecar) for network in (lungs, infection))
    told = {"name": name, "size": size, "sha256": {"lungs": "0", "infection": "1"}}
    return Cascade(*stages, feed=feed, weights=told)
