"""What the book is like from outside: descriptions and pictures for those who link to it, and the summary as a PDF."""

import re
import shutil
from pathlib import Path

import build
import numpy as np
import preview
import pytest
import sphinx_chs
import summary_pdf
from bs4 import BeautifulSoup
from docutils.core import publish_doctree
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

TOC = build.read_toc(ROOT)
LISTED = [TOC["root"], *(entry["file"] for entry in build.entries(TOC))]


def told(page: Path) -> dict[str, str]:
    """What a page says of itself; a name that stands twice fails."""
    found = BeautifulSoup(page.read_text("utf-8"), "html.parser").find_all("meta", content=True)
    pairs = [(tag.get("name") or tag.get("property"), tag["content"]) for tag in found]
    pairs = [(key, value) for key, value in pairs if key and re.match(r"description|og:|twitter:", key)]
    assert len(dict(pairs)) == len(pairs), page.name
    return dict(pairs)


def test_every_page_says_what_it_is(built: Path) -> None:
    described = {}
    for name in LISTED:
        of = told(built / f"{name}.html")
        title = BeautifulSoup((built / f"{name}.html").read_text("utf-8"), "html.parser").find("h1")
        assert of["og:title"].replace("’", "'") in title.get_text().replace("’", "'"), name
        assert of["description"] == of["og:description"] and 30 <= len(of["description"]) <= 200, name
        assert "{{" not in of["description"] and "{cite}" not in of["description"], name
        assert (built / name).parent.joinpath(of["og:image"]).resolve() == built / "_static/preview.png"
        described[name] = of["description"]
    general = [name for name, text in described.items() if text == sphinx_chs.SITE]
    assert set(general) <= {"book/glossary", "book/bibliography"}
    assert len(set(described.values())) == len(described) - max(len(general) - 1, 0)


def test_the_address_itself_says_what_the_first_page_says(built: Path) -> None:
    first, address = told(built / f"{TOC['root']}.html"), told(built / "index.html")
    assert (
        address.pop("og:image") == "_static/preview.png" and first.pop("og:image") == "../_static/preview.png"
    )
    assert address == first and "url=book/intro.html" in (built / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  A quotation that is long enough for a description.\n\nOur own words about it, long enough.", "Our own words about it, long enough."),
        ("A short one.\n\nWhat comes behind it, and is longer than thirty.", "What comes behind it, and is longer than thirty."),
        ("It was found by somebody [Somebody and others, 2020] in 2020 [28].", "It was found by somebody in 2020 [28]."),
        (f"{'word ' * 60}", f"{'word ' * 39}…"),
        ("Short.", sphinx_chs.SITE),
    ],
)  # fmt: skip
def test_a_description_is_the_page_s_own_first_prose(text: str, expected: str) -> None:
    assert sphinx_chs.description_of(publish_doctree(text)) == expected
    assert sphinx_chs.description_of(None) == sphinx_chs.SITE


def test_the_picture_is_small_and_the_one_that_its_script_draws(tmp_path: Path) -> None:
    assert preview.PICTURE.stat().st_size < 100_000
    preview.draw(tmp_path / "again.png")
    ours, again = (
        np.asarray(Image.open(p).convert("L"), float) for p in (preview.PICTURE, tmp_path / "again.png")
    )
    assert ours.shape == again.shape == (preview.HEIGHT, preview.WIDTH)
    assert np.abs(ours - again).mean() < 2  # fonts differ by a hair from version to version


# ---- the summary as a PDF ----------------------------------------------------------------------


def site(folder: Path, text: str = f"<p>Scope</p>\n{summary_pdf.PLACE}\n") -> Path:
    page = folder / summary_pdf.PAGE
    page.parent.mkdir(parents=True)
    page.write_text(f'<html><a href="status.html">status</a>{text}</html>', encoding="utf-8")
    return page


def test_the_summary_links_its_pdf_where_there_is_one(built: Path) -> None:
    page = built / summary_pdf.PAGE
    links = BeautifulSoup(page.read_text("utf-8"), "html.parser").find_all("a", href="summary.pdf")
    assert len(links) == page.with_suffix(".pdf").is_file() == (summary_pdf.chromium() is not None)
    assert not list(page.parent.glob("*.paper.html"))


@pytest.mark.skipif(summary_pdf.chromium() is None, reason="no Chromium, which prints the PDF")
def test_the_pdf_is_a_few_pages_and_names_no_path_of_this_machine(built: Path) -> None:
    content = (built / summary_pdf.PAGE).with_suffix(".pdf").read_bytes()
    assert content.startswith(b"%PDF-") and b"file:" not in content
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 4


def test_without_a_browser_there_is_a_note_and_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = site(tmp_path)
    before = page.read_text("utf-8")
    monkeypatch.setattr(summary_pdf, "chromium", lambda: None)
    summary_pdf.add_pdf(tmp_path)
    assert "note: the summary has no PDF (no browser" in capsys.readouterr().err
    monkeypatch.setattr(summary_pdf, "chromium", lambda: shutil.which("false"))
    summary_pdf.add_pdf(tmp_path)
    assert "note: the summary has no PDF (" in capsys.readouterr().err
    assert page.read_text("utf-8") == before and [p.name for p in page.parent.iterdir()] == ["summary.html"]


def test_a_summary_without_a_place_for_the_link_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site(tmp_path, "nothing")
    monkeypatch.setattr(summary_pdf, "print_page", lambda page, pdf: "")
    with pytest.raises(ValueError, match="has no line <!-- pdf -->"):
        summary_pdf.add_pdf(tmp_path)


def test_on_paper_links_lead_from_anywhere() -> None:
    page = '<a class="x" href="status.html">s</a> <a href="#row">r</a> <a href="https://a.org">a</a>'
    assert (
        summary_pdf.for_paper(page) == '<a class="x">s</a> <a href="#row">r</a> <a href="https://a.org">a</a>'
    )
    known = f'<link rel="canonical" href="https://o.github.io/n/book/summary.html">{page}'
    assert 'href="https://o.github.io/n/book/status.html">s<' in summary_pdf.for_paper(known)
