"""Single files of every kind, folders of many things, and the place where results go."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from chest import DEPTH, dicom_slices, put_dicom, write_dicom
from PIL import Image
from test_dicom import is_drawn, multi_frame, noise, tags

from replication.cli import main
from replication.data.reading.own import Own, find_scans, open_parts
from replication.data.reading.scan import Scan
from replication.scans import output, place
from replication.scans.folders import look_through
from replication.scans.output import write_segmentation
from replication.scans.steps import NOTHING


@pytest.fixture
def write(eyes):
    return lambda path, out, **how: write_segmentation(
        path, out, cascade=eyes, **({"cleaning": NOTHING} | how)
    )


# ---- one file ----------------------------------------------------------------------------------


def other_kinds(folder: Path) -> dict[str, Path]:
    """A file of each kind that is no scan here, by what has to be said of it; names are of no help."""
    folder.mkdir()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.dcm", "x")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        file.addfile(tarfile.TarInfo("a"))
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "png")
    pair = nib.Nifti1Pair(np.zeros((4, 4, 4), np.int16), np.eye(4))
    pair.header["magic"] = b"ni1"
    made = {
        "zip archive; unpack it": packed.getvalue(), "tar archive; unpack it": tar.getvalue(), "a PDF": b"%PDF-1.4\n",
        "tar archive": gzip.compress(tar.getvalue()), "packed twice": gzip.compress(gzip.compress(b"a")), "packed by xz": b"\xfd7zXZ\0", "a picture: its grey": picture.getvalue(), "an empty file": b"", "a text": b"hello\n",
        "one half of a NIfTI or Analyze pair": pair.header.binaryblock, "HDF5": b"\x89HDF\r\n\x1a\n", "a NumPy array": b"\x93NUMPY\x01\0",
    }  # fmt: skip
    paths = {}
    for k, (said, data) in enumerate(made.items()):
        paths[said] = folder / f"{k}.nii"
        paths[said].write_bytes(data)
    return paths


def test_each_other_kind_of_file_is_told_what_it_is_and_how_to_go_on(drawn, tmp_path):
    for said, path in other_kinds(tmp_path / "in").items():
        with pytest.raises(ValueError, match=said):
            Scan(path)
    one = next(iter(write_dicom(tmp_path / "series", drawn.hu, drawn.affine).iterdir()))
    with pytest.raises(
        ValueError, match=f"one DICOM slice of a scan; give the folder .*{tmp_path / 'series'}"
    ):
        Scan(one)
    put_dicom(tmp_path / "sr", dicom_slices(drawn.hu[:, :, :1], drawn.affine, Modality="SR"))
    with pytest.raises(ValueError, match="no CT slice .modality SR"):
        Scan(next((tmp_path / "sr").iterdir()))


@pytest.mark.parametrize(
    "suffix, bare", [("mha", b"Comment ="), ("mhd", b"Comment ="), ("nrrd", b"space dimension: 3")]
)
def test_what_simpleitk_reads_is_the_same_scan_and_without_it_is_told(
    suffix, bare, drawn, tmp_path, monkeypatch
):
    itk = pytest.importorskip("SimpleITK")
    image = itk.GetImageFromArray(np.maximum(drawn.hu, -1024).T)
    lps = np.diag([-1, -1, 1, 1]) @ drawn.affine
    spacing = nib.affines.voxel_sizes(drawn.affine)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path = tmp_path / f"scan.{suffix}"
    itk.WriteImage(image, str(path))
    if suffix != "mhd":
        path = path.rename(tmp_path / "scan.nii")  # the name decides nothing
    assert is_drawn(Scan(path), drawn)
    whole = path.read_bytes()
    path.write_bytes(re.sub(rb"(?m)^(space:|TransformMatrix =).*", bare, whole))
    with pytest.raises(ValueError, match="does not tell how the scan lies.*--axes"):
        Scan(path)
    path.write_bytes(whole)
    monkeypatch.setattr("replication.data.reading.formats.has_simpleitk", lambda: False)
    with pytest.raises(ValueError, match=r"pip install chslib\[formats\]"):
        Scan(path)


# ---- a folder ----------------------------------------------------------------------------------


@pytest.fixture
def mixed(drawn, put, tmp_path) -> Path:
    """Three scans, one of them deep, and what else lies about."""
    folder = tmp_path / "in"
    put(drawn.hu, drawn.affine, "in/a.nii.gz")
    put(drawn.hu, drawn.affine, "in/B.nii").rename(folder / "B.NII")
    put(drawn.hu, drawn.affine, "in/deep/er/c.nii.gz")
    put(np.zeros_like(drawn.hu), drawn.affine, "in/zeros.nii")
    slices = dicom_slices(drawn.hu, drawn.affine)
    put_dicom(folder / "gap", slices[:4] + slices[6:])
    put_dicom(folder / "two", slices[:2])
    put_dicom(folder / "whole" / "1", slices)
    slices[0].save_as(folder / "lonely.dcm", enforce_file_format=True)
    (folder / "gone.nii.gz").symlink_to("/nowhere/gone.nii.gz")
    (folder / "empty.nii").write_bytes(b"")
    (folder / "all.zip").write_bytes(b"PK\x03\x04")
    (folder / "Müller.txt").write_text("hello")
    (folder / ".hidden").write_text("")
    (folder / "twice.nii.gz").write_bytes(gzip.compress(gzip.compress(b"a")))
    (folder / "nothing").mkdir()
    (folder / "deep" / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    return folder


def test_a_folder_tells_a_line_for_everything_and_goes_on_past_what_is_bad(
    mixed, tmp_path, monkeypatch, eyes, capsys
):
    monkeypatch.setattr("replication.scans.weights.load_cascade", lambda name: eyes)
    out = mixed / "masks"  # inside the input
    for _ in range(2):
        assert main(["segment", str(mixed), str(out), "--quiet"]) == 1
        told = capsys.readouterr()
        for name in ("a.nii.gz", "B.NII", "deep/er/c.nii.gz", "whole"):
            assert f"{mixed / name}: lungs" in told.out, name
        for name, why in {
            "lonely.dcm": "one DICOM slice", "gone.nii.gz": "a link to nothing, /nowhere", "empty.nii": "an empty file",
            "all.zip": "a zip archive; unpack it", "twice.nii.gz": "packed twice", "deep/circle": "a link to a folder that it lies in", "Müller.txt": "a text", "nothing": "a folder without", "pipe": "neither a file",
        }.items():  # fmt: skip
            assert f"{mixed / name}: left out: {why}" in told.err, name
        for name, why in {"gap": "2 slices are missing", "two": "no CT series of 3", "zeros.nii": "every sampled voxel is 0"}.items():  # fmt: skip
            assert f"{mixed / name}: failed" in told.err and why in told.err.split("error:")[1], name
        assert "3 of 7 scans could not be segmented; the others are done; 5 more were left out" in told.err
    found = sorted(str(p.parent.relative_to(out)) for p in out.rglob("report.json"))
    assert found == ["B", "a", "deep/er/c", "whole"] and not list(out.rglob(".*"))


def test_a_dry_run_lists_what_would_be_read_without_torch(mixed, drawn, put):
    assert main(["segment", str(put(drawn.lung, drawn.affine, "mask.nii")), "--dry-run"]) == 1
    code = "import sys; from replication.cli import main; print('rc', main(sys.argv[1:])); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code, "segment", str(mixed), "--dry-run"], capture_output=True, text=True,
                         env=os.environ | {"PYTHONIOENCODING": "ascii:strict"})  # fmt: skip
    assert ran.stdout.endswith("rc 1\nFalse\n"), ran.stderr
    geometry = f"{DEPTH} slices of 62 x 56, 4.8 x 5.2 x 9 mm, Hounsfield units"
    assert f"{mixed}/a.nii.gz: NIfTI, axes LAS, {geometry}" in ran.stdout
    assert f"axes LPS, {geometry}" in ran.stdout and "DICOM series number 2 (chest" in ran.stdout
    assert "would fail: " in ran.stdout and "gone.nii.gz: left out" in ran.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("uids, names", [(("1.2", "1.3", "1.4"), ["0", "1", "2"]), (("1.2", "1.2"), [""])])
def test_multi_frame_files_in_a_folder_are_a_scan_each_or_parts_of_one(uids, names, drawn, tmp_path):
    slices = dicom_slices(drawn.hu, drawn.affine)
    for k, uid in enumerate(uids):
        multi_frame(slices[k :: len(uids)], SeriesInstanceUID=uid).save_as(tmp_path / f"{k}.dcm")
    found = look_through(tmp_path)
    assert list(found.scans) == names and not found.left_out
    assert names[0] or is_drawn(Scan(found.scans[""]), drawn)


def test_what_lies_beside_a_dicom_series_and_two_scans_of_one_name_are_told(drawn, put, tmp_path):
    folder = write_dicom(tmp_path / "in", drawn.hu, drawn.affine)
    put(drawn.hu, drawn.affine, "in/a.nii.gz")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    found = look_through(folder)
    assert found.scans == {"": folder} and "beside a DICOM series" in str(found.left_out[0])
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\xff\xff\xff")
    assert Scan(folder).notes == ["1 files left out: no DICOM", "1 files left out: not readable (no element)"]
    for other in ("b/x.nii", "b.nii.gz"):
        put(drawn.hu, drawn.affine, f"more/{other}")
    halves = dicom_slices(drawn.hu, drawn.affine)
    for part, name in ((halves[:6], "1"), (halves[6:], "2")):
        put_dicom(tmp_path / "split" / name, part)
    assert "split/2: the same series, read as 2 scans" in look_through(tmp_path / "split").notes[0]
    with pytest.raises(ValueError, match="would both be written to b/; rename one"):
        look_through(tmp_path / "more")
    with pytest.raises(FileNotFoundError, match="(?s)holds no NIfTI file.*left out: a text"):
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "x").write_text("hello")
        look_through(tmp_path / "bare")


# ---- where results go --------------------------------------------------------------------------


def test_fuse_and_segment_read_the_same_folder_under_the_same_names(drawn, tmp_path):
    """Patients as folders, a name with blanks, a MetaImage, a DICOM folder; masks are no scans."""
    sitk = pytest.importorskip("SimpleITK")
    names = ("Müller, Ä/ct 1", "P-2/follow.up", "P-3/series", "plain")
    for part in ("ct", "lung", "infection"):
        voxels = drawn.hu if part == "ct" else getattr(drawn, part)
        for name in names:
            path = tmp_path / "in" / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, drawn.affine), path)
    plain, series = (tmp_path / "in" / "ct" / f"{name}.nii.gz" for name in ("plain", "P-3/series"))
    sitk.WriteImage(sitk.ReadImage(plain), plain.with_name("plain.mha"))
    plain.unlink()
    series.unlink()
    write_dicom(series.with_name("series"), drawn.hu, drawn.affine)
    found = look_through(tmp_path / "in")
    fused = find_scans(tmp_path / "in")
    assert found.scans == {name: of["ct"] for name, of in fused.items()}
    assert len(fused) == 4 and {left.path.name for left in found.left_out} == {"lung", "infection"}
    assert open_parts(fused["plain"], Own().settings())["ct"].shape == drawn.hu.shape


@pytest.mark.parametrize("out", ["in/masks", "in"])
def test_results_are_no_input_wherever_they_stand(out, drawn, tmp_path, write):
    folder = write_dicom(tmp_path / "in", drawn.hu, drawn.affine)
    if out == "in":
        with pytest.raises(ValueError, match="stands already, with other things"):
            write(folder, tmp_path / out)
        return
    first = write(folder, tmp_path / out, dicom_seg=True)
    assert write(folder, tmp_path / out, dicom_seg=True) == first
    with pytest.raises(ValueError, match="holds the results of chs-net"):
        look_through(tmp_path / out)


def test_an_empty_folder_is_taken_also_where_it_cannot_be_replaced(drawn, put, tmp_path, write, monkeypatch):
    path = put(drawn.hu, drawn.affine)
    for name in ("empty", "mount"):
        (tmp_path / name).mkdir()
    write(path, tmp_path / "empty")
    monkeypatch.setattr(place.os, "access", lambda *_: False)  # of what it lies in
    write(path, tmp_path / "mount")
    assert [p.name for p in sorted((tmp_path / "mount").iterdir())] == [p.name for p in sorted((tmp_path / "empty").iterdir())]  # fmt: skip


def test_two_runs_at_once_cannot_mix(drawn, put, tmp_path, write, monkeypatch):
    """The second begins and ends while the first is about to write."""
    paths = [put(hu, drawn.affine, f"{k}.nii") for k, hu in enumerate((drawn.hu, drawn.hu[::-1].copy()))]
    inner, usual = [], output.preview

    def meanwhile(*given, **told):
        if not inner:
            inner.append(None)
            inner[0] = write(paths[1], tmp_path / "out")
        return usual(*given, **told)

    monkeypatch.setattr(output, "preview", meanwhile)
    with pytest.raises(ValueError, match="another scan, weights or options"):
        write(paths[0], tmp_path / "out")
    told = json.loads((tmp_path / "out" / output.REPORT).read_text())
    write(paths[1], tmp_path / "alone")
    assert told == inner[0] == json.loads((tmp_path / "alone" / output.REPORT).read_text())
    for name in (output.LUNGS, output.INFECTION, output.PREVIEW):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.nii", "1.nii", "alone", "out"]


def test_no_room_and_no_permission_are_found_before_the_networks_run(
    drawn, put, tmp_path, write, monkeypatch
):
    path = put(drawn.hu, drawn.affine)
    monkeypatch.setattr(output, "segment", lambda *_, **__: pytest.fail("the networks ran"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="results cannot be written there.*file/out"):
        write(path, tmp_path / "file" / "out")
    (tmp_path / ".out.dead.part").mkdir()  # of a run that was killed

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: the results may need .* MiB.*out"):
        write(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "scan.nii.gz"]


# ---- DICOM SEG ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("axes", ["LPS", "RAI", "noise", "multi-frame"])
def test_a_dicom_seg_holds_both_masks_and_refers_to_the_slices(axes, drawn, tmp_path, write):
    slices = dicom_slices(drawn.hu, drawn.affine, axes=axes if axes == "RAI" else "LPS")
    if axes == "noise":  # which highdicom refuses
        slices = tags(SliceThickness=None)(noise("ImageOrientationPatient", 1e-5)(slices))
    if axes == "multi-frame":
        source = multi_frame(slices[::2] + slices[1::2])
        shared = source.SharedFunctionalGroupsSequence[0]
        for group in source.PerFrameFunctionalGroupsSequence:  # as some makers have it
            group.PixelMeasuresSequence = shared.PixelMeasuresSequence
        del shared.PixelMeasuresSequence
        (tmp_path / "in").mkdir()
        source.save_as(tmp_path / "in" / "one.dcm")
    else:
        put_dicom(tmp_path / "in", slices)
    write(tmp_path / "in", tmp_path / "out", dicom_seg=True)
    seg = highdicom.seg.segread(tmp_path / "out" / output.SEG)
    assert [seg.get_segment_description(k).SegmentLabel for k in (1, 2)] == ["Lungs", "Infection"]
    assert (
        seg.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
        and seg.StudyInstanceUID == slices[0].StudyInstanceUID
    )
    how = {"skip_overlap_checks": True, "assert_missing_frames_are_empty": True}
    if axes == "multi-frame":
        pixels = seg.get_pixels_by_source_frame(source.SOPInstanceUID, range(1, DEPTH + 1), **how)
        place_of = [
            f.PlanePositionSequence[0].ImagePositionPatient for f in source.PerFrameFunctionalGroupsSequence
        ]
    else:
        pixels = seg.get_pixels_by_source_instance([one.SOPInstanceUID for one in slices], **how)
        place_of = [one.ImagePositionPatient for one in slices]
    for k, name in enumerate((output.LUNGS, output.INFECTION)):
        mask = nib.load(tmp_path / "out" / name)
        at = np.linalg.inv(mask.affine) @ np.c_[np.array(place_of, float) * [-1, -1, 1], np.ones(DEPTH)].T
        expected = np.asanyarray(mask.dataobj)[:, :, np.rint(at[2]).astype(int)].T
        assert expected.any() and np.array_equal(pixels[..., k], expected)


@pytest.mark.parametrize("change, said", [
    (None, "is no DICOM; leave it out"),
    ({"SOPInstanceUID": None}, "SOPInstanceUID is gone; export"),
    ({"FrameOfReferenceUID": ""}, "FrameOfReferenceUID is gone; export"),
    ({"FrameOfReferenceUID": lambda k: f"1.2.{k}"}, "FrameOfReferenceUID differs from slice to slice; export"),
    ({"SOPClassUID": "1.2.3"}, "in: highdicom writes no DICOM SEG of it"),
])  # fmt: skip
def test_a_dicom_seg_of_what_it_cannot_refer_to_is_refused(change, said, drawn, put, tmp_path, write, monkeypatch):  # fmt: skip
    monkeypatch.setattr(output, "segment", lambda *_, **__: pytest.fail("the networks ran"))
    path = put(drawn.hu, drawn.affine)
    if change:
        path = put_dicom(tmp_path / "in", tags(**change)(dicom_slices(drawn.hu, drawn.affine)))
    with pytest.raises(ValueError, match=said):
        write(path, tmp_path / "out", dicom_seg=True)
