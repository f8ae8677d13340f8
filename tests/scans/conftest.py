"""The drawn chest, a cascade that needs no training, and a place for scans."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from chest import DEPTH, SIZE, Dark, Drawn, cascade_of

from replication.data.phantom.volumes import make_volume
from replication.scans.weights import Cascade


@pytest.fixture(scope="session")
def drawn() -> Drawn:
    """Not square, with voxels of three lengths, cut so that no axis is like another."""
    volume = make_volume(name="coronacases_001", seed=3, size=SIZE, depth=DEPTH)
    cut = (slice(2, None), slice(4, -4), slice(None))
    affine = np.diag([-4.8, 5.2, 9.0, 1.0])
    affine[:3, 3] = 150, -140, 30
    hu, lung, infection = (np.ascontiguousarray(a[cut]) for a in (volume.ct, volume.lung, volume.infection))
    return Drawn(hu.astype(np.int16), lung.astype(np.uint8), infection.astype(np.uint8), affine)


@pytest.fixture
def eyes() -> Cascade:
    """A cascade by thresholds, which answers differently to every turned or mirrored picture in its place."""
    return cascade_of(Dark(0.02, 0.45), Dark(0.25, 0.45))


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Saves voxels as a NIfTI file of `tmp_path`."""

    def save(array: np.ndarray, affine: np.ndarray, name: str = "scan.nii.gz") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return save
