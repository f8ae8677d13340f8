"""A scan to scroll through in JupyterLab: as radiologists look at it, however it is stored; elsewhere nothing."""

import gzip
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from replication.data.reading.scan import Scan
from replication.scans.viewer import viewer


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """Four slices of air and bone, stored from head to feet and from left to right."""
    voxels = np.full((6, 8, 4), -1000, np.int16)
    voxels[2:5, 1:5] = 900
    nib.save(nib.Nifti1Image(voxels, np.diag([0.7, -0.8, -5, 1])), tmp_path / "scan.nii")
    return Scan(tmp_path / "scan.nii", intensity="hounsfield")


def test_in_jupyterlab_it_holds_scan_and_masks_as_one_looks_at_them(
    scan: Scan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    masks = [np.zeros(scan.shape, bool), np.ones(scan.shape, bool)]
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/17_your_scan.ipynb")
    shown = viewer(scan, *masks)
    images = [nib.Nifti1Image.from_bytes(gzip.decompress(volume.data)) for volume in shown.volumes]
    planes = np.stack([scan.plane(k) for k in range(4)], 2)
    for image, voxels in zip(images, [planes, *masks], strict=True):
        assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
        assert image.header.get_zooms() == pytest.approx((0.7, 0.8, 5)) == scan.spacing
        assert (np.asanyarray(image.dataobj) == voxels).all()
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    assert viewer(scan, *masks) is None and "pip install ipyniivue" in capsys.readouterr().out
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert viewer(scan, *masks) is None and capsys.readouterr().out == ""
