"""What the page "Try it" does before and behind the networks is what `chs-net segment` does, on files as they come."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import nibabel as nib
import numpy as np
import pytest
import SimpleITK

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/scans"), str(ROOT / "book")]
import try_page  # noqa: E402
from chest import stored  # noqa: E402

from replication.data.phantom.volumes import make_volume  # noqa: E402
from replication.data.reading.intensity import BRIGHTEST, DARKEST  # noqa: E402
from replication.data.reading.scan import Scan  # noqa: E402
from replication.scans.cleaning import clean_lungs  # noqa: E402
from replication.scans.density import densities, hardly_differ, quartiles  # noqa: E402
from replication.scans.plausibility import implausible  # noqa: E402
from replication.scans.prepare import prepared, restored  # noqa: E402
from replication.scans.report import report  # noqa: E402
from replication.scans.segment import Found, _hounsfield, _warnings  # noqa: E402
from replication.scans.steps import Cleaning  # noqa: E402
from replication.scans.weights import load_cascade  # noqa: E402

SIZE = 128  # so that a tile of CLAHE is clipped at more than one
REFUSED = {
    "four.nii.gz": "split a series", "unplaced.nii.gz": "does not tell how the scan lies", "labels.nii.gz": "label map",
    "constant.nii.gz": "no CT", "shifted.nii.gz": "no chest in Hounsfield units", "cut.nii.gz": "damaged or cut short",
    "short.nii": "cut short", "text.nii": "no scan that is known", "complex.nii.gz": "complex", "twice.nii.gz": "its qform says",
    "unplaced.mha": "does not tell how the scan lies", "unplaced.nrrd": "does not tell how the scan lies", "cut.mha": "cannot be read",
    "colour.mha": "colours",
}  # fmt: skip


def write(folder: Path) -> np.ndarray:
    """Scans as they come, and some that are none; lungs (S, SIZE, SIZE) with holes, crumbs and a body of gas."""
    drawn = make_volume(name="coronacases_001", seed=3, size=80, depth=12)
    hu = np.ascontiguousarray(drawn.ct[4:, 6:-6]).astype(np.int16)
    hu[-4:, -4:-1, -1], hu[-1, -1, -1] = (
        50,
        60,
    )  # the viewer forgets the last voxel of 32- and 64-bit integers
    affine = np.array([[-4.8, 0, 0, 150], [0, 5.2, 0.6, -140], [0, -0.5, 9, 30], [0, 0, 0, 1.0]])

    def save(name: str, image: nib.Nifti1Image) -> None:
        nib.save(image, folder / name)

    for axes in ("LAS", "RPI", "SAL"):
        save(f"{axes}.nii.gz", stored(hu, affine, axes))
    save("offset.nii.gz", nib.Nifti1Image((hu.clip(-1024) + 1024).astype(np.uint16), affine))
    grey = ((hu.clip(-1250, 250) + 1250) / 1500 * 255).astype(np.uint8)
    save("grey.nii", nib.Nifti1Image(grey, affine))
    holed = np.where(hu < -1100, np.nan, hu)
    holed[:3, :3], holed[-1, -1, -1] = np.nan, 0  # which of real numbers is none that was forgotten
    save("nan.nii.gz", nib.Nifti1Image(holed, affine))
    bright = hu.copy()
    bright[30, 30, :] = 31000
    bright[20:23, 24:26, 5] = bright[50:58, 40:42, 7] = bright[0, 12, 3] = (
        2600  # a patch that is filled, metal that stays
    )
    bright[12:14, 30, 4] = -3000
    bright[25, 40, 6] = 1200
    save("metal.nii", nib.Nifti1Image(bright.astype(">i2"), affine, nib.Nifti1Header(endianness=">")))
    save("second.nii", nib.Nifti1Image(((hu.astype(np.int32) + 200) * 2), affine))
    with open(folder / "second.nii", "r+b") as file:  # nibabel writes no slope of one's own
        file.seek(112)
        file.write(np.float32([0.5, -200.0]).tobytes())
    only_q = nib.Nifti1Image(hu, None)
    only_q.set_qform(np.diag([-4.8, 5.2, 9, 1.0]), code=1)
    save("qform.nii.gz", only_q)
    save("second.nii.gz", nib.Nifti2Image(hu, affine))
    metres = nib.Nifti1Image(hu.astype("i8"), np.diag([0.001, 0.001, 0.001, 1]) @ affine, dtype=np.int64)
    metres.header.set_xyzt_units("meter")
    save("metres.nii.gz", metres)
    for code, name in (
        (1, "later.nii.gz"),
        (3, "later_q.nii.gz"),
    ):  # the sform holds, whichever code is larger
        later = nib.Nifti1Image(hu, affine)
        later.set_sform(affine, code=2)
        later.set_qform(np.diag([-4.8, 5.2, 9, 1.0]), code=code)
        save(name, later)

    save("four.nii.gz", nib.Nifti1Image(np.stack([hu] * 2, 3), affine))
    save("unplaced.nii.gz", nib.Nifti1Image(hu, None))
    save("labels.nii.gz", nib.Nifti1Image((hu > -300).astype(np.uint8) * 12, affine))
    save("constant.nii.gz", nib.Nifti1Image(np.full_like(hu, 7), affine))
    save("shifted.nii.gz", nib.Nifti1Image(hu + 500, affine))
    save("complex.nii.gz", nib.Nifti1Image(hu.astype(np.complex64), affine))
    twice = nib.Nifti1Image(hu, affine)
    twice.set_qform(np.diag([4.8, 5.2, 9, 1]), code=1)
    save("twice.nii.gz", twice)
    image = SimpleITK.GetImageFromArray(hu.transpose(2, 1, 0))
    image.SetSpacing((4.8, 5.2, 9.0))
    image.SetOrigin((150.0, -140.0, 30.0))
    image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    SimpleITK.WriteImage(image, folder / "packed.mha", useCompression=True)
    SimpleITK.WriteImage(SimpleITK.Cast(image, SimpleITK.sitkFloat32), folder / "plain.mha")
    SimpleITK.WriteImage(image, folder / "pair.mhd")
    SimpleITK.WriteImage(image, folder / "packed.nrrd", useCompression=True)
    SimpleITK.WriteImage(image, folder / "plain.nrrd")
    SimpleITK.WriteImage(SimpleITK.Compose([image] * 3), folder / "colour.mha")
    for name, key in (("mha", b"TransformMatrix"), ("nrrd", b"space:")):
        told = (folder / f"plain.{name}").read_bytes()
        (folder / f"unplaced.{name}").write_bytes(
            told.replace(key, b"Comment" if name == "mha" else b"content:")
        )
    (folder / "cut.mha").write_bytes((folder / "packed.mha").read_bytes()[:-5000])

    (folder / "cut.nii.gz").write_bytes((folder / "LAS.nii.gz").read_bytes()[:-5000])
    (folder / "short.nii").write_bytes((folder / "grey.nii").read_bytes()[:-500])
    (folder / "text.nii").write_text("no scan")

    lungs = np.rot90(drawn.lung > 0)[8:-8, 8:-8].transpose(2, 0, 1).astype(np.uint8)
    lungs[5, 20:23, 18:21] = 0  # a hole
    lungs[6:8, 2:9, 2:9] = 1  # air beside the arm
    lungs[2, 60:62, 60:62] = 1
    lungs = lungs.repeat(2, 1).repeat(2, 2)
    lungs.tofile(folder / "lungs.bin")
    return lungs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, dict]:
    if (node := shutil.which("node")) is None:
        pytest.skip("no node on PATH")
    folder = tmp_path_factory.mktemp("scans")
    lungs = write(folder)
    try:
        viewer = try_page.packages() / try_page.RUNTIME["niivue.js"]
    except OSError as error:
        pytest.skip(str(error))
    command = [node, str(ROOT / "tests/book/try_modules.mjs"), str(folder), str(SIZE), str(viewer)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, lungs, json.loads((folder / "found.json").read_text())


def test_a_scan_is_read_prepared_cleaned_and_written_back_as_by_the_command(run, monkeypatch) -> None:
    (folder, given, found), cascade = run, load_cascade()
    taken = [name for name in found if name not in ("bounds", *REFUSED)]
    assert len(taken) == 18 and found["bounds"] == [DARKEST, BRIGHTEST]
    for name in taken:
        told = found[name]
        assert "error" not in told, (name, told)
        scan = Scan(folder / name)
        depth = scan.shape[2]
        assert (told["shape"], told["axes"], told["kind"]) == (
            list(scan.shape),
            scan.axes,
            scan.intensity.kind,
        ), name
        np.testing.assert_allclose(told["spacing"], scan.spacing, rtol=1e-6)
        assert [*told["doubts"], *told["notes"]] == [*scan.doubts, *scan.notes], name

        greys, pictures = (
            np.fromfile(folder / f"{name}.{part}", np.uint8).reshape(depth, SIZE, SIZE)
            for part in ("greys", "pictures")
        )
        # Greys are cut to whole ones, and where one was whole, the last bit of the cubic resize decides. OpenCV takes
        # Intel's, made for each kind of processor; without it, it differs from itself as we do. CLAHE makes one grey
        # up to eight. So both steps are checked, each by itself.
        with monkeypatch.context() as bare:
            bare.setattr(cv2, "createCLAHE", lambda **_: SimpleNamespace(apply=np.asarray))
            expected = prepared(scan, size=SIZE, origin=replace(cascade.lungs.origin, size=SIZE))[:, 0]
        apart = np.abs(greys.astype(int) - expected)
        assert apart.max() <= 1 and apart.mean() < 1e-4, (name, apart.max(), apart.mean())
        equalised = np.stack([cv2.createCLAHE(7.0, (8, 8)).apply(grey) for grey in greys])
        assert np.abs(pictures.astype(int) - equalised).max() <= 1, name

        lungs = np.zeros((depth, SIZE, SIZE), np.uint8)
        lungs[: len(given)] = given[:depth]
        lungs, _ = clean_lungs(lungs, Cleaning(), hounsfield=_hounsfield(scan, SIZE))
        ours = np.fromfile(folder / f"{name}.lungs", np.uint8)
        np.testing.assert_array_equal(ours.reshape(lungs.shape), lungs, err_msg=name)

        planes = restored(lungs, scan)
        written = _image(folder / f"{name}.mask")
        expected = scan.image(planes)
        assert (np.asanyarray(written.dataobj) != np.asanyarray(expected.dataobj)).mean() < 1e-4, name
        np.testing.assert_allclose(
            written.affine, expected.header.get_best_affine(), rtol=1e-6, atol=1e-4, err_msg=name
        )
        picture = np.arange(planes.shape[0] * planes.shape[1]).reshape(planes.shape[1], planes.shape[0])
        infection = planes * (1 if scan.intensity.windowed else np.rot90(picture % 3 == 0, -1)[..., None])
        ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
        odd = implausible(
            lungs_ml=planes.sum() * ml, infection_ml=infection.sum() * ml, scan_ml=planes.size * ml, dsc={}
        )  # fmt: skip
        odd += _warnings(lungs, lungs, cascade)
        assert told["warnings"] == odd + hardly_differ(quartiles(densities(scan, planes, infection))), name
        numbers = report(scan, Found(planes, infection), sha256="", cleaning=Cleaning(), weights={})
        for side, of in {"both": numbers["found"], **numbers["sides"]}.items():
            for target in ("lungs_ml", "infection_ml"):
                near = pytest.approx(of[target], rel=1e-2, abs=2)
                assert told["amounts"][side][target] == near, (name, side, target)


def _image(path: Path) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(path.read_bytes())


def test_a_large_scan_and_its_mask_are_shown_by_every_second_pixel_in_the_same_place(run) -> None:
    whole = nib.load(run[0] / "SAL.nii.gz"), _image(run[0] / "SAL.nii.gz.mask")
    for image, part in zip(map(nib.as_closest_canonical, whole), ("fewer", "fewer-mask"), strict=True):
        shown = _image(run[0] / f"SAL.nii.gz.{part}")
        np.testing.assert_array_equal(shown.get_fdata(), image.get_fdata()[::2, ::2])
        np.testing.assert_allclose(shown.affine, image.affine @ np.diag([2, 2, 1, 1]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_scan_is_refused_in_words(run, name: str) -> None:
    assert REFUSED[name] in run[2][name]["error"]


def test_without_npm_the_page_is_a_picture_and_says_why(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(try_page, "PACKAGES", tmp_path / "none")
    monkeypatch.setenv("PATH", "/nowhere")
    told = try_page.page(tmp_path / "try")
    assert "npm was not there when the book was built" in told
    assert "<img" in told and "chs-net segment" in told and "<script" not in told and "<button" not in told
