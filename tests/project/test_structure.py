"""The house: imports run one way, the core stays thin, and each equation of the paper is found."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = {"torch", "numpy", "safetensors"}
# Who may import whom: a room, and those below it.
BELOW = {
    "chslib": (),
    "replication.data": ("chslib",),
    "replication.peers": ("chslib",),
    "replication.training": ("replication.data", "replication.peers", "chslib"),
    "replication.evidence": ("replication.training", "replication.data", "replication.peers", "chslib"),
}
BELOW["replication.scans"] = ("replication.training", *BELOW["replication.training"])
BELOW["replication.analysis"] = ("replication.evidence", "replication.scans", *BELOW["replication.evidence"])
BELOW["replication.figures"] = ("replication.analysis", *BELOW["replication.analysis"])
# The rooms of the data: who may import whom; `names` is everybody's, and none needs torch.
DATA = {"getting": ("reading",), "reading": (), "phantom": (), "fusing": ("reading",), "slices": ()}
LEAVES = (
    "replication.files",
    "replication.memory",
    "replication.provenance",
    "replication.parameters",
)  # everybody's
MODULES = sorted(p for package in ("chslib", "replication") for p in (ROOT / package).rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 300, 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole name of what is imported"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    return next((room for room in BELOW if module == room or module.startswith(room + ".")), None)


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(name_of(p))], ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(name_of(path))
    for module in imported(path):
        if module.startswith(("chslib", "replication.")):
            if room != "chslib" and module.startswith(LEAVES):
                continue
            assert room_of(module) in (room, *BELOW[room]), f"{room} may not import {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "replication/data").rglob("*.py")), ids=name_of)
def test_the_rooms_of_the_data_stand_in_a_row(path: Path) -> None:
    room = path.parent.name
    for module in imported(path):
        assert module.split(".")[0] != "torch", "the data need no torch"
        if module.startswith("replication.data.") and module != "replication.data.names":
            other = module.removeprefix("replication.data.").split(".")[0]
            assert other in ("names", room, *DATA.get(room, ())), f"{room} may not import {module}"


def test_no_two_modules_import_each_other() -> None:
    names = {name_of(path) for path in MODULES}
    needs = {name_of(path): {m for m in imported(path) if m in names} - {name_of(path)} for path in MODULES}
    while free := [name for name, of in needs.items() if not of & set(needs)]:
        for name in free:
            del needs[name]
    assert not needs, f"in a circle, or above one: {sorted(needs)}"


def test_the_core_needs_three_packages_and_is_thin() -> None:
    core = [path for path in MODULES if room_of(name_of(path)) == "chslib"]
    others = {m.split(".")[0] for path in core for m in imported(path)} - set(sys.stdlib_module_names)
    assert others - CORE - {"chslib", "triton"} == set()  # triton comes with torch for a GPU
    assert len(core) <= 13
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in core) <= 1600


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    tree = ast.parse(text)
    assert path.stat().st_size == 0 or ast.get_docstring(tree), (
        "say in its first line what a reader finds there"
    )
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
            if any(getattr(d, "id", "") in ("property", "cached_property") for d in node.decorator_list):
                first = (ast.get_docstring(node) or "").split("\n")[0]
                assert ": " not in first, f"{node.name}: the book takes what stands before a colon for a type"
            code = node.end_lineno - node.lineno + 1 - told  # what its docstring says is no code
            assert code <= LONGEST_FUNCTION, f"{node.name} is longer than a page"


# ---- chslib/README.md: from the paper's number to the code -------------------------------------

ROW = re.compile(
    r"^\| (.+?) \| .+? \| \[`(.+?)`\]\(.+?\): `(\w+)` \| \[`(\w+)`\]\((.+?)\) \| \[.+?\]\((.+?)\) \|$", re.M
)


def test_each_equation_leads_to_its_code_test_and_page() -> None:
    rows = ROW.findall((ROOT / "chslib/README.md").read_text(encoding="utf-8"))
    for place, file, defined, test, tests, page in rows:
        code = (ROOT / "chslib" / file).read_text(encoding="utf-8")
        assert re.search(rf"^(class|def) {defined}\b", code, flags=re.M), (place, file, defined)
        told = (ROOT / "chslib" / tests).read_text(encoding="utf-8")
        assert f"def {test}(" in told and defined in told or "build_network" in told, (place, tests, test)
        assert (ROOT / "chslib" / page).is_file(), (place, page)
    found = set()
    for place, *_ in rows:
        for low, high in re.findall(
            r"(\d+)(?:-(\d+))?", re.sub(r"(Fig|Sec|Table)\S* [\d.]+(, \d+)?", "", place)
        ):
            found |= set(range(int(low), int(high or low) + 1))
    assert found == set(range(1, 16))  # the paper's equations
