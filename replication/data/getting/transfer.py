"""Fetching a large file over a poor connection: pooch tries again and places the file, `Resuming` keeps what came.

What came lies in `<name>.part`; the rest is asked for (HTTP Range), in this call or a later one.
"""

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from replication.data.getting.archives import ArchiveError, room_for

with warnings.catch_warnings():  # in a notebook without widgets, pooch's own progress bar warns
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

MAGIC = b"PK\x03\x04"
PROGRESS = 2**20  # bytes: a try that breaks but brought as much does not count
LONGEST_WAIT = 60
_CHUNK = 2**10  # a part ends with a whole one


class _Refused(Exception):
    """This address will not give the file, however often it is asked."""


def fetch(
    urls: Sequence[str], path: Path, *, check: Callable[[Path], str], tries: int, timeout: float, progress: bool
) -> str:  # fmt: skip
    """Fetch one file to `path`, from the first of `urls` that gives it; what `check` says of it.

    Args:
        urls: addresses of the same file.
        path: where to put it; `<path>.part` and `<path>.wrong` are used on the way.
        check: raises ArchiveError for a whole file that is not the one. It is kept as `<path>.wrong` and
            fetched anew from zero; if the same bytes come twice, they are what the server has.
        tries: attempts in a row that bring nothing; pooch waits 1, 2, ... 10 seconds between them.
        timeout: seconds without a byte that end an attempt.
        progress: show a bar on stderr.

    Raises:
        ArchiveError: no address gave the file.
    """
    if tries < 1 or timeout <= 0:
        raise ValueError(f"tries {tries}, timeout {timeout}: expected >= 1 and > 0")
    pooch.get_logger().setLevel("WARNING")  # the progress bar says it already
    of = {"registry": {path.name: None}, "urls": {path.name: urls[0]}, "retry_if_failed": tries - 1}
    resuming = Resuming(urls, path, check=check, timeout=timeout, progress=progress)
    try:
        pooch.create(path.parent, "", **of).fetch(path.name, downloader=resuming)
    except (ArchiveError, requests.RequestException, _Refused) as error:
        raise ArchiveError("; ".join(dict.fromkeys(resuming.told)), got=resuming.got) from error
    resuming.wrong.unlink(missing_ok=True)
    return str(resuming.got)


class Resuming:
    """A pooch downloader that goes on where an attempt broke, and from address to address; see `fetch`."""

    def __init__(
        self, urls: Sequence[str], path: Path, *, check: Callable[[Path], str], timeout: float, progress: bool
    ) -> None:
        self.urls, self.check, self.timeout, self.progress = list(urls), check, timeout, progress
        self.part, self.wrong = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.wrong")
        self.told: list[str] = []
        self.got: str | None = None

    def __call__(self, _: str, output_file: str, pooch: Any) -> None:
        """One try; pooch makes the next after an ArchiveError or a RequestException."""
        while True:
            url, had = self.urls.pop(0), self._have()
            try:
                self._receive(url, had)
                self.got = self.check(self.part)
                return os.replace(self.part, output_file)
            except _Refused as error:
                self.told.append(f"{url}: {error}")
                if not self.urls:
                    raise
            except (ArchiveError, requests.RequestException) as error:
                self.told.append(f"{url}: {error}")
                self.urls.append(url)
                if isinstance(error, ArchiveError):
                    os.replace(self.part, self.wrong)
                    before, self.got = self.got, error.got
                    if before == self.got:
                        raise _Refused from error
                if self._have() - had < PROGRESS:
                    raise

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self, url: str, have: int) -> None:
        """One request for the bytes that the part lacks."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            status, told = response.status_code, response.headers
            span = told.get("Content-Range", "").removeprefix("bytes ")
            if status == 416 and span == f"*/{have}":
                return  # nothing is beyond what we have: it is whole
            if status == 416 or (status == 206 and not span.startswith(f"{have}-")):
                self.part.unlink(missing_ok=True)
                raise requests.HTTPError(
                    f"HTTP {status} with another range than asked for; from the start again"
                )
            _refuse(status, told)
            chunks = response.iter_content(_CHUNK)
            first = next(chunks, b"")
            if status == 200 and not first.startswith(MAGIC):  # a page must not overwrite what is kept
                kind = told.get("Content-Type", "no type")
                raise requests.HTTPError(f"HTTP 200, but what came ({kind}) is not a zip archive")
            begin, length = have * (status == 206), int(told.get("Content-Length") or 0)
            room_for(self.part.parent, length)
            shown = {"desc": self.part.stem, "unit": "B", "unit_scale": True, "disable": not self.progress}
            with (
                open(self.part, "ab" if begin else "wb") as out,
                tqdm(total=begin + length if length else None, initial=begin, **shown) as bar,
            ):
                for data in chain([first], chunks):
                    out.write(data)
                    bar.update(len(data))


def _refuse(status: int, told: Mapping[str, str]) -> None:
    """Raise for what is no file: `_Refused`, or HTTPError where another try may help, after the wait asked for."""
    if told.get("x-amzn-waf-action"):
        raise _Refused(f"HTTP {status}: the host lets only browsers in")
    if status in (403, 408, 425, 429) or status >= 500:
        after = told.get("Retry-After", "")
        time.sleep(min(int(after), LONGEST_WAIT) if after.isdigit() else 0)
        raise requests.HTTPError(f"HTTP {status}")
    if status not in (200, 206):
        raise _Refused(f"HTTP {status}")
