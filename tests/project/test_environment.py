"""pyproject.toml, requirements.lock, environment.yml and the Makefile describe one environment."""

import ast
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "requirements.lock", "environment.yml", "Makefile")
# What a user of the project was promised to find installed.
PROMISED = (
    "torch", "jupyterlab", "jupyter-book", "papermill", "matplotlib", "pandas", "nibabel",
    "numpy", "nbval",
)  # fmt: skip
# Import names that differ from the package's.
IMPORTED_AS = {"bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "PIL": "pillow",
               "skimage": "scikit-image", "yaml": "pyyaml"}  # fmt: skip


def direct_requirements(root: Path) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [r for group in project.get("optional-dependencies", {}).values() for r in group]
    return [Requirement(r) for r in project["dependencies"] + extras]


def locked(root: Path) -> list[Requirement]:
    lines = (root / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def problems(root: Path) -> list[str]:
    """Everything in which the four files disagree, a line each."""
    found = []
    lock: dict[str, Requirement] = {}
    for pin in locked(root):
        name = canonicalize_name(pin.name)
        if not re.fullmatch(r"==[^*+,]+", str(pin.specifier)):
            found.append(f"{pin}: expected one exact public version")
        if name.startswith(("nvidia-", "cuda-", "triton")):
            found.append(f"{pin}: belongs to one platform's torch, which names it itself")
        if name in lock:
            found.append(f"{pin}: pinned twice")
        lock[name] = pin

    direct = direct_requirements(root)
    for requirement in direct:
        pin = lock.get(canonicalize_name(requirement.name))
        if pin is None:
            found.append(f"{requirement} is not in requirements.lock")
        elif pin.marker:
            found.append(f"{pin}: a direct dependency is needed everywhere")
        else:
            version = next(iter(pin.specifier)).version
            if not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{pin} is not admitted by {requirement} of pyproject.toml")
        if not any(s.operator in (">=", "==", "~=") for s in requirement.specifier):
            found.append(f"{requirement}: no lower bound")
    names = {canonicalize_name(r.name) for r in direct}
    found += [f"{name} is promised but no dependency" for name in PROMISED if name not in names]

    conda = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip_lines = next((d["pip"] for d in conda if isinstance(d, dict) and "pip" in d), [])
    if pip_lines != ["-r requirements.lock", "-e ."]:
        found.append(f"environment.yml installs {pip_lines}; expected the lock and this package")
    if others := [d for d in conda if isinstance(d, str) and not re.match(r"(python|pip)\b", d)]:
        found.append(f"environment.yml adds {others}, which the lock does not know")

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    admitted = SpecifierSet(project["requires-python"])
    python = next(d for d in conda if isinstance(d, str) and d.startswith("python"))
    by_conda = SpecifierSet(python.removeprefix("python").strip())
    named = [c.rsplit(" ", 1)[1] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)]
    by_make = re.search(r"sys\.version_info < \((\d+), (\d+)\)", (root / "Makefile").read_text())
    oldest = ".".join(by_make.groups()) if by_make else None
    if not named or oldest != min(named, key=Version):
        found.append(f"the Makefile wants Python {oldest} or later; the classifiers name {named}")
    for version in (v for v in (*named, "3.10") if v):
        expected = version in named
        for name, specifier in (("pyproject.toml", admitted), ("environment.yml", by_conda)):
            if specifier.contains(version) != expected:
                found.append(f"{name} says {specifier}: Python {version} is wrongly in or out")
    return found


def test_the_files_agree() -> None:
    assert problems(ROOT) == []


def swap(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / file).read_text()
        assert re.search(old, text, flags=re.M), f"{old!r} is no longer in {file}: mend this test"
        (root / file).write_text(re.sub(old, new, text, count=1, flags=re.M))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swap("requirements.lock", r"^nibabel==.*\n", ""), "nibabel.* is not in"),
        (swap("requirements.lock", r"^torch==[\d.]+", "torch==2.10.0"), "not admitted by torch"),
        (swap("requirements.lock", r"^(torch==[\d.]+)", r"\1+cpu"), "exact public version"),
        (swap("requirements.lock", r"^numpy==", "numpy>="), "exact public version"),
        (swap("requirements.lock", r"\Z", "triton==3.0.0\n"), "triton.* one platform"),
        (swap("requirements.lock", r"\Z", "nvidia-nccl-cu13==2.0\n"), "nvidia.* one platform"),
        (swap("requirements.lock", r"\Z", "numpy==1.0\n"), "pinned twice"),
        (swap("pyproject.toml", r'^  "nbval.*\n', ""), "nbval is promised"),
        (swap("pyproject.toml", r"jupyter-book>=1", "jupyter-book>=2"), "not admitted by jupyter"),
        (swap("pyproject.toml", r"pandas>=[\d.]+", "pandas"), "no lower bound"),
        (swap("pyproject.toml", r'python = ">=3.11"', 'python = ">=3.12"'), "Python 3.11"),
        (swap("environment.yml", r"requirements.lock", "requirements.txt"), "expected the lock"),
        (swap("environment.yml", r"  - pip$", "  - pip\n  - numpy"), "adds"),
        (swap("environment.yml", r">=3.11", ">=3.10"), "Python 3.10"),
        (swap("Makefile", r"\(3, 11\)", "(3, 12)"), "the Makefile wants"),
    ],
)
def test_a_disagreement_is_found(change: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / file)
    change(tmp_path)
    assert any(re.search(told, problem) for problem in problems(tmp_path)), problems(tmp_path)


def test_every_import_is_a_direct_dependency() -> None:
    direct = {canonicalize_name(r.name) for r in direct_requirements(ROOT)}
    missing = {}
    for path in [
        p
        for folder in ("benchmarks", "book", "chslib", "replication", "tests")
        for p in (ROOT / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for name in {m.split(".")[0] for m in modules} - sys.stdlib_module_names:
                package = canonicalize_name(IMPORTED_AS.get(name, name))
                is_ours = name in ("benchmarks", "book", "chslib", "replication", "tests") or any(
                    (folder / f"{name}.py").exists()
                    for folder in (path.parent, ROOT / "workflow", ROOT / "book", ROOT / "tests/scans")
                )
                if package not in direct and not is_ours and package != "triton":  # torch's own, for a GPU
                    missing[package] = path.relative_to(ROOT).as_posix()
    assert missing == {}


def test_this_environment_is_the_locked_one() -> None:
    """The tests ran with the versions that the lock names; torch's +cpu or +cu suffix aside."""
    from importlib.metadata import version

    direct = {canonicalize_name(r.name) for r in direct_requirements(ROOT)}
    differ = {}
    for pin in locked(ROOT):
        if canonicalize_name(pin.name) not in direct:
            continue
        try:
            here = Version(version(pin.name)).public
        except ModuleNotFoundError:
            here = "absent"
        if here == "absent" or not pin.specifier.contains(here, prereleases=True):
            differ[pin.name] = f"{here}, lock {pin.specifier}"
    assert differ == {}, "this is not the environment of requirements.lock; make test installs it"
