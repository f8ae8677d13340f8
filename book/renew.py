"""Bring what is committed up to date with the records: python book/renew.py [NOTEBOOK ...]

Runs each notebook that reads the records from top to bottom, in its place, or those that are named, and makes anew
the first screen of the README and the picture that links show. A notebook that fails keeps what it had.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
READS = re.compile(r"\b(Ours|our_records|comparable)\(")


def reading_records(folder: Path) -> list[Path]:
    """The notebooks of a folder that show what records say."""
    return [path for path in sorted(folder.glob("*.ipynb")) if READS.search(path.read_text(encoding="utf-8"))]


def renew(path: Path) -> None:
    """Run a notebook in its own folder and write it back with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the file stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    language = notebook.metadata["language_info"]  # names the Python that ran it, which is no news
    client.execute()
    notebook.metadata["language_info"] = language
    nbformat.write(notebook, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all that read the records")
    chosen = parser.parse_args(arguments).notebooks
    for path in chosen or reading_records(ROOT / "notebooks"):
        renew(path)
        print(path.name, flush=True)
    if not chosen:
        for script in ("readme.py", "preview.py"):
            subprocess.run([sys.executable, ROOT / "book" / script], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
