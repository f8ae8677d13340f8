"""Fetching a large file over a poor connection: pooch tries again and places the file, `Resuming` keeps what came.

What came lies in `<name>.part`; the rest is asked for (HTTP Range), in this call or a later one.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
import urllib3
from tqdm import tqdm

from replication.data.getting.archives import WrongFile, room_for

with warnings.catch_warnings():  # in a notebook without widgets, pooch's own progress bar warns
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

MAGIC = b"PK\x03\x04"
PROGRESS = 2**20  # a try that breaks but brought this much more than was ever there does not count
LONGEST_WAIT = 60
_CHUNK = 2**16


class DownloadError(ConnectionError):
    """No address gave the file; `got` is the sha256 of a whole but wrong file, if there was one."""

    def __init__(self, message: str, *, got: str | None = None) -> None:
        super().__init__(message)
        self.got = got


class _Refused(Exception):
    """This address will not give the file, however often it is asked."""


def fetch(
    urls: Sequence[str],
    path: Path,
    *,
    check: Callable[[Path], object],
    tries: int,
    timeout: float,
    progress: bool,
) -> None:
    """Fetch one file to `path`, from the first of `urls` that gives it.

    Args:
        urls: addresses of the same file.
        path: where to put it; `<path>.part` and `<path>.wrong` are used on the way.
        check: raises WrongFile for a whole file that is not the one. It is kept as `<path>.wrong` and
            fetched anew from zero; if the same bytes come twice, they are what the server has.
        tries: attempts in a row that bring nothing; pooch waits 1, 2, ... 10 seconds between them.
        timeout: seconds without a byte that end an attempt.
        progress: show a bar on stderr.

    Raises:
        DownloadError: no address gave the file.
    """
    if tries < 1 or timeout <= 0:
        raise ValueError(f"tries {tries}, timeout {timeout}: expected >= 1 and > 0")
    pooch.get_logger().setLevel("WARNING")  # the progress bar says it already
    dog = pooch.create(
        path.parent, "", registry={path.name: None}, urls={path.name: urls[0]}, retry_if_failed=tries - 1
    )
    downloader = Resuming(urls, path, check=check, timeout=timeout, progress=progress)
    try:
        dog.fetch(path.name, downloader=downloader)
    except (WrongFile, requests.RequestException, _Refused) as error:
        raise DownloadError("; ".join(dict.fromkeys(downloader.told)), got=downloader.got) from error


class Resuming:
    """A pooch downloader that goes on where an attempt broke, and from address to address; see `fetch`."""

    def __init__(
        self,
        urls: Sequence[str],
        path: Path,
        *,
        check: Callable[[Path], object],
        timeout: float,
        progress: bool,
    ) -> None:
        self.urls, self.check, self.timeout, self.progress = list(urls), check, timeout, progress
        self.part, self.wrong = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.wrong")
        self.told: list[str] = []
        self.got: str | None = None
        self.best = self._have()

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """One try; pooch makes the next after a WrongFile or a RequestException."""
        while True:
            try:
                self._receive(self.urls[0])
                self.check(self.part)
                os.replace(self.part, output_file)
                return self.wrong.unlink(missing_ok=True)
            except (_Refused, WrongFile, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                self.told.append(f"{self.urls[0]}: {error}")
                if isinstance(error, _Refused):
                    self.urls.pop(0)
                    if not self.urls:
                        raise
                    continue
                self.urls.append(self.urls.pop(0))
                if isinstance(error, WrongFile):
                    os.replace(self.part, self.wrong)
                    self.best, before, self.got = 0, self.got, error.got
                    if before == self.got:
                        raise _Refused from error
                    raise
                best, self.best = self.best, max(self.best, self._have())
                if self.best - best < PROGRESS:
                    raise requests.ConnectionError from error

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self, url: str) -> None:
        """One request for the bytes that the part lacks."""
        have = self._have()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            status, span = (
                response.status_code,
                response.headers.get("Content-Range", "").removeprefix("bytes "),
            )
            if status == 416 and span == f"*/{have}":
                return  # nothing is beyond what we have: it is whole
            if status == 416 or (status == 206 and not span.startswith(f"{have}-")):
                self.part.unlink(missing_ok=True)
                raise requests.HTTPError(
                    f"HTTP {status} with another range than asked for; from the start again"
                )
            _refuse(response)
            first = b"" if status == 206 else response.raw.read(len(MAGIC), decode_content=False)
            if status == 200 and first != MAGIC:  # a page must not overwrite what is kept
                kind = response.headers.get("Content-Type", "no type")
                raise requests.HTTPError(f"HTTP 200, but what came ({kind}) is not a zip archive")
            self._keep(response, first, have if status == 206 else 0)

    def _keep(self, response: requests.Response, data: bytes, begin: int) -> None:
        length = int(response.headers.get("Content-Length") or 0)
        room_for(self.part.parent, length)
        shown = {"desc": self.part.stem, "unit": "B", "unit_scale": True, "disable": not self.progress}
        with (
            open(self.part, "ab" if begin else "wb") as out,
            tqdm(total=begin + length if length else None, initial=begin, **shown) as bar,
        ):
            while data := data or response.raw.read1(
                _CHUNK, decode_content=False
            ):  # what has come, however slow
                out.write(data)
                bar.update(len(data))
                data = b""


def _refuse(response: requests.Response) -> None:
    """Raise for what is no file: `_Refused`, or HTTPError where another try may help, after the wait asked for."""
    status = response.status_code
    if response.headers.get("x-amzn-waf-action"):
        raise _Refused(f"HTTP {status}: the host lets only browsers in")
    if status in (403, 408, 425, 429) or status >= 500:
        wait_for(response.headers.get("Retry-After", ""))
        raise requests.HTTPError(f"HTTP {status}")
    if status not in (200, 206):
        raise _Refused(f"HTTP {status}")


def wait_for(seconds: str) -> None:
    """Wait as the server asks, if it asks for a number of seconds, and not too long."""
    time.sleep(min(int(seconds), LONGEST_WAIT) if seconds.isdigit() else 0)
