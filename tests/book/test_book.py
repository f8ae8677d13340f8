"""The book builds offline without a warning, and its pages, README and Makefile keep their word."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from replication.cli import main as chs_net
from replication.training.grid import campaign
from replication.training.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
# book/ holds pages and is no package; its one module is loaded by path.
_spec = importlib.util.spec_from_file_location("book_build", ROOT / "book/build.py")
book = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(book)

TOC = book.read_toc(ROOT)
PAGES = [TOC["root"], *(entry["file"] for entry in book.entries(TOC))]


def rows_of_the_register() -> dict[int, str]:
    text = (ROOT / "book/register.md").read_text(encoding="utf-8")
    sections = re.split(r"^\(row-(\d+)\)=$", text, flags=re.M)[1:]
    numbers = [int(n) for n in sections[::2]]
    assert len(set(numbers)) == len(numbers), "a row number is used twice"
    return dict(zip(numbers, sections[1::2], strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_toc_exists(page: str) -> None:
    assert book.page_path(ROOT, page).is_file()


def test_the_register_has_its_rows_and_each_is_whole() -> None:
    rows = rows_of_the_register()
    assert list(rows) == list(range(1, len(rows) + 1))
    assert len(rows) >= 19
    for number, text in rows.items():
        assert text.lstrip().startswith(f"## {number}. "), number
        for field in ("Paper", "Our choice", "Alternatives", "Effect"):
            assert re.search(rf"^:{field}: \S.*\.", text, flags=re.M), (number, field)


def test_every_row_is_listed_by_topic() -> None:
    text = (ROOT / "book/register.md").read_text(encoding="utf-8").split("(row-1)=")[0]
    listed = [int(n) for n in re.findall(r"\[\d+\]\(#row-(\d+)\)", text)]
    assert sorted(listed) == list(rows_of_the_register())


def test_every_row_that_the_code_cites_exists() -> None:
    rows, cited = rows_of_the_register(), {}
    sources = [
        *(ROOT / "chslib").rglob("*.py"),
        *(ROOT / "replication").rglob("*.py"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    for path in sources:
        for found in re.finditer(r"\brows? (\d+)(?:(?:, | and )(\d+))*", path.read_text("utf-8")):
            for number in re.findall(r"\d+", found[0]):
                cited.setdefault(int(number), path.name)
    assert {n: name for n, name in cited.items() if n not in rows} == {}
    assert len(cited) >= 19


def test_the_readme_s_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))
    text = "".join((ROOT / f).read_text("utf-8") for f in ("README.md", "CONTRIBUTING.md"))
    used = set(re.findall(r"^make ([a-z-]+)", text, flags=re.M))
    assert {"reproduce", "test"} <= used <= targets


def test_the_readme_counts_the_grid_s_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert f"{len(campaign('all'))} trainings" in text
    assert f"# {len(campaign('rows'))} synthetic runs" in text


def test_make_knows_every_profile_and_refuses_another() -> None:
    listed = re.search(r"^PROFILES := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    assert listed[1].split() == list(PROFILES)
    for profile, told in (("cpu-long", "needs a slice store"), ("huge", "unknown profile 'huge'")):
        done = subprocess.run(
            ["make", "inputs", f"PROFILE={profile}"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and told in done.stderr, done.stdout + done.stderr


def test_the_readme_s_links_and_modules_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    local = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith("http")]
    assert [t for t in local if not (ROOT / t).exists()] == []
    for module in set(re.findall(r"python -m ((?:chslib|replication)[\w.]*)", text)):
        subprocess.run([sys.executable, "-m", module, "--help"], check=True, capture_output=True)
    commands = set(re.findall(r"bin/chs-net ((?:(?:data|weights|measure) )?[a-z]+)", text))
    assert len(commands) >= 3
    for command in commands:
        with pytest.raises(SystemExit) as end:
            chs_net([*command.split(), "--help"])
        assert end.value.code == 0, command


def small_book(root: Path, *chapters: str) -> Path:
    """A source tree with the pages named, for staging."""
    for page in ("book/intro", *chapters):
        path = root / (page + (".ipynb" if page.startswith("notebooks") else ".md"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"committed {page}")
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": c} for c in chapters]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "_config.yml").write_text("title: small\n")
    return root


def test_staging_takes_executed_notebooks_and_leaves_the_committed_ones(tmp_path: Path) -> None:
    source = small_book(tmp_path / "source", "notebooks/04_network", "notebooks/05_training")
    executed = tmp_path / "executed"
    executed.mkdir()
    for name in ("05_training", "05_training_lungs"):
        (executed / f"{name}.ipynb").write_text(f"executed {name}")
    target = tmp_path / "staged"
    (target / "old").mkdir(parents=True)

    book.stage(source, target, executed)

    read = {p.stem: p.read_text() for p in (target / "notebooks").iterdir()}
    assert read == {
        "04_network": "committed notebooks/04_network",
        "05_training": "executed 05_training",
        "05_training_lungs": "executed 05_training_lungs",
    }
    assert (source / "notebooks/05_training.ipynb").read_text() == "committed notebooks/05_training"
    assert not (target / "old").exists()
    below = book.read_toc(target)["chapters"][1]["sections"]
    assert below == [{"file": "notebooks/05_training_lungs", "title": "Lungs"}]


def test_staging_refuses_what_it_would_lose(tmp_path: Path) -> None:
    source = small_book(tmp_path / "source", "notebooks/04_network")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        book.stage(source, tmp_path / "staged", tmp_path / "nowhere")
    (tmp_path / "99_other.ipynb").write_text("")
    with pytest.raises(ValueError, match="99_other.ipynb: no page"):
        book.stage(source, tmp_path / "staged", tmp_path)
    (source / "notebooks/04_network.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match="_toc.yml lists notebooks/04_network"):
        book.stage(source, tmp_path / "staged")


def test_the_book_builds_offline_without_a_warning(built: Path) -> None:
    for page in PAGES:
        assert (built / f"{page}.html").is_file(), page


def test_no_page_loads_anything_from_another_host(built: Path) -> None:
    loads = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+""")
    pages = list(built.rglob("*.html"))
    found = {p.name: loads.findall(p.read_text("utf-8")) for p in pages}
    assert len(pages) >= len(PAGES)
    assert {name: urls for name, urls in found.items() if urls} == {}


def test_no_style_sheet_loads_anything_from_another_host(built: Path) -> None:
    loads = re.compile(r"""(?:@import\s*|url\(\s*)["']?(?:https?:)?//[^"')\s]+""")
    sheets = list(built.rglob("*.css")) + list(built.rglob("*.html"))  # and style elements
    assert {p.name: found for p in sheets if (found := loads.findall(p.read_text("utf-8")))} == {}
    assert loads.findall("@import url(https://a.org/x.css); b {src: url('//c.org/d')}")


def test_no_page_names_a_path_of_this_machine(built: Path) -> None:
    named = [p.name for p in built.rglob("*.html") if str(ROOT) in p.read_text("utf-8")]
    assert named == []
