"""Fetching a large file over a poor connection: pooch, and a downloader for it that resumes.

pooch checks and places files but starts each transfer anew. `ResumingDownloader` keeps what came
in `<name>.part` and asks for the rest (HTTP Range), in this call or a later one.
"""

import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
import urllib3
from tqdm import tqdm

from replication.data.getting.archives import MAGIC, WrongFile, room_for

with warnings.catch_warnings():  # in a notebook without widgets, pooch's own progress bar warns
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

MIN_RATE = 1024  # bytes a second, over `timeout` seconds; less is a stalled connection
MAX_BYTES = 8 * 2**30  # eight times the largest archive: a server that never stops
LONGEST_WAIT = 60.0
PROGRESS = 2**20  # an attempt that brought this much starts the count of tries anew
_CHUNK = 2**16
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
_UNUSABLE = (
    requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema,
)  # fmt: skip


class DownloadError(ConnectionError):
    """No address gave the file; `got` is the sha256 of a whole but wrong file, if there was one."""

    def __init__(self, message: str, *, got: str | None = None) -> None:
        super().__init__(message)
        self.got = got


class _Refused(Exception):
    """This address will not give the file, however often it is asked."""


class _Broken(Exception):
    """This attempt failed; another may not."""

    def __init__(self, message: str, *, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


def fetch(urls: Sequence[str], path: Path, *, sha256: str | None, **options: Any) -> None:
    """Fetch one file by pooch to `path`, from the first of `urls` that gives it.

    Args:
        urls: addresses of the same file.
        path: where to put it; `<path>.part` and `<path>.wrong` are used on the way.
        sha256: its checksum, None if unknown.
        **options: of `ResumingDownloader`: check, tries, wait, timeout, progress.

    Raises:
        DownloadError: no address gave the file.
    """
    downloader = ResumingDownloader(part=beside(path, ".part"), mirrors=urls[1:], **options)
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)  # the progress bar says it already
    try:
        known = None if sha256 is None else f"sha256:{sha256.lower()}"
        pooch.retrieve(urls[0], known, fname=path.name, path=path.parent, downloader=downloader)
    finally:
        logger.setLevel(before)


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


class ResumingDownloader:
    """A pooch downloader that resumes, retries and changes address.

    An attempt that breaks but brought 1 MiB more than was ever there starts the count of tries
    anew, so a large file may take many breaks. A whole file that fails `check` is kept as `<name>.wrong` and
    fetched anew from zero; if the same bytes come twice, they are what the server has.

    Args:
        part: the unfinished file. It stays when a transfer is interrupted.
        check: raises `WrongFile` if the file is not the one wanted.
        mirrors: further addresses, asked in turn.
        tries: failed attempts before giving up.
        wait: seconds before the second attempt; doubles with each, up to a minute. A server's
            Retry-After is kept if it asks for more.
        timeout: seconds without a byte, or at less than 1 KiB a second, that end an attempt.
        progress: show a bar on stderr.
    """

    def __init__(
        self, *, part: Path, check: Callable[[Path], object], mirrors: Sequence[str] = (), tries: int = 4,
        wait: float = 1.0, timeout: float = 30.0, progress: bool = True,
    ) -> None:  # fmt: skip
        if tries < 1 or wait < 0 or timeout <= 0:
            raise ValueError(f"tries {tries}, wait {wait}, timeout {timeout}: expected >= 1, >= 0 and > 0")
        self.part, self.check, self.mirrors = part, check, tuple(mirrors)
        self.tries, self.wait, self.timeout, self.progress = tries, wait, timeout, progress
        self._tag: dict[str, str] = {}  # address -> ETag: which version the part is of

    def __call__(self, url: str, output_file: str, pooch: Any = None, check_only: bool = False) -> None:
        """Fetch into `output_file`; called by pooch. Raises DownloadError."""
        urls, told = [url, *self.mirrors], []
        failed = turn = best = 0
        last_sum = None
        wrong = self.part.with_suffix(".wrong")
        while urls and failed < self.tries:
            address, pause = urls[turn % len(urls)], 0.0
            before = max(best, self._have())
            try:
                self._attempt(address)
                self.check(self.part)
                os.replace(self.part, output_file)
                wrong.unlink(missing_ok=True)
                return
            except WrongFile as error:
                os.replace(self.part, wrong)
                told.append(f"{address}: {error}")
                if last_sum == error.got:
                    break
                last_sum, best = error.got, 0
                failed += 1
            except _Refused as error:
                told.append(f"{address}: {error}")
                urls.remove(address)
                continue
            except _Broken as error:
                told.append(f"{address}: {error}")
                best = max(before, self._have())
                failed = 1 if best - before >= PROGRESS else failed + 1
                pause = error.after
            turn += 1
            if failed < self.tries:
                time.sleep(min(max(self.wait * 2 ** (failed - 1), pause), LONGEST_WAIT))
        raise DownloadError("; ".join(dict.fromkeys(told)), got=last_sum)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, url: str) -> None:
        """One request; returns when the part is as long as the server says the file is."""
        have = self._have()
        headers = {"Accept-Encoding": "identity"}  # bytes as stored, else ranges and lengths mislead
        if have:
            headers["Range"] = f"bytes={have}-"
            if url in self._tag:
                headers["If-Range"] = self._tag[url]
        try:
            with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
                self._receive(response, have, url)
        except _UNUSABLE as error:
            raise _Refused(f"not an address that can be fetched ({error})") from error
        except _BROKEN as error:
            raise _Broken(f"connection failed or broke ({error})") from error

    def _receive(self, response: requests.Response, have: int, url: str) -> None:
        status, length = response.status_code, response.headers.get("Content-Length", "")
        begin, total = 0, int(length) if length.isdigit() else None
        if status == 416 and have:  # nothing beyond what we have: whole, or longer than the file
            if response.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                return
            self.part.unlink()
            raise _Broken(f"HTTP 416: the {have} bytes kept are not part of the file; from the start again")
        if status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not found or int(found[1]) != have:
                self.part.unlink(missing_ok=True)
                raise _Broken("HTTP 206 with another range than asked for; from the start again")
            begin, total = have, int(found[2]) if found[2] != "*" else None
        elif status != 200:
            self._refuse(response)
        raw, first = response.raw, b""
        if begin == 0:  # a page in the archive's place must not overwrite what is kept
            first = raw.read(len(MAGIC), decode_content=False)
            if first != MAGIC:
                kind = response.headers.get("Content-Type", "no type")
                raise _Broken(f"HTTP {status}, but what came ({kind}) is not a zip archive")
        if (tag := response.headers.get("ETag", "")).startswith('"'):  # a weak one promises no bytes
            self._tag[url] = tag
        room_for(self.part.parent, max((total or 0) - begin, 0))
        with (
            open(self.part, "ab" if begin else "wb") as out,
            tqdm(desc=self.part.stem, total=total, initial=begin, unit="B", unit_scale=True,
                 disable=not self.progress) as bar,
        ):  # fmt: skip
            self._copy(raw, first, out, bar)
        if total is not None and self._have() != total:
            raise _Broken(f"{self._have()} of {total} bytes came")

    def _copy(self, raw: urllib3.BaseHTTPResponse, data: bytes, out: Any, bar: tqdm) -> None:
        since, came = time.monotonic(), 0
        data = data or raw.read1(_CHUNK, decode_content=False)
        while data:
            out.write(data)
            bar.update(len(data))
            came += len(data)
            if out.tell() > MAX_BYTES:
                raise _Refused(f"more than {MAX_BYTES} bytes came")
            if (lasted := time.monotonic() - since) > self.timeout:
                if came < MIN_RATE * lasted:
                    raise _Broken(f"stalled: {came} bytes in {lasted:.0f} s")
                since, came = time.monotonic(), 0
            # read1 returns what has come; read would wait for a full chunk, however slow
            data = raw.read1(_CHUNK, decode_content=False)

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        if response.headers.get("x-amzn-waf-action"):
            raise _Refused(f"HTTP {status}: the host lets only browsers in")
        if status in (403, 408, 425, 429) or status >= 500:
            after = response.headers.get("Retry-After", "")
            raise _Broken(f"HTTP {status}", after=float(after) if after.isdigit() else 0.0)
        raise _Refused(f"HTTP {status}")
