"""Which volumes show the same scan: all twins, nothing else, whatever window, flip, zoom or order."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from replication.data.fusing.duplicates import SAME, SHARE, VERDICTS, find_duplicates, match_volumes
from replication.data.fusing.picture_matching import first_fit, warp
from replication.data.names import patient_of, source_of
from replication.data.phantom.volumes import TWINS, make_volume

SIDE, DEPTH = 128, 10
TWO = "radiopaedia_10_85902_1", "radiopaedia_10_85902_3"  # one patient, two scans
NAMES = ("coronacases_001", "coronacases_002", *TWO, *TWINS, "radiopaedia_4_85506_1", "radiopaedia_7_85703_0")
BOX = Image.Resampling.BOX
Pictures = dict[int, np.ndarray]  # slice_index -> uint8 (SIDE, SIDE)


class Drawn(dict):
    """Volumes by name, drawn when first asked for."""

    def __missing__(self, name: str) -> Pictures:
        self[name] = drawn(name)
        return self[name]


def drawn(name: str) -> Pictures:
    """The slices with lung as stored (Radiopaedia's upside down, one reversed), window [-1250, 250]."""
    volume = make_volume(name=name, seed=0, size=SIDE, depth=DEPTH)
    grey = volume.ct.astype(float)
    if volume.ct.dtype == np.int16:
        grey = (np.clip(grey, -1250, 250) + 1250) * 255 / 1500
    held = np.flatnonzero(volume.lung.any((0, 1)))
    return {int(k): np.rot90(grey[:, :, k]).astype(np.uint8) for k in held}


@pytest.fixture(scope="module")
def pictures() -> dict[str, Pictures]:
    return Drawn()


def write(store: Path, volumes: dict[str, Pictures], **patients: str) -> list[dict]:
    rows = []
    (store / "ct").mkdir(parents=True)
    for name, slices in volumes.items():
        for index, picture in slices.items():
            row = {
                "slice_id": f"{name}_{index:03d}", "source": source_of(name), "volume": name,
                "patient": patients.get(name, patient_of(name)), "slice_index": index,
                "ct": f"ct/{name}_{index:03d}.png",
            }  # fmt: skip
            Image.fromarray(np.ascontiguousarray(picture)).save(store / row["ct"])
            rows.append(row)
    return rows


def changed(slices: Pictures, change: Callable[[np.ndarray], np.ndarray]) -> Pictures:
    return {index: change(picture) for index, picture in slices.items()}


def window(low: float, high: float, gamma: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda p: (np.clip((p.astype(float) - low) / (high - low), 0, 1) ** gamma * 255).astype(np.uint8)


def crop(top: int, bottom: int, left: int, right: int) -> Callable[[np.ndarray], np.ndarray]:
    """Another field of view: negative numbers pad."""

    def change(p: np.ndarray) -> np.ndarray:
        p = np.pad(p, 8)[8 + top : 8 + SIDE - bottom, 8 + left : 8 + SIDE - right]
        return np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    return change


def noise(p: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(int(p.sum()))
    return np.clip(p + rng.normal(0, 8, p.shape), 0, 255).astype(np.uint8)


def all_at_once(p: np.ndarray) -> np.ndarray:
    return noise(crop(3, 1, -2, 4)(window(30, 190, 0.8)(p)))[::-1, ::-1]


# ---- the phantom's twins -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def twins(pictures, tmp_path_factory) -> tuple[list[dict], Path]:
    store = tmp_path_factory.mktemp("twins")
    return write(store, {name: pictures[name] for name in NAMES}), store


def test_every_slice_of_every_twin_is_found_and_nothing_else(twins, pictures):
    expected = {}
    for copy, original in TWINS.items():
        for k in pictures[copy]:
            there = DEPTH - 1 - k if original == "radiopaedia_7_85703_0" else k
            expected[f"{copy}_{k:03d}"] = f"{original}_{there:03d}"
    assert find_duplicates(*twins) == expected


def test_the_table_of_pairs_tells_twins_from_the_rest_by_a_wide_margin(twins):
    table = match_volumes(*twins)
    assert len(table) == len(NAMES) * (len(NAMES) - 1) // 2
    pairs = dict(zip(zip(table["volume"], table["original"]), table.index))
    true = [pairs[pair] for pair in TWINS.items()]
    assert sorted(true) == [0, 1, 2]  # the most similar come first
    assert (table["verdict"][true] == "same scan").all()
    assert (table["similarity"][true] > SAME + 0.1).all() and (table["share"][true] == 1).all()
    assert (table["flip"][true] == "up-down").all() and (table["steady"][true] == 1).all()
    assert table["reversed"][true].tolist() == [o == "radiopaedia_7_85703_0" for o in table["original"][true]]
    # The phantom draws the two scans of one patient at the same heights of the same body.
    alike = [pairs[TWO[::-1]], pairs["medseg_3", TWO[1]]]
    assert table["verdict"][alike].tolist() == ["one patient", "same scan"]
    assert (table["similarity"][alike] < table["similarity"][pairs["medseg_3", TWO[0]]]).all()
    rest = table.drop(true + alike)
    assert rest["close"].any() and (rest["similarity"][rest["close"]] < SAME - 0.05).all()
    assert (rest["share"] <= SHARE / 2).all()
    assert set(rest["verdict"]) == {"different"} and set(VERDICTS) == set(table["verdict"])


def test_neither_the_order_of_rows_nor_numbers_read_as_text_matter(twins):
    rows, store = twins
    rows = [row for row in rows if row["volume"] in ("medseg_1", TWINS["medseg_1"], "coronacases_001")]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    shuffled = [row | {"slice_index": str(row["slice_index"])} for row in shuffled]
    found = find_duplicates(rows, store)
    assert found and find_duplicates(shuffled, store) == found


# ---- copies made here --------------------------------------------------------------------------
COPIES = {
    "another window": window(20, 150),
    "a narrow window": window(60, 235, 1.5),
    "up-down": lambda p: p[::-1],
    "left-right": lambda p: p[:, ::-1],
    "cropped": crop(4, 4, 4, 4),
    "padded": crop(-4, -4, -4, -4),
    "shifted": crop(5, -5, -4, 4),
    "stretched": crop(0, 0, 5, 5),
    "zoomed by an eighth": crop(8, 8, 8, 8),
    "dark, but for bone": window(40, 255, 5.0),
    "noise": noise,
    "all at once": all_at_once,
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_slice_by_slice(pictures, tmp_path, kind):
    name = "coronacases_001"
    volumes = {n: pictures[n] for n in (name, "coronacases_002", TWO[0])}
    volumes["medseg_9"] = changed(pictures[name], COPIES[kind])
    found = find_duplicates(write(tmp_path, volumes), tmp_path)
    assert found == {f"medseg_9_{k:03d}": f"{name}_{k:03d}" for k in pictures[name]}


def test_the_first_fit_finds_zoom_and_shift(pictures):
    scan = np.stack([*pictures["coronacases_001"].values()]).astype(np.float32)
    moved = np.array([1.06, 1.06, 5.3, -7.4])  # rows' and columns' zoom, their shifts in pixels
    similarity, found = first_fit(scan, warp(scan, moved))
    assert similarity > 0.98 and found == pytest.approx(moved, abs=0.6)


@pytest.mark.parametrize(
    "change, least",
    [
        (crop(5, -2, 3, 4), 0.97),  # 0.996; 0.937 with the fit of the coarser pictures alone
        (window(37, 255, 0.15), 0.96),  # 0.977; 0.951 without division by the local deviation
    ],
    ids=["another field of view", "a steep grey curve"],
)
def test_a_copy_is_nearly_its_original_after_the_fit(pictures, tmp_path, change, least):
    slices = pictures["coronacases_001"]
    rows = write(tmp_path, {"coronacases_001": slices, "medseg_9": changed(slices, change)})
    assert match_volumes(rows, tmp_path)["similarity"].item() > least


def test_a_slice_whose_original_was_dropped_takes_the_nearest(pictures, tmp_path):
    slices = pictures["coronacases_001"]
    assert list(slices) == list(range(1, 9))
    volumes = {
        "coronacases_001": {k: slices[k] for k in (1, 2, 4, 5, 6)},
        "medseg_9": {40 - k: all_at_once(slices[k]) for k in (2, 3, 4, 6, 8)},  # reversed, renumbered
    }
    rows = write(tmp_path, volumes)
    found = find_duplicates(rows, tmp_path)
    nearest = {2: 2, 3: 2, 4: 4, 6: 6, 8: 6}
    assert found == {f"medseg_9_{40 - k:03d}": f"coronacases_001_{v:03d}" for k, v in nearest.items()}
    (pair,) = match_volumes(rows, tmp_path).to_dict("records")
    assert pair["reversed"] and pair["share"] == 0.6 and pair["steady"] == 1


def test_slices_numbered_anew_are_matched_by_their_pixels(pictures, tmp_path):
    slices = pictures["coronacases_001"]
    kept = (1, 2, 4, 6, 7, 8)  # then 0, 1, 2, ...: no constant distance
    volumes = {
        "coronacases_001": {k: p for k, p in slices.items() if k != 6},
        "medseg_9": {5 * i: noise(slices[k]) for i, k in enumerate(kept)},
    }
    found = find_duplicates(write(tmp_path, volumes), tmp_path)
    # The fourth lost its original: it follows its nearest neighbour with one, the earlier.
    assert list(found.values()) == [f"coronacases_001_{k:03d}" for k in (1, 2, 4, 4, 7, 8)]


def test_the_original_is_the_first_source_then_the_first_name_and_chains_end(pictures, tmp_path):
    slices = pictures["coronacases_001"]
    volumes = {
        # medseg_2 and _3 resemble each other more than their original: a chain.
        "medseg_3": changed(slices, noise), "medseg_2": changed(slices, noise),
        "medseg_1": changed(slices, lambda p: p[::-1]),
        "radiopaedia_1_1_0": changed(slices, window(20, 200)), "coronacases_002": slices,
        "coronacases_003": pictures["coronacases_002"],
    }  # fmt: skip
    found = find_duplicates(write(tmp_path, volumes), tmp_path)
    copies = [v for v in volumes if not v.startswith("c")]
    assert found == {f"{v}_{k:03d}": f"coronacases_002_{k:03d}" for v in copies for k in slices}
    assert not set(found) & set(found.values())


def test_volumes_of_one_patient_are_told_and_never_duplicates(pictures, tmp_path):
    slices = pictures[TWO[0]]
    rows = write(tmp_path, {TWO[0]: slices, TWO[1]: changed(slices, noise)})
    assert find_duplicates(rows, tmp_path) == {}
    (pair,) = match_volumes(rows, tmp_path).to_dict("records")
    assert (pair["volume"], pair["original"], pair["verdict"]) == (TWO[1], TWO[0], "one patient")
    renamed = [row | {"patient": row["volume"]} for row in rows]  # the same pixels, other patients
    assert len(find_duplicates(renamed, tmp_path)) == len(slices)


def test_a_copy_prefers_the_volume_that_it_repeats_slice_by_slice(pictures, tmp_path):
    """As MedSeg's copy of a thick reconstruction, whose patient also has a thin one of the same scan."""
    slices = pictures["coronacases_001"]
    volumes = {
        TWO[0]: {10 * k: p for k, p in slices.items()},  # another spacing, and the sharper pictures
        TWO[1]: changed(slices, noise),
        "medseg_9": changed(slices, window(10, 200)),
    }
    found = find_duplicates(write(tmp_path, volumes), tmp_path)
    assert found == {f"medseg_9_{k:03d}": f"{TWO[1]}_{k:03d}" for k in slices}


def test_black_slices_and_single_volumes_are_nobodys_duplicates(pictures, tmp_path):
    black = {k: np.zeros((SIDE, SIDE), np.uint8) for k in range(3)}
    rows = write(
        tmp_path, {"coronacases_001": pictures["coronacases_001"], "medseg_1": black, "medseg_2": black}
    )
    assert find_duplicates(rows, tmp_path) == {}
    assert find_duplicates(rows[:3], tmp_path) == {} == find_duplicates([], tmp_path)
    assert match_volumes([], tmp_path).empty and "verdict" in match_volumes([], tmp_path)


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda rows, path: path.unlink(), FileNotFoundError, r"_001\.png is missing"),
        (lambda rows, path: path.write_text("hello"), ValueError, r"_001\.png could not be read"),
        (lambda rows, path: rows[0].pop("patient"), ValueError, "lacks patient"),
    ],
)
def test_what_cannot_be_compared_is_named(pictures, tmp_path, damage, error, words):
    rows = write(tmp_path, {"coronacases_001": pictures["coronacases_001"]})
    damage(rows, tmp_path / rows[0]["ct"])
    with pytest.raises(error, match=words):
        find_duplicates(rows, tmp_path)


# ---- real slices -------------------------------------------------------------------------------
@pytest.mark.skipif(
    "CHS_REAL_SLICES" not in os.environ, reason="CHS_REAL_SLICES names no store of real slices"
)
def test_real_patients_differ_and_copies_of_real_volumes_are_found(tmp_path):
    """Four short volumes and one whose patient has two, each with a copy of another window and field."""
    real = Path(os.environ["CHS_REAL_SLICES"])
    table = pd.read_csv(real / "slices.csv")
    sizes = table.groupby("volume").size().sort_values()
    chosen = [*sizes.index[:5], "radiopaedia_10_85902_3"]
    volumes, copies = {}, {}
    for number, name in enumerate(dict.fromkeys(chosen)):
        part = table[table["volume"] == name][:40]
        slices = {int(i): np.asarray(Image.open(real / p)) for i, p in zip(part["slice_index"], part["ct"])}
        volumes[name] = changed(slices, lambda p: np.asarray(Image.fromarray(p).resize((SIDE, SIDE), BOX)))
        volumes[f"medseg_{number}"] = changed(volumes[name], all_at_once)
        copies[f"medseg_{number}"] = name
    found = find_duplicates(write(tmp_path, volumes), tmp_path)
    assert found == {f"{c}_{k:03d}": f"{o}_{k:03d}" for c, o in copies.items() for k in volumes[c]}
