"""A notebook that stands alone gets what it lacks, and nothing in place of what the runtime has."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("first_cell", ROOT / "book/first_cell.py")
first_cell = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(first_cell)

NEEDED = next(
    ast.literal_eval(node.value)
    for node in ast.walk(ast.parse(first_cell.CODE.read_text(encoding="utf-8")))
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "needed"
)
ADDRESS = "https://example.org/owner/chs-net.git"
IMPORTED_AS = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image"}


# ---- the notebooks -----------------------------------------------------------------------------


def a_repository(root: Path, address: str = "") -> Path:
    """A root with every notebook and CITATION.cff."""
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for path in (root / "notebooks").glob("*.ipynb"):  # as it is before the cell is in it
        notebook = first_cell.read(path)
        if cell := first_cell.own_cell(notebook):
            notebook["cells"].remove(cell)
            for other in (c for c in notebook["cells"] if c.get("execution_count")):
                other["execution_count"] -= 1
                for output in (o for o in other["outputs"] if o.get("execution_count")):
                    output["execution_count"] -= 1
        path.write_text(json.dumps(notebook))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    citation.pop("repository-code", None)
    (root / "CITATION.cff").write_text(
        yaml.safe_dump(citation | ({"repository-code": address} if address else {}))
    )
    return root


def test_the_committed_notebooks_have_the_one_cell_or_none() -> None:
    with_cell = [
        p.name
        for p in sorted((ROOT / "notebooks").glob("*.ipynb"))
        if first_cell.own_cell(first_cell.read(p))
    ]
    if with_cell:
        assert first_cell.check(ROOT) == [], "python book/first_cell.py --write brings them up to date"


def test_writing_keeps_the_rest_and_the_order_of_execution(tmp_path: Path) -> None:
    root = a_repository(tmp_path, ADDRESS)
    before = {p.name: first_cell.read(p) for p in (root / "notebooks").glob("*.ipynb")}
    assert first_cell.check(root) == first_cell.write(root) == sorted(before)
    assert first_cell.check(root) == first_cell.write(root) == []
    for name, old in before.items():
        new = first_cell.read(root / "notebooks" / name)
        code = [c for c in new["cells"] if c["cell_type"] == "code"]
        assert "".join(code[0]["source"]) == first_cell.cell_source(root)
        assert code[0]["metadata"]["tags"] == ["remove-cell"]
        assert f'prepare(repository="{ADDRESS}")' in "".join(code[0]["source"])
        assert [c["execution_count"] for c in code if c["source"]] == list(range(1, len(code) + 1))
        new["cells"].remove(code[0])
        assert [(c["source"], len(c.get("outputs", []))) for c in new["cells"]] == [
            (c["source"], len(c.get("outputs", []))) for c in old["cells"]
        ]
        for cell in code:
            for output in cell["outputs"]:
                assert output.get("execution_count", cell["execution_count"]) == cell["execution_count"]


def test_a_changed_cell_or_address_is_noticed_and_mended(tmp_path: Path) -> None:
    root = a_repository(tmp_path)
    first_cell.write(root)
    path = min((root / "notebooks").glob("*.ipynb"))
    notebook = first_cell.read(path)
    first_cell.own_cell(notebook)["source"][-1] = "pass"
    path.write_text(json.dumps(notebook))
    assert first_cell.check(root) == [path.name] == first_cell.write(root)
    text = (root / "CITATION.cff").read_text(encoding="utf-8")
    (root / "CITATION.cff").write_text(f"{text}repository-code: {ADDRESS}\n")
    assert len(first_cell.check(root)) == len(list((root / "notebooks").glob("*.ipynb")))
    (root / "CITATION.cff").write_text(f"{text}repository-code: git@example.org:owner/name\n")
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
    given |= {"onnx", "SimpleITK"}  # extras of their own: `weights export --onnx`, MetaImage and NRRD
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
