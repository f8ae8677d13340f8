"""Offline, and what lies on this disk already."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from served import (
    CT,
    DEPTH,
    MEDSEG,
    SERVED,
    SMALL,
    ZENODO,
    assert_all_there,
    content_of,
    members_of,
    nifti,
    sum_of,
)

from replication.data.fusing.fusion import find_volumes
from replication.data.getting import on_disk
from replication.data.getting.sources import SOURCES


def test_offline_lists_all_that_is_missing_at_once(get, server, tmp_path) -> None:
    (tmp_path / "data/archives").mkdir(parents=True)
    (tmp_path / "data/archives" / CT).write_bytes(SERVED[CT])
    with pytest.raises(FileNotFoundError) as caught:
        get(offline=True)
    text = str(caught.value)
    assert text.startswith("5 of 6 archives could not be had offline") and CT not in text
    for name in (*list(ZENODO)[1:], *MEDSEG):
        assert server.url + name in text and str(tmp_path / "data/archives" / name) in text
        assert (sum_of(SERVED[name]) in text) == (name in ZENODO)
    assert server.seen == []
    for name in SERVED:
        (tmp_path / "data/archives" / name).write_bytes(SERVED[name])
    assert CT not in get(offline=True)["unpacked"]
    assert_all_there(tmp_path / "data")


def test_archives_that_lie_elsewhere(get, server, tmp_path) -> None:
    for k, (name, content) in enumerate(SERVED.items()):
        place = tmp_path / "disk" / "/".join("ab"[: k % 3]) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    told = get(offline=True, local=[tmp_path / "disk"])
    assert told["unpacked"] == list(SERVED) and server.seen == []
    assert_all_there(tmp_path / "data")
    assert not list((tmp_path / "data/archives").glob("*.zip"))


def kaggle(folder: Path, *, nested: bool = False) -> Path:
    for part, kind in (("ct", "ct_scans"), ("lung", "lung_mask"), ("infection", "infection_mask")):
        for k, volume in enumerate(SOURCES["zenodo"].depths):
            name = volume
            if part == "ct":
                name = volume.replace("coronacases_", "coronacases_org_")
                name = re.sub("radiopaedia_(.+)", r"radiopaedia_org_covid-19-pneumonia-\1-dcm", name)
            place = folder / kind / f"{name}.nii" / f"{name}.nii" if nested else folder / kind / f"{name}.nii"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(nifti(k + 1000 * len(part), packed=False))
            stranger = folder / "lung_and_infection_mask" / f"{volume}.nii"
            stranger.parent.mkdir(exist_ok=True)
            stranger.write_bytes(b"stranger")
    (folder / "metadata.csv").write_text("x")
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_the_kaggle_mirror(get, server, tmp_path, nested) -> None:
    folder = kaggle(tmp_path / "covid19-ct-scans", nested=nested)
    scan = next((folder / "ct_scans").rglob("coronacases_org_002.nii*"))
    scan = scan / scan.name if nested else scan
    scan.rename(tmp_path / "blob")
    scan.symlink_to(tmp_path / "blob")  # as download caches keep their files
    told = get(datasets=("zenodo",), offline=True, local=[folder if nested else tmp_path])
    assert not any(p.is_symlink() for p in (tmp_path / "data").rglob("*"))
    assert told["linked"] == 60 and told["datasets"]["zenodo"] == {"volumes": 20, "slices": 60}
    volumes = tmp_path / "data/volumes"
    found = content_of(volumes)
    assert set(found) == {
        f"{part}/{v}.nii" for part in ("ct", "lung", "infection") for v in SOURCES["zenodo"].depths
    }
    for k, volume in enumerate(SOURCES["zenodo"].depths):
        assert found[f"ct/{volume}.nii"] == nifti(k + 2000, packed=False)
        assert found[f"lung/{volume}.nii"] == nifti(k + 4000, packed=False)
    assert (volumes / "ct/coronacases_001.nii").stat().st_nlink == 2
    assert len(find_volumes(volumes)) == 20
    told = get(datasets=("zenodo",))
    assert told["linked"] == 0 and told["fetched"] == [] and server.seen == []


def test_unpacked_folders_of_the_publishers(get, tmp_path, monkeypatch) -> None:
    """Also given one by one, where hard links do not work, and with one volume missing."""

    def refuse(*_):
        raise OSError("another disk")

    monkeypatch.setattr(on_disk.os, "link", refuse)
    disk = tmp_path / "disk"
    for name in SERVED:
        for inner, content in members_of(name).items():
            place = disk / name[:-4] / inner.split("/")[-1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    (disk / "rp_msk/7.nii.gz").unlink()
    (disk / "COVID-19-CT-Seg_20cases/3.nii.gz").write_bytes(b"numbers are MedSeg's")
    with pytest.raises(FileNotFoundError, match="1 of 6 archives could not be had offline") as caught:
        get(offline=True, local=[disk / name[:-4] for name in SERVED])
    assert "rp_msk.zip" in str(caught.value)
    told = get(local=[disk])
    assert told["fetched"] == told["unpacked"] == ["rp_msk.zip"]
    assert_all_there(tmp_path / "data")


def test_local_is_searched_two_levels_deep(get, tmp_path) -> None:
    kaggle(tmp_path / "a/b/c")
    for folder, said in ((tmp_path / "a", "3 of 3"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(FileNotFoundError, match=said):
            get(datasets=("zenodo",), offline=True, local=[folder])
    assert get(datasets=("zenodo",), offline=True, local=[tmp_path / "a/b"])["linked"] == 60


def test_an_archive_fills_the_gaps_and_keeps_what_stands(get, tmp_path) -> None:
    """A volume stored as .nii is not doubled by the archive's .nii.gz; a damaged one is replaced."""
    lung = tmp_path / "data/volumes/lung"
    lung.mkdir(parents=True)
    kept = nifti(5, packed=False)
    (lung / "coronacases_003.nii").write_bytes(kept)
    get()
    assert (lung / "coronacases_003.nii").read_bytes() == kept
    assert not (lung / "coronacases_003.nii.gz").exists() and len(list(lung.iterdir())) == 29


def test_volumes_that_are_not_what_they_should_be(get, tmp_path) -> None:
    get()
    volumes = tmp_path / "data/volumes"
    for name in ("lung/medseg_2", "ct/medseg_3"):
        (volumes / f"{name}.nii.gz").write_bytes(b"version https://git-lfs")
    notes = tmp_path / "data/archives/unpacked.json"
    notes.write_text("{}")  # as if put there by hand
    with pytest.raises(FileNotFoundError, match="2 of 27 volumes.*unreadable") as caught:
        get()
    assert str(volumes / "lung/medseg_2.nii.gz") in str(caught.value)
    (volumes / "lung/medseg_2.nii.gz").write_bytes(nifti(1))
    (volumes / "ct/medseg_3.nii.gz").write_bytes(nifti(1, depth=DEPTH + 2))
    with pytest.warns(UserWarning, match=f"medseg_3.*expected {DEPTH} slices"):
        assert get()["datasets"]["medseg"]["slices"] == 29
    notes.write_text("{")
    with pytest.raises(ValueError, match="unpacked.json"):
        get()


def test_a_part_without_an_archive_is_missed(get) -> None:
    held = tuple(a for a in SMALL["zenodo"].archives if a.part != "lung")
    with pytest.raises(FileNotFoundError, match="20 of 60 volumes .*missing"):
        get(datasets=("zenodo",), sources={"zenodo": replace(SMALL["zenodo"], archives=held)})
