"""A lease, rehearsed on a CPU: the script, runs in their order, what comes back, and what it imports."""

import json
import os
import subprocess
import sys
import tarfile
import weakref
from pathlib import Path

import pytest
import torch

from replication.evidence.records import read_record
from replication.training import lease
from replication.training.fast_fit import FastFits, key_of
from replication.training.grid import get_run, with_first_stages
from replication.training.profiles import get_profile

ROOT = Path(__file__).resolve().parents[2]
RUNS = ("table2-infection", "table4-bu")  # the first brings its first stage along
# What a lent machine has not, and a training does not need.
ABSENT = ("papermill", "monai", "nibabel", "snakemake")


def test_the_list_names_runs_of_the_grid_once_each():
    assert len(set(lease.LIST)) == len(lease.LIST) and lease.LIST[0] == "table2-infection"
    assert set(with_first_stages(list(lease.LIST))) >= set(lease.LIST)


def test_the_script_trains_in_order_and_packs_what_comes_back(tiny_store, tmp_path):
    script = ROOT / "workflow/lease.sh"
    assert len(script.read_text()) < 2000
    blocked = tmp_path / "blocked"
    for name in ABSENT:
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('a lease has no {name}')")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin/python3").chmod(0o755)
    work = tmp_path / "work"
    (work / "workflow").mkdir(parents=True)
    (work / "workflow/lease.sh").symlink_to(script)
    for package in ("chslib", "replication"):
        (work / package).symlink_to(ROOT / package)
    done = subprocess.run(
        ["bash", work / "workflow/lease.sh", tiny_store, "30", *RUNS], capture_output=True, text=True, cwd=work,
        env=os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "OUT": str(tmp_path / "out"), "PROFILE": "smoke",
            "CHSLIB_COMMIT": "0" * 40, "PYTHONPATH": f"{blocked}:{work}", "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    became = json.loads((tmp_path / "out/became.json").read_text())
    assert became == dict.fromkeys(("table2-lungs", *RUNS), "done")
    archives = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in archives] == ["masks0.tar", "records0.tar", "weights0.tar"]
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "back", filter="data")
    for name in became:
        record = read_record(tmp_path / "back/results/smoke" / f"{name}.json")
        assert record["commit"] == "0" * 40 and record["repeatable"] is False
        assert (tmp_path / "back/runs/smoke" / name / "masks.npz").is_file()
        assert (tmp_path / "back/runs/weights/smoke" / f"{name}.safetensors").is_file()


def test_a_run_that_cannot_end_is_not_begun_and_one_that_failed_holds_up_no_other(
    tiny_store, tmp_path, capsys, monkeypatch
):
    store = lease.read_store(tiny_store, size=64, progress=False)
    where = {
        "profile": "smoke",
        "slices": str(tiny_store),
        "results": str(tmp_path / "r"),
        "runs": str(tmp_path / "w"),
    }
    became = lease.train_list(list(RUNS), store, minutes=0.1, **where)
    assert set(became.values()) == {"not run"} and "left out table2-lungs" in capsys.readouterr().out
    monkeypatch.setattr(lease, "train_run", lambda name, **_: (_ for _ in ()).throw(ValueError("no luck")))
    became = lease.train_list(list(RUNS), store, minutes=60, **where)
    assert became["table2-lungs"] == became["table4-bu"] == "failed: ValueError: no luck"
    assert became["table2-infection"] == "not run"


def test_what_no_later_run_has_is_given_back(tmp_path, monkeypatch):
    held, networks = [], {}

    def train(name, store, fits, *_):
        image, run, smoke = torch.zeros(1, 1, 16, 16), get_run(name), get_profile("smoke")
        steps = fits._for(run, smoke, torch.nn.Conv2d(1, 1, 3, padding=1), (image, image))
        networks[name] = weakref.ref(steps.network)
        del steps
        held.append(len(fits._steps))
        return "failed"

    monkeypatch.setattr(lease, "_train", train)
    where = {"slices": "", "results": str(tmp_path), "runs": str(tmp_path)}
    names = ["table4-bu", "table4-full", "table4-bu-seed1", "table3-miniseg"]
    lease.train_list(names, None, profile="smoke", minutes=60, **where)
    assert held == [1, 2, 1, 1]
    assert networks["table4-full"]() is None and networks["table4-bu"]() is None  # no second holder


def test_what_a_run_needs_follows_the_epochs_that_were_measured():
    fits, paper = FastFits(), get_profile("paper")
    first = lease.need("table4-full", "paper", fits)
    fits.seconds[key_of(get_run("table4-full"), paper)] = 1.5
    assert first > lease.need("table4-full-seed1", "paper", fits) == 30 * 1.5 + lease.ENDING


def test_archives_stay_below_their_limit_and_what_is_over_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease, "BYTES", 60_000)
    monkeypatch.setattr(lease, "FILES", 4)
    for k in range(5):
        for path, size in (
            (tmp_path / f"results/p/r{k}.json", 100),
            (tmp_path / f"runs/p/r{k}/masks.npz", 20_000),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
    packed = lease.pack(
        tmp_path / "out", {"r0": "done"}, results=tmp_path / "results", runs=tmp_path / "runs", profile="p"
    )
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert [p.name for p in packed] == ["records0.tar", "masks0.tar", "masks1.tar"]
    assert all(p.stat().st_size <= 60_000 for p in packed)
    assert capsys.readouterr().out.strip() == "left out: p/r4/masks.npz"


@pytest.mark.parametrize("arguments", [["--slices", "nowhere"], ["--slices", "nowhere", "--names", "table9"]])
def test_it_refuses_in_one_line(arguments, capsys, tmp_path):
    assert lease.main([*arguments, "--minutes", "1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
