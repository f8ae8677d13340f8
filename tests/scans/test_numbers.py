"""Numbers that are none: a few voxels of any value change nothing elsewhere, label maps are no CT, millilitres are millilitres."""

import nibabel as nib
import numpy as np
import pytest
from chest import CASES, WITH_CASES, voxels
from scipy import ndimage

from replication.data.reading.intensity import BRIGHTEST, DARKEST
from replication.data.reading.intensity import NOTHING as AIR
from replication.data.reading.scan import Scan
from replication.scans.density import densities, hardly_differ, quartiles
from replication.scans.report import report
from replication.scans.segment import Found, segment
from replication.scans.steps import NOTHING, Cleaning

VALUES = {"metal": 3071, "a bug": 43030, "bone": 1400, "wrapped": 65530, "padding": -32768, "air": -1024, "nan": np.nan,
          "inf": np.inf, "-inf": -np.inf, "nonsense": 1e30, "beyond float32": 1e300}  # fmt: skip


def outliers(shape: tuple[int, int, int], how: str) -> np.ndarray:
    """Where: a thousandth of the voxels, spread, or clips of 2 x 2 through all planes."""
    at = np.zeros(shape, bool)
    if how == "spread":
        at.reshape(-1)[np.random.default_rng(0).choice(at.size, at.size // 1000, replace=False)] = True
    else:
        x, y = shape[0] // 2, shape[1] // 2
        at[x : x + 2, y : y + (2 if at[..., 0].size >= 4000 else 1)] = True
    assert at.mean() <= 0.0011
    return at


def beside(at: np.ndarray) -> np.ndarray:
    """These and their neighbours in the plane, which a picture of another size mixes with them."""
    wide = np.pad(at, ((1, 1), (1, 1), (0, 0)))
    return np.any([np.roll(wide, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], 0)[1:-1, 1:-1]


@pytest.mark.parametrize("how", ["spread", "clip"])
def test_a_thousandth_of_the_voxels_of_any_value_changes_less_than_a_hundredth_elsewhere(
    how, drawn, put, eyes
):
    """What no tissue has is filled from around, to the same numbers whatever it was; what lies between the ends stays."""
    at = outliers(drawn.hu.shape, how)
    before = segment(right := Scan(put(drawn.hu, drawn.affine)), eyes, cleaning=NOTHING)
    filled: list[np.ndarray] = []
    for name, value in VALUES.items():
        scan = Scan(put(np.where(at, value, drawn.hu.astype(np.float64)), drawn.affine, "other.nii.gz"))
        seen = voxels(scan)
        assert np.array_equal(seen[~at], voxels(right)[~at]), name
        if not DARKEST <= value <= BRIGHTEST:
            told = " ".join(scan.notes)
            assert f"{at.sum()} of {at.size} voxels" in told and f"{at.sum()} of these" in told
            filled.append(seen)
            if len(filled) > 1:
                assert np.abs(seen - filled[0]).max() <= 0.5, name  # whole numbers are rounded
                continue
        found = segment(scan, eyes, cleaning=NOTHING)
        for target in ("lungs", "infection"):
            was, now = (int(getattr(one, target)[~beside(at)].sum()) for one in (before, found))
            assert abs(now - was) < 0.01 * was, (name, target)


@pytest.mark.parametrize(
    "change, kind",
    [
        (lambda hu: np.interp(hu, (-1250, 250), (0, 255)), "grey"),
        (lambda hu: np.interp(hu, (-1250, 250), (0, 1)), "grey"),
        (lambda hu: hu + 1024.0, "offset"),
        (lambda hu: hu.astype(float), "hounsfield"),
    ],
    ids=["grey", "unit", "offset", "hounsfield"],
)
@pytest.mark.parametrize("value", [VALUES["a bug"], VALUES["padding"], VALUES["nan"]])
def test_outliers_do_not_decide_what_the_numbers_are(change, kind, value, drawn, put):
    numbers = change(drawn.hu)
    numbers[outliers(numbers.shape, "spread")] = value
    scan = Scan(put(numbers, drawn.affine))
    assert scan.intensity.kind == kind
    if not scan.intensity.windowed:
        planes = np.stack([scan.plane(k) for k in range(scan.shape[2])])
        assert np.median(planes) == pytest.approx(np.median(drawn.hu), abs=2)
    low, high = scan.intensity.ends
    assert (low, high) == ((0, 255) if scan.intensity.windowed else (-1024, 2000))  # register row 70
    assert all(low <= scan.plane(k).min() and scan.plane(k).max() <= high for k in range(scan.shape[2]))


@pytest.mark.parametrize("value", [np.inf, np.nan, 63536, 64512, 32768, 3071, 1072, 0, 40, -3024, 1e30])
def test_padding_outside_the_circle_is_air_whatever_it_is(value, drawn, put):
    x, y = np.ogrid[: drawn.hu.shape[0], : drawn.hu.shape[1]]
    corner = ((x - 31) ** 2 + (y - 28) ** 2 > 31**2)[..., None] & np.ones(drawn.hu.shape, bool)
    scan = Scan(put(np.where(corner, value, drawn.hu.astype(np.float64)), drawn.affine))
    assert all((scan.plane(k)[corner[..., k]] == AIR).all() for k in range(scan.shape[2]))
    assert scan.notes


def test_air_that_wrapped_is_air_and_a_plane_of_one_number_is_told(drawn, put):
    air = drawn.hu < -950
    numbers = np.where(air, drawn.hu + 4096, drawn.hu)
    numbers[..., 3] = 40
    scan = Scan(put(numbers, drawn.affine))
    assert all((scan.plane(k)[air[..., k]] <= -800).mean() > 0.99 for k in range(scan.shape[2]) if k != 3)
    assert any("1 planes hold one number each" in note for note in scan.notes)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda hu: hu * 10.0, "no chest in Hounsfield"),
        (lambda hu: (hu + 1024.0) * 16, "no chest in Hounsfield"),
        (lambda hu: -hu, "no chest in Hounsfield"),
        (lambda hu: np.abs(hu), "no chest in Hounsfield"),
        (lambda hu: hu - 1024.0, "no chest in Hounsfield"),
        (lambda hu: 255 - np.interp(hu, (-1250, 250), (0, 255)), "inverted"),
    ],
    ids=["tenfold", "sixteenfold", "inverted", "without sign", "shifted twice", "inverted grey"],
)
def test_numbers_that_are_no_ct_s_are_refused(change, reason, drawn, put):
    with pytest.raises(ValueError, match=rf"{reason}.*--intensity"):
        Scan(put(change(drawn.hu), drawn.affine))


@pytest.mark.parametrize(
    "change",
    [
        lambda lung, bad: lung,
        lambda lung, bad: lung * 255,
        lambda lung, bad: bad * 0 + (np.arange(bad.size).reshape(bad.shape) == 9),
        lambda lung, bad: lung + 2 * bad,
        lambda lung, bad: (lung + 10 * bad).astype(np.float64),
        lambda lung, bad: lung.astype(np.int16) * 1000,
        lambda lung, bad: lung.astype(np.float32) / 2,
        lambda lung, bad: np.add.outer(np.add.outer(np.arange(62) // 8 * 7, np.arange(56) // 8), np.zeros(12)) * 3,
        lambda lung, bad: np.where(np.arange(12) == 3, 7, lung),
        lambda lung, bad: ndimage.zoom(lung.astype(np.float32), 2, order=1),
        lambda lung, bad: np.rint(ndimage.zoom(lung * 255.0, 2, order=1)).astype(np.uint8),
        lambda lung, bad: np.where(lung > 0, -1000, 40).astype(np.int16),
        lambda lung, bad: np.clip(ndimage.gaussian_filter(lung.astype(np.float32), 1) + np.random.default_rng(0).normal(0, 0.01, lung.shape), 0, 1),
    ],
    ids=["0 1", "0 255", "one voxel", "classes", "floats", "0 1000", "halves", "many organs", "with an outlier", "resampled", "resampled 255", "in Hounsfield units", "probabilities"],
)  # fmt: skip
def test_a_label_map_is_no_ct(change, drawn, put):
    labels = change(drawn.lung, drawn.infection)
    path = put(labels.astype(labels.dtype if labels.dtype != np.int64 else np.uint8), drawn.affine)
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: a label map or mask, no CT.*--intensity"):
        Scan(path)


@pytest.mark.parametrize("unit", ["mm", "meter", "micron", "unknown"])
@pytest.mark.parametrize("factor", [1, 1e-3, 1e3])
def test_millilitres_follow_the_header_s_unit_and_a_mask_keeps_the_header(unit, factor, drawn, tmp_path):
    image = nib.Nifti1Image(drawn.hu, np.diag([factor] * 3 + [1]) @ drawn.affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii")
    scan = Scan(tmp_path / "scan.nii")
    assert np.allclose(scan.spacing, (4.8, 5.2, 9.0)) and np.allclose(scan.affine, drawn.affine, rtol=1e-5)
    told = factor == {"meter": 1e-3, "micron": 1e3}.get(unit, 1)
    assert bool(scan.doubts) != told and bool(scan.notes) == (told and factor != 1)
    nib.save(scan.image(drawn.lung), tmp_path / "mask.nii")
    mask = nib.load(tmp_path / "mask.nii")
    assert np.allclose(mask.affine, image.affine) and mask.header["xyzt_units"] == image.header["xyzt_units"]


@pytest.mark.parametrize(
    "infected, warned", [(-810, True), (-740, True), (-400, False), (40, False)], ids=str
)
def test_the_report_warns_where_the_infected_is_no_denser_than_lung(infected, warned, drawn, put):
    rng = np.random.default_rng(0)
    hu = drawn.hu.copy()
    hu[drawn.lung > 0] = rng.normal(-820, 40, int((drawn.lung > 0).sum()))
    hu[drawn.infection > 0] = rng.normal(infected, 40, int((drawn.infection > 0).sum()))
    scan = Scan(put(hu, drawn.affine))
    told = report(scan, Found(drawn.lung, drawn.infection), sha256="", cleaning=NOTHING, weights={})
    assert told["density"]["infection_hu"][1] == pytest.approx(infected, abs=25)
    assert told["density"]["rest_of_lungs_hu"][1] == pytest.approx(-820, abs=25)
    assert any("hardly denser" in line and "Colombi" in line for line in told["warnings"]) == warned
    assert hardly_differ(quartiles(densities(scan, drawn.lung, drawn.lung * 0))) == []


# ---- the small CT, where it is present ---------------------------------------------------------


@WITH_CASES
@pytest.mark.parametrize("how", ["spread", "clip"])
@pytest.mark.parametrize("value, bound", [(30000, 0.01), (1000, 0.02)], ids=["filled", "between the ends"])
def test_so_it_is_on_the_small_ct_by_trained_networks(value, bound, how, put):
    """Values beyond the ends all give the same planes, see above; one between them is an answer's to judge."""
    from replication.scans.weights import load_cascade

    image = nib.load(CASES / "RAS" / "ct" / "scan.nii.gz")
    hu = np.asanyarray(image.dataobj)[..., 20:28]
    cascade, at = load_cascade("cpu/table2-infection"), outliers(hu.shape, how)
    right, found = (
        segment(Scan(put(v, image.affine)), cascade, cleaning=Cleaning())
        for v in (hu, np.where(at, value, hu).astype(np.int16))
    )
    for name in ("lungs", "infection"):
        before, after = (int(getattr(one, name)[~beside(at)].sum()) for one in (right, found))
        assert abs(after - before) < bound * before, name
