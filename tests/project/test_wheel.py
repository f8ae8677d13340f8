"""The wheel: three dependencies, the default weights, and a tensor segmented where nothing else is installed."""

import os
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CORE = ["numpy", "safetensors", "torch"]
USE = """
import chslib, sys, torch
from chslib import CHSNet, HybridPool2d, RAIUNet, SpectralPool2d, load_pretrained, segmentation_loss
network = load_pretrained()
out = network(torch.rand(1, 1, 64, 64))
assert out.infection.shape == (1, 1, 64, 64) and isinstance(network, CHSNet)
assert "replication" not in sys.modules
print(chslib.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks, so that no leftover of this folder gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    source = folder / "source"
    for name in filter(None, files.decode().split("\0")):
        if name.startswith(("chslib/", "replication/")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, source], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_it_asks_for_three_packages_and_holds_the_default_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(metadata).decode())
        weights = [info for info in archive.infolist() if info.filename.endswith(".safetensors")]
    always = [Requirement(line) for line in told.get_all("Requires-Dist")]
    assert sorted(r.name for r in always if r.marker is None) == CORE
    assert set(told.get_all("Provides-Extra")) == {"study", "formats", "export", "book", "test", "lint"}
    assert len(weights) == 2 and sum(info.file_size for info in weights) < 8e6
    assert {"chslib/py.typed", "replication/evidence/paper_numbers.csv"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"chslib", "replication"}


def test_alone_with_its_dependencies_it_loads_and_segments(wheel: Path, tmp_path: Path) -> None:
    """The wheel beside this environment, in which what the extras bring is not to be found."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    lacking = {Requirement(line).name.lower() for lines in extras.values() for line in lines}
    tops = [top for top, of in packages_distributions().items() if lacking & {name.lower() for name in of}]
    assert {"lightning", "pandas", "matplotlib", "nibabel", "monai", "scipy"} <= set(tops)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({tops})\n")

    def python(*arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)  # fmt: skip

    assert python("-c", USE).stdout.strip() == str(tmp_path / "chslib/__init__.py")
    asked = python("-m", "replication", "list")
    assert asked.returncode == 1 and "Traceback" not in asked.stderr
    assert "pip install chslib[study]" in asked.stderr
