"""From archives, on a server or a disk, to volumes: through `download`, and once through the command."""

import io
import json
import os
import re
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
import tqdm
from served import (
    DEPTH,
    MEDSEG,
    SERVED,
    ZENODO,
    content_of,
    members_of,
    nifti,
    right,
    serving,
    sum_of,
    zipped,
)

from replication.cli import main
from replication.data.getting import archives, inventory, transfer
from replication.data.getting.download import download
from replication.data.getting.sources import SOURCES, describe_sources
from replication.data.reading.own import find_scans

CT, LUNG = "COVID-19-CT-Seg_20cases.zip", "Lung_Mask.zip"
OF = {"zenodo": tuple(ZENODO), "medseg": tuple(MEDSEG)}


@pytest.fixture
def waits(monkeypatch):
    """The seconds that are waited between attempts; none of them are."""
    asked: list[float] = []
    for module in (pooch.core, transfer):
        monkeypatch.setattr(module, "time", type("Clock", (), {"sleep": asked.append}))
    return asked


@pytest.fixture
def server(monkeypatch, waits):
    """A server of the small archives, which `SOURCES` names for as long: with their sums, where one is published."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(SERVED) as running:
        for key, source in SOURCES.items():
            held = tuple(
                replace(a, sha256=a.sha256 and sum_of(SERVED[a.name]), urls=(running.url + a.name,))
                for a in source.archives if a.name in SERVED
            )  # fmt: skip
            depths = dict.fromkeys(source.depths, DEPTH)
            small = replace(source, archives=held, depths=depths, slices=DEPTH * len(depths))
            monkeypatch.setitem(SOURCES, key, small)
        yield running


@pytest.fixture
def get(server, tmp_path):
    """`download` from the server into tmp_path/data."""
    return lambda **given: download(
        tmp_path / "data", **{"timeout": 5, "progress": False, "tries": 3, **given}
    )


def assert_all_there(folder: Path, *keys: str) -> None:
    """All volumes of these sources, byte by byte, and nothing unfinished anywhere."""
    volumes = {path: c for key in keys or OF for name in OF[key] for path, c in right(name).items()}
    assert content_of(folder / "volumes") == volumes
    litter = [p for p in folder.rglob("*") if p.suffix in (".part", ".wrong") or p.name[0] == "."]
    assert not litter


def asked_for(server, name: str) -> list[str | None]:
    return [span for asked, span in server.seen if asked == name]


# ---- from a server -------------------------------------------------------------------------------
def test_everything_from_a_server_that_behaves_and_nothing_twice(server, get, tmp_path, capsys) -> None:
    data = tmp_path / "data"
    assert main(["data", "download", str(data)]) == 0
    shown = capsys.readouterr()
    assert all(f"{name}: 100%" in shown.err for name in SERVED) and "SHA256" not in shown.err
    assert "zenodo: 20 volumes, 60 slices." in shown.out and "medseg: 9 volumes, 27 slices." in shown.out
    assert f"{data / 'volumes'}: ready" in shown.out and "non-commercial" in shown.out
    assert_all_there(data)
    sums = json.loads((data / "archives/checksums.json").read_text())
    assert sums == {name: sum_of(SERVED[name]) for name in MEDSEG}
    assert len(server.seen) == 6 and all(asked is None for _, asked in server.seen)
    for archive in (data / "archives").glob("*.zip"):
        archive.unlink()  # volumes that are there need none
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}
    told = get()
    assert told["fetched"] == told["unpacked"] == [] and told["linked"] == 0 and len(server.seen) == 6
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before


ANOTHER = zipped({"readme.txt": b"hello"})


def stalls(handler, content, n) -> None:
    handler.answer(200, content[:1000], {"Content-Length": str(len(content))})
    time.sleep(2.0)
    handler.close_connection = True


def wrong_range(handler, content, n) -> object:
    """Breaks, then answers 206 with a range that was not asked for."""
    if n == 1:
        return handler.honest(content, until=2048)
    if handler.headers.get("Range"):
        return handler.answer(206, content, {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"})
    return NotImplemented


FAULTS = {  # how the server answers its n-th request; if it always does: what is told, how often it is asked
    "404": (lambda h, c, n: h.answer(404, b""), "HTTP 404", 1),
    "503": (lambda h, c, n: h.answer(503, b"", {"Retry-After": "0"}), "HTTP 503", 3),
    "page": (lambda h, c, n: h.answer(200, b"<html>", {"Content-Type": "text/html"}), r"text/html\) is not a zip", 3),
    "empty": (lambda h, c, n: h.answer(200, b""), "is not a zip", 3),
    "shorter": (lambda h, c, n: h.answer(200, c[:-50]), sum_of(SERVED[LUNG][:-50]), 2),  # twice: it is what there is
    "another": (lambda h, c, n: h.answer(200, ANOTHER), sum_of(ANOTHER), 2),
    "hangs up": (lambda h, c, n: setattr(h, "close_connection", True), "aborted", 3),
    "breaks": (lambda h, c, n: h.honest(c, until=2000, ranges=False), "more expected", 3),
    # Each round brings bytes, but the same ones: a break, a wrong range that drops them, a break.
    "circles": (lambda h, c, n: wrong_range(h, c, 2 if h.headers.get("Range") else 1), "another range", 3),
    "browsers only": (
        lambda h, c, n: h.answer(202, b"", {"x-amzn-waf-action": "challenge"}), "lets only browsers in", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_pass_is_told_and_mended_by_a_second_call(server, get, tmp_path, fault) -> None:
    server.manners[LUNG], said, times = FAULTS[fault]
    archive = tmp_path / "data/archives" / LUNG
    with pytest.raises(FileNotFoundError, match=said) as caught:
        get()
    assert len(asked_for(server, LUNG)) == times
    text = str(caught.value)
    assert text.startswith("1 of 6 archives") and f"put it at {archive}" in text
    assert all(told in text for told in (server.url + LUNG, sum_of(SERVED[LUNG]), SOURCES["zenodo"].page))
    # The others are there, of this one nothing is, and what is kept aside is named.
    others = {path: c for name in SERVED if name != LUNG for path, c in right(name).items()}
    assert content_of(tmp_path / "data/volumes") == others and not archive.exists()
    kept = archive.with_name(f"{LUNG}.wrong").exists()
    assert kept == (fault in ("shorter", "another")) == ("kept " in text) == ("changed? " in text)
    server.manners.clear()
    assert get()["fetched"] == [LUNG]
    assert_all_there(tmp_path / "data")


def once(fault: str, times: int = 1):
    return lambda h, c, n: FAULTS[fault][0](h, c, n) if n <= times else NotImplemented


@pytest.mark.parametrize("key, name", [("zenodo", LUNG), ("medseg", "rp_msk.zip")])
@pytest.mark.parametrize(
    "manner",
    [
        once("503", 2), once("page"), once("empty", 2), once("shorter"), once("another"), once("hangs up", 2),
        once("breaks", 2), lambda h, c, n: stalls(h, c, n) if n == 1 else NotImplemented, wrong_range,
    ],
)  # fmt: skip
def test_what_passes_is_got_over_in_one_call(server, get, tmp_path, manner, key, name) -> None:
    server.manners[name] = manner
    assert name in get(timeout=0.5, datasets=(key,))["unpacked"]  # shorter than `stalls` lasts
    assert_all_there(tmp_path / "data", key)


def test_breaks_that_bring_the_file_on_are_not_failures(server, get, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 1024)
    server.manners[CT] = lambda h, c, n: h.honest(c, until=1024 * n)
    get(datasets=("zenodo",), tries=1)
    assert asked_for(server, CT)[:4] == [None, "bytes=1024-", "bytes=2048-", "bytes=3072-"]


def test_waits_grow_and_keep_to_what_the_server_asks(server, get, waits) -> None:
    server.manners[LUNG] = lambda h, c, n: h.answer(
        503, b"", {"Retry-After": ["", "7", "999", "soon"][n - 1]}
    )
    with pytest.raises(FileNotFoundError):
        get(datasets=("zenodo",), tries=4)
    assert waits == [0, 1, 7, 2, 60, 3, 0]


@pytest.mark.parametrize("key, name", [("zenodo", LUNG), ("medseg", "rp_msk.zip")])
def test_a_part_of_a_former_call_is_gone_on_with_or_dropped(server, get, tmp_path, key, name) -> None:
    """Its own begin, also where a page comes first; all of it; one of another version; one that is too long."""
    part, whole = tmp_path / f"data/archives/{name}.part", SERVED[name]
    part.parent.mkdir(parents=True)
    part.write_bytes(whole[:1000])
    server.manners[name] = FAULTS["page"][0]
    with pytest.raises(FileNotFoundError, match="not a zip"):
        get(datasets=(key,))
    assert part.read_bytes() == whole[:1000]
    server.manners.clear()
    for kept, asked in (
        (whole[:1000], 1), (whole, 1), (b"PK\3\4" + bytes(500), 2), (whole + b"more", 2)
    ):  # fmt: skip
        server.seen.clear()
        part.write_bytes(kept)
        get(datasets=(key,))
        assert asked_for(server, name) == [f"bytes={len(kept)}-", None][:asked]
        assert_all_there(tmp_path / "data", key)
        shutil.rmtree(tmp_path / "data/volumes")
        (part.parent / name).unlink()


@pytest.mark.parametrize("where", ["transfer", "unpacking"])
def test_an_interruption_leaves_the_part_and_whole_volumes(server, get, tmp_path, monkeypatch, where) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "transfer":
            patch.setattr(tqdm.tqdm, "update", interrupted)
        else:
            patch.setattr(archives.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get()
    left = content_of(tmp_path / "data")
    assert list(left) == [f"archives/{CT}.part" if where == "transfer" else f"archives/{CT}"]
    assert SERVED[CT].startswith(*left.values())
    server.seen.clear()
    get()
    assert asked_for(server, CT) == ([f"bytes={len(*left.values())}-"] if where == "transfer" else [])
    assert_all_there(tmp_path / "data")


def test_further_addresses_are_asked(server, get, tmp_path, monkeypatch) -> None:
    urls = ("http://127.0.0.1:1/x", "nonsense://x", server.url + "gone/nowhere", server.url + LUNG)
    held = [replace(a, urls=urls) if a.name == LUNG else a for a in SOURCES["zenodo"].archives]
    monkeypatch.setitem(SOURCES, "zenodo", replace(SOURCES["zenodo"], archives=tuple(held)))
    get()
    assert_all_there(tmp_path / "data")


def test_a_full_disk_is_an_error_of_its_own(get, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(OSError, match="MB are free") as caught:
        get()
    assert not isinstance(caught.value, FileNotFoundError)
    assert content_of(tmp_path / "data") == {}


# ---- sums ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, key", [("rp_im.zip", "medseg"), (LUNG, "zenodo")])
def test_a_sum_declared_or_recorded_is_kept_to_until_another_is_accepted(
    server, get, tmp_path, name, key
) -> None:
    get(datasets=(key,))
    data, place = tmp_path / "data", tmp_path / "data/archives" / name
    volume = data / "volumes" / list(right(name))[0]
    volume.unlink()
    place.unlink()
    member = list(members_of(name))[0]
    server.content[name] = zipped(members_of(name) | {member: nifti(999)})
    old, new = sum_of(SERVED[name]), sum_of(server.content[name])
    with pytest.raises(FileNotFoundError, match=f"expected sha256 {old}, got {new}") as caught:
        get(datasets=(key,))
    assert f'"{name}": "{new}"' in str(caught.value) and not volume.exists()
    # The way that the message names: accept the sum, here with the file that was kept.
    os.replace(f"{place}.wrong", place)
    volume.write_bytes(members_of(name)[member])  # the former archive's, which no longer counts
    (data / "archives/checksums.json").write_text(json.dumps({name: new.upper()}))
    told = get(datasets=(key,), offline=True, local=[data / "volumes"])
    assert told["unpacked"] == [name] and volume.read_bytes() == nifti(999)
    assert get(datasets=(key,), offline=True)["unpacked"] == []


def test_a_changed_volume_is_unpacked_again_and_what_stands_is_kept(get, tmp_path) -> None:
    """Not a copied folder, nor a volume put there by hand, nor that as .nii beside the archive's .nii.gz."""
    data, volumes = tmp_path / "data", tmp_path / "data/volumes"
    own = volumes / "lung/coronacases_003.nii"
    own.parent.mkdir(parents=True)
    own.write_bytes(nifti(5, packed=False))
    get()
    assert len(list(own.parent.iterdir())) == 29 and own.read_bytes() == nifti(5, packed=False)
    for path in volumes.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    own.unlink()
    assert get()["unpacked"] == [LUNG]
    (volumes / "ct/coronacases_001.nii.gz").write_bytes(b"cut short")
    same_size = bytearray((volumes / "ct/coronacases_002.nii.gz").read_bytes())
    same_size[-20] ^= 1
    (volumes / "ct/coronacases_002.nii.gz").write_bytes(same_size)
    (volumes / "infection/medseg_3.nii.gz").unlink()
    assert get(offline=True)["unpacked"] == [CT, "rp_msk.zip"]
    assert_all_there(data)


# ---- archives that mean harm -----------------------------------------------------------------------
def flagged(content: bytes) -> bytes:
    """The same archive with every member marked as encrypted."""
    content = bytearray(content)
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for found in re.finditer(re.escape(magic), bytes(content)):
            content[found.start() + offset] |= 1
    return bytes(content)


def altered(content: bytes, where: bytes, offset: int) -> bytes:
    content = bytearray(content)
    content[content.rindex(where) + offset] ^= 0xFF
    return bytes(content)


def claiming(size: int, content: bytes) -> bytes:
    """The same archive whose largest member claims another size."""
    largest = max(zipfile.ZipFile(io.BytesIO(content)).infolist(), key=lambda m: m.file_size).file_size
    return content.replace(largest.to_bytes(4, "little"), size.to_bytes(4, "little"))


GOOD = members_of("rp_im.zip")
BOMB = zipped(GOOD | {"rp_im/1.nii.gz": bytes(30 * 2**20)})
HARM = {
    "bomb": (BOMB, "zip bomb"),
    "bombs together": (zipped(GOOD | {f"rp_im/{k}.nii.gz": bytes(5 * 2**20) for k in range(1, 9)}), "zip bomb"),
    "bomb that claims to be small": (claiming(10, BOMB), "damaged"),
    "encrypted": (flagged(SERVED["rp_im.zip"]), "encrypted"),
    "no directory": (SERVED["rp_im.zip"][:-40], "not a zip"),
    "damaged directory": (altered(SERVED["rp_im.zip"], b"PK\1\2", 1), "damaged"),
    "damaged directory entry": (altered(SERVED["rp_im.zip"], b"PK\1\2", 42), "damaged"),
    "damaged member": (altered(SERVED["rp_im.zip"], b"PK\3\4", 60), "damaged"),
    "damaged sum": (altered(altered(SERVED["rp_im.zip"], b"PK\3\4", 14), b"PK\1\2", 16), "damaged"),
    "twice": (zipped([*GOOD.items(), ("1.nii.gz", b"x")]), "twice"),
    "one too few": (zipped(dict(list(GOOD.items())[:-1])), "lacks 1 of 9 volumes .ct/medseg_9"),
    "a folder too deep": (zipped({f"a/{k}": v for k, v in GOOD.items()}), "lacks 9 of 9"),
    "out of its folder": (zipped({f"../{k}": v for k, v in GOOD.items()}), "lacks 9 of 9"),
    "nothing": (b"PK\5\6" + bytes(18), "lacks 9 of 9"),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["no sum", "its sum"])
@pytest.mark.parametrize("harm", HARM)
def test_a_bad_archive_is_refused_and_leaves_everything_as_it_was(get, tmp_path, harm, known) -> None:
    data, (content, said) = tmp_path / "data", HARM[harm]
    before = {"ct/medseg_4.nii.gz": b"stood here before", "ct/own.nii.gz": b"own"}
    (data / "volumes/ct").mkdir(parents=True)
    for name, kept in before.items():
        (data / "volumes" / name).write_bytes(kept)
    (data / "archives").mkdir()
    # The volume that stands is of a former archive: it would be replaced.
    note = {"archive": "rp_im.zip", "sha256": "0" * 64, "crc32": 0}
    (data / "archives/unpacked.json").write_text(json.dumps({"ct/medseg_4": note}))
    (data / "archives/rp_im.zip").write_bytes(content)
    sums = data / "archives/checksums.json"
    if known:
        sums.write_text(json.dumps({"rp_im.zip": sum_of(content)}))
    with pytest.raises(FileNotFoundError, match=f"^3 of 3 archives could not be had offline(?s:.*){said}"):
        get(datasets=("medseg",), offline=True)
    assert content_of(data / "volumes") == before and sums.exists() == known
    assert (data / "archives/rp_im.zip").read_bytes() == content
    # A second call, with the network, mends it.
    sums.unlink(missing_ok=True)
    get(datasets=("medseg",))
    (data / "volumes/ct/own.nii.gz").unlink()
    assert_all_there(data, "medseg")


def test_every_damage_is_an_error_or_harmless(tmp_path) -> None:
    """Bytes changed, cut and put in at random: the right files or an ArchiveError, and never half."""
    rng = np.random.default_rng(0)
    select = {"rp_im/1.nii.gz": "ct/1", "rp_im/2.nii.gz": "ct/2"}
    whole = zipped({name: GOOD[name] for name in select})
    archive, outcomes = tmp_path / "x.zip", set()
    for trial in range(150):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        if trial % 5 == 0:
            del content[rng.integers(len(content)) :]
        if trial % 3 == 0:  # the directory, where a byte says most
            content[-rng.integers(1, min(200, len(content)) + 1)] = rng.integers(256)
        archive.write_bytes(content)
        try:
            archives.unpack(archive, tmp_path / f"{trial}", select=select.get, expected=set(select.values()))
            there = {f"ct/{k}.nii.gz": GOOD[f"rp_im/{k}.nii.gz"] for k in (1, 2)}
        except archives.ArchiveError:
            there = {}
        assert content_of(tmp_path / f"{trial}") == there
        outcomes.add(len(there))
    assert outcomes == {0, 2}


def test_litter_and_strangers_are_left_out_and_nothing_leaves_its_folder(get, tmp_path) -> None:
    """Volumes are written under our names; a killed run's rest goes."""
    link = zipfile.ZipInfo("here")
    link.external_attr = 0o120777 << 16
    litter = [
        ("__MACOSX/coronacases_001.nii.gz", b"x"), ("__MACOSX/._coronacases_001.nii.gz", b"x"), (".DS_Store", b"x"),
        ("README.txt", b"x"), ("coronacases_099.nii.gz", b"x"), ("1.nii.gz", b"x"), ("folder/", b""),
        ("../evil.nii.gz", b"x"), ("/evil.nii.gz", b"x"), ("..\\evil.nii", b"x"), (link, b"/etc/passwd"),
    ]  # fmt: skip
    content, data = zipped([*litter, *members_of(LUNG).items()]), tmp_path / "data"
    (data / "volumes/.unpacking/lung").mkdir(parents=True)
    (data / "archives").mkdir()
    (data / "archives" / LUNG).write_bytes(content)
    (data / "archives/checksums.json").write_text(json.dumps({LUNG: sum_of(content)}))
    get()
    assert_all_there(data)
    assert {p.name for p in tmp_path.iterdir()} == {"data"}


# ---- offline, and what lies on this disk ---------------------------------------------------------
def test_offline_lists_all_that_is_missing_at_once(get, server, tmp_path) -> None:
    there = tmp_path / "data/archives"
    there.mkdir(parents=True)
    (there / CT).write_bytes(SERVED[CT])
    with pytest.raises(FileNotFoundError) as caught:
        get(offline=True)
    text = str(caught.value)
    assert text.startswith("5 of 6 archives could not be had offline") and CT not in text
    for name in (*list(ZENODO)[1:], *MEDSEG):
        assert server.url + name in text and str(there / name) in text
        assert (sum_of(SERVED[name]) in text) == (name in ZENODO)
    for k, (name, content) in enumerate(SERVED.items()):
        place = tmp_path / "disk" / "/".join("ab"[: k % 3]) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    assert get(offline=True, local=[tmp_path / "disk"])["unpacked"] == [n for n in SERVED if n != CT]
    assert_all_there(tmp_path / "data")
    assert [p.name for p in there.glob("*.zip")] == [CT] and server.seen == []


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
    """Searched two levels deep, and no deeper."""
    folder = kaggle(tmp_path / "a/b/covid19-ct-scans", nested=nested)
    scan = next((folder / "ct_scans").rglob("coronacases_org_002.nii*"))
    scan = scan / scan.name if nested else scan
    scan.rename(tmp_path / "blob")
    scan.symlink_to(tmp_path / "blob")  # as download caches keep their files
    for place, said in ((tmp_path / "a", "3 of 3"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(FileNotFoundError, match=said):
            get(datasets=("zenodo",), offline=True, local=[place])
    told = get(datasets=("zenodo",), offline=True, local=[folder if nested else tmp_path / "a/b"])
    assert not any(p.is_symlink() for p in (tmp_path / "data").rglob("*"))
    assert told["linked"] == 60 and told["datasets"]["zenodo"] == {"volumes": 20, "slices": 60}
    volumes, depths = tmp_path / "data/volumes", SOURCES["zenodo"].depths
    assert content_of(volumes) == {
        f"{part}/{volume}.nii": nifti(k + 1000 * len(part), packed=False)
        for part in ("ct", "lung", "infection") for k, volume in enumerate(depths)
    }  # fmt: skip
    assert (volumes / "ct/coronacases_001.nii").stat().st_nlink == 2
    assert len(find_scans(volumes, published=True)) == 20
    told = get(datasets=("zenodo",))
    assert told["linked"] == 0 and told["fetched"] == [] and server.seen == []


def test_unpacked_folders_of_the_publishers(get, tmp_path, monkeypatch) -> None:
    """Also given one by one, where hard links do not work, and with one volume missing."""

    def refuse(*_):
        raise OSError("another disk")

    monkeypatch.setattr(inventory.os, "link", refuse)
    disk = tmp_path / "disk"
    for name in SERVED:
        for inner, content in members_of(name).items():
            place = disk / name[:-4] / inner.split("/")[-1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    (disk / "rp_msk/7.nii.gz").unlink()
    (disk / "COVID-19-CT-Seg_20cases/3.nii.gz").write_bytes(b"numbers are MedSeg's")
    with pytest.raises(FileNotFoundError, match=r"1 of 6 archives could not be had offline(?s:.*)rp_msk.zip"):
        get(offline=True, local=[disk / name[:-4] for name in SERVED])
    told = get(local=[disk])
    assert told["fetched"] == told["unpacked"] == ["rp_msk.zip"]
    assert_all_there(tmp_path / "data")


def test_volumes_that_are_not_what_they_should_be(get, tmp_path, monkeypatch) -> None:
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
    with pytest.warns(UserWarning, match=f"medseg_3.*expected {DEPTH}"):
        assert get()["datasets"]["medseg"]["slices"] == 29
    held = tuple(a for a in SOURCES["medseg"].archives if a.part != "lung")
    monkeypatch.setitem(SOURCES, "medseg", replace(SOURCES["medseg"], archives=held))
    shutil.rmtree(volumes / "lung")
    with pytest.raises(FileNotFoundError, match="9 of 27 volumes .*missing"):
        get(datasets=("medseg",))
    for spoilt in ("{", "[]"):
        notes.write_text(spoilt)
        with pytest.raises(ValueError, match="unpacked.json"):
            get()


# ---- the table of sources ------------------------------------------------------------------------
def test_the_table_is_that_of_the_publishers() -> None:
    zenodo, medseg = SOURCES["zenodo"], SOURCES["medseg"]
    assert len(zenodo.depths) == 20 and sum(zenodo.depths.values()) == zenodo.slices == 3520
    assert sum(d for v, d in zenodo.depths.items() if v.startswith("radiopaedia")) == 829 + 110
    assert list(medseg.depths) == [f"medseg_{k}" for k in range(1, 10)] and medseg.slices == 829
    assert ZENODO == {CT: "ct", LUNG: "lung", "Infection_Mask.zip": "infection"}
    assert MEDSEG == {"rp_im.zip": "ct", "rp_lung_msk.zip": "lung", "rp_msk.zip": "infection"}
    sums = [a.sha256 for a in zenodo.archives]
    assert len(set(sums)) == 4 and all(re.fullmatch("[0-9a-f]{64}", s) for s in sums)
    assert [s[:8] for s in sums] == ["a5060480", "f060b0d0", "87901c73", "34f5a573"]
    assert not any(a.sha256 for a in medseg.archives)
    numbers = {a.name: {u.rsplit("/", 1)[1] for u in a.urls} for a in medseg.archives}
    assert numbers == {"rp_im.zip": {"25954007"}, "rp_lung_msk.zip": {"25954010"}, "rp_msk.zip": {"25954013"}}
    assert zenodo.archives[0].urls == (f"https://zenodo.org/records/3757476/files/{CT}",)
    table = describe_sources()
    assert len(table) == 7 and list(table["dataset"]) == ["zenodo"] * 4 + ["medseg"] * 3
    assert table.set_index("file").loc["Lung_and_Infection_Mask.zip", "part"] == "not needed"
    assert table["licence"].str.contains("non-commercial").all() and not table.isna().any(axis=None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"datasets": ("zenodoo",)}, "zenodoo"), ({"datasets": "zenodo"}, "expected a list"),
        ({"datasets": ()}, "expected a list"), ({"tries": 0}, "tries 0"), ({"timeout": 0}, "timeout 0"),
    ],
)  # fmt: skip
def test_arguments(get, options, said) -> None:
    with pytest.raises(ValueError, match=said):
        get(**options)
