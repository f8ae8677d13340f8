"""`make docs-serve`: what changed is built again, and an open page learns of it."""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book"))  # which is no package
import serve  # noqa: E402


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text)
    return folder


def test_a_page_a_record_and_the_contents_are_watched(tmp_path: Path) -> None:
    for name in (
        "book/a.md",
        "book/_static/a.css",
        "notebooks/a.ipynb",
        "results/cpu/a.json",
        "_toc.yml",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    before = serve.state(tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in before} == {
        "book/a.md", "book/_static/a.css", "notebooks/a.ipynb", "results/cpu/a.json", "_toc.yml",
    }  # fmt: skip
    for path in before:
        os.utime(path, (1, 1))
        assert serve.state(tmp_path) != before
        before = serve.state(tmp_path)


def test_only_what_changed_is_taken_over(tmp_path: Path) -> None:
    staged = write(tmp_path / "src", same="a", other="b", gone="c")
    os.utime(staged / "same.md", (1, 1))
    fresh = write(tmp_path / "fresh", same="a", other="B", new="d")
    assert serve.take_over(fresh, staged) == [Path("new.md"), Path("other.md")]
    assert {p.name: p.read_text() for p in staged.iterdir()} == {
        "same.md": "a",
        "other.md": "B",
        "new.md": "d",
    }
    assert (staged / "same.md").stat().st_mtime == 1 and not fresh.exists()


def test_a_book_that_cannot_be_built_is_told_and_the_next_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    built = []
    monkeypatch.setattr(serve, "stage", lambda source, target: write(target, page="text"))
    monkeypatch.setattr(serve, "build", lambda *_, anew: built.append(anew))
    assert serve.rebuild(ROOT, tmp_path) and built == [False]
    assert capsys.readouterr().out.startswith("1 files changed, built in")

    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "jupyter-book")

    monkeypatch.setattr(serve, "build", fail)
    assert not serve.rebuild(ROOT, tmp_path)
    assert "mend it, and the book is built again" in capsys.readouterr().err


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "index.html").write_text("<p>first</p>")
    (tmp_path / "a.css").write_text("p {}")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(serve.Pages, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_come_with_the_script_that_reloads_them(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str) -> str:
        return urlopen(address + path).read().decode()

    for path in ("/", "/index.html", "/index.html?highlight=x"):
        assert read(path).startswith("<p>first</p>") and "location.reload()" in read(path)
    assert read("/a.css") == "p {}"
    before = read(serve.BUILT)
    monkeypatch.setattr(serve.Pages, "builds", serve.Pages.builds + 1)
    assert read(serve.BUILT) != before


def test_the_commands_of_contributing_are_those_of_the_makefile() -> None:
    told, makefile = ((ROOT / name).read_text("utf-8") for name in ("CONTRIBUTING.md", "Makefile"))
    assert "\nmake docs-serve" in told and "\ndocs-serve: " in makefile
    assert "book/serve.py --out _build/served" in makefile
    section = told.split("## Changing a page that shows records, in three commands")[1].split("\n## ")[0]
    commands = [line for line in section.split("```bash\n")[1].split("```")[0].splitlines() if line]
    assert len(commands) == 3
    assert all(
        (ROOT / word).exists()
        for line in commands
        for word in line.split()
        if word.startswith(("tests/", "book/"))
    )
