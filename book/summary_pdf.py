"""The summary as a PDF: printed by Chromium where there is one, and linked from the page only then."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PAGE, PLACE = "book/summary.html", "<!-- pdf -->"
CANONICAL = re.compile(r'<link rel="canonical" href="([^"]+)"')
RELATIVE = re.compile(r'(<a\b[^>]*?) href="(?!https?:|#)([^"]*)"')
LINK = '<p><a href="summary.pdf">This page as a PDF</a></p>'


def chromium() -> str | None:
    """The browser: what CHROMIUM names, else the first of `NAMES` on PATH; None: there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def for_paper(html: str) -> str:
    """A page whose links lead from anywhere: to the book's address where it is known, else they are text."""
    base = CANONICAL.search(html)
    return RELATIVE.sub(lambda m: f'{m[1]} href="{urljoin(base[1], m[2])}"' if base else m[1], html)


def print_page(page: Path, pdf: Path) -> str:
    """Print a page; returns "" or why there is no PDF."""
    if (browser := chromium()) is None:
        return f"no browser: none of {', '.join(NAMES)} is on PATH, and CHROMIUM is not set"
    paper = page.with_suffix(".paper.html")  # beside it, for its styles
    with tempfile.TemporaryDirectory() as profile:
        paper.write_text(for_paper(page.read_text("utf-8")), encoding="utf-8")
        command = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--no-pdf-header-footer",
            f"--print-to-pdf={pdf}", paper.resolve().as_uri(),
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # root has none
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{browser}: {error}"
        finally:
            paper.unlink()
    return "" if pdf.is_file() else f"{browser}: {done.stderr.strip()[-300:] or done.returncode}"


def add_pdf(html: Path) -> None:
    """Print the summary of a built book beside its page, and put the link into the page; else a note on stderr."""
    page = html / PAGE
    if not page.is_file():
        return
    if why := print_page(page, page.with_suffix(".pdf")):
        print(f"note: the summary has no PDF ({why})", file=sys.stderr)
        return
    text = page.read_text("utf-8")
    if PLACE not in text:
        raise ValueError(f"{PAGE} has no line {PLACE}, which the link to its PDF replaces")
    page.write_text(text.replace(PLACE, LINK), encoding="utf-8")
