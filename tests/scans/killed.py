"""`segment`, `fuse` and `train`, killed at random moments: nothing half written, and a rerun ends with the same bytes.

    python tests/scans/killed.py --times 20 --out results/robustness/killed.json

runs each command once unbroken, then again and again with a SIGKILL somewhere between its start and its
usual end. Behind the kill, what stands must be whole by the command's own mark (below); behind the rerun, every
file must be the unbroken one's, to the byte. A run record has times in it: of `train`, weights and
predictions are compared.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
PROGRAM = [sys.executable, "-m", "replication"]


def inputs(folder: Path) -> None:
    """Three drawn scans with masks, one without."""
    from replication.data.phantom.volumes import make_volume, write_phantoms

    write_phantoms(
        folder / "volumes",
        volumes=("coronacases_001", "coronacases_002", "radiopaedia_4_85506_1"),
        depth=8,
        size=96,
    )
    volume = make_volume(name="coronacases_003", seed=0, size=96, depth=6)
    nib.save(nib.Nifti1Image(volume.ct.astype(np.int16), np.diag([-4.0, 4, 20, 1])), folder / "scan.nii.gz")


def commands(given: Path, store: Path) -> dict[str, Callable[[Path], list[str]]]:
    """Each command, writing below a folder."""
    return {
        "segment": lambda out: ["segment", str(given / "scan.nii.gz"), str(out / "masks"), "--weights", "cpu/table2-infection", "--quiet"],
        "fuse": lambda out: ["data", "fuse", "--published", str(given / "volumes"), str(out / "store"), "--size", "128", "--quiet"],
        "train": lambda out: [
            "train", "table3-miniseg", "--profile", "smoke", "--slices", str(store),
            "--results", str(out / "results"), "--runs", str(out / "runs"),
        ],
    }  # fmt: skip


def made(command: str, out: Path) -> dict[str, str]:
    """What a command wrote, each file's sha256 by its name below `out`."""
    patterns = {"segment": ["masks/*"], "fuse": ["store/slices.csv", "store/store.json", "store/*/*.png"],
                "train": ["runs/smoke/*/weights.pt", "runs/smoke/*/masks.npz"]}[command]  # fmt: skip
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in sorted(out.glob(pattern))
    }


def half_written(command: str, out: Path, whole: dict[str, str]) -> Iterable[str]:
    """What a killed command left that a reader would take for whole, and is not."""
    marks = {"segment": "masks", "fuse": "store/slices.csv", "train": "results/smoke/table3-miniseg.json"}
    if (out / marks[command]).exists() and made(command, out) != whole:
        yield f"{marks[command]} stands, and not all that belongs to it"
    for name, sha256 in made(command, out).items():
        if name.endswith((".png", ".csv", "store.json", ".pt", ".npz", ".gz")) and whole.get(name) != sha256:
            yield f"{name} is not whole"


def start(arguments: list[str]) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        PROGRAM + arguments,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(times: int, *, folder: Path, only: Iterable[str] = (), seed: int = 0) -> dict[str, dict]:
    """By command: how often killed, and what was wrong with it."""
    given, store = folder / "given", folder / "given" / "store"
    inputs(given)
    every = commands(given, store)
    assert (
        start(
            ["data", "fuse", "--published", str(given / "volumes"), str(store), "--size", "64", "--quiet"]
        ).wait()
        == 0
    )
    drawn = random.Random(seed)
    told: dict[str, dict] = {}
    for command in only or every:
        began = time.monotonic()
        assert start(every[command](folder / "whole")).wait() == 0, command
        took, whole = time.monotonic() - began, made(command, folder / "whole")
        faults, killed, moments = [], 0, []
        for _ in range(times):
            out = folder / "broken"
            shutil.rmtree(out, ignore_errors=True)
            process, share = start(every[command](out)), drawn.uniform(0.1, 0.99)
            try:
                process.wait(timeout=share * took)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                moments.append(round(share, 3))
            faults += half_written(command, out, whole)
            if start(every[command](out)).wait() != 0:
                faults.append("the rerun failed")
            elif made(command, out) != whole:
                faults.append("the rerun ended with other bytes")
            elif command == "fuse" and any(out.rglob("*.png.part")):
                faults.append("the rerun left a part of a file")
        told[command] = {
            "files": len(whole),
            "times": times,
            "killed": killed,
            "at": sorted(moments),
            "faults": faults,
        }
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    from replication.files import write_json
    from replication.provenance import digest, environment

    with tempfile.TemporaryDirectory() as folder:
        told = run(options.times, folder=Path(folder), seed=options.seed)
    record = {"seed": options.seed, "commands": told, **environment()}
    write_json(options.out, record | {"digest": digest(record)})
    print(told)
    return int(any(of["faults"] for of in told.values()))


if __name__ == "__main__":
    sys.exit(main())
