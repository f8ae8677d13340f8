"""Fusion: orientation, intensities, selection, counts, resumption, errors."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from replication.cli import main
from replication.data.fusing import duplicates, fusion, preparation
from replication.data.fusing.fusion import COLUMNS, fuse
from replication.data.phantom.volumes import write_phantoms

NAMES = (
    "coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3", "radiopaedia_7_85703_0",
)  # fmt: skip
DEPTH, SIZE = 8, 64


@pytest.fixture(scope="module", autouse=True)
def no_duplicates():
    """Looking for copies is tested elsewhere; here it would only cost time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "find_duplicates", lambda rows, store: {})
        yield


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    write_phantoms(folder, seed=1, volumes=NAMES, depth=DEPTH, size=128)
    return folder


@pytest.fixture(scope="module")
def store(volumes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    fuse(volumes, folder, size=SIZE, progress=False, published=True)
    return folder


def rows_of(store: Path) -> list[dict[str, str]]:
    with open(store / "slices.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, but for what fusion remembers about its inputs."""
    files = [p for p in store.rglob("*") if p.is_file() and ".fusion" not in p.parts]
    return {str(p.relative_to(store)): p.read_bytes() for p in files}


def save(
    folder: Path,
    part: str,
    array: np.ndarray,
    name: str = "coronacases_001",
    affine: np.ndarray | None = None,
) -> Path:
    path = folder / part / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def load(folder: Path, part: str, name: str = "coronacases_001") -> np.ndarray:
    return np.asanyarray(nib.load(folder / part / f"{name}.nii.gz").dataobj).copy()


def copy_volume(folder: Path, name: str, to: Path, new: str) -> None:
    for part in preparation.PARTS:
        (to / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / part / f"{name}.nii.gz", to / part / f"{new}.nii.gz")


def pictures(store: Path, part: str = "ct") -> list[np.ndarray]:
    return [np.asarray(Image.open(store / row[part])) for row in rows_of(store)]


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
        study = "radiopaedia_10_85902"  # of one patient
        assert row["patient"] == (study if row["volume"].startswith(study) else row["volume"])
    pngs = {p.relative_to(store).as_posix() for p in store.rglob("*.png")}
    assert pngs == {row[part] for row in rows for part in ("ct", "lung", "infection")}
    told = json.loads((store / "store.json").read_text())
    assert (told["preparation"], told["window"], told["size"]) == ("window", [-1250, 250], SIZE)
    assert (told["slices_in"], told["slices_out"]) == (DEPTH * len(NAMES), len(rows))
    assert all(counts["dropped"] == {"no lung": 2} for counts in told["volumes"].values())


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
    order = sorted(indices["True"] + indices["False"])
    assert order[0] + order[-1] == DEPTH - 1  # as many slices without lung at either end


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


def test_hand_computed_slice(tiny, tmp_path):
    """At the size of the input nothing is resampled: rot90, and 0 or 255."""
    told = fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    assert told["volumes"]["coronacases_001"]["dropped"] == {"black": 1}
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
    ct[::2] = (
        3000  # beyond the window, which comes first: 250; one-voxel stripes: without antialiasing they alias to black or white
    )
    save(tmp_path / "in", "ct", ct)
    for part in ("lung", "infection"):
        save(tmp_path / "in", part, np.ones(ct.shape, np.uint8))
    fuse(tmp_path / "in", tmp_path / "out", size=32, progress=False, published=True)
    grey = np.asarray(Image.open(tmp_path / "out/ct/coronacases_001_000.png"), int)
    assert abs(grey[4:-4, 4:-4] - 127).max() < 12


def test_an_oblong_plane_is_padded_not_stretched(tmp_path):
    ones, ct = np.ones((40, 20, 1), np.uint8), np.full((40, 20, 1), 250, np.int16)
    ct[:, :5] = 0  # not flat
    for part, array in (("ct", ct), ("lung", ones), ("infection", ones)):
        save(tmp_path / "in", part, array)
    fuse(tmp_path / "in", tmp_path / "out", size=40, progress=False, published=True)
    lung = np.asarray(Image.open(tmp_path / "out/lung/coronacases_001_000.png"))
    assert lung[10:30].all() and not lung[:10].any() and not lung[30:].any()


def test_minmax_clahe_keeps_infected_slices_of_the_middle(volumes, tmp_path):
    told = fuse(volumes, tmp_path, size=SIZE, preparation="minmax-clahe", progress=False, published=True)
    assert {v["intensity"] for v in told["volumes"].values()} == {
        "HU of [-1024, 2000], CLAHE",
        "grey of [0, 255], CLAHE",
    }
    for volume in told["volumes"].values():
        assert volume["slices_out"] <= volume["counts"]["middle_60_with_infection"]
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
    fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    assert [r["infection_pixels"] for r in rows_of(tmp_path / "out")] == ["1", "1", "0", "0"]


def test_two_workers_write_the_same_bytes(volumes, store, tmp_path):
    fuse(volumes, tmp_path, size=SIZE, workers=2, progress=False, published=True)
    assert content(tmp_path) == content(store)


def test_an_interrupted_fusion_goes_on(volumes, store, tmp_path, monkeypatch):
    original, seen = preparation.write_slice, []

    def interrupted(folder, name, index, images, **more):
        seen.append(name)
        if name == NAMES[2] and index == 4:
            raise KeyboardInterrupt
        return original(folder, name, index, images, **more)

    monkeypatch.setattr(preparation, "write_slice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fuse(volumes, tmp_path, size=SIZE, progress=False, published=True)
    assert not (tmp_path / "slices.csv").exists()
    part = tmp_path / "ct" / f".123.{NAMES[2]}_004.png.part"  # as a kill in the middle of a file leaves it
    part.write_bytes(b"\x89PNG")
    seen.clear()
    monkeypatch.setattr(
        preparation, "write_slice", lambda *a, **more: seen.append(a[1]) or original(*a, **more)
    )
    fuse(volumes, tmp_path, size=SIZE, progress=False, published=True)
    assert set(seen) == set(NAMES[2:])
    assert content(tmp_path) == content(store) and not part.exists()


def test_only_what_changed_is_done_again(tiny, tmp_path):
    for part in ("ct", "lung", "infection"):
        array = np.asanyarray(nib.load(tiny / part / "coronacases_001.nii.gz").dataobj)
        save(tiny, part, array, name="coronacases_002")
    store = tmp_path / "out"
    fuse(tiny, store, size=20, progress=False, published=True)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*.png")}
    fuse(tiny, store, size=20, progress=False, published=True)
    assert before == {p: p.stat().st_mtime_ns for p in store.rglob("*.png")}

    lung = np.zeros((20, 20, 5), np.uint8)
    lung[4:9, 4:9, 1:3] = 1
    save(tiny, "lung", lung)
    fuse(tiny, store, size=20, progress=False, published=True)
    ids = [r["slice_id"] for r in rows_of(store)]
    assert ids[:3] == ["coronacases_001_001", "coronacases_001_002", "coronacases_002_001"]
    assert not (store / "ct/coronacases_001_003.png").exists()  # nothing stale stays

    for part in ("ct", "lung", "infection"):
        (tiny / part / "coronacases_002.nii.gz").unlink()
    fuse(tiny, store, size=20, progress=False, published=True)
    assert {r["volume"] for r in rows_of(store)} == {"coronacases_001"}
    assert not list(store.rglob("coronacases_002*"))

    (tiny / "ct/coronacases_001.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 1 volumes could not be fused"):
        fuse(tiny, store, size=20, progress=False, published=True)
    assert not (store / "slices.csv").exists()


def test_a_store_is_not_mixed_with_other_settings(tiny, tmp_path):
    fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    with pytest.raises(ValueError, match="begun with.*'size': 20.*'size': 24.*another folder"):
        fuse(tiny, tmp_path / "out", size=24, progress=False, published=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/slices.csv").write_text("mine")
    with pytest.raises(ValueError, match="no fusion wrote"):
        fuse(tiny, tmp_path / "foreign", size=20, progress=False, published=True)
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


def no_file(make):
    def apply(folder: Path) -> None:
        path = folder / "lung/coronacases_001.nii.gz"
        path.unlink()
        make(path)

    return apply


def put(value):
    def apply(array: np.ndarray) -> np.ndarray:
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
        (cut("ct", 120), "ct.*cannot be read.*fetch it again"),
        (change("lung", put(3)), r"lung.*slice 3 holds the values \[3\]; expected only 0, 1, 2"),
        (change("infection", put(7)), r"infection.*values \[7\]; expected only 0, 1, 2, 3"),
        (no_file(Path.mkdir), "lung/coronacases_001.nii.gz: expected a file, not a folder"),
        (no_file(lambda p: p.symlink_to("nowhere")), "lung/coronacases_001.nii.gz: .*or a broken link"),
        (change("lung", np.zeros_like), "every slice of 1 volumes was dropped"),
    ],
)
def test_damage_is_named(tiny, tmp_path, damage, words):
    damage(tiny)
    with pytest.raises(ValueError, match=words):
        fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    assert not (tmp_path / "out/slices.csv").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="ct: no such folder; expected ct, lung"):
        fuse(tmp_path, tmp_path / "out", progress=False, published=True)
    (tmp_path / "ct").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no .nii.gz"):
        fuse(tmp_path, tmp_path / "out", progress=False, published=True)


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
        fuse(tiny, tmp_path / "out", progress=False, **arguments, published=True)


def test_command_line(tmp_path, capsys):
    volumes, store = str(tmp_path / "volumes"), str(tmp_path / "store")
    assert main(["data", "phantom", volumes, "--depth", "4", "--volumes", "2", "--size", "64"]) == 0
    assert capsys.readouterr().out == f"{volumes}: 2 volumes of 4 slices, seed 0\n"
    assert main(["data", "fuse", "--published", volumes, store, "--size", "32", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out == f"{store}: 4 of 8 slices from 2 volumes, 32x32, window; left out: 4 no lung\n"
    assert {r["source"] for r in rows_of(tmp_path / "store")} == {"coronacases", "radiopaedia"}

    assert main(["data", "fuse", str(tmp_path / "nowhere"), store + "2"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert main(["data", "phantom", volumes, "--volumes", "99"]) == 1
    assert "99 volumes asked for; expected 1 to" in capsys.readouterr().err


# ---- names, locks, failures ------------------------------------------------------------------
def test_any_known_name_is_taken(tiny, tmp_path):
    fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    (tiny / "ct/coronacases_001.nii.gz").rename(tiny / "ct/coronacases_org_001.nii.gz")
    mask = tiny / "lung/coronacases_001.nii.gz"
    (tiny / "lung/coronacases_001.nii").write_bytes(gzip.decompress(mask.read_bytes()))
    mask.unlink()
    (tiny / "lung/notes.nii").write_text("a stranger among the masks is ignored")
    told = fuse(tiny, tmp_path / "kaggle", size=20, progress=False, published=True)
    assert list(told["volumes"]) == ["coronacases_001"]
    assert content(tmp_path / "kaggle") == content(tmp_path / "out")

    shutil.copy(tiny / "ct/coronacases_org_001.nii.gz", tiny / "ct/coronacases_001.nii.gz")
    words = "coronacases_001 lies there twice, as coronacases_001.nii.gz and coronacases_org_001.nii.gz"
    with pytest.raises(ValueError, match=words):
        fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    (tiny / "ct/coronacases_001.nii.gz").rename(tiny / "ct/scan7.nii.gz")
    with pytest.raises(ValueError, match="scan7.nii.gz.*begins with coronacases_"):
        fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)


def test_every_missing_mask_is_listed(tiny, tmp_path):
    copy_volume(tiny, "coronacases_001", tiny, "coronacases_002")
    (tiny / "lung/coronacases_001.nii.gz").unlink()
    (tiny / "infection/coronacases_002.nii.gz").unlink()
    with pytest.raises(ValueError, match="001: the lung mask.*\n.*002: the infection mask"):
        fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    assert not (tmp_path / "out").exists()


def test_two_fusions_do_not_write_one_store(tiny, tmp_path):
    lock = tmp_path / "out/.fusion/lock"
    lock.parent.mkdir(parents=True)
    (writer := lock.with_name("writer")).write_text("process 12345 on elsewhere")
    # Shared: so that it refuses only who asks for the store alone, as a fusion must.
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_SH); " \
           "print('held', flush=True); time.sleep(600)"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(
                ValueError, match="another fusion writes here .process 12345 on elsewhere.; wait"
            ):
                fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
            assert {p.name for p in lock.parent.iterdir()} == {"lock", "writer"}
            threading.Timer(0.3, other.kill).start()  # who waits takes over a dead one's lock
            fuse(tiny, tmp_path / "out", size=20, progress=False, published=True, patience=60)
        finally:
            other.kill()
    assert "12345" not in writer.read_text() and writer.read_text().startswith("process ")
    assert len(rows_of(tmp_path / "out")) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_failed_volumes_are_listed_and_the_others_kept(tiny, tmp_path, workers):
    for number in (2, 3, 4):
        copy_volume(tiny, "coronacases_001", tiny, f"coronacases_00{number}")
    fuse(tiny, tmp_path / "whole", size=20, progress=False, published=True)
    good = (tiny / "ct/coronacases_001.nii.gz").read_bytes()
    (tiny / "ct/coronacases_001.nii.gz").write_bytes(good[:100])
    (tiny / "infection/coronacases_003.nii.gz").write_bytes(b"")
    store = tmp_path / "out"
    with pytest.raises(ValueError) as caught:
        fuse(tiny, store, size=20, workers=workers, progress=False, published=True)
    head, first, second = str(caught.value).splitlines()
    assert head.startswith("2 of 4 volumes could not be fused") and "a rerun does only them" in head
    assert first.startswith(f"  coronacases_001: {tiny / 'ct/coronacases_001.nii.gz'}: cannot be read")
    assert second.startswith(f"  coronacases_003: {tiny / 'infection/coronacases_003.nii.gz'}: cannot be")
    assert not (store / "slices.csv").exists()
    kept = {p: p.stat().st_mtime_ns for p in store.rglob("*.png")}
    assert {p.name[:15] for p in kept} == {"coronacases_002", "coronacases_004"}
    (tiny / "ct/coronacases_001.nii.gz").write_bytes(good)
    copy_volume(tiny, "coronacases_002", tiny, "coronacases_003")
    fuse(tiny, store, size=20, progress=False, published=True)
    assert kept == {p: p.stat().st_mtime_ns for p in kept}
    assert content(store) == content(tmp_path / "whole")


def test_a_dead_worker_and_a_full_disk_are_reported(tiny, tmp_path, monkeypatch):
    def full(*_: object, **__: object):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, "write_slice", full)
    with pytest.raises(ValueError, match="coronacases_001: .*No space left on device"):
        fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    monkeypatch.setattr(preparation, "write_slice", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="coronacases_001: ZeroDivisionError"):
        fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    assert "fewer workers" in fusion._reason(fusion.BrokenExecutor())


def test_a_finished_store_is_not_touched(tiny, tmp_path, monkeypatch):
    store = tmp_path / "out"
    told = fuse(tiny, store, size=20, progress=False, published=True)
    assert told == json.loads((store / "store.json").read_text())
    before = {p: p.stat().st_mtime_ns for p in [store / "slices.csv", store / "store.json"]}
    monkeypatch.setattr(duplicates, "find_duplicates", lambda *_: pytest.fail("looked again"))
    assert fuse(tiny, store, size=20, progress=False, published=True) == told
    assert before == {p: p.stat().st_mtime_ns for p in before}
    monkeypatch.undo()
    (store / "store.json").unlink()
    (store / ".fusion/.1.coronacases_001.json.part").write_text("left by a killed process")
    assert fuse(tiny, store, size=20, progress=False, published=True) == told
    assert not list(store.rglob("*.part"))


# ---- counts, copies, orientation ---------------------------------------------------------------
def test_what_other_filters_would_keep_is_counted(tiny, tmp_path):
    ct, lung, infection = (load(tiny, part) for part in preparation.PARTS)
    ct[..., 3] = np.where(ct[..., 3] > -1250, -600, -1250)  # dark: air and lung, nothing denser
    lung[..., 4] = 0
    infection[3, 3, 4], infection[8, 8, 1:3] = 2, 3
    for part, array in zip(preparation.PARTS, (ct, lung, infection), strict=True):
        save(tiny, part, array)
    copy_volume(tiny, "coronacases_001", tiny, "coronacases_002")
    copy_volume(tiny, "coronacases_001", tiny, "medseg_1")
    told = fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    volume = told["volumes"]["coronacases_001"]
    assert volume["dropped"] == {"black": 2, "no lung": 1}
    counts = {"all": 5, "not_black": 3, "with_lung": 3, "with_infection": 2, "middle_60": 3,
              "middle_60_with_infection": 1}  # fmt: skip
    assert volume["counts"] == counts and volume["effusion_voxels"] == 2
    assert told["counts"] == {"coronacases": {k: 2 * n for k, n in counts.items()}, "medseg": counts}
    assert volume["intensity"] == "HU window [-1250, 250]"
    assert (told["slices_in"], told["slices_out"]) == (15, 6)
    assert [r["slice_index"] for r in rows_of(tmp_path / "out")] == ["1", "2"] * 3


def test_black_is_flat_or_dark(tiny, tmp_path):
    ct = np.zeros((20, 20, 5), np.uint8)  # already windowed
    ct[..., 0], ct[3, 3, 1], ct[3, 3, 2], ct[3, 3, 3] = 200, 127, 128, 255
    save(tiny, "ct", ct)
    save(tiny, "lung", np.ones((20, 20, 5), np.uint8))
    told = fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)["volumes"]["coronacases_001"]
    assert told["dropped"] == {"black": 3} and told["intensity"] == "0..255 as stored"
    assert [r["slice_index"] for r in rows_of(tmp_path / "out")] == ["2", "3"]


def test_copies_are_marked(tiny, tmp_path, monkeypatch):
    copy_volume(tiny, "coronacases_001", tiny, "medseg_1")
    found = {"medseg_1_001": "coronacases_001_001", "medseg_1_003": "coronacases_001_004"}
    monkeypatch.setattr(duplicates, "find_duplicates", lambda rows, store: found)
    told = fuse(tiny, tmp_path / "out", size=20, progress=False, published=True)
    rows = rows_of(tmp_path / "out")
    assert COLUMNS[-1] == "duplicate_of" and tuple(rows[0]) == COLUMNS
    assert {r["slice_id"]: r["duplicate_of"] for r in rows if r["duplicate_of"]} == found
    assert told["duplicates"] == {"medseg_1": "coronacases_001"}
    assert json.loads((tmp_path / "out/store.json").read_text()) == told


def test_a_volume_stored_the_other_way_round_is_turned_by_its_pixels(volumes, store, tmp_path):
    """Up and down are not what the name says; MedSeg has no name to say it."""
    affine = nib.load(volumes / "ct" / f"{NAMES[0]}.nii.gz").affine
    for part in preparation.PARTS:
        array = load(volumes, part, NAMES[0])
        save(tmp_path / "in", part, array[:, ::-1], affine=affine)
        save(tmp_path / "in", part, array[:, ::-1], name="medseg_1", affine=affine)
        # Against its header in z and left-right, too: there the header is believed.
        save(
            tmp_path / "in",
            part,
            array[::-1, :, ::-1],
            name="medseg_2",
            affine=affine @ np.diag([-1, 1, -1, 1]),
        )
    told = fuse(tmp_path / "in", tmp_path / "out", size=SIZE, progress=False, published=True)["volumes"]
    expected = [p for p, r in zip(pictures(store), rows_of(store), strict=True) if r["volume"] == NAMES[0]]
    assert np.array_equal(pictures(tmp_path / "out"), expected * 3)
    record = told[NAMES[0]]["orientation"]
    assert (record["header"], record["by_name"], record["anatomy"]) == ("LAS", "upright", "upside down")
    assert (record["turned"], record["because"]) == ("rot90, flip top-bottom", "anatomy")
    assert told["medseg_1"]["orientation"]["by_name"] is None
    assert told["medseg_2"]["orientation"]["turned"] == "rot90, flip left-right, flip z"


# ---- memory, progress ---------------------------------------------------------------------------
def test_memory_is_that_of_planes(tmp_path):
    shape = (256, 256, 48)  # 6 MiB of CT, 9 of it and its masks
    ct = np.full(shape, -1000, np.int16)
    ct[64:192, 64:192] = 40
    for part, array in (
        ("ct", ct),
        ("lung", (ct > 0) * np.uint8(1)),
        ("infection", np.zeros(shape, np.uint8)),
    ):
        save(tmp_path / "in", part, array)
    tracemalloc.start()
    try:
        fuse(tmp_path / "in", tmp_path / "out", size=64, progress=False, published=True)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_bar_over_volumes_and_over_planes_of_the_only_one(tiny, tmp_path, capfd):
    fuse(tiny, tmp_path / "one", size=20, published=True)
    assert "plane" in (shown := capfd.readouterr().err) and "volume" not in shown
    copy_volume(tiny, "coronacases_001", tiny, "coronacases_002")
    fuse(tiny, tmp_path / "two", size=20, published=True)
    assert "volume" in (shown := capfd.readouterr().err) and "plane" not in shown
    fuse(tiny, tmp_path / "quiet", size=20, progress=False, published=True)
    assert capfd.readouterr().err == ""
