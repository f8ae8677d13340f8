"""A scan is the same scan however it is stored, its numbers are recognised, and what is in doubt is said or refused."""

import nibabel as nib
import numpy as np
import pytest
from chest import CASES, EVERY_WAY, WITH_CASES, stored, voxels
from scipy.spatial.transform import Rotation

from replication.data.reading.intensity import recognise
from replication.data.reading.scan import Scan


@pytest.mark.parametrize("axes", EVERY_WAY)
def test_every_axis_order_and_sign_is_the_same_scan_and_goes_back_as_it_came(axes, drawn, put):
    """Also of a patient who lies a little askew."""
    turn, rng = np.eye(4), np.random.default_rng(EVERY_WAY.index(axes))
    turn[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.1, 0.1, 3)).as_matrix()
    image = stored(drawn.hu, drawn.affine, axes)
    path = put(np.asanyarray(image.dataobj), turn @ image.affine)
    scan = Scan(path)
    assert scan.axes == axes and not scan.doubts
    assert np.array_equal(voxels(scan), drawn.hu) and np.allclose(scan.affine, turn @ drawn.affine, atol=1e-3)
    assert np.allclose(scan.spacing, (4.8, 5.2, 9.0))
    back = scan.image(drawn.lung)
    assert np.array_equal(
        np.asanyarray(back.dataobj), np.asanyarray(stored(drawn.lung, drawn.affine, axes).dataobj)
    )


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_s_header_has_the_scan_s_geometry_byte_for_byte(kind, drawn, tmp_path):
    image = kind(drawn.hu.astype(">i2"), drawn.affine)
    image.header.set_qform(drawn.affine, 1)
    image.header["descrip"] = b"as the scanner wrote it"
    nib.save(image, tmp_path / "scan.nii")
    nib.save(Scan(tmp_path / "scan.nii").image(drawn.lung), tmp_path / "mask.nii")
    before, after = (nib.load(tmp_path / f"{name}.nii").header for name in ("scan", "mask"))
    for key in ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
                "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units", "descrip"):  # fmt: skip
        assert before[key].tobytes() == after[key].astype(before[key].dtype).tobytes(), key
    assert after.get_data_dtype() == np.uint8 and type(before) is type(after)


def test_a_header_that_tells_nothing_or_two_things_is_refused_until_an_option_decides(drawn, tmp_path, put):
    image = nib.Nifti1Image(drawn.hu, None)
    nib.save(image, tmp_path / "bare.nii.gz")
    with pytest.raises(ValueError, match="neither qform nor sform.*--axes"):
        Scan(tmp_path / "bare.nii.gz")
    assert np.array_equal(voxels(Scan(tmp_path / "bare.nii.gz", axes="LAS")), drawn.hu)
    two = nib.Nifti1Image(drawn.hu, drawn.affine)
    two.header.set_qform(np.diag([4.8, 5.2, 9.0, 1]), 1)
    nib.save(two, tmp_path / "two.nii.gz")
    with pytest.raises(ValueError, match="qform says RAS, its sform LAS.*--axes LAS or --axes RAS"):
        Scan(tmp_path / "two.nii.gz")
    assert Scan(tmp_path / "two.nii.gz", axes="RAS").axes == "RAS"
    moved = nib.Nifti1Image(drawn.hu, drawn.affine)
    moved.header.set_qform(drawn.affine + np.eye(4, k=3) * 40, 1)
    nib.save(moved, tmp_path / "moved.nii.gz")
    assert Scan(tmp_path / "moved.nii.gz").doubts == ["qform and sform differ; the sform is taken"]
    for row, qfac in ((0, 1), (np.nan, 0)):
        image = nib.Nifti1Image(drawn.hu, drawn.affine * [-1, 1, 1, 1])
        image.header.set_qform(image.affine, 1)
        whole = bytearray(image.to_bytes())
        whole[280:296], whole[76:80] = np.full(4, row, "<f4").tobytes(), np.float32(qfac).tobytes()
        (tmp_path / "odd.nii").write_bytes(whole)
        assert Scan(tmp_path / "odd.nii").doubts == ["the sform is none that can be; the qform is taken"]
    with pytest.raises(ValueError, match="'LLS'; expected one letter each"):
        Scan(tmp_path / "two.nii.gz", axes="LLS")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        Scan(tmp_path / "gone.nii")


def test_a_tilted_gantry_and_a_slanting_stack_are_named(drawn, put):
    sheared = drawn.affine.copy()
    sheared[1, 2] = 9 * np.tan(np.radians(20))
    assert "sheared by 20 degrees" in Scan(put(drawn.hu, sheared)).doubts[0]
    c, s = np.cos(np.radians(25)), np.sin(np.radians(25))
    slanting = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ drawn.affine
    assert "25 degrees off axial" in Scan(put(drawn.hu, slanting)).doubts[0]


# ---- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, kind, said",
    [
        (lambda hu: hu, "hounsfield", ""),
        (lambda hu: np.clip(hu.astype(int) + 1024, 0, 4095).astype(np.uint16), "offset", "1024 is taken off"),
        (lambda hu: np.interp(hu, (-1250, 250), (0, 255)).astype(np.uint8), "grey", "windowed before"),
        (lambda hu: np.interp(hu, (-1250, 250), (0, 1)).astype(np.float32), "grey", "scaled by 255"),
    ],
    ids=["hu", "offset", "grey", "unit"],
)  # fmt: skip
def test_numbers_are_recognised_and_brought_to_one_scale(change, kind, said, drawn, put):
    scan = Scan(put(change(drawn.hu), drawn.affine))
    assert scan.intensity.kind == kind and said in " ".join([*scan.notes, *scan.doubts])
    grey = np.interp(drawn.hu, (-1250, 250), (0, 255))
    assert np.abs(voxels(scan) - (grey if kind == "grey" else np.maximum(drawn.hu, -1024))).max() <= (
        kind == "grey"
    )


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda hu: np.zeros_like(hu), "every sampled voxel is 0"),
        (lambda hu: np.full(hu.shape, np.nan, np.float32), "NaN or infinite; no CT"),
        (lambda hu: (hu / 4 + 300).astype(np.float32), "slope or an intercept"),
        (lambda hu: np.clip(hu, -160, 240).astype(np.int16), "no chest in Hounsfield units"),
        (lambda hu: (hu + 5000).astype(np.int16), "--intensity hounsfield, offset or grey"),
    ],
    ids=["constant", "nan", "slope", "mediastinal window", "far"],
)
def test_numbers_that_are_no_ct_are_refused_with_what_was_found(change, said, drawn, put):
    with pytest.raises(ValueError, match=said):
        Scan(put(change(drawn.hu), drawn.affine))


def test_who_knows_the_unit_can_say_it(drawn, put):
    path = put(np.clip(drawn.hu, -160, 240).astype(np.int16), drawn.affine)
    assert Scan(path, intensity="hounsfield").intensity.kind == "hounsfield"
    with pytest.raises(ValueError, match="intensity 'kelvin'"):
        recognise(drawn.hu, told="kelvin")


# ---- the small CT, where it is present ---------------------------------------------------------


@WITH_CASES
def test_the_small_ct_is_one_scan_in_all_its_ways():
    same = [voxels(Scan(CASES / axes / "ct" / "scan.nii.gz")) for axes in ("RAS", "LPS", "LAS", "PSR")]
    assert all(np.array_equal(same[0], other) for other in same[1:])
    offset = Scan(CASES / "no_offset" / "ct" / "scan.nii.gz")
    assert offset.intensity.kind == "offset" and np.abs(voxels(offset) - same[0]).max() < 1
