"""What the page "Try it" does before and behind the networks is what `chs-net segment` does, on files as they come."""

import gzip
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/scans"), str(ROOT / "book")]
import try_page  # noqa: E402
from chest import Dark, cascade_of, stored  # noqa: E402

from replication.data.phantom.volumes import make_volume  # noqa: E402
from replication.data.reading.scan import Scan  # noqa: E402
from replication.scans.output import write_segmentation  # noqa: E402
from replication.scans.steps import Cleaning  # noqa: E402
from replication.scans.weights import Cascade  # noqa: E402

EYES = {"lungs": Dark(0.02, 0.5), "infection": Dark(-0.1, 0.4)}  # see what is dark, so that it is quick
PAIRS = {
    "pair.mhd": ["pair.raw"],
    "pair.nhdr": ["pair.raw"],
    "both.hdr": ["both.img"],
}  # what is dropped at once
REFUSED = {
    "four.nii.gz": "split a series", "unplaced.nii.gz": "does not tell how the scan lies", "labels.nii.gz": "label map", "shares.nii.gz": "label map",
    "constant.nii.gz": "no CT", "inverted.nii": "inverted, or with a white margin", "shifted.nii.gz": "no chest in Hounsfield units", "cut.nii.gz": "damaged or cut short",
    "short.nii": "cut short", "text.nii": "no scan in a format", "complex.nii.gz": "complex", "twice.nii.gz": "its qform says",
    "unplaced.mha": "does not tell how the scan lies", "unplaced.nrrd": "does not tell how the scan lies", "cut.mha": "cannot be read",
    "colour.mha": "colours", "alone.mhd": "in another file, pair.raw: give both", "alone.nhdr": "in another file, pair.raw",
    "alone.hdr": "save it as one .nii", "both.hdr": "save it as one .nii", "alone.img": "no scan in a format", "both.img": "no scan in a format",
    "packed.zip": "unpack it", "empty.nii": "an empty file",
}  # fmt: skip


def onnx_eyes(folder: Path) -> Cascade:
    """`EYES` as the page's networks, `<stage>.onnx`, and as a cascade of the command."""
    for stage, network in EYES.items():
        blank, names = torch.zeros(1, 1, 256, 256), {"input_names": ["slices"], "output_names": ["logits"]}
        torch.onnx.export(network, (blank,), folder / f"{stage}.onnx", dynamo=False, **names)
    return cascade_of(*EYES.values(), size=256)


def write(folder: Path) -> None:
    """Scans as they come, and some that are none."""
    drawn = make_volume(name="coronacases_001", seed=3, size=80, depth=12)
    hu = np.ascontiguousarray(drawn.ct[4:, 6:-6]).astype(np.int16)
    hu[-1, -1, -1] = 900  # the viewer forgets the last voxel of 32- and 64-bit integers
    hu[24:27, 30:33, 5] = 60  # a hole in a lung
    hu[30:34, 8:12, 3] = -1000  # gas, and fat
    hu[36:44, 10:14, 8] = -100
    affine = np.array([[-4.8, 0, 0, 150], [0, 5.2, 0.6, -140], [0, -0.5, 9, 30], [0, 0, 0, 1.0]])

    def save(name: str, image: nib.Nifti1Image) -> None:
        nib.save(image, folder / name)

    for axes in ("LAS", "RPI", "SAL"):
        save(f"{axes}.nii.gz", stored(hu, affine, axes))
    save("offset.nii.gz", nib.Nifti1Image((hu.clip(-1024) + 1024).astype(np.uint16), affine))
    grey = ((hu.clip(-1250, 250) + 1250) / 1500 * 255).astype(np.uint8)
    save("grey.nii", nib.Nifti1Image(grey, affine))
    save("inverted.nii", nib.Nifti1Image(255 - grey, affine))
    away = np.hypot(*np.ogrid[-1 : 1 : hu.shape[0] * 1j, -1 : 1 : hu.shape[1] * 1j]) > 1.1
    save("corners.nii.gz", nib.Nifti1Image(np.where(away[..., None], 0, hu).astype(np.int16), affine))
    blank = hu.copy()
    blank[..., 0] = -1000
    blank[blank < -950] += 4096  # air that wrapped
    save("wrapped.nii.gz", nib.Nifti1Image(blank, affine))
    holed = np.where(hu < -1100, np.nan, hu)
    holed[:3, :3] = np.nan
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
    called = nib.Nifti1Image(hu, affine)  # metres, where only mm fit
    called.header.set_xyzt_units("meter")
    save("called.nii.gz", called)
    no_form = nib.Nifti1Image(hu, affine)
    no_form.set_qform(np.diag([-4.8, 5.2, 9, 1.0]), code=1)
    no_form.set_sform(np.diag([0.0, 0, 0, 1]), code=1)
    save("no_form.nii.gz", no_form)
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
    save(
        "shares.nii.gz",
        nib.Nifti1Image(
            np.clip((hu > -300) + np.random.default_rng(1).normal(0, 0.01, hu.shape), 0, 1), affine
        ),
    )
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
    SimpleITK.WriteImage(image, folder / "pair.nhdr")
    SimpleITK.WriteImage(
        SimpleITK.Cast(image, SimpleITK.sitkInt32), folder / "packed.nrrd", useCompression=True
    )
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
    (folder / "empty.nii").touch()
    nib.save(nib.Nifti1Pair(hu, affine), folder / "both.img")
    for half in ("hdr", "img"):
        shutil.copyfile(folder / f"both.{half}", folder / f"alone.{half}")
    for header in ("mhd", "nhdr"):
        shutil.copyfile(folder / f"pair.{header}", folder / f"alone.{header}")
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.write(folder / "LAS.nii.gz")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cascade, dict]:
    """The folder of the scans, the cascade, and what the page's worker told of each."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node on PATH")
    folder, page = tmp_path_factory.mktemp("scans"), tmp_path_factory.mktemp("book") / "try"
    try:
        shutil.copytree(try_page.files(), page)
    except OSError as error:
        pytest.skip(str(error))
    write(folder)
    cascade = onnx_eyes(page / "networks")
    (folder / "pairs.json").write_text(json.dumps(PAIRS))
    command = [node, str(ROOT / "tests/book/try_modules.mjs"), str(folder), str(page)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, cascade, json.loads((folder / "found.json").read_text())


def test_a_scan_is_read_prepared_cleaned_and_written_back_as_by_the_command(run) -> None:
    folder, cascade, found = run
    taken = [name for name in found if name not in REFUSED]
    assert len(taken) == 23
    for name in taken:
        told, scan = found[name], Scan(folder / name)
        assert "error" not in told, (name, told)
        kind = (scan.axes, scan.intensity.kind, scan.shape[2])
        assert (told["axes"], told["kind"], told["slices"]) == kind, name
        report = write_segmentation(
            folder / name, folder / f"of {name}", cascade=cascade, cleaning=Cleaning()
        )
        for mask in EYES:
            ours, theirs = nib.load(folder / f"of {name}/{mask}.nii.gz"), _image(folder / f"{name}.{mask}")
            assert np.asanyarray(ours.dataobj).any(), (name, mask)
            assert (np.asanyarray(ours.dataobj) != np.asanyarray(theirs.dataobj)).mean() < 1e-4, (name, mask)
            best = next(a for a in (ours.header.get_best_affine(), ours.get_qform()) if np.linalg.det(a))
            np.testing.assert_allclose(theirs.affine, best, rtol=1e-6, atol=1e-4, err_msg=name)
        assert told["warnings"] == report["warnings"], name
        for side, of in {"both": report["found"], **report["sides"]}.items():
            for target in ("lungs_ml", "infection_ml"):
                near = pytest.approx(of[target], rel=1e-2, abs=2)
                assert told["amounts"][side][target] == near, (name, side, target)


def _image(path: Path) -> nib.Nifti1Image:
    content = path.read_bytes()
    return nib.Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def test_a_large_scan_is_shown_by_some_of_its_pixels_in_the_same_place(run) -> None:
    whole, n = nib.as_closest_canonical(nib.load(run[0] / "SAL.nii.gz")), run[2]["SAL.nii.gz"]["nth"]
    shown = _image(run[0] / "SAL.nii.gz.shown")
    assert n > 1
    grey = (whole.get_fdata()[::n, ::n].clip(-1250, 250) + 1250) / 1500 * 255
    np.testing.assert_allclose(shown.get_fdata(), grey, atol=0.51)
    np.testing.assert_allclose(shown.affine, whole.affine @ np.diag([n, n, 1, 1]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_scan_is_refused_in_words(run, name: str) -> None:
    assert REFUSED[name] in run[2][name]["error"]


def test_without_npm_the_page_is_a_picture_and_says_why(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(try_page, "PACKAGES", tmp_path / "none")
    monkeypatch.setenv("PATH", "/nowhere")
    told = try_page.page(tmp_path / "try")
    assert "npm was not there when the book was built" in told
    assert "<img" in told and "chs-net segment" in told and "<script" not in told and "<button" not in told
