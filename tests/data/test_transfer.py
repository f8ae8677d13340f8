"""Fetching from a server with moods."""

import json
import os
import shutil

import pytest
import tqdm
from served import (
    ALL,
    ANOTHER,
    CT,
    LUNG,
    MEDSEG,
    SERVED,
    SMALL,
    ZENODO,
    another,
    assert_all_there,
    breaks,
    breaks_without_ranges,
    content_of,
    empty,
    hangs_up,
    once,
    page,
    right,
    shorter,
    stalls,
    sum_of,
    unavailable,
    wrong_range,
)

from replication.data.getting import archives, transfer


def asked_for(server, name: str) -> list[str | None]:
    return [span for asked, span in server.seen if asked == name]


def test_everything_from_a_server_that_behaves_and_nothing_twice(server, get, tmp_path, capsys) -> None:
    told = get(progress=True)
    shown = capsys.readouterr().err
    assert all(f"{name}: 100%" in shown for name in SERVED) and "SHA256" not in shown
    assert_all_there(tmp_path / "data")
    assert told["datasets"] == {
        "zenodo": {"volumes": 20, "slices": 60},
        "medseg": {"volumes": 9, "slices": 27},
    }
    assert told["fetched"] == told["unpacked"] == list(SERVED) and told["linked"] == 0
    assert told["checksums"] == {name: sum_of(content) for name, content in SERVED.items()}
    assert json.loads((tmp_path / "data/archives/checksums.json").read_text()) == {
        name: sum_of(SERVED[name]) for name in MEDSEG
    }
    json.dumps(told)
    assert len(server.seen) == 6 and all(asked is None for _, asked in server.seen)
    for archive in (tmp_path / "data/archives").glob("*.zip"):
        archive.unlink()  # volumes that are there need none
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    told = get()
    assert told["fetched"] == told["unpacked"] == [] and len(server.seen) == 6
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")} == before


BREAKS = once(breaks)


@pytest.mark.parametrize("name", [LUNG, "rp_msk.zip"])
@pytest.mark.parametrize(
    "manner",
    [
        BREAKS, breaks_without_ranges, once(shorter), once(unavailable, 2), once(hangs_up, 2), once(page),
        once(another), once(stalls), wrong_range, once(empty, 2),
    ],
)  # fmt: skip
def test_what_passes_is_got_over_in_one_call(server, get, tmp_path, manner, name) -> None:
    server.manners[name] = manner
    key = "zenodo" if name in ZENODO else "medseg"
    told = get(timeout=0.5, datasets=(key,))  # shorter than `stalls` lasts
    assert name in told["unpacked"]
    assert_all_there(tmp_path / "data", without=tuple(MEDSEG if key == "zenodo" else ZENODO))
    if manner is BREAKS:  # the rest is asked for, not the whole
        assert asked_for(server, name) == [None, f"bytes={len(SERVED[name]) // 3}-"]


ALWAYS = {  # how the server answers, what is told, how often it is asked
    "404": (lambda h, c, n: h.answer(404, b""), "HTTP 404", 1),
    "503": (unavailable, "HTTP 503", 3),
    "page": (page, r"text/html\) is not a zip", 3),
    "shorter": (shorter, sum_of(SERVED[LUNG][:-50]), 2),  # the same wrong file twice is what there is
    "another": (another, sum_of(ANOTHER), 2),
    "hangs up": (hangs_up, "aborted", 3),
    "breaks": (lambda h, c, n: h.honest(c, until=500, ranges=False), "more expected", 3),
    # Breaks, then a wrong range, which drops the part: each round brings bytes, but the same ones.
    "circles": (lambda h, c, n: wrong_range(h, c, 2 if h.headers.get("Range") else 1), "another range", 3),
    "browsers only": (
        lambda h, c, n: h.answer(202, b"", {"x-amzn-waf-action": "challenge"}), "lets only browsers in", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("manner", ALWAYS)
def test_what_does_not_pass_is_told_and_mended_by_a_second_call(
    server, get, tmp_path, manner, monkeypatch
) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 10_000)  # 1 MiB, in archives of 20 KB
    server.manners[LUNG], said, times = ALWAYS[manner]
    data = tmp_path / "data"
    with pytest.raises(FileNotFoundError, match=said) as caught:
        get()
    assert len(asked_for(server, LUNG)) == times
    text = str(caught.value)
    assert text.startswith("1 of 6 archives")
    for needed in (
        LUNG, server.url + LUNG, sum_of(SERVED[LUNG]), SMALL["zenodo"].page, f"put it at {data / 'archives' / LUNG}"
    ):  # fmt: skip
        assert needed in text
    # The others are there, of this one nothing is, and what is kept aside is named.
    assert content_of(data / "volumes") == {p: c for p, c in ALL.items() if p not in right(LUNG)}
    assert (data / f"archives/{LUNG}.wrong").exists() == (manner in ("shorter", "another"))
    assert ("kept " in text) == ("changed? " in text) == (manner in ("shorter", "another"))
    assert not (data / "archives" / LUNG).exists()
    server.manners.clear()
    assert get()["fetched"] == [LUNG]
    assert_all_there(data)


def test_a_host_that_is_gone(get, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="3 of 3 archives.*") as caught:
        get(base_urls={"zenodo": "http://127.0.0.1:1/"}, datasets=("zenodo",))
    assert all(name in str(caught.value) for name in ZENODO)
    assert content_of(tmp_path) == {}


def test_waits_grow_and_keep_to_what_the_server_asks(server, get, waits, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(transfer, "wait_for", asked.append)
    server.manners[LUNG] = lambda h, c, n: h.answer(503, b"", {"Retry-After": "7"} if n == 2 else {})
    with pytest.raises(FileNotFoundError):
        get(datasets=("zenodo",), tries=4)
    assert waits == [1, 2, 3] and asked == ["", "7", "", ""]


def test_breaks_that_bring_the_file_on_are_not_failures(server, get, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 100)
    step = len(SERVED[CT]) // 8

    def slow(handler, content, n):
        asked = handler.headers.get("Range", "bytes=0-")
        handler.honest(content, until=int(asked[6:-1]) + step)

    server.manners[CT] = slow
    get(datasets=("zenodo",), tries=1)
    assert len(asked_for(server, CT)) >= 8


@pytest.mark.parametrize("name", [LUNG, "rp_msk.zip"])
def test_a_part_of_a_former_call_is_gone_on_with_or_dropped(server, get, tmp_path, name) -> None:
    """Its own begin; all of it; one of another version (wrong sum, then from zero); one that is too long."""
    part, whole = tmp_path / f"data/archives/{name}.part", SERVED[name]
    part.parent.mkdir(parents=True)
    key = "zenodo" if name in ZENODO else "medseg"
    for kept, asked in (
        (whole[:1000], 1), (whole, 1), (b"PK\3\4" + bytes(500), 2), (whole + b"more", 2)
    ):  # fmt: skip
        server.seen.clear()
        part.write_bytes(kept)
        assert get(datasets=(key,))["checksums"][name] == sum_of(whole)
        assert asked_for(server, name) == [f"bytes={len(kept)}-", None][:asked]
        assert_all_there(tmp_path / "data", without=tuple(MEDSEG if key == "zenodo" else ZENODO))
        shutil.rmtree(tmp_path / "data/volumes")
        (part.parent / name).unlink()


def test_a_page_does_not_overwrite_what_is_kept(server, get, tmp_path) -> None:
    part = tmp_path / f"data/archives/{LUNG}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(SERVED[LUNG][:1000])
    server.manners[LUNG] = page
    with pytest.raises(FileNotFoundError, match="not a zip"):
        get(datasets=("zenodo",))
    assert part.read_bytes() == SERVED[LUNG][:1000]


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


def test_further_addresses_are_asked(server, tmp_path) -> None:
    urls = ("http://127.0.0.1:1/x", "nonsense://x", server.url + "gone/nowhere", server.url + LUNG)
    place = tmp_path / LUNG
    transfer.fetch(urls, place, check=lambda _: None, tries=4, timeout=5, progress=False)
    assert place.read_bytes() == SERVED[LUNG] and os.listdir(tmp_path) == [LUNG]


def test_a_full_disk_is_an_error_of_its_own(get, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(OSError, match="MB are free") as caught:
        get()
    assert not isinstance(caught.value, FileNotFoundError)
    assert content_of(tmp_path / "data") == {}
