"""Nothing that may show a patient is committed, whatever it is called."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
VOXELS = np.zeros((4, 4, 2), np.int16)


def refused(*paths: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "workflow/no_patients.py", *paths], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == bool(done.stderr)
    return done.stderr


def test_of_what_is_committed_nothing_is_refused() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert refused(*tracked.splitlines()) == ""


def nifti(kind: type, name: str) -> Callable[[Path], None]:
    return lambda path: (
        nib.save(kind(VOXELS, np.eye(4)), path.with_name(name)) or path.with_name(name).rename(path)
    )


def dicom(path: Path, *, preamble: bool) -> None:
    image = pydicom.Dataset()
    image.SOPClassUID, image.SOPInstanceUID, image.PatientName = "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "K"
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(path, image, enforce_file_format=preamble)


FILES = {
    "NIfTI": nifti(nib.Nifti1Image, "a.nii"), "NIfTI, packed": nifti(nib.Nifti1Image, "a.nii.gz"),
    "NIfTI, version 2": nifti(nib.Nifti2Image, "a.nii"), "DICOM file": lambda path: dicom(path, preamble=True),
    "DICOM file, bare": lambda path: dicom(path, preamble=False), "array": lambda path: np.save(path.open("wb"), VOXELS),
    "MetaImage": lambda path: path.write_bytes(b"ObjectType = Image\nNDims = 3\n"),
    "archive": lambda path: np.savez(path.open("wb"), VOXELS),
    "picture": lambda path: Image.new("L", (4, 4)).save(path, "PNG"),
    "picture, packed": lambda path: Image.new("L", (4, 4)).save(path, "JPEG"),
    "notebook": lambda path: path.write_text(json.dumps({"cells": [], "nbformat": 4})),
    "damaged gzip": lambda path: path.write_bytes(gzip.compress(b"x" * 99)[:12]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_what_may_show_a_patient_is_refused_under_any_name(kind: str, tmp_path: Path) -> None:
    FILES[kind](tmp_path / "notes.md")
    assert kind.split(",")[0] in refused("notes.md", folder=tmp_path)
