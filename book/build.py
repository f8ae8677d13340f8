"""Build the book: stage its pages, put freshly executed notebooks in place, run Jupyter Book.

    python book/build.py --out _build/smoke --executed _build/smoke/notebooks
    python book/build.py --out _build/committed --repository OWNER/NAME
    python book/build.py --out _build/served --sources    # for `make docs-serve`

The committed notebooks are copied, never written to. An executed notebook with the name of a page
replaces that page; one named <page>_<words>.ipynb (05_training_lungs.ipynb) becomes a page below
it, titled by its words. With the repository's address, notebooks get buttons for Colab and Binder.
Jupyter Book runs with its warnings as errors, since without that a failing page leaves the exit
status at 0. The last line printed is the path of index.html. With --sources only the sources are brought up to date, for
sphinx-autobuild: what did not change is not written again, so that Sphinx reads nothing else.
"""

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
STATIC, STATUS, TRY = Path("book/_static"), Path("book/status.md"), Path("book/try.md")
sys.path.insert(0, str(ROOT))  # chslib is this checkout's
sys.path.append(str(ROOT / "book"))

from page_numbers import Numbers  # noqa: E402
from run_status import fill_status  # noqa: E402
from summary_pdf import add_pdf  # noqa: E402
from try_page import page as try_page  # noqa: E402


def read_toc(source: Path) -> dict[str, Any]:
    """The table of contents of the book in folder `source`."""
    return yaml.safe_load((source / "_toc.yml").read_text(encoding="utf-8"))


def entries(toc: dict[str, Any]) -> list[dict[str, Any]]:
    """Every entry of a table of contents that names a file, in reading order, the root aside."""
    found = []
    for part in toc.get("parts", []) + [{k: toc[k] for k in ("chapters", "sections") if k in toc}]:
        for entry in part.get("chapters", []) + part.get("sections", []):
            found += [entry, *entries({"sections": entry.get("sections", [])})]
    return found


def page_path(source: Path, page: str) -> Path:
    """The file of a page, which a table of contents names without its suffix.

    Raises:
        FileNotFoundError: neither a notebook nor a Markdown file has that name.
    """
    for suffix in (".ipynb", ".md"):
        if (path := source / f"{page}{suffix}").is_file():
            return path
    raise FileNotFoundError(f"_toc.yml lists {page}, but {source / page} exists neither as .ipynb nor as .md")


def configure(config: dict[str, Any], sources: dict[str, str], repository: str, branch: str) -> None:
    """Add what only a build knows to the content of _config.yml: what its buttons open.

    Args:
        sources: page made by a run -> the committed page that it was made from.
        repository: OWNER/NAME on GitHub; empty: no buttons.

    Raises:
        ValueError: `repository` is neither.
    """
    if not repository:
        return
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(
            f"repository {repository!r}; expected OWNER/NAME, as in https://github.com/OWNER/NAME"
        )
    config["repository"] = {"url": f"https://github.com/{repository}", "branch": branch}
    config["html"]["use_repository_button"] = True
    owner, name = repository.split("/")
    config["html"]["baseurl"] = (
        f"https://{owner.lower()}.github.io/{name}/"  # .github/workflows/book.yml publishes there
    )
    config["launch_buttons"] = {
        "notebook_interface": "jupyterlab",
        "colab_url": "https://colab.research.google.com",
        "binderhub_url": "https://mybinder.org",
    }
    config["sphinx"]["config"]["launch_sources"] = sources


def stage(
    source: Path, target: Path, executed: Path | None = None, *, repository: str = "", branch: str = "main"
) -> dict[str, Any]:
    """Copy the book's sources into `target`, anew, with executed notebooks in place.

    Args:
        source: the repository's root.
        target: folder to write; whatever an earlier build left there is removed.
        executed: folder of executed notebooks, or None for the committed ones.
        repository, branch: see `configure`.

    Returns:
        The staged table of contents.

    Raises:
        FileNotFoundError: a page that the table of contents lists, or `executed`, is missing.
        ValueError: an executed notebook belongs to no page, so that it would be lost in silence;
            `repository` is no OWNER/NAME; or a page asks for a number that nothing gives.
    """
    toc = read_toc(source)
    chapters = entries(toc)
    pages = [toc["root"], *(entry["file"] for entry in chapters)]
    files = [page_path(source, page).relative_to(source) for page in pages]
    fresh = []
    if executed is not None:
        if not executed.is_dir():
            raise FileNotFoundError(f"{executed}: no such folder; expected executed notebooks")
        fresh = sorted(executed.glob("*.ipynb"))
    shutil.rmtree(target, ignore_errors=True)
    bibliographies = [p.relative_to(source) for p in (source / "book").glob("*.bib")]
    extensions = [p.relative_to(source) for p in (source / "book").glob("sphinx_*.py")]
    for path in [*files, *bibliographies, *extensions]:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
    if (source / STATIC).is_dir():
        shutil.copytree(source / STATIC, target / STATIC)

    by_name = {Path(entry["file"]).name: entry for entry in chapters}
    made: dict[str, str] = {}  # page that a run made -> the committed page above it
    for notebook in fresh:
        owners = [n for n in by_name if notebook.stem == n or notebook.stem.startswith(n + "_")]
        if not owners:
            raise ValueError(f"{notebook}: no page of _toc.yml has this name or begins it")
        owner = max(owners, key=len)
        page = Path(by_name[owner]["file"]).with_name(notebook.stem)
        shutil.copyfile(notebook, target / f"{page}.ipynb")
        if words := notebook.stem.removeprefix(owner).strip("_"):
            section = {"file": page.as_posix(), "title": words.replace("_", " ").capitalize()}
            by_name[owner].setdefault("sections", []).append(section)
            made[page.as_posix()] = by_name[owner]["file"]
    if (target / STATUS).is_file():
        fill_status(target / STATUS, source=source, staged=target / "notebooks", executed=executed)
    if (target / TRY).is_file():
        told = (target / TRY).read_text("utf-8").replace("<!-- try -->", try_page(target / STATIC / "try"))
        (target / TRY).write_text(told, encoding="utf-8")
    numbers = Numbers(source)
    for page in sorted((target / "book").glob("*.md")):
        numbers.fill(page)
    config = yaml.safe_load((source / "_config.yml").read_text(encoding="utf-8"))
    configure(config, made, repository, branch)
    for name, content in (("_toc.yml", toc), ("_config.yml", config)):
        (target / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return toc


def refresh(source: Path, out: Path) -> None:
    """Bring the sources in `out`/src up to date, with the conf.py that Sphinx wants."""
    stage(source, out / "fresh")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "config", "sphinx"]
    subprocess.run([*command, str(out / "fresh")], check=True)

    def copy(new: str, old: str) -> None:
        if not (Path(old).is_file() and filecmp.cmp(new, old, shallow=False)):
            shutil.copyfile(new, old)

    shutil.copytree(out / "fresh", out / "src", copy_function=copy, dirs_exist_ok=True)


def describe_address(html: Path, root: str) -> None:
    """Give index.html, which only leads to the first page, what that page says of itself to those who link to it."""
    first, index = html / f"{root}.html", html / "index.html"
    told = re.findall(r'<meta (?:name|property)="(?:description|og:|twitter:).*', first.read_text("utf-8"))
    text = "\n".join(told).replace('content="../', 'content="')
    index.write_text(f"{index.read_text('utf-8')}\n{text}\n", encoding="utf-8")


def build(source: Path, out: Path) -> Path:
    """Run Jupyter Book on staged sources; returns the path of index.html.

    Raises:
        subprocess.CalledProcessError: a warning or an error; the log above says which.
    """
    html = out / "_build" / "html"
    shutil.rmtree(html, ignore_errors=True)  # a failed build must not leave the last one standing
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    options = ["-W", "-n", "--keep-going", "-q", "--path-output", str(out)]
    # The API pages are of this checkout, whatever chslib is installed.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run([*command, str(source), *options], env=os.environ | {"PYTHONPATH": path}, check=True)
    describe_address(html, read_toc(source)["root"])
    add_pdf(html)
    return html / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Stage and build; 0 if all is well, 1 with a line on stderr if not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument(
        "--sources", action="store_true", help="bring the sources up to date, and build nothing"
    )
    parser.add_argument("--executed", type=Path, help="folder of executed notebooks")
    parser.add_argument(
        "--repository", default=os.environ.get("GITHUB_REPOSITORY", ""), metavar="OWNER/NAME",
        help="on GitHub, for buttons to Colab and Binder; default: GITHUB_REPOSITORY, else none",
    )  # fmt: skip
    parser.add_argument(
        "--branch", help="that the buttons open; default: GITHUB_BASE_REF or GITHUB_REF_NAME, else main"
    )
    options = parser.parse_args(arguments)
    # In a pull request GITHUB_REF_NAME is 12/merge, which nothing can open later.
    names = (options.branch, *map(os.environ.get, ("GITHUB_BASE_REF", "GITHUB_REF_NAME")), "main")
    branch = next(name for name in names if name)
    out = options.out.resolve()
    try:
        if options.sources:
            refresh(ROOT, out)
            return 0
        stage(ROOT, out / "src", options.executed, repository=options.repository, branch=branch)
        index = build(out / "src", out)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print("error: the book was not built; the warnings above say why", file=sys.stderr)
        return 1
    print(index, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
