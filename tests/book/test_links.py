"""Every link inside the book leads to a page that exists and, where it names one, to an anchor on it.

The build itself fails on a cross-reference or citation that Sphinx cannot resolve (-n -W); here the
HTML is read, and what a link between pages really points at.
"""

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]


@cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Everything that a link to a page can name behind #."""
    tags = soup(page).find_all(lambda tag: tag.has_attr("id") or (tag.name == "a" and tag.has_attr("name")))
    return frozenset(tag.get("id") or tag.get("name") for tag in tags)


def doubled(page: Path) -> list[str]:
    """Ids that stand twice, so that a link finds only the first."""
    ids = [tag["id"] for tag in soup(page).find_all(id=True)]
    return sorted({i for i in ids if ids.count(i) > 1})


def broken(page: Path, root: Path) -> list[str]:
    """The links and sources of a page that lead nowhere inside the book at `root`."""
    found = []
    for tag in soup(page).find_all(lambda tag: tag.has_attr("href") or tag.has_attr("src")):
        link = tag.get("href") or tag.get("src") or ""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if parts.scheme not in ("https", "data"):
                found.append(f"{link}: expected https")
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.is_file() or root.resolve() not in target.parents:
            found.append(f"{link}: no such file")
        elif parts.fragment and unquote(parts.fragment) not in anchors(target):
            found.append(f"{link}: no such anchor")
    return found


def test_every_link_of_every_page_leads_somewhere(built: Path) -> None:
    pages = sorted(p for p in built.rglob("*.html") if "_static" not in p.relative_to(built).parts)
    assert len(pages) > 20
    assert {p.name: found for p in pages if (found := broken(p, built))} == {}


def test_no_anchor_stands_twice_on_a_page(built: Path) -> None:
    pages = [p for p in built.rglob("*.html") if "_static" not in p.relative_to(built).parts]
    assert {p.name: found for p in pages if (found := doubled(p))} == {}


def test_every_source_is_cited_and_every_citation_is_a_link(built: Path) -> None:
    listed = anchors(built / "book/bibliography.html")
    keys = [line.split("{")[1].rstrip(",\n") for line in (ROOT / "book/references.bib").open(encoding="utf-8")
            if line.startswith("@")]  # fmt: skip
    entries = soup(built / "book/bibliography.html").find_all("div", class_="citation")
    assert len(entries) == len(keys) > 5
    assert all(entry["id"] in listed for entry in entries)
    for page in built.rglob("*.html"):
        text = soup(page).find("article")
        assert text is None or "{cite}" not in text.get_text(), page.name


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("other.html#there", ""), ("#here", ""), ("other.html", ""), ("https://example.org/x#y", ""),
        ("other.html#gone", "no such anchor"), ("gone.html", "no such file"), ("#gone", "no such anchor"),
        ("../outside.html", "no such file"), ("http://example.org", "expected https"),
    ],
)  # fmt: skip
def test_a_link_that_leads_nowhere_is_found(link: str, told: str, tmp_path: Path) -> None:
    root = tmp_path / "html"
    root.mkdir()
    (tmp_path / "outside.html").write_text("")
    (root / "page.html").write_text(f'<p id="here"><a href="{link}">x</a></p>')
    (root / "other.html").write_text('<p id="there"></p>')
    assert broken(root / "page.html", root) == ([f"{link}: {told}"] if told else [])
