"""Small archives of the official layout, and an HTTP server that misbehaves as it is told."""

import gzip
import hashlib
import io
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np

from replication.data.getting.sources import SOURCES

DEPTH = 3
ZENODO = {a.name: a.part for a in SOURCES["zenodo"].archives if a.part}
MEDSEG = {a.name: a.part for a in SOURCES["medseg"].archives}


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


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def right(name: str) -> dict[str, bytes]:
    """What unpacking an archive must give, relative to `volumes`."""
    part = {**ZENODO, **MEDSEG}[name]
    return {
        f"{part}/{'medseg_' if name in MEDSEG else ''}{member.split('/')[-1]}": content
        for member, content in members_of(name).items()
    }


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; `server.manners[name]` may take over a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.seen.append((name, self.headers.get("Range")))
        manner, times = self.server.manners.get(name), sum(seen == name for seen, _ in self.server.seen)
        content = self.server.content.get(name)
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
