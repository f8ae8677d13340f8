"""The book builds offline without a warning, and its pages, README and Makefile keep their word."""

import re
import subprocess
import sys
from pathlib import Path

import build
import pytest

from replication.cli import main as chs_net
from replication.training.grid import campaign
from replication.training.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
TOC = build.read_toc(ROOT)
PAGES = [TOC["root"], *(entry["file"] for entry in build.entries(TOC))]


def rows_of_the_register() -> dict[int, str]:
    text = (ROOT / "book/register.md").read_text(encoding="utf-8")
    sections = re.split(r"^\(row-(\d+)\)=$", text, flags=re.M)[1:]
    numbers = [int(n) for n in sections[::2]]
    assert len(set(numbers)) == len(numbers), "a row number is used twice"
    return dict(zip(numbers, sections[1::2], strict=True))


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


def test_the_book_builds_offline_without_a_warning(built: Path) -> None:
    for page in PAGES:
        assert (built / f"{page}.html").is_file(), page


def test_no_page_and_no_style_sheet_loads_anything_from_another_host(built: Path) -> None:
    loads = re.compile(
        r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+"""
        r"""|(?:@import\s*|url\(\s*)["']?(?:https?:)?//[^"')\s]+"""
    )
    sheets = [*built.rglob("*.css"), *built.rglob("*.html")]
    assert {p.name: found for p in sheets if (found := loads.findall(p.read_text("utf-8")))} == {}
    assert (
        len(loads.findall('@import url(https://a.org/x.css); b {src: url(//c.org/d)} <img src="//e">')) == 3
    )


def test_no_page_names_a_path_of_this_machine(built: Path) -> None:
    named = [p.name for p in built.rglob("*.html") if str(ROOT) in p.read_text("utf-8")]
    assert named == []
