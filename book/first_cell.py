"""The first code cell of every notebook, by which it also runs where it stands alone.

    python book/first_cell.py --write    insert it, or bring it up to date, in every notebook
    python book/first_cell.py --check    name the notebooks that lack it or have another; 1 if there are any

Its text is first_cell_code.py, with the repository's address from CITATION.cff (repository-code: the
one place where the owner sets it). The book does not show it (tag remove-cell).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CODE = Path(__file__).with_name("first_cell_code.py")
ID = "first-cell"
EMPTY = 'prepare(repository="")'


def cell_source(root: Path) -> str:
    """The cell's text for the repository in folder `root`.

    Raises:
        ValueError: the address in its CITATION.cff is none that `git clone` takes by https.
    """
    text = CODE.read_text(encoding="utf-8").rstrip("\n")
    address = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8")).get("repository-code", "")
    if address and not address.startswith("https://"):
        raise ValueError(f"CITATION.cff has repository-code: {address}; expected https://...")
    return text.replace(EMPTY, f"prepare(repository={json.dumps(address)})")


def own_cell(notebook: dict[str, Any]) -> dict[str, Any] | None:
    """A notebook's first cell of this kind, or None."""
    return next((cell for cell in notebook["cells"] if cell.get("id") == ID), None)


def update(notebook: dict[str, Any], source: str) -> bool:
    """Insert the cell behind the title, or mend it; the execution counts stay 1 to n.

    Returns:
        Whether anything changed.
    """
    cell = own_cell(notebook)
    lines = source.splitlines(keepends=True)
    if cell is None:
        cells = notebook["cells"]
        for other in (c for c in cells if c.get("execution_count")):
            other["execution_count"] += 1
            for output in other["outputs"]:
                if output.get("execution_count"):
                    output["execution_count"] += 1
        cell = {
            "cell_type": "code", "execution_count": 1, "id": ID, "metadata": {"tags": ["remove-cell"]},
            "outputs": [], "source": lines,
        }  # fmt: skip
        cells.insert(int(cells[0]["cell_type"] == "markdown"), cell)
        return True
    changed = cell["source"] != lines
    cell["source"] = lines
    return changed


def read(path: Path) -> dict[str, Any]:
    """A notebook as it stands in its file."""
    return json.loads(path.read_text(encoding="utf-8"))


def check(root: Path) -> list[str]:
    """Names of the notebooks that lack the cell, or have another."""
    source = cell_source(root)
    found = {path.name: own_cell(read(path)) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    return [name for name, cell in found.items() if cell is None or "".join(cell["source"]) != source]


def write(root: Path) -> list[str]:
    """Update every notebook of a repository; returns the names of those that changed."""
    source, changed = cell_source(root), []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = read(path)
        if update(notebook, source):
            text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")
            changed.append(path.name)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Check or write; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="name the notebooks that lack it or have another")
    what.add_argument("--write", action="store_true", help="insert or update it in every notebook")
    options = parser.parse_args(arguments)
    try:
        names = write(ROOT) if options.write else check(ROOT)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'updated' if options.write else 'without it, or with another'}: {', '.join(names) or 'none'}")
    return 1 if options.check and names else 0


if __name__ == "__main__":
    sys.exit(main())
