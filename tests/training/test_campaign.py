"""A campaign works through its list in order, in lanes, and ends in time; what it cut short goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from replication.cli import main
from replication.evidence.records import read_record
from replication.provenance import environment
from replication.training import campaign, networks
from replication.training import run as train
from replication.training.campaign import HEAVY, Lanes, work
from replication.training.grid import RUNS, with_first_stages
from replication.training.profiles import PROFILES, Profile

TINY = Profile(
    name="tiny", size=32, widths=(4, 6, 9), batch_size=4, learning_rate=0.1,
    max_epochs={"lungs": 3, "infection": 2}, worth="nothing",
)  # fmt: skip
FIRST, SECOND = "table2-lungs", "table2-infection"


@pytest.fixture(autouse=True)
def tiny_profile(monkeypatch):
    monkeypatch.setitem(PROFILES, "tiny", TINY)


@pytest.fixture(autouse=True)
def one_thread():
    """As many as a campaign gives a training on a CPU; another number rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_campaign(folder: Path, slices: Path, *names: str, **how) -> dict[str, str]:
    return work(
        list(names), profile="tiny", slices=slices, results=folder / "results", runs=folder / "runs", **how
    )


def record(folder: Path, name: str) -> dict:
    return read_record(folder / "results" / "tiny" / f"{name}.json")


def test_a_second_stage_comes_behind_the_first_that_feeds_it_once():
    assert with_first_stages([SECOND, "table4-bu", FIRST, "table4-bu"]) == [FIRST, SECOND, "table4-bu"]
    assert with_first_stages(["table5-full-infection"]) == [FIRST, SECOND]  # by their own names
    with pytest.raises(ValueError, match="Unknown run 'table9'"):
        with_first_stages(["table9"])


def test_heavy_and_light_networks_have_lanes_of_their_own():
    assert {RUNS[n].arm for n in (FIRST, "table4-rib", "table4-hp")} == set(HEAVY)
    lanes = Lanes(heavy=1, light=2)
    lanes.busy = {FIRST: None, "table4-bu": None}
    assert not lanes.free("table4-rib") and lanes.free("table3-miniseg")
    lanes.busy["table3-miniseg"] = None
    assert not lanes.free("table3-unetpp")
    one = Lanes(heavy=2, light=0)
    one.busy = {FIRST: None, "table4-bu": None}
    assert not one.free("table3-miniseg") and not one.free("table4-rib")


def test_every_run_is_trained_as_alone_and_not_again(tmp_path, tiny_store, capsys):
    asked = (SECOND, "table4-bu", "table3-miniseg")
    done = a_campaign(tmp_path / "a", tiny_store, *asked, heavy=2, light=1)
    assert done == dict.fromkeys((FIRST, *asked), "done")
    told = capsys.readouterr().out
    assert told.index(f"done  {FIRST}") < told.index(f"begin {SECOND}") and "4 done, 0 failed" in told
    alone = train.train_run(
        FIRST, profile="tiny", slices=tiny_store, results=tmp_path / "b/results", runs=tmp_path / "b/runs",
        progress=False,
    )  # fmt: skip
    assert record(tmp_path / "a", FIRST)["weights_sha256"] == alone["weights_sha256"]
    assert "epoch 3 of at most 3" in (tmp_path / "a/runs/tiny" / f"{FIRST}.log").read_text()
    assert json.loads((tmp_path / "a/runs/tiny/campaign.json").read_text()) == done
    assert a_campaign(tmp_path / "a", tiny_store, *asked) == done
    assert "0 runs to train, 4 done before" in capsys.readouterr().out


def test_what_fails_is_told_of_and_ends_neither_the_others_nor_waits_for_ever(
    tmp_path, tiny_store, monkeypatch, capsys
):
    real = networks.make_network

    def broken(run, profile):
        if run.name == FIRST:
            raise ValueError("no luck today")
        return real(run, profile)

    monkeypatch.setattr(train, "make_network", broken)
    found = a_campaign(tmp_path, tiny_store, SECOND, "table3-miniseg")
    assert found == {FIRST: "failed", SECOND: "not run", "table3-miniseg": "done"}
    assert f"FAILED {FIRST}: ValueError: no luck today" in capsys.readouterr().out


def test_out_of_time_a_run_is_scored_with_what_it_had_and_goes_on_when_asked_again(
    tmp_path, tiny_store, capsys
):
    found = a_campaign(tmp_path, tiny_store, SECOND, minutes=1e-6)
    assert found == {FIRST: "not run", SECOND: "not run"}  # too late to begin anything
    where = {"results": tmp_path / "results", "runs": tmp_path / "runs", "progress": False}
    first = train.train_run(FIRST, profile="tiny", slices=tiny_store, deadline=time.time(), **where)
    assert first["fit"]["out_of_time"] and not first["fit"]["stopped_early"] and first["fit"]["epochs"] == 1
    assert record(tmp_path, FIRST) == first
    found = a_campaign(tmp_path, tiny_store, FIRST)
    on = record(tmp_path, FIRST)
    assert found == {FIRST: "done"} and on["fit"]["epochs"] == 3 and "out_of_time" not in on["fit"]
    assert on["fit"]["history"][0] == first["fit"]["history"][0]
    whole = train.train_run(
        FIRST, profile="tiny", slices=tiny_store, results=tmp_path / "w", runs=tmp_path / "w", progress=False
    )
    assert on["weights_sha256"] == whole["weights_sha256"]


def test_a_deadline_that_is_far_changes_nothing(tmp_path, tiny_store):
    where = {"results": tmp_path / "results", "runs": tmp_path / "runs", "progress": False}
    made = train.train_run(FIRST, profile="tiny", slices=tiny_store, deadline=time.time() + 3600, **where)
    assert made["fit"]["epochs"] == 3 and "out_of_time" not in made["fit"] and "repeatable" not in made
    other = train.train_run("table4-bu", profile="tiny", slices=tiny_store, repeatable=False, **where)
    assert other["repeatable"] is False


def test_an_interrupted_campaign_leaves_no_process_behind_and_goes_on(tmp_path, tiny_store):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import signal, sys, time\n"
        "from replication.cli import main\nfrom replication.training import fit\n"
        "from replication.training.profiles import PROFILES, Profile\n"
        # A shell that runs the tests in the background hands on that interrupts are ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"PROFILES['tiny'] = Profile(**{vars(TINY)!r})\n"
        "fit.History.on_train_epoch_start = lambda *_: time.sleep(60)\n"
        f"sys.exit(main(['campaign', '--profile', 'tiny', '--slices', {str(tiny_store)!r}, '--names', 'table2-lungs',"
        f" '--results', {str(tmp_path / 'results')!r}, '--runs', {str(tmp_path / 'runs')!r}]))\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-u", str(driver)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while "begin" not in running.stdout.readline():
        assert running.poll() is None, running.stderr.read()
    os.kill(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130 and "interrupted; the same command goes on" in told
    with pytest.raises(ProcessLookupError):  # nobody of its session is left
        os.killpg(running.pid, 0)


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
    given = ["--profile", "tiny", "--slices", str(tmp_path / "nowhere"), "--results", str(tmp_path / "r")]
    assert main(["campaign", *given, "--runs", str(tmp_path / "runs"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_command_passes_its_options_on(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        campaign, "work", lambda names, **how: seen.update(names=names, **how) or {"a": "failed"}
    )
    assert (
        main(
            [
                "campaign",
                "--slices",
                "s",
                "--names",
                FIRST,
                "--minutes",
                "3",
                "--heavy",
                "2",
                "--not-repeatable",
            ]
        )
        == 1
    )
    assert seen["names"] == [FIRST] and (seen["minutes"], seen["heavy"], seen["light"]) == (3, 2, 0)
    assert seen["repeatable"] is False and seen["profile"] == "paper" and seen["results"] == "results/local"
