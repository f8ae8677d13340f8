"""Build the book: stage its pages, put freshly executed notebooks in place, run Jupyter Book.

    python book/build.py --out _build/smoke --executed _build/smoke/notebooks

The committed notebooks are copied, never written to. An executed notebook with the name of a page
replaces that page; one named <page>_<words>.ipynb (05_training_lungs.ipynb) becomes a page below
it, titled by its words. Jupyter Book runs with its warnings as errors, since without that a
failing page leaves the exit status at 0. The last line printed is the path of index.html.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


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


def stage(source: Path, target: Path, executed: Path | None = None) -> dict[str, Any]:
    """Copy the book's sources into `target`, anew, with executed notebooks in place.

    Args:
        source: the repository's root.
        target: folder to write; whatever an earlier build left there is removed.
        executed: folder of executed notebooks, or None for the committed ones.

    Returns:
        The staged table of contents.

    Raises:
        FileNotFoundError: a page that the table of contents lists, or `executed`, is missing.
        ValueError: an executed notebook belongs to no page, so that it would be lost in silence.
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
    for path in [*files, Path("_config.yml"), *bibliographies]:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)

    by_name = {Path(entry["file"]).name: entry for entry in chapters}
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
    (target / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    return toc


def build(source: Path, out: Path) -> Path:
    """Run Jupyter Book on staged sources; returns the path of index.html.

    Raises:
        subprocess.CalledProcessError: a warning or an error; the log above says which.
    """
    html = out / "_build" / "html"
    shutil.rmtree(html, ignore_errors=True)  # a failed build must not leave the last one standing
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    options = ["-W", "-n", "--keep-going", "-q", "--path-output", str(out)]
    subprocess.run([*command, str(source), *options], check=True)
    return html / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Stage and build; 0 if all is well, 1 with a line on stderr if not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--executed", type=Path, help="folder of executed notebooks")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    try:
        stage(ROOT, out / "src", options.executed)
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
