"""A campaign: runs in their order within a time, what fails or is cut short, what comes back, and what it imports."""

import json
import os
import subprocess
import sys
import tarfile
import time
import weakref
from pathlib import Path

import pytest
import torch

from replication.cli import main
from replication.evidence.records import read_record
from replication.provenance import environment
from replication.training import campaign, fit
from replication.training import run as train
from replication.training.fast_fit import key_of
from replication.training.grid import get_run, with_first_stages
from replication.training.networks import make_network
from replication.training.profiles import get_profile

pytestmark = pytest.mark.usefixtures("tiny")
FIRST, SECOND = "table2-lungs", "table2-infection"
# What a lent machine has not, and a training does not need.
ABSENT = ("papermill", "monai", "nibabel", "snakemake")


def asked(folder: Path, slices: Path, *more: str) -> list[str]:
    """A campaign's command line, with results and runs below one folder."""
    places = ("--slices", str(slices), "--results", str(folder / "results"), "--runs", str(folder / "runs"))
    return ["campaign", "--profile", "tiny", *places, *more]


def record(folder: Path, name: str) -> dict:
    return read_record(folder / "results" / "tiny" / f"{name}.json")


def test_a_second_stage_comes_behind_the_first_that_feeds_it_once():
    assert with_first_stages([SECOND, "table4-bu", FIRST, "table4-bu"]) == [FIRST, SECOND, "table4-bu"]
    assert with_first_stages(["table5-full-infection"]) == [FIRST, SECOND]  # by their own names
    with pytest.raises(ValueError, match="Unknown run 'table9'"):
        with_first_stages(["table9"])


def test_a_machine_that_is_lent_trains_in_order_and_packs_what_comes_back(tiny_store, tmp_path):
    for name in ABSENT:
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text(f"raise ImportError('no {name} here')")
    command = asked(
        tmp_path,
        tiny_store,
        "--minutes",
        "30",
        "--not-repeatable",
        "--pack",
        str(tmp_path / "out"),
        "--names",
    )
    done = subprocess.run(
        [sys.executable, "-m", "replication", *command, "table3-miniseg", FIRST, "--profile", "smoke"],
        capture_output=True, text=True,
        env=os.environ | {"CHSLIB_COMMIT": "0" * 40, "PYTHONPATH": str(tmp_path / "blocked")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    assert told.index("done  table3-miniseg") < told.index(f"begin {FIRST}") and told.endswith("2 done\n")
    became = json.loads((tmp_path / "out/became.json").read_text())
    assert became == dict.fromkeys(("table3-miniseg", FIRST), "done")
    with tarfile.open(tmp_path / "out/runs0.tar") as archive:
        archive.extractall(tmp_path / "back", filter="data")
    for name in became:
        back = read_record(tmp_path / "back/results/smoke" / f"{name}.json")
        assert back["commit"] == "0" * 40 and back["repeatable"] is False and back["fit"]["form"] == "eager"
        assert (tmp_path / "back/runs/smoke" / name / "masks.npz").is_file()
        weights = tmp_path / "back/runs/weights/smoke" / f"{name}.safetensors"
        assert weights.is_file() == (name != "table3-miniseg")  # which chslib does not build


def test_what_fails_is_told_of_and_holds_up_only_what_it_feeds(tmp_path, tiny_store, monkeypatch, capsys):
    def broken(run, profile):
        if run.name == FIRST:
            raise ValueError("no luck today")
        return make_network(run, profile)

    monkeypatch.setattr(train, "make_network", broken)
    assert main(asked(tmp_path, tiny_store, "--names", SECOND, "table4-bu")) == 1
    told = capsys.readouterr().out
    assert f"{FIRST} failed: ValueError: no luck today" in told and f"begin {SECOND}" not in told
    assert record(tmp_path, "table4-bu")["fit"]["epochs"] == 3 and "1 failed, 1 not run, 1 done" in told
    assert main(asked(tmp_path, tiny_store, "--names", "table4-bu")) == 0
    told = capsys.readouterr().out
    assert "begin" not in told and told.endswith("1 done\n"), "what is done is not begun again"


def test_out_of_time_or_interrupted_it_goes_on_and_ends_as_an_unbroken_run(
    tmp_path, trained, monkeypatch, capsys
):
    names = ("--names", FIRST)
    assert main(asked(tmp_path, trained.slices, *names, "--minutes", "1e-6")) == 0
    assert f"left out {FIRST}" in capsys.readouterr().out  # too late to begin anything
    late = train.train_run(
        FIRST, profile="tiny", slices=trained.slices, results=tmp_path / "results", runs=tmp_path / "runs",
        progress=False, deadline=0.0,
    )  # fmt: skip
    assert late["fit"]["out_of_time"] and not late["fit"]["stopped_early"] and late["fit"]["epochs"] == 1
    assert record(tmp_path, FIRST) == late

    def interrupt(_, trainer, __):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit.History, "on_train_epoch_start", interrupt)
        assert main(asked(tmp_path, trained.slices, *names)) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert main(asked(tmp_path, trained.slices, "--minutes", "60", "--names", SECOND)) == 0
    on = record(tmp_path, FIRST)
    assert on["fit"]["epochs"] == 3 and "out_of_time" not in on["fit"] and "repeatable" not in on
    assert on["fit"]["history"][0] == late["fit"]["history"][0]
    for name in (FIRST, SECOND):
        assert record(tmp_path, name)["weights_sha256"] == trained.records[name]["weights_sha256"]


def test_without_checkpoints_only_what_can_end_is_begun(tmp_path, monkeypatch):
    """The epochs of an architecture's first run tell how long the next one takes."""
    monkeypatch.setattr(campaign, "read_store", lambda *_, **__: None)
    begun, paper = [], get_profile("paper").max_epochs["infection"]

    def trained_in(name, *, deadline, **_):
        assert 0 < deadline - time.time() < first + 60  # behind it no epoch is begun
        begun.append(name)
        fit = {"history": [{"seconds": 1.0}], "stopped_early": False, "best_epoch": 1, "epochs": 1}
        return {"run": name, "fit": fit, "test": {"pooled": {"dsc": 0.5}}, "wall_seconds": 0}

    monkeypatch.setattr(campaign, "train_run", trained_in)
    names = ["table4-bu", "table4-bu-seed1", "table4-full"]
    first = campaign.FIRST_EPOCH + paper * campaign.EPOCH + campaign.ENDING
    again = paper * 1.0 + campaign.ENDING
    where = {"profile": "paper", "results": tmp_path, "runs": tmp_path, "slices": "", "repeatable": False}
    for seconds, expected in ((again, []), (first + 60, names)):
        campaign.train_all(names, minutes=seconds / 60, **where)
        assert begun == expected
    run, settings = get_run("table4-bu-seed1"), get_profile("paper")
    assert campaign.needed(run, settings, {key_of(get_run("table4-bu"), settings): 1.0}) == again


def test_what_no_later_run_has_is_given_back(tmp_path, monkeypatch):
    """Graphs and buffers of an architecture go with its last run."""
    monkeypatch.setattr(campaign, "read_store", lambda *_, **__: None)
    held, networks = [], {}

    def keeps_steps(name, *, fit, **_):
        image = torch.zeros(1, 1, 16, 16)
        steps = fit._for(
            get_run(name), get_profile("smoke"), torch.nn.Conv2d(1, 1, 3, padding=1), (image, image)
        )
        networks[name] = weakref.ref(steps.network)
        held.append([other for other, network in networks.items() if network() is not None])
        raise ValueError("trained elsewhere")

    monkeypatch.setattr(campaign, "train_run", keeps_steps)
    names = ["table4-bu", "table4-full", "table4-bu-seed1", "table3-miniseg"]
    campaign.train_all(names, profile="smoke", slices="", results=tmp_path, runs=tmp_path, repeatable=False)
    assert held == [
        ["table4-bu"],
        ["table4-bu", "table4-full"],
        ["table4-bu", "table4-bu-seed1"],
        ["table3-miniseg"],
    ]


def test_archives_stay_below_their_limit_with_records_first(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "BYTES", 60_000)
    became = {f"r{k}": "done" for k in range(5)} | {"r5": "failed: why", "r6": "not run"}
    for name in became:
        for path, size in ((f"results/p/{name}.json", 100), (f"runs/p/{name}/masks.npz", 20_000)):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(b"x" * size)
    where = {"profile": "p", "results": tmp_path / "results", "runs": tmp_path / "runs"}
    archives, names = campaign.packed(tmp_path / "out", became, **where), []
    for path in archives:
        assert path.stat().st_size <= 60_000
        with tarfile.open(path) as archive:
            names += archive.getnames()
    done = [name for name, state in became.items() if state == "done"]
    assert names == [f"results/p/{n}.json" for n in done] + [f"runs/p/{n}/masks.npz" for n in done]
    assert len(archives) == 3 and json.loads((tmp_path / "out/became.json").read_text()) == became


def test_a_copy_without_git_says_which_commit_it_is(monkeypatch):
    own = environment()["commit"]
    monkeypatch.setenv("CHSLIB_COMMIT", "c" * 40)
    assert environment()["commit"] == "c" * 40 != own


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--names", "table9"], "Unknown run 'table9'"),
        (["--profile", "huge"], "Unknown profile 'huge'"),
        (["--scope", "most"], "scope='most'"),
        ([], "no such folder"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, told, tmp_path, capsys):
    assert main(asked(tmp_path, tmp_path / "nowhere", *arguments)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
