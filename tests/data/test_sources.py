"""The data sources: an HTTP server that misbehaves, archives that mean harm, folders that vary."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from replication.data import archives, on_disk, transfer
from replication.data.download import download
from replication.data.fusion import find_volumes
from replication.data.sources import SOURCES, Source, describe_sources

DEPTH = 3
ZENODO = {a.name: a.part for a in SOURCES["zenodo"].archives if a.part}
MEDSEG = {a.name: a.part for a in SOURCES["medseg"].archives}
CT, LUNG = "COVID-19-CT-Seg_20cases.zip", "Lung_Mask.zip"


# ---- small archives of the official layout -------------------------------------------------------
@cache
def nifti(seed: int, *, packed: bool = True, depth: int = DEPTH) -> bytes:
    voxels = np.random.default_rng(seed).integers(0, 2, (8, 8, depth)).astype(np.int16)
    content = nib.Nifti1Image(voxels, np.eye(4)).to_bytes()
    return gzip.compress(content, mtime=0) if packed else content


def zipped(members: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # duplicate names are meant
        for name, content in members.items() if isinstance(members, dict) else members:
            info = zipfile.ZipInfo(name) if isinstance(name, str) else name  # of 1980: the same bytes always
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@cache
def members_of(name: str) -> dict[str, bytes]:
    """Members by the publisher's names: flat at Zenodo, numbered in a folder at MedSeg."""
    seed = 100 * (list(ZENODO) + list(MEDSEG)).index(name)
    if name in ZENODO:
        return {f"{v}.nii.gz": nifti(seed + k) for k, v in enumerate(SOURCES["zenodo"].depths)}
    return {f"{name[:-4]}/{k}.nii.gz": nifti(seed + k) for k in range(1, 10)}


SERVED = {name: zipped(members_of(name)) for name in (*ZENODO, *MEDSEG)}


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small(source: Source) -> Source:
    """A source with tiny volumes; the sums are those of the small archives, None where none is published."""
    held = tuple(
        replace(a, sha256=a.sha256 and sum_of(SERVED[a.name])) for a in source.archives if a.name in SERVED
    )
    depths = dict.fromkeys(source.depths, DEPTH)
    return replace(source, archives=held, depths=depths, slices=DEPTH * len(depths))


SMALL = {key: small(source) for key, source in SOURCES.items()}


# ---- the server ----------------------------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; `server.manners[name]` may take over a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.seen.append((name, self.headers.get("Range")))
        content = self.server.content.get(name)
        manner = self.server.manners.get(name)
        times = sum(seen == name for seen, _ in self.server.seen)
        try:
            if content is None:
                self.answer(404, b"")
            elif manner is None or manner(self, content, times) is NotImplemented:
                self.honest(content)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def honest(self, content: bytes, *, until: int | None = None, ranges: bool = True) -> None:
        """The file or the rest asked for; only up to byte `until`, then the connection breaks."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if ranges else None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        extra = {"Content-Length": str(len(content) - start)}
        if asked:
            extra["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if asked else 200, content[start:until], extra)
        self.close_connection = True

    def answer(self, status: int, body: bytes, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(extra or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    content: dict[str, bytes]
    manners: dict[str, Callable]
    seen: list[tuple[str, str | None]]


@contextmanager
def serving(content: dict[str, bytes]) -> Iterator[Server]:
    """A server of `content` on this machine, while the block lasts."""
    with Server(("127.0.0.1", 0), Handler) as running:
        running.content, running.manners, running.seen = dict(content), {}, []
        running.url = f"http://127.0.0.1:{running.server_port}/"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(SERVED) as running:
        yield running


@pytest.fixture
def get(server, tmp_path):
    """`download` from the server into tmp_path/data, without waits."""

    def run(**options):
        keys = options.pop("datasets", ("zenodo", "medseg"))
        given = {
            "sources": SMALL, "base_urls": dict.fromkeys(keys, server.url), "wait": 0, "timeout": 5,
            "progress": False, "tries": 3, "datasets": keys,
        }  # fmt: skip
        return download(tmp_path / "data", **{**given, **options})

    return run


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def right(name: str) -> dict[str, bytes]:
    """What unpacking an archive must give, relative to `volumes`."""
    part = {**ZENODO, **MEDSEG}[name]
    return {
        f"{part}/{'medseg_' if name in MEDSEG else ''}{member.split('/')[-1]}": content
        for member, content in members_of(name).items()
    }


ALL = {path: content for name in SERVED for path, content in right(name).items()}


def assert_all_there(folder: Path, *, without: tuple[str, ...] = ()) -> None:
    """All volumes, byte by byte, and nothing unfinished anywhere."""
    left_out = {path for name in without for path in right(name)}
    assert content_of(folder / "volumes") == {p: c for p, c in ALL.items() if p not in left_out}
    assert not [
        p for p in folder.rglob("*") if p.suffix in (".part", ".wrong") or p.name.startswith((".", "tmp"))
    ]


# ---- the table -----------------------------------------------------------------------------------
def test_the_table_is_that_of_the_publishers() -> None:
    zenodo, medseg = SOURCES["zenodo"], SOURCES["medseg"]
    assert len(zenodo.depths) == 20 and sum(zenodo.depths.values()) == zenodo.slices == 3520
    assert sum(d for v, d in zenodo.depths.items() if v.startswith("radiopaedia")) == 829 + 110
    assert list(medseg.depths) == [f"medseg_{k}" for k in range(1, 10)] and medseg.slices == 829
    assert ZENODO == {CT: "ct", LUNG: "lung", "Infection_Mask.zip": "infection"}
    assert MEDSEG == {"rp_im.zip": "ct", "rp_lung_msk.zip": "lung", "rp_msk.zip": "infection"}
    sums = [a.sha256 for a in zenodo.archives]
    assert len(set(sums)) == 4 and all(re.fullmatch("[0-9a-f]{64}", s) for s in sums)
    assert sums[0].startswith("a5060480") and sums[1].startswith("f060b0d0")
    assert sums[2].startswith("87901c73") and sums[3].startswith("34f5a573")
    assert not any(a.sha256 for a in medseg.archives)
    numbers = {a.name: {u.rsplit("/", 1)[1] for u in a.urls} for a in medseg.archives}
    assert numbers == {"rp_im.zip": {"25954007"}, "rp_lung_msk.zip": {"25954010"}, "rp_msk.zip": {"25954013"}}
    assert zenodo.archives[0].urls == (f"https://zenodo.org/records/3757476/files/{CT}",)


def test_the_table_for_a_notebook() -> None:
    table = describe_sources()
    assert len(table) == 7 and list(table["dataset"]) == ["zenodo"] * 4 + ["medseg"] * 3
    assert set(table.columns) >= {
        "reference",
        "file",
        "part",
        "sha256",
        "licence",
        "volumes",
        "slices",
        "cite",
    }
    assert table.set_index("file").loc["Lung_and_Infection_Mask.zip", "part"] == "not needed"
    assert table["licence"].str.contains("non-commercial").all() and not table.isna().any(axis=None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"datasets": ("zenodoo",)}, "zenodoo"),
        ({"datasets": "zenodo"}, "expected a list"),
        ({"datasets": ()}, "expected a list"),
        ({"base_urls": {"kaggle": "http://x"}}, "kaggle"),
        ({"checksums": {"x.zip": "00"}}, "x.zip"),
        ({"tries": 0}, "tries 0"),
    ],
)
def test_arguments(tmp_path, options, said) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        download(tmp_path, sources=SMALL, **{"progress": False, "offline": "tries" not in options, **options})


# ---- fetching --------------------------------------------------------------------------------------
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


def once(manner: Callable, times: int = 1) -> Callable:
    return lambda handler, content, n: manner(handler, content, n) if n <= times else NotImplemented


def breaks(handler, content, n) -> None:
    handler.honest(content, until=len(content) // 3)


def breaks_without_ranges(handler, content, n) -> None:
    handler.honest(content, until=len(content) // 2 if n < 3 else None, ranges=False)


def shorter(handler, content, n) -> None:
    handler.answer(200, content[:-50])


def unavailable(handler, content, n) -> None:
    handler.answer(503, b"busy", {"Retry-After": "0"})


def hangs_up(handler, content, n) -> None:
    handler.close_connection = True


def page(handler, content, n) -> None:
    handler.answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})


ANOTHER = zipped({"readme.txt": b"hello"})


def another(handler, content, n) -> None:
    handler.answer(200, ANOTHER)


def stalls(handler, content, n) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:1000])
    time.sleep(2.0)
    handler.close_connection = True


def drips(handler, content, n) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.close_connection = True
    for k in range(50):
        handler.wfile.write(content[k : k + 1])
        time.sleep(0.05)


def wrong_range(handler, content, n) -> None:
    """Breaks, then answers 206 with a range that was not asked for."""
    if n == 1:
        return breaks(handler, content, n)
    if handler.headers.get("Range"):
        return handler.answer(206, content, {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"})
    return handler.honest(content)


def empty(handler, content, n) -> None:
    handler.answer(200, b"")


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


# ---- checksums -------------------------------------------------------------------------------------
def test_a_sum_recorded_on_first_use_is_kept_to(server, get, tmp_path) -> None:
    get()
    data = tmp_path / "data"
    shutil.rmtree(data / "volumes")
    (data / "archives/rp_im.zip").unlink()
    changed = members_of("rp_im.zip") | {"rp_im/9.nii.gz": nifti(999)}
    server.content["rp_im.zip"] = zipped(changed)
    old, new = sum_of(SERVED["rp_im.zip"]), sum_of(server.content["rp_im.zip"])
    with pytest.raises(FileNotFoundError, match=f"expected sha256 {old}, got {new}") as caught:
        get()
    assert f'checksums={{"rp_im.zip": "{new}"}}' in str(caught.value)
    assert not (data / "volumes/ct/medseg_9.nii.gz").exists()
    # The two ways that the message names: accept the sum, here with the file that was kept.
    os.replace(data / "archives/rp_im.zip.wrong", data / "archives/rp_im.zip")
    assert get(offline=True, checksums={"rp_im.zip": new})["unpacked"] == ["rp_im.zip"]
    assert (data / "volumes/ct/medseg_9.nii.gz").read_bytes() == changed["rp_im/9.nii.gz"]
    assert json.loads((data / "archives/checksums.json").read_text())["rp_im.zip"] == new
    assert get(offline=True)["unpacked"] == []


def test_an_accepted_sum_replaces_a_declared_one_for_good(server, get, tmp_path) -> None:
    get()
    changed = members_of(LUNG) | {"coronacases_001.nii.gz": nifti(998)}
    server.content[LUNG] = zipped(changed)
    assert get(checksums={LUNG: sum_of(server.content[LUNG]).upper()})["unpacked"] == [LUNG]
    place = tmp_path / "data/volumes/lung/coronacases_001.nii.gz"
    assert place.read_bytes() == changed["coronacases_001.nii.gz"]
    assert get()["unpacked"] == []


def test_a_wrong_file_put_there_by_hand_is_set_aside(server, get, tmp_path) -> None:
    place = tmp_path / "data/archives" / LUNG
    place.parent.mkdir(parents=True)
    place.write_bytes(zipped({"coronacases_001.nii.gz": b"wrong"}))
    with pytest.raises(FileNotFoundError, match="wrong checksum"):
        get(offline=True)
    assert place.exists()
    get()
    assert_all_there(tmp_path / "data")


def test_a_changed_volume_is_unpacked_again_a_copied_folder_not(get, tmp_path) -> None:
    get()
    volumes = tmp_path / "data/volumes"
    for path in volumes.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    assert get()["unpacked"] == []
    (volumes / "ct/coronacases_001.nii.gz").write_bytes(b"cut short")
    same_size = bytearray((volumes / "ct/coronacases_002.nii.gz").read_bytes())
    same_size[-20] ^= 1
    (volumes / "ct/coronacases_002.nii.gz").write_bytes(same_size)
    (volumes / "infection/medseg_3.nii.gz").unlink()
    assert get(offline=True)["unpacked"] == [CT, "rp_msk.zip"]
    assert_all_there(tmp_path / "data")


# ---- archives that mean harm -----------------------------------------------------------------------
def member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x" if "\0" in name else name)
    info.filename, info.external_attr = name, mode << 16
    return info


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


GOOD = members_of("rp_im.zip")
HARM = {
    "up": (zipped(GOOD | {"../evil.nii.gz": b"x"}), "points out of its folder"),
    "up, later": (zipped(GOOD | {"rp_im/../../evil.nii.gz": b"x"}), "points out of its folder"),
    "up, backslashes": (zipped(GOOD | {"rp_im\\..\\..\\evil.nii": b"x"}), "points out of its folder"),
    "absolute": (zipped(GOOD | {"/tmp/evil.nii.gz": b"x"}), "points out of its folder"),
    "drive": (zipped(GOOD | {"C:evil.nii.gz": b"x"}), "points out of its folder"),
    "link": (
        zipped([*list(GOOD.items())[1:], (member("rp_im/1.nii.gz", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
        "link or a device",
    ),
    "a link that is not wanted": (
        zipped([*GOOD.items(), (member("rp_im/here", stat.S_IFLNK | 0o777), b"/")]), "link or a device",
    ),
    "device": (zipped([*GOOD.items(), (member("x", stat.S_IFCHR | 0o666), b"")]), "link or a device"),
    "bomb": (zipped(GOOD | {"rp_im/1.nii.gz": bytes(20 * 2**20)}), "zip bomb"),
    "encrypted": (flagged(SERVED["rp_im.zip"]), "encrypted"),
    "no directory": (SERVED["rp_im.zip"][:-40], "not a whole zip"),
    "damaged directory": (altered(SERVED["rp_im.zip"], b"PK\1\2", 1), "damaged"),
    "damaged directory entry": (altered(SERVED["rp_im.zip"], b"PK\1\2", 42), "damaged"),
    "damaged member": (altered(SERVED["rp_im.zip"], b"PK\3\4", 60), "damaged"),
    "damaged sum": (altered(altered(SERVED["rp_im.zip"], b"PK\3\4", 14), b"PK\1\2", 16), "damaged"),
    "twice": (zipped([*GOOD.items(), ("1.nii.gz", b"x")]), "twice"),
    "one too few": (zipped(dict(list(GOOD.items())[:-1])), "lacks 1 of 9 volumes .ct/medseg_9"),
    "a folder too deep": (zipped({f"a/{k}": v for k, v in GOOD.items()}), "lacks 9 of 9"),
    "nothing": (b"PK\5\6" + bytes(18), "lacks 9 of 9"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_bad_archive_is_refused_and_leaves_everything_as_it_was(server, get, tmp_path, harm) -> None:
    data = tmp_path / "data"
    content, said = HARM[harm]
    place = data / "archives/rp_im.zip"
    before = {"ct/medseg_4.nii.gz": b"stood here before", "ct/own.nii.gz": b"own"}
    for name, kept in before.items():
        (data / "volumes" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "volumes" / name).write_bytes(kept)
    (data / "archives").mkdir(exist_ok=True)
    # The volume that stands is of a former archive: it would be replaced.
    note = {"archive": "rp_im.zip", "sha256": "0" * 64, "size": 0, "mtime_ns": 0, "crc32": 0}
    (data / "archives/unpacked.json").write_text(json.dumps({"ct/medseg_4": note}))
    place.write_bytes(content)
    with pytest.raises(FileNotFoundError, match=said) as caught:
        get(datasets=("medseg",), offline=True)
    assert str(caught.value).startswith("3 of 3 archives could not be had offline")
    assert content_of(data / "volumes") == before
    assert not (data / "archives/checksums.json").exists()
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name or p.name.startswith(".")]
    # A second call, with the network, mends it.
    get(datasets=("medseg",))
    (data / "volumes/ct/own.nii.gz").unlink()
    assert_all_there(data, without=tuple(ZENODO))


def test_every_damage_is_an_error_or_harmless(tmp_path) -> None:
    """Bytes changed, cut and put in at random: the right files or BadArchive, and never half."""
    rng = np.random.default_rng(0)
    select = {"rp_im/1.nii.gz": "ct/1", "rp_im/2.nii.gz": "ct/2"}
    whole = zipped({name: GOOD[name] for name in select})
    archive, outcomes = tmp_path / "x.zip", set()
    for trial in range(300):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        if trial % 5 == 0:
            del content[rng.integers(len(content)) :]
        if trial % 3 == 0:  # the directory, where a byte says most
            content[-rng.integers(1, min(200, len(content)) + 1)] = rng.integers(256)
        archive.write_bytes(content)
        target = tmp_path / str(trial)
        try:
            archives.unpack(archive, target, select=select.get, expected=set(select.values()))
            assert content_of(target) == {f"ct/{k}.nii.gz": GOOD[f"rp_im/{k}.nii.gz"] for k in (1, 2)}
            outcomes.add("right")
        except archives.BadArchive:
            assert content_of(target) == {}
            outcomes.add("refused")
    assert outcomes == {"right", "refused"}


def test_litter_and_strangers_are_left_out(server, get, tmp_path) -> None:
    litter = {
        "__MACOSX/coronacases_001.nii.gz": b"x", "__MACOSX/._coronacases_001.nii.gz": b"x",
        ".DS_Store": b"x", "README.txt": b"x", "coronacases_099.nii.gz": b"x", "1.nii.gz": b"x", "folder/": b"",
    }  # fmt: skip
    server.content[LUNG] = zipped(litter | members_of(LUNG))
    get(checksums={LUNG: sum_of(server.content[LUNG])})
    assert_all_there(tmp_path / "data")


def test_sizes_are_counted_not_believed(tmp_path) -> None:
    """A header that claims 10 bytes does not let 30 MB through."""
    content = zipped({"a.nii": bytes(30 * 2**20)})
    size = (30 * 2**20).to_bytes(4, "little")
    archive = tmp_path / "x.zip"
    archive.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(archives.BadArchive):
        archives.unpack(archive, tmp_path / "out", select=lambda n: "ct/a", expected={"ct/a"})
    archive.write_bytes(zipped({"a.nii": os.urandom(5000), "b.nii": os.urandom(5000)}))
    options = {"select": lambda n: f"ct/{n[0]}", "expected": {"ct/a", "ct/b"}}
    with pytest.raises(archives.BadArchive, match="bomb"):  # together, not each
        archives.unpack(archive, tmp_path / "out", max_bytes=9999, **options)
    assert content_of(tmp_path / "out") == {}
    assert set(archives.unpack(archive, tmp_path / "out", max_bytes=10000, **options)) == {"ct/a", "ct/b"}


def test_what_a_killed_run_left_is_cleared_later(tmp_path) -> None:
    for name, age in (("old", 2 * 86400), ("young", 60)):
        (tmp_path / f".unpacking-{name}").mkdir()
        os.utime(tmp_path / f".unpacking-{name}", (time.time() - age,) * 2)
    archives.remove_stale(tmp_path)
    assert os.listdir(tmp_path) == [".unpacking-young"]


# ---- offline and local -----------------------------------------------------------------------------
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
