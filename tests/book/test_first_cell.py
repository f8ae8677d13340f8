"""A notebook that stands alone gets what it lacks, and nothing in place of what the runtime has."""

import ast
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import first_cell
import pytest

ROOT = Path(__file__).resolve().parents[2]

NEEDED = next(
    ast.literal_eval(node.value)
    for node in ast.walk(ast.parse(first_cell.CODE.read_text(encoding="utf-8")))
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "needed"
)
ADDRESS = "https://example.org/owner/chs-net.git"
IMPORTED_AS = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image"}


# ---- the notebooks -----------------------------------------------------------------------------


def a_repository(root: Path) -> Path:
    """A root with every notebook as it is before the cell is in it, and a CITATION.cff without an address."""
    (root / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = first_cell.read(path)
        notebook["cells"].remove(first_cell.own_cell(notebook))
        for part in (c for cell in notebook["cells"] for c in (cell, *cell.get("outputs", []))):
            if part.get("execution_count"):
                part["execution_count"] -= 1
        (root / "notebooks" / path.name).write_text(json.dumps(notebook))
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (root / "CITATION.cff").write_text(re.sub("^repository-code:.*\n", "", text, flags=re.M))
    return root


def test_the_committed_notebooks_have_the_one_cell() -> None:
    assert first_cell.check(ROOT) == [], "python book/first_cell.py --write brings them up to date"


def test_writing_keeps_the_rest_and_mends_a_changed_cell_or_address(tmp_path: Path) -> None:
    root = a_repository(tmp_path)
    names = sorted(path.name for path in (root / "notebooks").glob("*.ipynb"))
    assert first_cell.check(root) == first_cell.write(root) == names
    assert first_cell.check(root) == first_cell.write(root) == []
    for name in names:
        new, committed = (first_cell.read(of / "notebooks" / name) for of in (root, ROOT))
        first_cell.own_cell(committed)["source"] = first_cell.own_cell(new)["source"]  # the address
        assert new == committed
    path = root / "notebooks" / names[0]
    path.write_text(path.read_text("utf-8").replace('prepare(repository=\\"\\")', "pass"))
    assert first_cell.check(root) == first_cell.write(root) == names[:1]
    citation, text = root / "CITATION.cff", (root / "CITATION.cff").read_text(encoding="utf-8")
    citation.write_text(f"{text}repository-code: {ADDRESS}\n")
    assert first_cell.write(root) == names and f'prepare(repository=\\"{ADDRESS}' in path.read_text("utf-8")
    citation.write_text(f"{text}repository-code: git@example.org:owner/name\n")
    with pytest.raises(ValueError, match="expected https://"):
        first_cell.check(root)


def test_it_needs_what_the_notebooks_and_chslib_import() -> None:
    code = [p for package in ("chslib", "replication") for p in (ROOT / package).rglob("*.py")]
    sources = [p.read_text(encoding="utf-8") for p in code]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in first_cell.read(path)["cells"]:
            if cell["cell_type"] == "code":
                sources.append("".join(line for line in cell["source"] if not line.startswith(("%", "!"))))
    imported = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.split(".")[0])
    # Every kernel has IPython and matplotlib-inline, and a torch for a GPU brings Triton along.
    given = {*sys.stdlib_module_names, "chslib", "replication", "IPython", "matplotlib_inline", "triton"}
    given |= {"onnx", "SimpleITK", "ipyniivue"}  # extras: ONNX, MetaImage and NRRD, JupyterLab
    others = imported - given
    assert {IMPORTED_AS.get(name, name) for name in others} == set(NEEDED)


# ---- the runtime -------------------------------------------------------------------------------

FAKE_PIP = """
import json, pathlib, sys
arguments = sys.argv[1:]
limits = pathlib.Path(arguments[arguments.index("--constraint") + 1]).read_text().split()
print("PIP", json.dumps([arguments, limits]), flush=True)
"""
FAKE_GIT = """#!/bin/sh
echo "GIT $@"
for folder; do :; done
mkdir -p "$folder/replication" "$folder/notebooks"
: > "$folder/_toc.yml"; : > "$folder/replication/__init__.py"
cp "$SOURCE/pyproject.toml" "$folder"
"""
AFTER = (
    "\nimport os, sys, replication\nprint('AFTER', os.getcwd(), replication.__file__, 'prepare' in globals())"
)


class Runtime:
    """A bare Python with invented distributions, git and pip, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.here = folder, folder / "content"
        venv.create(folder / "venv", symlinks=True)
        self.site = next((folder / "venv/lib").glob("python*/site-packages"))
        (self.site / "pip.py").write_text(FAKE_PIP)
        (folder / "bin").mkdir()
        (folder / "bin/git").write_text(FAKE_GIT)
        (folder / "bin/git").chmod(0o755)
        self.here.mkdir()

    def has(self, **versions: str) -> "Runtime":
        for name, version in versions.items():
            info = self.site / f"{name}-{version}.dist-info"
            info.mkdir()
            name = name.replace("_", "-")
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            (info / "RECORD").write_text("")
        return self

    def run(self, address: str = ADDRESS, **environment: str) -> subprocess.CompletedProcess:
        code = first_cell.CODE.read_text(encoding="utf-8")
        code = code.replace(first_cell.EMPTY, f'prepare(repository="{address}")') + AFTER
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "SOURCE": str(ROOT), **environment}
        return subprocess.run(
            [self.folder / "venv/bin/python", "-c", code], cwd=self.here, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip


def calls(done: subprocess.CompletedProcess, kind: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith(kind + " ")]


def everything(**changes: str) -> dict[str, str]:
    return {name.replace("-", "_"): "1.0" for name in NEEDED} | changes


def test_what_is_there_is_neither_fetched_nor_installed(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path).has(**everything())
    done = runtime.run(address="")
    assert done.returncode == 1
    assert "set repository-code in CITATION.cff" in done.stderr and "first_cell.py --write" in done.stderr
    made = ["sh", runtime.folder / "bin/git", runtime.here / "checkout"]
    subprocess.run(made, check=True, env={**os.environ, "SOURCE": str(ROOT)})
    runtime.here /= "checkout/notebooks"
    done = runtime.run()
    assert done.returncode == 0, done.stderr
    assert not calls(done, "GIT") and not calls(done, "PIP")
    (runtime.site / "replication.py").write_text("")  # installed
    runtime.here = tmp_path / "elsewhere"
    runtime.here.mkdir()
    done = runtime.run()
    assert done.stdout == f"AFTER {runtime.here} {runtime.site / 'replication.py'} False\n", done.stderr
    assert list(runtime.here.iterdir()) == []


def test_alone_it_fetches_the_repository_and_installs_what_is_missing(tmp_path: Path) -> None:
    had = everything(torch="2.9.0+cu126", numpy="2.0.2")
    for name in ("lightning", "opencv_python_headless"):
        del had[name]
    runtime = Runtime(tmp_path).has(**had)
    for already_cloned in (False, True):
        done = runtime.run()
        assert done.returncode == 0, done.stderr
        assert len(calls(done, "GIT")) == (not already_cloned)
        ((arguments, limits),) = map(json.loads, calls(done, "PIP"))
        asked = arguments[arguments.index("--constraint") + 2 :]
        assert [a.split(">")[0] for a in asked] == ["lightning", "opencv-python-headless"]
        assert {"torch==2.9.0+cu126", "numpy==2.0.2"} <= set(limits) and len(limits) == len(had)
        cloned = runtime.here / "chs-net"
        assert calls(done, "AFTER") == [f"{cloned / 'notebooks'} {cloned / 'replication/__init__.py'} False"]


def test_binder_installs_the_lock_and_the_package() -> None:
    lines = (ROOT / ".binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    (included,) = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    assert (ROOT / ".binder" / included).resolve() == ROOT / "requirements.lock"
    assert os.access(ROOT / ".binder/postBuild", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".binder/postBuild"], check=True)
