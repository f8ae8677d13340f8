"""What a build adds to the pages: buttons, the status tables, and docstrings as API pages."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import build
import pytest
import run_status
import sphinx_chs
import yaml

from replication.evidence.records import load_records

ROOT = Path(__file__).resolve().parents[2]


# ---- buttons -----------------------------------------------------------------------------------


def a_root(folder: Path, *chapters: str) -> Path:
    """A source tree of pages without numbers, which take long to fill in."""
    for page in ("book/intro.md", *(f"{name}.ipynb" for name in chapters)):
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(f"committed {page}")
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": name} for name in chapters]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    shutil.copy(ROOT / "_config.yml", folder)
    return folder


def test_a_repository_switches_the_buttons_on_and_none_leaves_them_out(tmp_path: Path) -> None:
    root = a_root(tmp_path / "root")
    build.stage(root, tmp_path / "without")
    config = yaml.safe_load((tmp_path / "without/_config.yml").read_text(encoding="utf-8"))
    assert "launch_buttons" not in config and "repository" not in config
    build.stage(root, tmp_path / "with", repository="Owner/name", branch="dev")
    config = yaml.safe_load((tmp_path / "with/_config.yml").read_text(encoding="utf-8"))
    assert config["repository"] == {"url": "https://github.com/Owner/name", "branch": "dev"}
    assert {"colab_url", "binderhub_url"} <= config["launch_buttons"].keys()
    assert (
        config["html"]["baseurl"] == "https://owner.github.io/name/"
    )  # the preview's picture has its whole address
    for wrong in ("https://github.com/owner/name", "name", "owner/name/tree"):
        with pytest.raises(ValueError, match="expected OWNER/NAME"):
            build.stage(root, tmp_path / "wrong", repository=wrong)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, ("", "main")),
        ([], {"GITHUB_REPOSITORY": "o/n", "GITHUB_REF_NAME": "dev"}, ("o/n", "dev")),
        ([], {"GITHUB_REPOSITORY": "o/n", "GITHUB_REF_NAME": "7/merge", "GITHUB_BASE_REF": "main"}, ("o/n", "main")),
        (["--repository", "a/b", "--branch", "x"], {"GITHUB_REPOSITORY": "o/n", "GITHUB_REF_NAME": "d"}, ("a/b", "x")),
    ],
)  # fmt: skip
def test_the_address_comes_from_the_command_or_from_the_forge(
    arguments: list[str], environment: dict[str, str], expected: tuple[str, str], monkeypatch, tmp_path
) -> None:
    for name in ("GITHUB_REPOSITORY", "GITHUB_REF_NAME", "GITHUB_BASE_REF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = {}
    monkeypatch.setattr(build, "stage", lambda *_, **options: given.update(options))
    monkeypatch.setattr(build, "build", lambda *_: tmp_path / "index.html")
    assert build.main(["--out", str(tmp_path), *arguments]) == 0
    assert (given["repository"], given["branch"]) == expected


def test_a_page_of_a_run_launches_the_notebook_it_was_made_from(tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    executed.mkdir()
    for name in ("05_training", "05_training_lungs"):
        (executed / f"{name}.ipynb").write_bytes((ROOT / "notebooks/05_training.ipynb").read_bytes())
    root = a_root(tmp_path / "root", "notebooks/05_training")
    build.stage(root, tmp_path / "staged", executed, repository="owner/name")
    config = yaml.safe_load((tmp_path / "staged/_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    sources = config["launch_sources"]
    assert sources == {"notebooks/05_training_lungs": "notebooks/05_training"}
    assert all((ROOT / f"{source}.ipynb").is_file() for source in sources.values())
    button = {"url": "https://colab/github/owner/name/blob/main/notebooks/05_training_lungs.ipynb"}
    app = SimpleNamespace(config=SimpleNamespace(launch_sources=sources))
    groups = [{"type": "link"}, {"buttons": [button]}]
    sphinx_chs.launch_committed(app, "notebooks/05_training_lungs", "", {"header_buttons": groups}, None)
    assert button["url"].endswith("/notebooks/05_training.ipynb")


# ---- staging ----------------------------------------------------------------------------------


def test_staging_takes_executed_notebooks_and_leaves_the_committed_ones(tmp_path: Path) -> None:
    source = a_root(tmp_path / "source", "notebooks/04_network", "notebooks/05_training")
    executed = tmp_path / "executed"
    executed.mkdir()
    for name in ("05_training", "05_training_lungs"):
        (executed / f"{name}.ipynb").write_text(f"executed {name}")
    target = tmp_path / "staged"
    (target / "old").mkdir(parents=True)

    build.stage(source, target, executed)

    read = {p.stem: p.read_text() for p in (target / "notebooks").iterdir()}
    assert read == {
        "04_network": "committed notebooks/04_network.ipynb",
        "05_training": "executed 05_training",
        "05_training_lungs": "executed 05_training_lungs",
    }
    assert (source / "notebooks/05_training.ipynb").read_text() == "committed notebooks/05_training.ipynb"
    assert not (target / "old").exists()
    below = build.read_toc(target)["chapters"][1]["sections"]
    assert below == [{"file": "notebooks/05_training_lungs", "title": "Lungs"}]


def test_staging_refuses_what_it_would_lose(tmp_path: Path) -> None:
    source = a_root(tmp_path / "source", "notebooks/04_network")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        build.stage(source, tmp_path / "staged", tmp_path / "nowhere")
    (tmp_path / "99_other.ipynb").write_text("")
    with pytest.raises(ValueError, match="99_other.ipynb: no page"):
        build.stage(source, tmp_path / "staged", tmp_path)
    (source / "notebooks/04_network.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match="_toc.yml lists notebooks/04_network"):
        build.stage(source, tmp_path / "staged")


def test_where_one_page_changed_only_that_one_is_written_again(tmp_path: Path) -> None:
    """What `make docs-serve` hands to Sphinx, which reads what is newer."""
    root = a_root(tmp_path / "root", "notebooks/04_network", "notebooks/05_training")
    build.refresh(root, tmp_path / "out")
    src = tmp_path / "out/src"
    assert "sphinx_chs" in (src / "conf.py").read_text("utf-8")
    for path in (found := [p for p in src.rglob("*") if p.is_file()]):
        os.utime(path, (1, 1))
    (root / "notebooks/04_network.ipynb").write_text("changed")
    build.refresh(root, tmp_path / "out")
    assert [p.relative_to(src).as_posix() for p in found if p.stat().st_mtime != 1] == [
        "notebooks/04_network.ipynb"
    ]
    assert (src / "notebooks/04_network.ipynb").read_text() == "changed"


# ---- status ------------------------------------------------------------------------------------


def filled(tmp_path: Path, executed: Path | None = None) -> dict[str, list[list[str]]]:
    """The cells of the status page's tables."""
    staged = tmp_path / "staged"
    shutil.copytree(ROOT / "notebooks", staged / "notebooks", ignore=shutil.ignore_patterns(".*", "*.py"))
    if executed:
        shutil.copytree(executed, staged / "notebooks", dirs_exist_ok=True)
    page = Path(shutil.copy(ROOT / "book/status.md", staged))
    run_status.fill_status(page, source=ROOT, staged=staged / "notebooks", executed=executed)
    text = page.read_text(encoding="utf-8")
    assert not re.search("^%", text, flags=re.M)
    sections = re.split(r"^## (\w+)\n", text, flags=re.M)[1:]
    return {
        name: [
            [c.strip() for c in row.strip("|").split(" | ")]
            for row in re.findall(r"^\|.*\|$", body, flags=re.M)[2:]
        ]
        for name, body in zip(sections[::2], sections[1::2], strict=True)
    }


def test_the_status_page_is_of_the_records_and_of_this_environment(tmp_path: Path) -> None:
    tables = filled(tmp_path)
    records = load_records(ROOT / "results", "cpu")[0]
    assert [row[0] for row in tables["Runs"] if row[0].startswith("`cpu/")][-len(records) :] == [
        f"`cpu/{n}`" for n in records
    ]
    lungs = next(row for row in tables["Runs"] if row[0] == "`cpu/table2-lungs`")
    record = records["table2-lungs"]
    assert lungs[1:] == [
        record["started"][:10], run_status.duration(record["wall_seconds"]), record["device"], record["commit"][:7],
    ]  # fmt: skip
    torch = next(row for row in tables["Versions"] if row[0] == "torch")
    assert torch[2] == version("torch") and record["versions"]["torch"] in torch[3]
    names = sorted(p.stem for p in (tmp_path / "staged/notebooks").glob("*.ipynb"))
    assert [re.match(r"\[(\w+)\]", row[0])[1] for row in tables["Notebooks"]] == names
    assert {(row[1], row[3]) for row in tables["Notebooks"]} == {("as committed", "not recorded")}


def test_an_executed_notebook_shows_papermill_s_times_and_the_records_that_it_read(tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    executed.mkdir()
    notebook = json.loads((ROOT / "notebooks/06_table2.ipynb").read_text(encoding="utf-8"))
    notebook["metadata"]["papermill"] = {
        "start_time": "2026-01-02T03:04:05.6", "duration": 4000.0,
        "parameters": {"results": str(tmp_path / "results"), "profile": "smoke"},
    }  # fmt: skip
    (executed / "06_table2.ipynb").write_text(json.dumps(notebook))
    folder = tmp_path / "results/smoke"
    folder.mkdir(parents=True)
    (folder / "table2-lungs.json").write_text("{}")
    tables = filled(tmp_path, executed)
    row = next(row for row in tables["Notebooks"] if "06_table2" in row[0])
    assert row[1:] == ["executed for this book", "2026-01-02 03:04 UTC", "1 h 07 min"]
    assert [(row[0], row[1]) for row in tables["Runs"]] == [("`table2-lungs`", "refused")]  # no committed one


def test_without_git_or_history_no_date_is_invented(tmp_path: Path) -> None:
    assert run_status.committed(tmp_path, "a") == "not recorded"

    def git(folder: Path, *arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)

    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init")
    (origin / "a").write_text("1")
    assert run_status.committed(origin, "a") == "not recorded"
    for n in (1, 2):
        (origin / "a").write_text(str(n))
        git(origin, "add", "a")
        git(origin, "commit", "-m", "a", "--date", "2020-01-01T00:00:00", "--allow-empty")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", run_status.committed(origin, "a"))
    (origin / "a").write_text("3")
    assert run_status.committed(origin, "a").endswith(", changed since")
    git(tmp_path, "clone", "--depth", "1", f"file://{origin}", "shallow")
    assert run_status.committed(tmp_path / "shallow", "a") == "not recorded"


def test_a_status_page_without_a_table_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status.md").write_text("# Status\n\n% versions\n\n% runs\n")
    with pytest.raises(ValueError, match="no line '% notebooks'"):
        run_status.fill_status(tmp_path / "status.md", source=ROOT, staged=tmp_path, executed=None)


@pytest.mark.parametrize(
    ("seconds", "told"), [(4.4, "4 s"), (99, "99 s"), (101, "2 min"), (3599, "1 h 00 min")]
)
def test_a_duration_is_for_a_reader(seconds: float, told: str) -> None:
    assert run_status.duration(seconds) == told


# ---- API pages ---------------------------------------------------------------------------------


def test_every_module_stands_on_one_api_page() -> None:
    on_pages = []
    for page in sorted((ROOT / "book/api").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        titles, modules = (
            re.findall(r"^## `([\w.]+)`$", text, flags=re.M),
            re.findall(r"automodule:: ([\w.]+)", text),
        )
        assert titles == modules, page.name
        on_pages += modules
    found = [
        p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for package in ("chslib", "replication")
        for p in (ROOT / package).rglob("*.py")
    ]
    # A package re-exports or holds nothing, but for the peers; what a shell runs is no interface.
    left_out = {m for m in found if m.endswith(("__init__", "__main__")) or ".cli." in m}
    left_out.remove("replication.peers.__init__")
    assert sorted(on_pages) == sorted(name.removesuffix(".__init__") for name in set(found) - left_out)


def test_the_index_s_example_runs() -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "book/api/index.md").read_text(encoding="utf-8"), flags=re.S
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("plain", "rst"),
    [
        (["Sizes (register row 3)."], ["Sizes (register row :ref:`3 <row-3>`)."]),
        (["Rows: rows 1, 2 and 3."], ["Rows: rows :ref:`1 <row-1>`, :ref:`2 <row-2>` and :ref:`3 <row-3>`."]),
        (["Table 1 row 2."], ["Table 1 row 2."]),
        (["|k| < 2 * n, `a|b` and ``c*``"], [r"\|k\| < 2 \* n, `a|b` and ``c*``"]),
        (["Two:", "- one", "  more", "- two", "Then."], ["Two:", "", "- one", "  more", "- two", "", "Then."]),
        (["* a", "", "  - b"], ["* a", "", "  - b"]),
        (["* a:", "    - b", "    - c"], ["* a:", "", "    - b", "    - c"]),
        (
            ["A drawing", "", "    x -> |y|", "", "    z", "", "ends."],
            ["A drawing", "", ".. code-block:: text", "", "    x -> |y|", "", "    z", "", "ends."],
        ),
        ([">>> a * b"], [">>> a * b"]),
    ],
)  # fmt: skip
def test_a_docstring_becomes_what_its_reader_saw(plain: list[str], rst: list[str]) -> None:
    assert sphinx_chs.to_rst(plain, drawings=True) == rst


def test_attributes_that_share_a_text_each_have_it() -> None:
    lines = [":ivar a, b: sizes", "    in pixels", ":ivar c: other"]
    sphinx_chs.split_attributes(None, "", "", None, None, lines)
    assert lines == [":ivar a: sizes", "    in pixels", ":ivar b: sizes", "    in pixels", ":ivar c: other"]
