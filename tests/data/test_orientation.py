"""Orientation: the anatomical rule on phantoms and, where they lie, on real slices; header and name."""

import csv
import functools
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from replication.data.phantom.volumes import DEFAULT_VOLUMES, make_volume
from replication.data.reading.orientation import (
    FEWEST,
    SURE,
    Turn,
    Verdict,
    header_axes,
    judge,
    orient,
    witnesses,
)

Slices = list[tuple[np.ndarray, np.ndarray]]
REAL = os.environ.get("CHS_REAL_SLICES")


@functools.cache
def stored(name: str, size: int | None, *, depth: int = 16, seed: int = 0) -> tuple[Slices, np.ndarray]:
    """Slices with lung as they are stored, after `np.rot90` alone, and the affine."""
    volume = make_volume(name=name, seed=seed, size=size, depth=depth)
    planes = [
        (np.rot90(volume.ct[..., k]), np.rot90(volume.lung[..., k] > 0))
        for k in range(depth) if volume.lung[..., k].any()
    ]  # fmt: skip
    return planes, volume.affine


def flipped(slices: Slices) -> Slices:
    return [(picture[::-1], lung[::-1]) for picture, lung in slices]


def upright(name: str, slices: Slices) -> Slices:
    return flipped(slices) if name.startswith("radiopaedia") else slices


@pytest.mark.parametrize(
    ("name", "size"), [*((n, s) for n in DEFAULT_VOLUMES for s in (32, 64)), (DEFAULT_VOLUMES[0], 128)]
)
def test_every_phantom_is_judged_rightly_flipped_or_not(name, size):
    slices = upright(name, stored(name, size)[0])
    verdict, mirrored = judge(slices), judge(flipped(slices))
    assert (verdict.says, mirrored.says) == ("upright", "upside down")
    assert verdict.margin == pytest.approx(-mirrored.margin, abs=1e-3)
    # A mirror image (left and right) and a patient bent to one side change nothing.
    assert judge([(p[:, ::-1], m[:, ::-1]) for p, m in slices]).says == "upright"


@pytest.mark.parametrize("name", ["coronacases_003", "radiopaedia_4_85506_1"])
def test_a_phantom_of_full_size(name):
    slices = upright(name, stored(name, None, depth=6)[0])
    assert slices[0][0].shape == ((512, 512) if name.startswith("c") else (630, 630))
    assert (judge(slices).says, judge(flipped(slices)).says) == ("upright", "upside down")
    votes = [witnesses(*s) for s in slices]
    assert np.mean([v is not None and min(v) > 0 for v in votes]) >= 0.7


def test_scale_and_offset_of_the_grey_do_not_matter():
    slices = stored("coronacases_001", 64)[0]
    assert judge([(p * 0.01 + 7, m) for p, m in slices]) == judge(slices)


def test_what_tells_nothing_is_undecided():
    rng = np.random.default_rng(0)
    lung = np.zeros((64, 64), bool)
    lung[16:48, 8:28] = lung[16:48, 36:56] = True
    noise = [(rng.normal(size=(64, 64)), lung) for _ in range(8)]
    assert judge(noise).says == "undecided"
    flat = [(np.zeros((64, 64)), lung)] * 8
    assert judge(flat) == Verdict(says="undecided", margin=0.0, spine=0.0, table=0.0, slices=0)
    assert judge([(p, np.zeros((64, 64), bool)) for p, _ in noise]).slices == 0
    assert judge([]).says == "undecided"
    slices = stored("coronacases_001", 64)[0][3:]
    assert judge(slices[: FEWEST - 1]).says == "undecided"
    assert judge(slices[:FEWEST]).says == "upright"


def test_a_patient_on_the_belly_is_undecided():
    """The spine is at the top, the table at the bottom: the witnesses contradict each other."""
    prone = []
    for picture, lung in stored("coronacases_002", 64)[0]:
        rows = np.flatnonzero(lung.any(1))
        body = slice(max(rows[0] - 6, 0), rows[-1] + 7)
        picture, lung = picture.copy(), lung.copy()
        picture[body], lung[body] = picture[body][::-1], lung[body][::-1]
        prone.append((picture, lung))
    verdict = judge(prone)
    assert (verdict.says, verdict.margin) == ("undecided", 0.0)
    assert verdict.spine < -SURE and verdict.table > SURE


@pytest.mark.parametrize(
    ("affine", "axes", "note"),
    [
        (np.diag([-0.7, 0.7, 5, 1.0]), "LAS", None),
        (np.diag([0.7, -0.7, -5, 1.0]), "RPI", None),
        (np.diag([-0.7, 0, 5, 1.0]), None, "voxels of 0.7, 0, 5 mm"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), None, "singular"),
        (np.full((4, 4), np.nan), None, "NaN"),
        (np.diag([1, 1, np.inf, 1]), None, "NaN or infinite"),
        (np.diag([1e30, 1, 1, 1.0]), None, "100 m"),
        (np.diag([5e3, 1, 1, 1.0]), None, "voxels of 5e[+]03, 1, 1 mm"),
        (None, None, "can be computed"),
    ],
)
def test_the_header_is_read_or_ignored_with_a_note(affine, axes, note):
    found, why = header_axes(affine)
    assert found == axes
    assert why is None if note is None else re.search(note, why)


def test_the_name_decides_where_the_pixels_agree_or_are_undecided():
    for name, top_bottom, word in (
        ("coronacases_001", False, "upright"), ("radiopaedia_4_85506_1", True, "upside down"),
    ):  # fmt: skip
        slices, affine = stored(name, 64)
        for seen in (slices, []):
            turn, record = orient(name, np.eye(4), seen)  # a header that contradicts: name first
            assert turn == Turn(top_bottom=top_bottom)
            assert (record["by_name"], record["because"], record["header"]) == (word, "name", "RAS")
            assert record["anatomy"] == (word if seen else "undecided")
            assert record["notes"] == []
        assert orient(name, affine, slices)[1]["header"] == ("LPS" if top_bottom else "LAS")
    turn, record = orient("radiopaedia_7_85703_0", None, [])
    assert turn == Turn(top_bottom=True, z=True)
    assert record["turned"] == "rot90, flip top-bottom, flip z"
    assert "affine ignored" in record["notes"][0]


@pytest.mark.parametrize("name", ["coronacases_001", "radiopaedia_4_85506_1"])
def test_clear_pixels_overrule_the_name(name):
    slices, affine = stored(name, 64)
    turn, record = orient(name, affine, flipped(slices))
    assert turn.top_bottom == name.startswith("coronacases")
    assert record["because"] == "anatomy" and record["anatomy"] != record["by_name"]
    assert "against the name: turned by the pixels" in record["notes"][0]


def test_medseg_follows_pixels_then_header():
    slices, _ = stored("coronacases_001", 64)
    turn, record = orient("medseg_1", None, slices)
    assert turn == Turn() and record["by_name"] is None
    assert (record["because"], record["anatomy"]) == ("anatomy", "upright")
    assert orient("medseg_1", None, flipped(slices))[0] == Turn(top_bottom=True)
    turn, record = orient("medseg_1", np.diag([1, -1, -1, 1.0]), [])
    assert turn == Turn(top_bottom=True, left_right=True, z=True) and record["because"] == "header"
    # The header's left-right and z stay when the pixels overrule its up and down.
    turn, record = orient("medseg_1", np.diag([1, -1, -1, 1.0]), slices)
    assert turn == Turn(left_right=True, z=True)
    assert "against the header" in record["notes"][0]
    turn, record = orient("medseg_1", np.full((4, 4), np.nan), [])
    assert turn == Turn() and record["because"] == "nothing"
    sagittal = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    turn, record = orient("medseg_1", sagittal, [])
    assert turn == Turn() and "PSR the planes would not be axial" in record["notes"][0]


def test_a_turn_moves_pixels():
    plane = np.array([[1, 2], [3, 4]])  # x=0: y=0 is 1, y=1 is 2
    assert Turn().picture(plane).tolist() == [[2, 4], [1, 3]]
    assert Turn(top_bottom=True).picture(plane).tolist() == [[1, 3], [2, 4]]
    assert Turn(left_right=True).picture(plane).tolist() == [[4, 2], [3, 1]]


@pytest.fixture(scope="module")
def real() -> dict[str, Slices]:
    """Real slices, all upright: a store whose folder CHS_REAL_SLICES names."""
    if not REAL:
        pytest.skip("CHS_REAL_SLICES is not set")
    folder, volumes = Path(REAL), {}
    with open(folder / "slices.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pair = (
                np.asarray(Image.open(folder / row["ct"])),
                np.asarray(Image.open(folder / row["lung"])) > 0,
            )
            volumes.setdefault(row["volume"], []).append(pair)
    return volumes


def test_no_real_volume_is_judged_wrongly(real):
    decided = {}
    for name, slices in real.items():
        verdict, mirrored = judge(slices), judge(flipped(slices))
        assert verdict.says != "upside down" and mirrored.says != "upright", name
        decided[name] = (verdict.says, mirrored.says) == ("upright", "upside down")
    assert np.mean(list(decided.values())) >= 0.9, decided


def test_few_real_slices_at_a_time_are_hardly_ever_judged_wrongly(real):
    says = [judge(slices[k : k + 5]).says for slices in real.values() for k in range(0, len(slices) - 4, 5)]
    wrong, right = np.mean([s == "upside down" for s in says]), np.mean([s == "upright" for s in says])
    assert wrong == 0 and right > 0.8, (wrong, right)
