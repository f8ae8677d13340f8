"""From scan to masks: in the scan's own space, the same however it is stored, whole or not at all."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from chest import EVERY_WAY, Dark, cascade_of, stored, write_dicom
from PIL import Image

from replication.cli import main
from replication.data.fusing.fusion import fuse
from replication.data.reading.scan import Scan
from replication.data.slices.origin import KNOWN, read_origin
from replication.data.slices.store import read_store
from replication.scans import cleaning, output, prepare
from replication.scans.cleaning import clean_lungs
from replication.scans.output import write_segmentation
from replication.scans.report import between_the_lungs, report
from replication.scans.segment import Found, segment
from replication.scans.steps import NOTHING, STEPS, Cleaning
from replication.scans.weights import Cascade

ORIGIN = next(iter(KNOWN.values()))


def write(path: Path, out: Path, eyes: Cascade, **how) -> dict:
    return write_segmentation(path, out, cascade=eyes, **({"cleaning": NOTHING} | how))


def masks(folder: Path) -> list[nib.Nifti1Image]:
    return [nib.load(folder / name) for name in (output.LUNGS, output.INFECTION)]


@pytest.fixture
def reference(drawn, eyes, put) -> Found:
    found = segment(Scan(put(drawn.hu, drawn.affine, "reference.nii.gz")), eyes, cleaning=NOTHING)
    assert found.lungs.any() and found.infection.any() and not found.lungs.all()
    return found


@pytest.mark.parametrize("axes", EVERY_WAY[::7])  # all of them: `test_scan`
def test_a_scan_stored_in_any_way_gives_the_same_masks_in_its_own_space(
    axes, drawn, eyes, put, tmp_path, reference
):
    image = stored(drawn.hu, drawn.affine, axes)
    path = put(np.asanyarray(image.dataobj), image.affine)
    write(path, tmp_path / "out", eyes)
    for mask, expected in zip(masks(tmp_path / "out"), (reference.lungs, reference.infection)):
        assert mask.shape == image.shape and np.array_equal(mask.affine, nib.load(path).affine)
        assert np.array_equal(
            np.asanyarray(mask.dataobj), np.asanyarray(stored(expected, drawn.affine, axes).dataobj)
        )


@pytest.mark.parametrize("axes", [a for a in EVERY_WAY if a[2] in "SI"])
def test_so_does_a_dicom_series(axes, drawn, eyes, tmp_path, reference):
    folder = write_dicom(tmp_path / "series", np.maximum(drawn.hu, -1024), drawn.affine, axes=axes)
    write(folder, tmp_path / "out", eyes)
    for mask, expected in zip(masks(tmp_path / "out"), (reference.lungs, reference.infection)):
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(mask.affine), nib.io_orientation(drawn.affine)
        )
        back = nib.orientations.apply_orientation(np.asanyarray(mask.dataobj), turn)
        assert np.array_equal(back, expected)


@pytest.mark.parametrize("how", [{}, {"preparation": "window", "window": [-1250.0, 250.0]}], ids=str)
def test_slices_are_prepared_as_those_that_the_weights_were_trained_on(how, put, tmp_path, eyes):
    """A square scan, which needs no padding: to the bit what fusion writes, and what training shrinks it to."""
    from replication.data.phantom.volumes import make_volume

    volume = make_volume(name="coronacases_001", seed=1, size=96, depth=4)
    for part in ("ct", "lung", "infection"):
        put(getattr(volume, part).astype(np.int16), np.diag([-4.0, 4, 8, 1]), f"volumes/{part}/scan.nii.gz")
    origin = cascade_of(eyes.lungs.network, eyes.infection.network, size=64, **how).infection.origin
    fuse(
        tmp_path / "volumes",
        tmp_path / "store",
        size=64,
        preparation=origin.preparation,
        progress=False,
        all_slices=True,
    )
    scan = Scan(tmp_path / "volumes" / "ct" / "scan.nii.gz")
    for size in (64, 32):
        store = read_store(tmp_path / "store", size=size, progress=False)
        ours = prepare.prepared(scan, size=size, origin=origin)
        assert len(store) and np.array_equal(ours[store.table["slice_index"], 0], store.ct)
    made = read_origin(tmp_path / "store", "")  # what weights trained on it will say of themselves
    none = np.zeros(scan.shape, np.uint8)
    for ends, said in ((made.ends, None), (None, "each one's own darkest")):
        known = {"preparation": made.prepared, "ends": ends}
        told = report(scan, Found(none, none), sha256="", cleaning=NOTHING, weights=known)["stretched"]
        assert said in told if said and not how else told is None


@pytest.mark.parametrize(
    "shape, spacing", [((40, 64), (1, 1)), ((64, 40), (1, 1)), ((64, 64), (2, 1)), ((30, 50), (1.7, 1.1))]
)
def test_padding_makes_a_square_in_millimetres_and_is_taken_off_again(shape, spacing, put):
    rows, columns = shape
    (top, bottom), (left, right) = prepare.padding(shape, spacing)
    high, wide = (rows + top + bottom) * spacing[0], (columns + left + right) * spacing[1]
    assert abs(high - wide) <= max(spacing) and abs(top - bottom) <= 1 and abs(left - right) <= 1
    hu = np.full((columns, rows, 2), -1024, np.int16)
    hu[4:-9, 5:-12] = np.arange(20, 50).reshape(30, 1, 1)[
        np.arange(columns - 13) % 30
    ]  # nearer to two of the sides: turned about, it is another
    scan = Scan(put(hu, np.diag([-spacing[1], spacing[0], 5, 1])))
    seen = prepare.prepared(scan, size=256, origin=ORIGIN)[:, 0] > 50
    back = prepare.restored(seen.astype(np.uint8), scan)
    assert back.shape == hu.shape and (back == (hu > 0)).mean() > 0.97


def test_the_command_writes_masks_report_and_preview(drawn, put, tmp_path, monkeypatch, eyes, capsys):
    monkeypatch.setattr("replication.scans.weights.load_cascade", lambda name: eyes)
    path = put(drawn.hu, drawn.affine)
    assert main(["segment", str(path), str(tmp_path / "out"), "--quiet"]) == 0
    assert re.search(
        r"scan\.nii\.gz: lungs \d+ ml, called infected \d+ ml \(\d+\.\d% of the lungs\)",
        capsys.readouterr().out,
    )
    told = json.loads((tmp_path / "out" / output.REPORT).read_text())
    lungs, infection = (np.asanyarray(mask.dataobj) for mask in masks(tmp_path / "out"))
    voxel = 4.8 * 5.2 * 9 / 1000
    assert told["found"]["lungs_ml"] == pytest.approx(lungs.sum() * voxel, abs=0.01)
    assert told["found"]["infection_ml"] == pytest.approx(infection.sum() * voxel, abs=0.01)
    assert sum(side["lungs_ml"] for side in told["sides"].values()) == pytest.approx(
        told["found"]["lungs_ml"], abs=0.02
    )
    assert told["weights"]["name"] == "eyes" and "Not a medical device" in told["use"]
    assert not re.search(r"20\d\d-|\d\d:\d\d", json.dumps(told)), "a time: a rerun would give other bytes"
    with Image.open(tmp_path / "out" / output.PREVIEW) as picture:
        shades = np.asarray(picture.convert("L"))
        assert picture.width == 1200 and len(picture.getcolors(1 << 20)) > 50
        assert (shades[76:] > 0).mean() > 0.6, "a picture that is mostly empty"


def test_a_rerun_is_the_same_to_the_byte_and_a_finished_one_is_left_alone(
    drawn, put, tmp_path, eyes, monkeypatch
):
    path = put(drawn.hu, drawn.affine)
    for name in ("one", "two"):
        write(path, tmp_path / name, eyes)
    for file in (output.LUNGS, output.INFECTION, output.REPORT, output.PREVIEW):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    monkeypatch.setattr(output, "segment", None)
    assert write(path, tmp_path / "one", eyes)["scan"]["name"] == "scan.nii.gz"
    with pytest.raises(
        ValueError, match="stands already.*another scan, weights or options.*Nothing was overwritten"
    ):
        write(path, tmp_path / "one", eyes, cleaning=Cleaning())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="stands already, with other things"):
        write(path, tmp_path / "mine", eyes)


def test_what_dies_while_writing_leaves_nothing_and_a_rerun_sweeps_up(
    drawn, put, tmp_path, eyes, monkeypatch
):
    path = put(drawn.hu, drawn.affine)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(output, "preview", full)
        with pytest.raises(OSError, match="No space"):
            write(path, tmp_path / "out", eyes)
    assert not (tmp_path / "out").exists()
    write(path, tmp_path / "out", eyes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "scan.nii.gz"]


def test_a_body_upside_down_against_its_header_is_said_and_strict_refuses(eyes, put, tmp_path):
    from replication.data.phantom.volumes import make_volume

    volume = make_volume(name="coronacases_001", seed=0, size=128, depth=10)
    wrong = put(volume.ct.astype(np.int16)[:, ::-1], np.diag([-2.5, 2.5, 12, 1]))
    right = put(volume.ct.astype(np.int16), np.diag([-2.5, 2.5, 12, 1]), "right.nii.gz")
    lungs = {"infection": 0, "lungs": np.ascontiguousarray(volume.lung > 0)}

    def judged(path: Path, lung: np.ndarray) -> list[str]:
        from replication.scans.segment import _upside_down

        scan = Scan(path)
        pictures = prepare.prepared(scan, size=128, origin=ORIGIN)[:, 0]
        seen = np.stack([np.rot90(lung[:, :, k]) for k in range(lung.shape[2])]).astype(np.uint8)
        return _upside_down(scan, pictures, seen)

    assert not judged(right, lungs["lungs"])
    assert "upside down, against LAS" in judged(wrong, lungs["lungs"][:, ::-1])[0]


def test_strict_refuses_what_is_in_doubt_and_writes_nothing(drawn, put, tmp_path, eyes):
    offset = put(np.clip(drawn.hu.astype(int) + 1024, 0, 4095).astype(np.uint16), drawn.affine)
    with pytest.raises(ValueError, match="warnings are errors here.*1024 is taken off"):
        write(offset, tmp_path / "out", eyes, strict=True)
    assert not (tmp_path / "out").exists()
    assert "1024 is taken off" in write(offset, tmp_path / "out", eyes)["warnings"][0]


# ---- cleaning, by hand -------------------------------------------------------------------------


def body(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros((6, 20, 20), np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


LEFT, RIGHT = np.s_[0:6, 4:16, 2:8], np.s_[0:6, 4:16, 12:18]
CRUMB = np.s_[0:1, 18:20, 18:20]


def only(**steps: bool) -> Cleaning:
    return Cleaning(**{**dict.fromkeys(STEPS, False), **steps})


def test_the_two_largest_bodies_stay_and_a_second_one_that_is_a_crumb_does_not():
    kept, took = clean_lungs(body(LEFT, RIGHT, CRUMB), only(largest=True))
    assert np.array_equal(kept, body(LEFT, RIGHT)) and took == {"largest": 4}
    ninth = np.s_[0:5, 17:19, 16:20]  # 9 % of a lung
    assert np.array_equal(clean_lungs(body(LEFT, ninth), only(largest=True))[0], body(LEFT))
    third = np.s_[0:6, 0:2, 0:20]  # no crumb, and none of the two
    assert np.array_equal(clean_lungs(body(LEFT, RIGHT, third), only(largest=True))[0], body(LEFT, RIGHT))


def test_a_hole_that_lungs_enclose_is_filled_and_a_bay_is_not():
    hollow = body(LEFT)
    hollow[2:4, 8:10, 4:6] = 0
    bay = body(RIGHT)
    bay[0, 8:10, 14:16] = 0
    kept, took = clean_lungs(hollow | bay, only(holes=True))
    assert np.array_equal(kept, body(LEFT) | bay) and took == {"holes": -8}


def test_patches_of_gas_and_of_fat_are_dropped_and_consolidated_lung_is_not():
    hu = np.full((6, 20, 20), 40.0)
    hu[LEFT], hu[RIGHT], hu[CRUMB] = -850, 30, -100
    gas = np.s_[5:6, 0:2, 0:6]
    hu[gas] = -1000
    kept, took = clean_lungs(body(LEFT, RIGHT, CRUMB, gas), only(density=True), hounsfield=lambda k: hu[k])
    assert np.array_equal(kept, body(LEFT, RIGHT)) and took == {"density": 4 + 12}
    assert clean_lungs(body(LEFT, CRUMB), only(density=True))[1] == {
        "density": 0
    }  # no Hounsfield units: untouched


def test_a_slice_with_next_to_no_lung_has_none_and_the_second_network_does_not_see_it(
    monkeypatch, drawn, put, eyes
):
    monkeypatch.setattr(cleaning, "LEAST_AREA", 0.02)
    thin = body(np.s_[0:3, 4:16, 2:8], np.s_[3:4, 0:2, 0:3])
    assert np.array_equal(clean_lungs(thin, only(slices=True))[0], body(np.s_[0:3, 4:16, 2:8]))
    seen: list[int] = []
    network = cascade_of(eyes.lungs.network, Counting(eyes.infection.network, seen))
    hu = drawn.hu.copy()
    hu[:, :, :3] = 900 + hu[:, :, :3] % 50
    found = segment(Scan(put(hu, drawn.affine)), network, cleaning=only(slices=True))
    assert not found.lungs[:, :, :3].any() and not found.infection[:, :, :3].any()
    assert sum(seen) == int(found.lungs.any((0, 1)).sum())


class Counting(__import__("torch").nn.Module):
    """Another network, and how many slices it was given."""

    def __init__(self, inner, seen: list[int]) -> None:
        super().__init__()
        self.inner, self.seen = inner, seen

    def __deepcopy__(self, _):
        return self

    def forward(self, x):
        self.seen.append(len(x))
        return self.inner(x)


def test_infection_outside_the_lungs_is_dropped(drawn, put, eyes):
    network = cascade_of(eyes.lungs.network, Dark(-1.0, 2.0))  # everything
    scan = Scan(put(drawn.hu, drawn.affine))
    every = segment(scan, network, cleaning=NOTHING)
    inside = segment(scan, network, cleaning=only(inside=True))
    assert every.infection.all() and np.array_equal(inside.infection, inside.lungs)


def test_sides_are_parted_where_there_is_least_lung_between():
    lungs = np.zeros((20, 4, 4), np.uint8)
    lungs[2:9], lungs[11:18] = 1, 1
    lungs[9:11, 0] = 1
    assert between_the_lungs(lungs) in (9, 10) and between_the_lungs(np.zeros_like(lungs)) == 10


def test_the_right_lung_is_the_patient_s_right(drawn, put):
    scan = Scan(put(drawn.hu, drawn.affine))
    lungs = np.zeros(scan.shape, np.uint8)
    lungs[4:20] = 1  # LAS: small x is the right
    lungs[40:44] = 1
    told = report(scan, Found(lungs, np.zeros_like(lungs)), sha256="", cleaning=NOTHING, weights={})
    assert told["sides"]["right"]["lungs_ml"] == pytest.approx(
        4 * told["sides"]["left"]["lungs_ml"], rel=1e-3
    )
