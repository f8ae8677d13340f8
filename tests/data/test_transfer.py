"""Fetching from a server with moods."""

import json
import os
import shutil
from pathlib import Path

import pytest
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
    drips,
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

from replication.data.fusing.fusion import find_volumes
from replication.data.getting import archives, transfer


def test_everything_from_a_server_that_behaves(server, get, tmp_path, capsys) -> None:
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
    zenodo = [v for v in ALL if v.startswith("ct/") and "medseg" not in v]
    for path in (tmp_path / "data/volumes/ct").glob("medseg_*"):
        path.unlink()  # until fusion knows MedSeg's names
    assert sorted(find_volumes(told["volumes"])) == sorted(Path(v).name[:-7] for v in zenodo)


def test_a_second_call_touches_nothing_and_needs_no_archive(server, get, tmp_path) -> None:
    get()
    for archive in (tmp_path / "data/archives").glob("*.zip"):
        archive.unlink()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    server.seen.clear()
    told = get()
    assert told["fetched"] == told["unpacked"] == [] and server.seen == []
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")} == before


@pytest.mark.parametrize("name", [LUNG, "rp_msk.zip"])
@pytest.mark.parametrize(
    "manner",
    [
        once(breaks), breaks_without_ranges, once(shorter), once(unavailable, 2), once(hangs_up, 2), once(page),
        once(another), once(stalls), once(drips), wrong_range, once(empty, 2),
    ],
)  # fmt: skip
def test_what_passes_is_got_over_in_one_call(server, get, tmp_path, manner, name) -> None:
    server.manners[name] = manner
    key = "zenodo" if name in ZENODO else "medseg"
    told = get(timeout=0.5, datasets=(key,))  # shorter than `stalls` and `drips` last
    assert name in told["unpacked"]
    assert_all_there(tmp_path / "data", without=tuple(MEDSEG if key == "zenodo" else ZENODO))


def test_the_rest_is_asked_for_not_the_whole(server, get, tmp_path) -> None:
    server.manners[CT] = once(breaks)
    get(datasets=("zenodo",))
    third = len(SERVED[CT]) // 3
    assert [asked for name, asked in server.seen if name == CT] == [None, f"bytes={third}-"]


ALWAYS = {
    "404": (lambda h, c, n: h.answer(404, b""), "HTTP 404"),
    "503": (unavailable, "HTTP 503"),
    "page": (page, r"text/html\) is not a zip"),
    "shorter": (shorter, sum_of(SERVED[LUNG][:-50])),
    "another": (another, sum_of(ANOTHER)),
    "hangs up": (hangs_up, "connection failed or broke"),
    "breaks": (lambda h, c, n: h.honest(c, until=500, ranges=False), "connection failed or broke"),
    "drips": (drips, r"stalled: \d+ bytes"),
    "browsers only": (
        lambda h, c, n: h.answer(202, b"", {"x-amzn-waf-action": "challenge"}), "lets only browsers in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("manner", ALWAYS)
def test_what_does_not_pass_is_told_and_mended_by_a_second_call(server, get, tmp_path, manner) -> None:
    server.manners[LUNG], said = ALWAYS[manner]
    data = tmp_path / "data"
    with pytest.raises(FileNotFoundError, match=said) as caught:
        get(timeout=0.3 if manner == "drips" else 5)
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


def test_tries_are_counted(server, get) -> None:
    server.manners[LUNG] = unavailable
    with pytest.raises(FileNotFoundError, match="HTTP 503"):
        get(datasets=("zenodo",), tries=3)
    assert sum(name == LUNG for name, _ in server.seen) == 3
    server.seen.clear()
    server.content.pop(LUNG)
    with pytest.raises(FileNotFoundError, match="HTTP 404"):
        get(datasets=("zenodo",), tries=3)
    assert sum(name == LUNG for name, _ in server.seen) == 1


def test_the_same_wrong_file_twice_is_not_fetched_a_third_time(server, get) -> None:
    server.manners[LUNG] = another
    with pytest.raises(FileNotFoundError, match="wrong checksum"):
        get(datasets=("zenodo",), tries=5)
    assert sum(name == LUNG for name, _ in server.seen) == 2


def test_a_host_that_is_gone(get, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="3 of 3 archives.*") as caught:
        get(base_urls={"zenodo": "http://127.0.0.1:1/"}, datasets=("zenodo",))
    assert all(name in str(caught.value) for name in ZENODO)
    assert content_of(tmp_path) == {}


def test_waits_grow_and_keep_to_what_the_server_asks(server, get, monkeypatch) -> None:
    waits = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    server.manners[LUNG] = lambda h, c, n: h.answer(503, b"", {"Retry-After": "7"} if n == 2 else {})
    with pytest.raises(FileNotFoundError):
        get(datasets=("zenodo",), tries=5, wait=1.0)
    assert waits == [1, 7, 4, 8]


def test_breaks_that_bring_the_file_on_are_not_failures(server, get, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 100)
    step = len(SERVED[CT]) // 8

    def slow(handler, content, n):
        asked = handler.headers.get("Range", "bytes=0-")
        handler.honest(content, until=int(asked[6:-1]) + step)

    server.manners[CT] = slow
    get(datasets=("zenodo",), tries=2)
    assert sum(name == CT for name, _ in server.seen) >= 8


def test_going_round_in_circles_is_no_progress(server, get, monkeypatch) -> None:
    """Breaks, then a wrong range, which drops the part: each round brings bytes, but the same ones."""
    monkeypatch.setattr(transfer, "PROGRESS", 100)

    def circles(handler, content, n):
        if n > 20:
            return NotImplemented
        return wrong_range(handler, content, 2 if handler.headers.get("Range") else 1)

    server.manners[LUNG] = circles
    with pytest.raises(FileNotFoundError, match="another range"):
        get(datasets=("zenodo",), tries=3)
    assert sum(name == LUNG for name, _ in server.seen) == 3


def test_a_part_of_another_version_is_dropped(server, get, tmp_path) -> None:
    """The kept part does not belong to what the server has now: wrong sum, then from zero."""
    part = tmp_path / f"data/archives/{LUNG}.part"
    part.parent.mkdir(parents=True)
    for kept in (b"PK\3\4" + bytes(500), SERVED[LUNG], SERVED[LUNG] + b"more"):
        part.write_bytes(kept)
        get(datasets=("zenodo",))
        assert_all_there(tmp_path / "data", without=tuple(MEDSEG))
        shutil.rmtree(tmp_path / "data/volumes")
        (part.parent / LUNG).unlink()


def test_a_part_that_is_too_long_is_dropped_even_where_no_sum_is_known(get, tmp_path) -> None:
    part = tmp_path / "data/archives/rp_msk.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(SERVED["rp_msk.zip"] + b"more")  # unzips as well as without
    assert get(datasets=("medseg",))["checksums"]["rp_msk.zip"] == sum_of(SERVED["rp_msk.zip"])


def test_a_whole_part_is_not_fetched_again(server, get, tmp_path) -> None:
    part = tmp_path / f"data/archives/{LUNG}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(SERVED[LUNG])
    get(datasets=("zenodo",))
    assert [asked for name, asked in server.seen if name == LUNG] == [f"bytes={len(SERVED[LUNG])}-"]


def test_a_page_does_not_overwrite_what_is_kept(server, get, tmp_path) -> None:
    part = tmp_path / f"data/archives/{LUNG}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(SERVED[LUNG][:1000])
    server.manners[LUNG] = page
    with pytest.raises(FileNotFoundError, match="not a zip"):
        get(datasets=("zenodo",))
    assert part.read_bytes() == SERVED[LUNG][:1000]
    server.manners.clear()
    server.seen.clear()
    get(datasets=("zenodo",))
    assert server.seen == [(LUNG, "bytes=1000-")]


def test_an_interruption_leaves_the_part_and_nothing_else(server, get, tmp_path, monkeypatch) -> None:
    def interrupted(self, raw, data, out, bar):
        out.write(data + raw.read(700, decode_content=False))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer.ResumingDownloader, "_copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert content_of(tmp_path) == {f"data/archives/{CT}.part": SERVED[CT][:704]}
    get()
    assert (CT, "bytes=704-") in server.seen
    assert_all_there(tmp_path / "data")


def test_an_interruption_while_unpacking(server, get, tmp_path, monkeypatch) -> None:
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 25:  # in the second archive
            raise KeyboardInterrupt
        return write(*arguments)

    write = archives._write
    monkeypatch.setattr(archives, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get()
    assert content_of(tmp_path / "data/volumes") == right(CT)
    get()
    assert_all_there(tmp_path / "data")


def test_further_addresses_are_asked(server, tmp_path) -> None:
    urls = ("http://127.0.0.1:1/x", "nonsense://x", server.url + "gone/nowhere", server.url + LUNG)
    place = tmp_path / LUNG
    transfer.fetch(
        urls, place, sha256=sum_of(SERVED[LUNG]), check=lambda p: archives.check_archive(p, None), wait=0,
        progress=False,
    )  # fmt: skip
    assert place.read_bytes() == SERVED[LUNG] and os.listdir(tmp_path) == [LUNG]


def test_a_full_disk_is_an_error_of_its_own(get, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(OSError, match="MB are free") as caught:
        get()
    assert not isinstance(caught.value, FileNotFoundError)
    assert content_of(tmp_path / "data") == {}
