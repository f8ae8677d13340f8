"""The prose is spelled: known typos by codespell in every file, each word of the book by a dictionary.

The dictionary is aspell's British English (Debian's packages aspell and aspell-en); what it lacks and
the book means is in book/words.txt, a word a line.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, SoupStrainer

ROOT = Path(__file__).resolve().parents[2]
WORDS = ROOT / "book/words.txt"
PLACES = (
    "book",
    "chslib",
    "replication",
    "tests",
    "benchmarks",
    "workflow",
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
    "Snakefile",
)
# No prose: code, formulas, names of files and of people.
NO_PROSE = "pre, code, script, style, .math, .sig, .headerlink, .citation, svg, .output_area pre, kbd"
WORD = re.compile(r"(?<![\w./@#%$=-])[A-Za-z]+(?:’[a-z]+)?(?![\w@=]|[./]\w)")


def words_of(html: str) -> Counter[str]:
    """The words of a page's article, hyphens and possessives aside."""
    article = BeautifulSoup(html, "html.parser", parse_only=SoupStrainer("article")).find("article")
    if article is None:
        return Counter()
    for tag in article.select(NO_PROSE):
        tag.replace_with(" ")
    text = article.get_text(" ").replace("'", "’").replace("­", "")
    words = WORD.findall(re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text))
    words = (word.removesuffix("’s") for word in words)
    return Counter(
        word for word in words if len(word) > 2 and word[1:].islower()
    )  # no acronyms, no CamelCase


def own_words() -> list[str]:
    return WORDS.read_text(encoding="utf-8").split()


def unknown(words: set[str]) -> set[str]:
    """Those that aspell's British English does not have.

    Raises:
        pytest.skip.Exception: no aspell, or no such dictionary.
    """
    if not shutil.which("aspell"):
        pytest.skip("no aspell on PATH (Debian: apt-get install aspell aspell-en)")
    text = "\n".join(sorted(word.replace("’", "'") for word in words))
    done = subprocess.run(
        ["aspell", "--lang=en_GB", "--ignore=2", "list"], input=text, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"aspell has no British English: {done.stderr.strip()}")
    return {word.replace("'", "’") for word in done.stdout.split()}


def test_each_word_of_the_book_is_in_a_dictionary(built: Path) -> None:
    known, found = set(own_words()), {}
    for page in sorted([*built.glob("book/**/*.html"), *built.glob("notebooks/*.html")]):
        words = set(words_of(page.read_text(encoding="utf-8")))
        if wrong := {word for word in unknown(words) if not {word, word.lower()} & known}:
            found[page.stem] = sorted(wrong)
    assert found == {}, "misspelled, or missing from book/words.txt"


def test_the_word_list_is_in_order() -> None:
    words = own_words()
    assert words == sorted(set(words), key=lambda word: (word.lower(), word))


def test_codespell_finds_no_typo() -> None:
    command = [sys.executable, "-m", "codespell_lib", *PLACES]  # settings in pyproject.toml
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_misspelled_word_is_found() -> None:
    typo = "reci" + "eved"  # codespell reads this file too
    html = f"<article><h1>A {typo}</h1><code>{typo}2</code><p>the paper’s low-pass file.name IoU ok</p></article>"
    words = words_of(html)
    assert set(words) == {typo, "the", "paper", "low", "pass"}
    assert unknown(set(words)) == {typo}
