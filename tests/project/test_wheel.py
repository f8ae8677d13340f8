"""The wheel: three dependencies, the default weights, and a tensor segmented where nothing else is installed."""

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CORE = ["numpy", "safetensors", "torch"]
USE = """
import sys, torch
from chslib import CHSNet, HybridPool2d, RAIUNet, SpectralPool2d, load_pretrained, segmentation_loss
network = load_pretrained()
out = network(torch.rand(1, 1, 64, 64))
assert out.infection.shape == (1, 1, 64, 64) and isinstance(network, CHSNet)
print(sorted({name.split(".")[0] for name in sys.modules}))
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
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def needed(names: list[str]) -> set[str]:
    """Installed distributions that some of them need, by their own word, themselves among them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                try:
                    distribution(requirement.name)
                except PackageNotFoundError:
                    continue
                waiting.append(requirement.name)
    return found


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
    """An empty environment: the wheel, and links to those packages that pip would bring along with it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    brought = needed(CORE)
    for name in brought:
        for top in {file.parts[0] for file in distribution(name).files or [] if file.parts[0] != ".."}:
            source = Path(distribution(name).locate_file(top))
            if source.exists() and not (site / top).exists():
                os.symlink(source, site / top)
    done = subprocess.run(
        [tmp_path / "env/bin/python", "-I", "-c", USE], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    loaded = set(re.findall(r"'(\w+)'", done.stdout))
    assert not loaded & {
        "replication",
        "lightning",
        "pandas",
        "tqdm",
        "matplotlib",
        "nibabel",
        "monai",
        "scipy",
    }
    asked = subprocess.run(
        [tmp_path / "env/bin/python", "-I", "-m", "replication", "list"], capture_output=True, text=True
    )
    assert asked.returncode == 1 and "Traceback" not in asked.stderr
    assert asked.stderr.startswith("error: No module named") and "pip install chslib[study]" in asked.stderr
