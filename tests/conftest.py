"""What several test files share: a slice store drawn on the spot, modules with lived-in norms, the book."""

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
PATIENTS, SLICES_EACH, SIDE = 6, 3, 64


def draw_slice(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Two dark lungs in a grey body, and a bright round infection in the left one."""
    y, x = np.mgrid[:SIDE, :SIDE]
    lung = np.zeros((SIDE, SIDE), bool)
    for centre in (20, 44):
        lung |= ((x - centre) / 9) ** 2 + ((y - 32 - rng.integers(-2, 3)) / 18) ** 2 < 1
    radius = rng.integers(3, 7)
    infection = lung & ((x - 20) ** 2 + (y - 30 - rng.integers(-6, 7)) ** 2 < radius**2)
    ct = np.where(lung, 40, 150) + 120 * infection + rng.integers(-15, 16, lung.shape)
    return {"ct": ct.clip(0, 255).astype(np.uint8), "lung": lung, "infection": infection}


def write_store(folder: Path) -> Path:
    """Eighteen 64x64 slices of six patients from two sources."""
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("ct", "lung", "infection"):
        (folder / kind).mkdir(parents=True)
    for patient in range(PATIENTS):
        source = "coronacases" if patient < 3 else "radiopaedia"
        for index in range(SLICES_EACH):
            name = f"{source}_{patient}_{index}"
            images = draw_slice(rng)
            for kind, pixels in images.items():
                Image.fromarray(pixels).save(folder / kind / f"{name}.png")
            rows.append(
                {
                    "slice_id": name, "source": source, "volume": f"{source}_{patient}",
                    "patient": f"{source}_{patient}", "slice_index": index,
                    **{kind: f"{kind}/{name}.png" for kind in images},
                    "lung_pixels": images["lung"].sum(), "infection_pixels": images["infection"].sum(),
                }
            )  # fmt: skip
    with open(folder / "slices.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    told = {
        "preparation": "window",
        "window": [-1250.0, 250.0],
        "size": SIDE,
        "stated": {"name": "drawn slices"},
    }
    (folder / "store.json").write_text(json.dumps(told))
    return folder


# Files that take long, the longest first, so that no worker is left alone with one at the end.
SLOW = (
    "test_pages.py", "test_reproduce_page.py", "test_run.py", "test_end_to_end.py", "test_fast_fit.py", "test_release.py",
    "test_campaign.py", "test_killed.py", "test_own_network.py", "test_wheel.py", "test_first_cell.py",
    "test_book_machinery.py", "test_thresholds.py", "test_workflow.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files and the notebooks first, those that wait for the built book last."""
    waiting = {item.path for item in items if "built" in getattr(item, "fixturenames", ())}

    def rank(item: pytest.Item) -> tuple[int, bool]:
        first = SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW)
        return first + (item.path.suffix == ".py"), item.path in waiting

    for item in items:
        if item.path.name in SLOW or item.path in waiting or "trained" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory) -> Path:
    """A good store; tests read it only."""
    return write_store(tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture
def store(tiny_store, tmp_path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


TINY = {
    "name": "tiny", "size": 32, "widths": (4, 6, 9), "batch_size": 2, "max_epochs": {"lungs": 3, "infection": 3},
    "learning_rate": 0.07,  # with another, three epochs would predict nothing, and nothing would be compared
    "threads": 1, "worth": "nothing",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """A profile of that name, for trainings of a second."""
    from replication.training.profiles import PROFILES, Profile

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", Profile(**TINY))
        yield PROFILES["tiny"]


@pytest.fixture(scope="session")
def trained(tiny_store, tmp_path_factory) -> SimpleNamespace:
    """Both stages of the cascade and a run beyond the paper's recipe, trained by `tiny`; tests read the folder only."""
    from replication.training.profiles import PROFILES, Profile
    from replication.training.run import train_run

    folder = tmp_path_factory.mktemp("trained")
    where = {"slices": tiny_store, "results": folder / "results", "runs": folder / "runs"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", Profile(**TINY))
        records = {
            name: train_run(name, profile="tiny", progress=False, **where)
            for name in ("table2-lungs", "table2-infection", "beyond-unet")
        }
    return SimpleNamespace(folder=folder, records=records, **where)


@pytest.fixture
def settled() -> Callable[[nn.Module], nn.Module]:
    """Turns a module to float64 evaluation with batch norms that have seen something.

    A fresh norm is nearly the identity when evaluated, and would hide a wrong one.
    """

    def settle(module: nn.Module) -> nn.Module:
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            for tensor, low, high in (
                (norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5),
                (norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 1.5),
            ):  # fmt: skip
                nn.init.uniform_(tensor, low, high)
        return module.double().eval()

    torch.manual_seed(0)
    return settle


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the book's HTML, built once from the committed notebooks, without a network.

    CHS_BOOK names one that stands, for work on the tests of its pages.
    """
    if standing := os.environ.get("CHS_BOOK"):
        return Path(standing)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return build_book(tmp_path_factory.mktemp("book"))
    shared = tmp_path_factory.getbasetemp().parent / "book"  # of all workers; the first that comes builds it
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        index = shared / "_build/html/index.html"
        return index.parent if index.is_file() else build_book(shared)


def build_book(out: Path) -> Path:
    """Build the committed notebooks' book without a network; the folder of its HTML."""
    nowhere = "http://127.0.0.1:9"  # a request to any other host fails, and -W reports it
    offline = {f"{scheme}_proxy": nowhere for scheme in ("http", "https", "HTTP", "HTTPS")}
    command = [sys.executable, str(ROOT / "book/build.py"), "--out", str(out)]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    index = Path(done.stdout.splitlines()[-1])
    assert index.is_absolute() and index.is_file()
    return index.parent
