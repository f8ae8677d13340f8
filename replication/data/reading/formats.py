"""MetaImage and NRRD, read by SimpleITK where it is installed: `pip install chslib[formats]`."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np

from replication.data.reading.kinds import BY_SIMPLEITK, unpacked

TOLD = rb"(?m)^(space|TransformMatrix|Orientation|Rotation) *[:=]"  # in a header that says how its scan lies


def has_simpleitk() -> bool:
    """Whether SimpleITK can be imported, without doing so."""
    from importlib.util import find_spec

    return find_spec("SimpleITK") is not None


def read_other(path: Path, kind: str) -> nib.Nifti1Image:
    """A three-dimensional scan of one of the kinds of `BY_SIMPLEITK`, in its own voxel order; affine in RAS, mm.

    Where the header does not tell how the scan lies, which SimpleITK passes over, neither form of the image is set.

    Raises:
        ValueError: SimpleITK is missing, cannot read it, or finds no three axes.
    """
    if not has_simpleitk():
        raise ValueError(
            f"{path}: {BY_SIMPLEITK[kind]}; SimpleITK reads it: pip install chslib[formats], or convert it to NIfTI"
        )
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(
            str(path), imageIO="MetaImageIO" if kind == "metaimage" else "NrrdImageIO"
        )
    except RuntimeError as error:
        raise ValueError(
            f"{path}: {BY_SIMPLEITK[kind]} that SimpleITK cannot read; it is damaged, or the file with its voxels is "
            "not beside it"
        ) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"{path}: {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} numbers a voxel; expected 3 and 1"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = SimpleITK.GetArrayFromImage(image).T
    if (
        not np.isfinite(voxels).all()
        or voxels.dtype.itemsize > 4
        or voxels.dtype.kind == "u"
        and voxels.dtype.itemsize > 2
    ):
        voxels = voxels.astype(np.float32)
    out = nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1]) @ affine)
    out.header.set_xyzt_units("mm")
    with unpacked(path) as file:
        if not re.search(TOLD, file.read(4096)):
            out.header["sform_code"] = out.header["qform_code"] = 0
    return out
