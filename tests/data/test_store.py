"""The slice store: what it reads, what its fingerprint means, and how each bad input is refused."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from replication.data.slices.store import COLUMNS, REPEATS, SliceStore, check_store, read_store, read_table
from replication.training.batches import EpochShuffle, SliceBatches, SliceDataset, with_neighbours

FIRST, SECOND = "coronacases_0_0", "coronacases_0_1"


def rows_of(store: Path) -> list[dict[str, str]]:
    with open(store / "slices.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rewrite(store: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    rows = change(rows_of(store))
    with open(store / "slices.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def without(column: str) -> Callable[[list[dict]], list[dict]]:
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


def with_cell(column: str, value: str) -> Callable[[list[dict]], list[dict]]:
    """In the second slice."""
    return lambda rows: [{**row, column: value} if i == 1 else row for i, row in enumerate(rows)]


def redraw(store: Path, kind: str, change: Callable[[np.ndarray], np.ndarray], name: str = SECOND) -> None:
    path = store / kind / f"{name}.png"
    pixels = np.asarray(Image.open(path))
    Image.fromarray(change(pixels)).save(path)


# ---- a good store ------------------------------------------------------------------------------


def test_a_store_is_read_in_the_order_of_its_table_with_masks_of_0_and_1(tiny_store):
    store = read_store(tiny_store, size=64, progress=False)
    table = read_table(tiny_store)
    assert len(store) == len(table) == 18 and set(COLUMNS) <= set(table)
    for i in (0, 7, 17):
        png = Image.open(tiny_store / table["ct"][i])
        assert np.array_equal(store.ct[i], np.asarray(png))
        assert store.infection[i].sum() == table["infection_pixels"][i] > 0
        assert store.lung[i].sum() == table["lung_pixels"][i]
    for kind in ("ct", "lung", "infection"):
        assert getattr(store, kind).dtype == np.uint8 and getattr(store, kind).shape == (18, 64, 64)
    assert set(np.unique(store.lung)) == {0, 1}


def test_a_ct_shrinks_by_averaging_areas_and_a_mask_by_taking_its_nearest_pixels(tiny_store):
    full, half = (read_store(tiny_store, size=size, progress=False) for size in (64, 32))
    means = full.ct.reshape(18, 32, 2, 32, 2).mean((2, 4))
    assert np.abs(half.ct - means).max() <= 1  # rounded once an axis
    blocks = full.lung.reshape(18, 32, 2, 32, 2).transpose(0, 1, 3, 2, 4).reshape(18, 32, 32, 4)
    assert (half.lung[..., None] == blocks).any(-1).all() and set(np.unique(half.lung)) == {0, 1}


@pytest.mark.parametrize("kind", ["lung", "infection"])
def test_a_mask_may_be_written_as_1_bit_as_0_1_or_as_0_255(store, kind):
    expected = read_store(store, size=64, progress=False)
    for factor in (1, 255):
        redraw(store, kind, lambda m, factor=factor: (m > 0).astype(np.uint8) * factor)
        assert np.array_equal(
            getattr(read_store(store, size=64, progress=False), kind), getattr(expected, kind)
        )


def test_the_fingerprint_survives_a_lossless_encoding_further_columns_and_another_size(store):
    before = read_store(store, size=64, progress=False).fingerprint
    for path in store.rglob("*.png"):
        old = path.read_bytes()
        Image.open(path).convert("L").save(path, compress_level=1)
        assert path.read_bytes() != old
    rewrite(store, lambda rows: [{**row, "note": "x"} for row in rows])
    assert {read_store(store, size=s, progress=False).fingerprint for s in (16, 64)} == {before}


@pytest.mark.parametrize("kind", ["ct", "lung", "infection"])
def test_one_pixel_changes_the_fingerprint(store, kind):
    def flip(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.copy()
        pixels[0, 0] = ~pixels[0, 0] if pixels.dtype == bool else pixels[0, 0] ^ 1
        return pixels

    before = read_store(store, size=16, progress=False).fingerprint
    redraw(store, kind, flip)
    assert read_store(store, size=16, progress=False).fingerprint != before


def test_another_name_or_order_of_slices_changes_the_fingerprint(store):
    prints = [read_store(store, size=16, progress=False).fingerprint]
    for change in (lambda rows: rows[::-1], with_cell("slice_id", "renamed")):
        rewrite(store, change)
        prints.append(read_store(store, size=16, progress=False).fingerprint)
    assert len(set(prints)) == 3


# ---- the dataset -------------------------------------------------------------------------------


@pytest.mark.parametrize("target, column", [("lungs", "lung"), ("infection", "infection")])
def test_the_dataset_gives_a_ct_in_0_to_1_and_the_mask_of_its_target(tiny_store, target, column):
    store = read_store(tiny_store, size=32, progress=False)
    dataset = SliceDataset(store, target=target, indices=np.array([5, 2]))
    image, mask = dataset[1]
    assert len(dataset) == 2 and image.shape == mask.shape == (1, 32, 32)
    assert image.dtype == mask.dtype == torch.float32
    assert np.array_equal((image[0] * 255).round().numpy(), store.ct[2])
    assert np.array_equal(mask[0].numpy(), getattr(store, column)[2])


def test_the_dataset_takes_other_inputs_in_place_of_the_ct(tiny_store):
    store = read_store(tiny_store, size=16, progress=False)
    inputs = np.zeros((18, 2, 16, 16), np.uint8)
    inputs[3, 1] = 255
    dataset = SliceDataset(store, target="infection", indices=np.array([3]), inputs=inputs)
    assert dataset[0][0].shape == (2, 16, 16) and dataset[0][0].mean((1, 2)).tolist() == [0, 1]


def test_neighbours_are_those_of_the_volume_and_the_nearest_stands_in_for_a_missing_one():
    # Volume a lacks slice 12 and is not in order; b has one slice.
    table = pd.DataFrame({"volume": list("aaaab"), "slice_index": [11, 10, 13, 14, 12]})
    ct = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    store = SliceStore(table, ct, ct, ct, "")
    channels = with_neighbours(store, 1)
    assert channels.shape == (5, 3, 2, 2) and channels.dtype == np.uint8
    assert channels[:, :, 0, 0].tolist() == [[0, 1, 0], [1, 1, 0], [2, 2, 3], [3, 2, 3], [4, 4, 4]]
    # Slice 11: 9 is not there, 10 stands in; 13 is. Slice 13: 11 is there, 15 is not, 14 stands in.
    assert with_neighbours(store, 2)[[0, 2], 3:, 0, 0].tolist() == [[1, 2], [0, 3]]
    with pytest.raises(ValueError, match="context=0; expected 1 or more"):
        with_neighbours(store, 0)
    table.loc[1, "slice_index"] = 11
    with pytest.raises(ValueError, match="Volume a has slice_index 11 twice"):
        with_neighbours(store, 1)


def test_an_unknown_target_is_refused(tiny_store):
    with pytest.raises(ValueError, match="'heart'.*lungs.*infection"):
        SliceDataset(read_store(tiny_store, size=16, progress=False), target="heart", indices=np.array([0]))


# ---- a bad store -------------------------------------------------------------------------------


def rename(store: Path) -> None:
    store.rename(store.with_name("elsewhere"))


def table_of(store: Path) -> Path:
    return store / "slices.csv"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


def grey_to_rgb(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels] * 3, -1)


def three_values(mask: np.ndarray) -> np.ndarray:
    pixels = mask.astype(np.uint8) * 255
    pixels[0, :3] = 128
    return pixels


MASK, CT = rf"lung.{SECOND}\.png", rf"ct.{SECOND}\.png"
# name: how to break a store, the error, and its message: the file or folder, what is wrong, the cure.
BROKEN = {
    "no folder": (rename, FileNotFoundError, "store: no such folder; expected a slice store"),
    "no table": (lambda s: table_of(s).unlink(), FileNotFoundError, r"slices\.csv is missing.*chs-net data fuse"),
    "empty table": (lambda s: table_of(s).write_bytes(b""), ValueError,
                    r"slices\.csv could not be read as CSV.*expected the columns slice_id"),
    "header only": (lambda s: table_of(s).write_text(",".join(rows_of(s)[0]) + "\n"), ValueError,
                    r"slices\.csv holds no slice.*expected one row a slice"),
    "not a text": (lambda s: table_of(s).write_bytes(b"\x89PNG\xff\xfe\x00"), ValueError,
                   r"slices\.csv could not be read as CSV"),
    "no patient column": (lambda s: rewrite(s, without("patient")), ValueError,
                          r"slices\.csv lacks the columns patient; it has slice_id"),
    "empty cell": (lambda s: rewrite(s, with_cell("patient", "")), ValueError,
                   r"slices\.csv has empty cells in line 3"),
    "one slice_id twice": (lambda s: rewrite(s, with_cell("slice_id", FIRST)), ValueError,
                           rf"slices\.csv names '{FIRST}' more than once; slice_id must be unique"),
    "missing mask": (lambda s: (s / f"lung/{SECOND}.png").unlink(), FileNotFoundError,
                     rf"{MASK} is missing, though slices\.csv names it as a lung image"),
    "missing CT": (lambda s: (s / f"ct/{SECOND}.png").unlink(), FileNotFoundError,
                   rf"{CT} is missing.*as a ct image"),
    "mask of another size": (lambda s: redraw(s, "lung", lambda m: m[:32]), ValueError,
                             rf"{MASK} is 32x64 but its CT is 64x64; a mask must have the size of its slice"),
    "not an image": (lambda s: (s / f"lung/{SECOND}.png").write_text("hello"), ValueError,
                     rf"{MASK} could not be read as an image.*replace it or drop its row"),
    "half an image": (lambda s: cut(s / f"ct/{SECOND}.png"), ValueError,
                      rf"{CT} could not be read as an image.*replace it or drop its row"),
    "three-valued mask": (lambda s: redraw(s, "lung", three_values), ValueError,
                          rf"{MASK} holds values \[0, 128, 255\].*expected a two-valued mask"),
    "colour CT": (lambda s: redraw(s, "ct", grey_to_rgb), ValueError,
                  rf"{CT} has mode RGB; expected an 8-bit grey CT"),
    "16-bit CT": (lambda s: redraw(s, "ct", lambda p: p.astype(np.uint16)), ValueError,
                  rf"{CT} has mode I;16; expected an 8-bit grey CT"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_store_is_refused_by_file_and_cure(store, case):
    damage, error, message = BROKEN[case]
    damage(store)
    with pytest.raises(error, match=message):
        read_store(store, size=32, progress=False)
    problems = check_store(store)
    assert len(problems) == 1 and re.search(message, problems[0]) and "\n" not in problems[0].strip()


@pytest.mark.parametrize("kind", ["lung", "infection"])
def test_a_stated_pixel_count_that_is_wrong_is_told_with_both_numbers(store, kind):
    stated = rows_of(store)[1][f"{kind}_pixels"]
    rewrite(store, with_cell(f"{kind}_pixels", "7"))
    (problem,) = check_store(store)
    assert re.search(rf"{kind}.{SECOND}\.png has {stated} positive pixels; slices\.csv says 7\.", problem)


def test_slices_of_two_sizes_are_refused(store):
    for kind in ("ct", "lung", "infection"):
        redraw(store, kind, lambda pixels: np.repeat(np.repeat(pixels, 2, 0), 2, 1))
    rewrite(store, without("lung_pixels"))
    rewrite(store, without("infection_pixels"))
    with pytest.raises(ValueError, match=rf"{CT} is \(128, 128\); expected square slices of one size"):
        read_store(store, size=32, progress=False)
    (problem,) = check_store(store)
    assert "17 of 64x64, 1 of 128x128" in problem


def test_a_check_tells_all_problems_in_one_go(store):
    (store / "ct" / f"{FIRST}.png").unlink()
    redraw(store, "lung", three_values)
    redraw(store, "ct", grey_to_rgb, name="radiopaedia_4_1")
    redraw(store, "lung", lambda m: ~m, name="radiopaedia_5_2")
    problems = check_store(store)
    named = [FIRST, SECOND, "radiopaedia_4_1", "radiopaedia_5_2"]
    assert len(problems) == 4 and all(name in p for name, p in zip(named, problems))


def add(column: str, value: Callable[[dict], object]) -> Callable[[list[dict]], list[dict]]:
    return lambda rows: [{**row, column: value(row)} for row in rows]


def duplicate(**originals: str) -> Callable[[Path], None]:
    return lambda s: rewrite(s, add("duplicate_of", lambda row: originals.get(row["slice_id"], "")))


def stray(store: Path) -> None:
    """An image that no row names."""
    shutil.copy(store / "lung" / f"{SECOND}.png", store / "lung" / "stray.png")


def outside(store: Path, path: str) -> None:
    rewrite(store, with_cell("ct", path))
    (store / "ct" / f"{SECOND}.png").unlink()


THIRD = "coronacases_0_2"
# name: how to break a store in a way that no reading of a single slice shows, and the line.
INCONSISTENT = {
    "a flag without infection": (
        lambda s: rewrite(s, add("has_infection", lambda row: row["slice_id"] != SECOND)),
        rf"{SECOND} has has_infection False, but \d+ infection_pixels; expected True",
    ),
    "an infection without flag": (
        lambda s: [
            redraw(s, "infection", lambda m: m & False),
            rewrite(s, with_cell("infection_pixels", "0")),
            rewrite(s, add("has_infection", lambda row: 1)),
        ],
        rf"{SECOND} has has_infection 1, but 0 infection_pixels; expected False",
    ),
    "unknown original": (duplicate(**{SECOND: "nobody"}), rf"{SECOND} is a duplicate of 'nobody', which no row has"),
    "own original": (duplicate(**{SECOND: SECOND}), rf"{SECOND} is a duplicate of itself"),
    "chain": (
        duplicate(**{SECOND: THIRD, THIRD: FIRST}),
        rf"{SECOND} is a duplicate of {THIRD}, itself a duplicate of {FIRST}; name the first",
    ),
    "two patients": (
        lambda s: rewrite(s, with_cell("patient", "other")),
        r"volume coronacases_0 has the patients coronacases_0, other; expected one",
    ),
    "two sources": (
        lambda s: rewrite(s, with_cell("source", "medseg")),
        r"volume coronacases_0 has the sources coronacases, medseg; expected one",
    ),
    "one position twice": (
        lambda s: rewrite(s, with_cell("slice_index", "0")),
        rf"{FIRST}, {SECOND} are all slice_index 0 of coronacases_0",
    ),
    "an unnamed image": (stray, r"lung.stray\.png is named by no row"),
    "one image twice": (
        lambda s: [outside(s, f"ct/{FIRST}.png")],
        rf"{FIRST}, {SECOND} share the ct image ct/{FIRST}\.png",
    ),
    "a path upwards": (lambda s: outside(s, "../ct.png"), rf"{SECOND} names '\.\./ct\.png', outside the store"),
    "a path up and down": (lambda s: outside(s, "ct/../../x/ct.png"), r"outside the store; expected a relative path"),
    "an absolute path": (lambda s: outside(s, "/ct.png"), rf"{SECOND} names '/ct\.png', outside the store"),
    "a black CT": (lambda s: redraw(s, "ct", lambda p: p * 0), rf"{CT} is all black"),
    "an empty lung": (
        lambda s: [redraw(s, "lung", lambda m: m & False), rewrite(s, with_cell("lung_pixels", "0"))],
        rf"{MASK} is empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INCONSISTENT)
def test_a_store_that_contradicts_itself_is_told_in_one_line(store, case):
    damage, message = INCONSISTENT[case]
    damage(store)
    problems = check_store(store)
    assert len(problems) == 1 and re.search(message, problems[0]), problems


def test_oblong_slices_are_told(store):
    for row in rows_of(store):
        for kind in ("ct", "lung", "infection"):
            redraw(store, kind, lambda p: np.pad(p, ((0, 8), (0, 0))), name=row["slice_id"])
    (problem,) = check_store(store)
    assert "72x64; expected square" in problem


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_are_those_of_a_data_loader(tiny_store, shuffled):
    dataset = SliceDataset(
        read_store(tiny_store, size=16, progress=False), target="infection", indices=np.arange(1, 12)
    )
    sampler = EpochShuffle(len(dataset), seed=3) if shuffled else None
    batches = SliceBatches(dataset, batch_size=4, sampler=sampler)
    assert len(batches) == 3
    for epoch in range(2):
        if sampler:
            sampler.set_epoch(epoch)
        theirs = list(DataLoader(dataset, batch_size=4, sampler=sampler))
        ours = list(batches)
        assert [len(image) for image, _ in ours] == [4, 4, 3]
        for (image, mask), (image_, mask_) in zip(ours, theirs, strict=True):
            assert torch.equal(image, image_) and torch.equal(mask, mask_)
            assert image.dtype == mask.dtype == torch.float32


def test_good_flags_duplicates_links_further_columns_and_missing_counts_are_no_problem(store):
    rewrite(store, add("has_infection", lambda row: int(row["infection_pixels"]) > 0))
    duplicate(**{SECOND: FIRST, THIRD: FIRST})(store)
    rewrite(store, add("note", lambda row: "x"))
    elsewhere = store.with_name("elsewhere")
    (store / "ct").rename(elsewhere)
    (store / "ct").symlink_to(elsewhere)
    assert check_store(store) == []
    rewrite(store, without("lung_pixels"))
    assert check_store(store) == []


@pytest.mark.parametrize("missing", [REPEATS, REPEATS + 1, 18])
def test_five_problems_of_a_kind_are_told_and_the_rest_counted(store, missing):
    for path in sorted((store / "lung").iterdir())[:missing]:
        path.unlink()
    (store / "lung/stray.png").write_bytes(b"")
    problems = check_store(store)
    assert len(problems) == REPEATS + 1 and "stray.png" in problems[-1]
    more = f"(and {missing - REPEATS} more of this kind)"
    assert problems[REPEATS - 1].endswith(more) == (missing > REPEATS)
    assert sum("more of this kind" in p for p in problems) == (missing > REPEATS)
