"""Fusion: orientation, intensities, selection, resumption, errors."""

import csv
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from chslib.data import fusion
from chslib.data.__main__ import main
from chslib.data.fusion import COLUMNS, fuse, patient_of, source_of
from chslib.data.phantom import write_phantoms

NAMES = (
    "coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3", "radiopaedia_7_85703_0",
)  # fmt: skip
DEPTH, SIZE = 8, 64


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    write_phantoms(folder, seed=1, volumes=NAMES, depth=DEPTH, size=128)
    return folder


@pytest.fixture(scope="module")
def store(volumes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    fuse(volumes, folder, size=SIZE, progress=False)
    return folder


def rows_of(store: Path) -> list[dict[str, str]]:
    with open(store / "slices.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, but for what fusion remembers about its inputs."""
    files = [p for p in store.rglob("*") if p.is_file() and ".fusion" not in p.parts]
    return {str(p.relative_to(store)): p.read_bytes() for p in files}


def save(folder: Path, part: str, array: np.ndarray, name: str = "coronacases_001") -> Path:
    path = folder / part / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


@pytest.fixture
def tiny(tmp_path) -> Path:
    """One volume of 5 planes of 20x20 voxels; lung in planes 1..4, infection in plane 2."""
    ct = np.full((20, 20, 5), -1250, np.int16)
    lung, infection = np.zeros((2, 20, 20, 5), np.uint8)
    lung[4:9, 4:16, 1:], lung[11:16, 4:16, 1:] = 2, 1
    infection[5:8, 5:8, 2] = 1
    ct[lung > 0] = 250
    for part, array in zip(("ct", "lung", "infection"), (ct, lung, infection), strict=True):
        save(tmp_path / "in", part, array)
    return tmp_path / "in"


def test_table_and_pngs_agree(store):
    rows = rows_of(store)
    assert tuple(rows[0]) == COLUMNS
    assert [r["slice_id"] for r in rows] == sorted(r["slice_id"] for r in rows)
    for row in rows:
        with Image.open(store / row["ct"]) as ct:
            assert (ct.mode, ct.size) == ("L", (SIZE, SIZE))
        for part in ("lung", "infection"):
            with Image.open(store / row[part]) as mask:
                assert (mask.mode, mask.size) == ("1", (SIZE, SIZE))
                assert int(np.asarray(mask).sum()) == int(row[f"{part}_pixels"])
        assert row["has_infection"] == str(int(row["infection_pixels"]) > 0)
        assert int(row["lung_pixels"]) > 0
    pngs = {p.relative_to(store).as_posix() for p in store.rglob("*.png")}
    assert pngs == {row[part] for row in rows for part in ("ct", "lung", "infection")}


def test_patients_and_sources(store):
    patients = {r["volume"]: r["patient"] for r in rows_of(store)}
    assert patients == dict(zip(
        NAMES, (NAMES[0], "radiopaedia_10_85902", "radiopaedia_10_85902", NAMES[3]), strict=True
    ))  # fmt: skip
    assert patient_of("radiopaedia_14_85914_0") == "radiopaedia_14_85914_0"
    assert source_of(NAMES[1]) == "radiopaedia"
    with pytest.raises(ValueError, match="'scan7'.*coronacases_ or radiopaedia_"):
        source_of("scan7")


@pytest.mark.parametrize("name", NAMES)
def test_every_source_ends_upright_and_base_first(store, name):
    rows = [r for r in rows_of(store) if r["volume"] == name]
    ct, lung = (
        np.stack([np.asarray(Image.open(store / r[part]), float) for r in rows]) for part in ("ct", "lung")
    )
    # Bone saturates the window: in the midline mostly the spine, and a little sternum.
    bone = ct[:, :, SIZE // 2 - 4 : SIZE // 2 + 4] > 245
    assert np.nonzero(bone)[1].mean() > 0.53 * SIZE
    # The back's muscles and the table lie below the lungs; above is little but air.
    inside = np.flatnonzero(lung.any((0, 2)))
    assert ct[:, inside[-1] + 1 :].sum() > 1.2 * ct[:, : inside[0]].sum()
    indices = {flag: [int(r["slice_index"]) for r in rows if r["has_infection"] == flag]
               for flag in ("True", "False")}  # fmt: skip
    # Drawn opacities are basal, so infected slices come first where the base does.
    assert np.mean(indices["True"]) < np.mean(indices["False"])


def test_both_formats_end_on_one_grey_scale(store):
    grey = {}
    for row in rows_of(store):
        ct, lung = (np.asarray(Image.open(store / row[p])) for p in ("ct", "lung"))
        grey.setdefault(row["source"], []).append(np.median(ct[lung]))
    # Lung at about -840 HU: (-840 + 1250) / 1500 * 255 = 70.
    healthy = {source: min(values) for source, values in grey.items()}
    assert healthy == pytest.approx({"coronacases": 70, "radiopaedia": 70}, abs=9)
    told = json.loads((store / "store.json").read_text())["volumes"]
    assert [told[name]["already_windowed"] for name in NAMES] == [False, True, True, True]


def test_what_was_dropped_is_counted(store):
    told = json.loads((store / "store.json").read_text())
    assert (told["preparation"], told["window"], told["size"]) == ("window", [-1250, 250], SIZE)
    assert told["slices_in"] == DEPTH * len(NAMES)
    assert told["slices_out"] == len(rows_of(store))
    for counts in told["volumes"].values():
        assert counts["dropped"] == {"no lung": 2}
        assert counts["slices_in"] - counts["slices_out"] == 2


def test_hand_computed_slice(tiny, tmp_path):
    """At the size of the input nothing is resampled: rot90, and 0 or 255."""
    told = fuse(tiny, tmp_path / "out", size=20, progress=False)
    assert told["volumes"]["coronacases_001"]["dropped"] == {"no lung": 1}
    row = rows_of(tmp_path / "out")[1]
    assert (row["slice_index"], row["lung_pixels"], row["infection_pixels"]) == ("2", "120", "9")
    expected = np.zeros((20, 20), np.uint8)
    expected[4:16, 4:9] = expected[4:16, 11:16] = 255
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["ct"])), expected)
    infection = np.asarray(Image.open(tmp_path / "out" / row["infection"]))
    # x 5..7 are columns 5..7; y 5..7 count from the bottom: rows 12..14.
    assert infection[12:15, 5:8].all() and infection.sum() == 9


def test_shrinking_averages_the_ct(tmp_path):
    ct = np.full((128, 128, 1), -1250, np.int16)
    ct[::2] = 250  # one-voxel stripes: without antialiasing they alias to black or white
    save(tmp_path / "in", "ct", ct)
    for part in ("lung", "infection"):
        save(tmp_path / "in", part, np.ones(ct.shape, np.uint8))
    fuse(tmp_path / "in", tmp_path / "out", size=32, progress=False)
    grey = np.asarray(Image.open(tmp_path / "out/ct/coronacases_001_000.png"), int)
    assert abs(grey[4:-4, 4:-4] - 127).max() < 12


def test_an_oblong_plane_is_padded_not_stretched(tmp_path):
    ones = np.ones((40, 20, 1), np.uint8)
    for part, array in (("ct", np.full(ones.shape, 250, np.int16)), ("lung", ones),
                        ("infection", ones)):  # fmt: skip
        save(tmp_path / "in", part, array)
    fuse(tmp_path / "in", tmp_path / "out", size=40, progress=False)
    lung = np.asarray(Image.open(tmp_path / "out/lung/coronacases_001_000.png"))
    assert lung[10:30].all() and not lung[:10].any() and not lung[30:].any()


def test_minmax_clahe_keeps_infected_slices_of_the_middle(volumes, tmp_path):
    told = fuse(volumes, tmp_path, size=SIZE, preparation="minmax-clahe", progress=False)
    rows = rows_of(tmp_path)
    assert all(r["has_infection"] == "True" for r in rows)
    assert all(int(0.2 * DEPTH) <= int(r["slice_index"]) < int(0.8 * DEPTH) for r in rows)
    reasons = {k for v in told["volumes"].values() for k in v["dropped"]}
    assert "outside the middle 60 %" in reasons and "no infection" in reasons
    spread = [np.ptp(np.asarray(Image.open(tmp_path / r["ct"]))) for r in rows]
    assert min(spread) > 200  # equalised: every slice uses the grey scale


def test_pleural_effusion_is_not_infection(tiny, tmp_path):
    labels = np.zeros((20, 20, 5), np.uint8)
    labels[5, 5, 1:4] = (1, 2, 3)
    save(tiny, "infection", labels)
    fuse(tiny, tmp_path / "out", size=20, progress=False)
    assert [r["infection_pixels"] for r in rows_of(tmp_path / "out")] == ["1", "1", "0", "0"]


def test_two_workers_write_the_same_bytes(volumes, store, tmp_path):
    fuse(volumes, tmp_path, size=SIZE, workers=2, progress=False)
    assert content(tmp_path) == content(store)


def test_an_interrupted_fusion_goes_on(volumes, store, tmp_path, monkeypatch):
    original, seen = fusion._write_slice, []

    def interrupted(folder, name, index, images):
        seen.append(name)
        if name == NAMES[2] and index == 4:
            raise KeyboardInterrupt
        return original(folder, name, index, images)

    monkeypatch.setattr(fusion, "_write_slice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fuse(volumes, tmp_path, size=SIZE, progress=False)
    assert not (tmp_path / "slices.csv").exists()
    seen.clear()
    monkeypatch.setattr(fusion, "_write_slice", lambda *a: seen.append(a[1]) or original(*a))
    fuse(volumes, tmp_path, size=SIZE, progress=False)
    assert set(seen) == set(NAMES[2:])
    assert content(tmp_path) == content(store)


def test_only_what_changed_is_done_again(tiny, tmp_path):
    for part in ("ct", "lung", "infection"):
        array = np.asanyarray(nib.load(tiny / part / "coronacases_001.nii.gz").dataobj)
        save(tiny, part, array, name="coronacases_002")
    store = tmp_path / "out"
    fuse(tiny, store, size=20, progress=False)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*.png")}
    fuse(tiny, store, size=20, progress=False)
    assert before == {p: p.stat().st_mtime_ns for p in store.rglob("*.png")}

    lung = np.zeros((20, 20, 5), np.uint8)
    lung[4:9, 4:9, :2] = 1
    save(tiny, "lung", lung)
    fuse(tiny, store, size=20, progress=False)
    ids = [r["slice_id"] for r in rows_of(store)]
    assert ids[:3] == ["coronacases_001_000", "coronacases_001_001", "coronacases_002_001"]
    assert not (store / "ct/coronacases_001_003.png").exists()  # nothing stale stays

    for part in ("ct", "lung", "infection"):
        (tiny / part / "coronacases_002.nii.gz").unlink()
    fuse(tiny, store, size=20, progress=False)
    assert {r["volume"] for r in rows_of(store)} == {"coronacases_001"}
    assert not list(store.rglob("coronacases_002*"))


def test_a_store_is_not_mixed_with_other_settings(tiny, tmp_path):
    fuse(tiny, tmp_path / "out", size=20, progress=False)
    with pytest.raises(ValueError, match="begun with.*'size': 20.*'size': 24.*another folder"):
        fuse(tiny, tmp_path / "out", size=24, progress=False)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/slices.csv").write_text("mine")
    with pytest.raises(ValueError, match="no fusion wrote"):
        fuse(tiny, tmp_path / "foreign", size=20, progress=False)
    assert (tmp_path / "foreign/slices.csv").read_text() == "mine"


def change(part, function):
    def apply(folder: Path) -> None:
        array = np.asanyarray(nib.load(folder / part / "coronacases_001.nii.gz").dataobj)
        save(folder, part, function(array.copy()))

    return apply


def cut(part, keep):
    def apply(folder: Path) -> None:
        path = folder / part / "coronacases_001.nii.gz"
        path.write_bytes(path.read_bytes()[:keep])

    return apply


def flip_a_bit(folder: Path) -> None:
    """Stored, not packed, so that only the checksum can tell."""
    path = folder / "ct/coronacases_001.nii.gz"
    packed = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    packed[len(packed) // 2] ^= 4
    path.write_bytes(packed)


def cut_unpacked(folder: Path) -> None:
    path = folder / "ct/coronacases_001.nii.gz"
    (folder / "ct/coronacases_001.nii").write_bytes(gzip.decompress(path.read_bytes())[:2000])
    path.unlink()


def put(value):
    def apply(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32) if isinstance(value, float) else array
        array[3, 3, 3] = value
        return array

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "lung/coronacases_001.nii.gz").unlink(), "lung mask .* is missing; put it"),
        (lambda f: (f / "infection/coronacases_001.nii.gz").unlink(), "infection mask .* missing"),
        (change("lung", lambda a: a[:, :-1]), r"lung.*\(20, 19, 5\).*\(20, 20, 5\).*equal"),
        (change("infection", lambda a: a[..., :-1]), r"infection.*\(20, 20, 4\).*\(20, 20, 5\)"),
        (change("ct", lambda a: a[..., None]), r"ct.*shape \(20, 20, 5, 1\); expected 3 dim"),
        (change("ct", lambda a: a[..., 0]), r"shape \(20, 20\); expected 3 dim"),
        (cut("ct", 120), "ct.*cannot be read.*fetch it again"),
        (cut("lung", 90), "lung.*cannot be read.*fetch it again"),
        (flip_a_bit, "ct.*cannot be read.*CRC"),
        (cut_unpacked, r"coronacases_001\.nii: cannot be read.*fetch it again"),
        (cut("ct", 0), "ct.*cannot be read.*fetch it again"),
        (lambda f: (f / "ct/coronacases_001.nii.gz").write_text("<html>404"), "ct.*cannot be read"),
        (change("ct", put(float("nan"))), "ct.*slice 3 holds NaN or infinite"),
        (change("ct", put(float("inf"))), "ct.*slice 3 holds NaN or infinite"),
        (change("lung", put(3)), r"lung.*slice 3 holds the values \[3\]; expected only 0, 1, 2"),
        (change("lung", put(0.5)), r"lung.*values \[0.5\]"),
        (change("infection", put(7)), r"infection.*values \[7\]; expected only 0, 1, 2, 3"),
        (change("lung", np.zeros_like), "every slice of 1 volumes was dropped"),
    ],
)
def test_damage_is_named(tiny, tmp_path, damage, words):
    damage(tiny)
    with pytest.raises(ValueError, match=words):
        fuse(tiny, tmp_path / "out", size=20, progress=False)
    assert not (tmp_path / "out/slices.csv").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="ct: no such folder; expected ct, lung"):
        fuse(tmp_path, tmp_path / "out", progress=False)
    (tmp_path / "ct").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no .nii.gz"):
        fuse(tmp_path, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preparation": "clahe"}, "'clahe': expected one of window, minmax-clahe"),
        ({"workers": 0}, "workers 0"),
        ({"window": (250.0, -1250.0)}, "window that rises"),
    ],
)
def test_wrong_arguments_are_named(tiny, tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        fuse(tiny, tmp_path / "out", progress=False, **arguments)


def test_command_line(tmp_path, capsys):
    volumes, store = str(tmp_path / "volumes"), str(tmp_path / "store")
    assert main(["phantom", volumes, "--depth", "4", "--volumes", "2", "--size", "64"]) == 0
    assert capsys.readouterr().out == f"{volumes}: 2 volumes of 4 slices, seed 0\n"
    assert main(["fuse", volumes, store, "--size", "32", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out == f"{store}: 4 of 8 slices from 2 volumes, 32x32, window\n"
    assert {r["source"] for r in rows_of(tmp_path / "store")} == {"coronacases", "radiopaedia"}

    assert main(["fuse", str(tmp_path / "nowhere"), store + "2"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert main(["phantom", volumes, "--volumes", "99"]) == 1
    assert "expected 1 to 10" in capsys.readouterr().err
