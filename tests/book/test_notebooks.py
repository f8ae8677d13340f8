"""The committed notebooks are whole: executed in order, free of errors, and of paths of some machine."""

import json
import re
from pathlib import Path

import pytest

from replication.training.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
WIDEST = 80  # columns of code that a page shows without scrolling sideways
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def problems(notebook: dict) -> list[str]:
    """What a reader, or nbval, would stumble on: nbval compares nothing in a cell that was never run."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    found = []
    if [c.get("execution_count") for c in cells] != list(range(1, len(cells) + 1)):
        found.append("not executed once from top to bottom")
    for cell in cells:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                found.append(f"ends in {output['ename']}")
            if re.search(
                r"(/home/|/root/|/Users/|/tmp/|site-packages|[A-Z]:\\\\)", json.dumps(output.get("text", ""))
            ):
                found.append(f"shows a path of one machine: {''.join(output['text'])[:80]}")
            if {"image/png", "image/svg+xml"} & {*output.get("data", {})} and not cell["metadata"].get(
                "mystnb", {}
            ).get("image", {}).get("alt"):
                found.append(f"a figure without alt text: {''.join(cell['source'])[:60]}")
        wide = [line for line in "".join(cell["source"]).splitlines() if len(line) > WIDEST]
        if wide and cell.get("id") != "first-cell":
            found.append(f"{cell.get('id')}: {len(wide[0])} columns; {WIDEST} fit a page: {wide[0][:60]}")
    if len(notebook["cells"]) > 32:
        found.append(f"{len(notebook['cells'])} cells; one page tells one story")
    if len({"".join(c["source"]) for c in cells}) < len(cells):
        found.append("the same code in two cells")
    if not any("parameters" in c["metadata"].get("tags", []) for c in cells):
        found.append("no parameters cell for papermill")
    if any(k.startswith("papermill") for k in notebook["metadata"]):
        found.append("carries papermill's metadata; commit one executed in place")
    return found


def test_there_are_notebooks():
    assert {p.stem for p in NOTEBOOKS} >= {"04_network", "05_training", "06_table2"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_committed_notebook_is_executed_and_clean(path):
    assert problems(json.loads(path.read_text())) == []


def test_a_stripped_or_failed_notebook_is_noticed():
    notebook = json.loads(NOTEBOOKS[0].read_text())
    run = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    run[-1]["execution_count"] = None
    run[0]["outputs"] = [{"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}]
    assert problems(notebook)[:2] == ["not executed once from top to bottom", "ends in ValueError"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_page_that_takes_a_profile_takes_each(path: Path) -> None:
    """The grid hands its profile to every page that declares one; a page that refuses it stops the book."""
    found = re.findall(r"check_parameters\(globals\(\), .*?\bprofile=(\[[^\]]*\])", code_of(path))
    for allowed in found:
        assert set(eval(allowed, {"PROFILES": PROFILES})) >= set(PROFILES)


def code_of(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
