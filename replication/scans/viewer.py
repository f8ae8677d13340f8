"""A scan and its masks in JupyterLab, to scroll through slice by slice."""

import os
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from replication.data.reading.scan import Scan
from replication.scans.output import packed
from replication.scans.preview import WINDOW


def viewer(scan: Scan, lungs: NDArray, infection: NDArray) -> Any:
    """NiiVue with the lungs in blue and the infection in red, axial and from the front and the side.

    Nothing where no one can scroll: only JupyterLab, whose kernels know their session by name, gets it.

    Args:
        lungs, infection: masks (x, y, slices), as the planes of `scan`.

    Returns:
        The widget; None elsewhere, and, with a line that says so, where `ipyniivue` is missing.
    """
    if "JPY_SESSION_NAME" not in os.environ:
        return None
    try:
        from ipyniivue import NiiVue, SliceType
    except ImportError:
        print("To scroll through scan and masks here: pip install ipyniivue")
        return None
    x, y, z = scan.spacing
    affine = np.diag([-x, y, z, 1.0])  # planes are LAS, however it is stored

    def volume(voxels: NDArray, name: str, low: float, high: float, **look: Any) -> dict[str, Any]:
        data = packed(nib.Nifti1Image(voxels, affine))
        of = {"data": data, "name": f"{name}.nii.gz", "cal_min": low, "cal_max": high}
        return of | {"colorbar_visible": False} | look

    ct = np.stack([scan.plane(k) for k in range(scan.shape[2])], 2).astype(np.int16)
    masks = {"lungs": (lungs, "blue", 0.25), "infection": (infection, "red", 0.5)}
    shown = NiiVue(height=480)
    shown.load_volumes(
        [
            volume(ct, "scan", *((0, 255) if scan.intensity.windowed else WINDOW)),
            *(
                volume(mask.astype(np.uint8), name, 0, 1, colormap=colour, opacity=opacity)
                for name, (mask, colour, opacity) in masks.items()
            ),
        ]
    )
    shown.set_radiological_convention(True)
    shown.set_slice_type(SliceType.MULTIPLANAR)
    return shown
