"""The graph of the grid, dry: what runs, behind what, and what does not run again; nothing is trained."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import execution
import pytest
import steps
import yaml

from replication.training.grid import RUNS, campaign
from replication.training.state import State, run_state

ROOT = Path(__file__).resolve().parents[2]
CASCADE = ("table2-lungs", "table2-infection")


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A dry run in `folder` with the local profile."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n",
               "--directory", str(folder), "--profile", str(ROOT / "workflow/local"), "--cores", "2",
               "--quiet", "host"]  # fmt: skip
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=folder)


def plan(folder: Path, *, gpus: int = 1, **config: str) -> dict[str, list[dict[str, str]]]:
    """Rule -> its planned jobs, each as the fields that a dry run prints."""
    limit = ["--resources", f"gpu={gpus}"] if gpus > 1 else []  # one is the profile's
    done = snakemake(folder, *limit, "--config", *(f"{k}={v}" for k, v in config.items()))
    assert done.returncode == 0, done.stdout + done.stderr
    jobs: dict[str, list[dict[str, str]]] = {}
    for block in re.split(r"^(?:local)?rule ", done.stdout + done.stderr, flags=re.M)[1:]:
        fields = dict(re.findall(r"^    (\w+): (.*)$", block, flags=re.M))
        jobs.setdefault(block.split(":")[0], []).append(fields)
    return jobs


def trained(jobs: dict[str, list[dict[str, str]]]) -> dict[str, dict[str, str]]:
    return {job["wildcards"].removeprefix("run="): job for job in jobs.get("train", [])}


def places(folder: Path) -> "steps.Places":
    return steps.Places(
        grid=f"{folder}/_build/smoke/grid", results=f"{folder}/results/smoke", weights=f"{folder}/runs/smoke"
    )


def leave(folder: Path, run: str, *, told: str = "done", record: bool = True, masks: bool = True) -> None:
    """What a run leaves behind; the marker is younger than any store."""
    where = places(folder)
    for path, wanted, text in (
        (Path(where.results, f"{run}.json"), record, "{}"),
        (Path(where.weights, run, "masks.npz"), masks, ""),
        (Path(where.marker(run)), bool(told), told + "\n"),
    ):
        if wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def phantom(folder: Path) -> None:
    for path in (folder / "data/phantom/volumes/ct", folder / "data/phantom/slices/slices.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.name == "ct" else path.write_text("slice_id\n")


# ---- the plan ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The plan of every row, where nothing was made yet."""
    return plan(tmp_path_factory.mktemp("fresh"), gpus=2)


def test_every_run_of_the_scope_is_one_job_that_takes_a_gpu(fresh: dict) -> None:
    jobs = trained(fresh)
    assert sorted(jobs) == sorted(campaign("rows")) and len(fresh["train"]) == len(jobs)
    for run, job in jobs.items():
        assert "gpu=1" in job["resources"].split(", "), run
        assert job["output"].endswith(f"/{run}.txt")
        assert "threads" not in job  # two at a time on two cores: one each


def test_a_second_stage_waits_for_its_first_and_everything_for_the_slices(fresh: dict) -> None:
    cascades = 0
    for run, job in trained(fresh).items():
        first = RUNS[run].first_stage
        wanted = ["data/phantom/slices/slices.csv"] + [f"_build/smoke/grid/{first}.txt"] * bool(first)
        assert job["input"].split(", ") == wanted, run
        cascades += bool(first)
    assert cascades > 10
    assert len(fresh["phantom"]) == len(fresh["fuse"]) == 1 and "check" not in fresh


def test_the_headline_comes_first(fresh: dict) -> None:
    ranks = {run: int(job["priority"]) for run, job in trained(fresh).items()}
    assert sorted(ranks, key=ranks.get, reverse=True) == campaign("rows")


def test_pages_book_and_report_follow_the_runs(fresh: dict) -> None:
    markers = {f"_build/smoke/grid/{run}.txt" for run in campaign("rows")}
    pages = {job["wildcards"].removeprefix("page="): job for job in fresh["page"]}
    listed = steps.notebooks_of(yaml.safe_load((ROOT / "_toc.yml").read_text()), ROOT)
    assert sorted(pages) == sorted(set(listed) - {"05_training"}) and {"04_network", "06_table2"} <= set(
        pages
    )
    assert markers <= set(pages["06_table2"]["input"].split(", "))
    assert not markers & set(pages["04_network"]["input"].split(", "))  # it reads no record
    (book,), (report,) = fresh["book"], fresh["all"]
    assert {job["output"] for job in pages.values()} | markers <= set(book["input"].split(", "))
    assert set(report["input"].split(", ")) == markers | {book["output"]}


def test_only_what_is_missing_runs(tmp_path: Path) -> None:
    phantom(tmp_path)
    for run in CASCADE:
        leave(tmp_path, run)
    leave(tmp_path, "table2-lungs-patient-fold0", masks=False)  # its second stage has yet to read them
    leave(tmp_path, "table2-infection-patient-fold1", told="failed: ValueError: nothing")
    leave(tmp_path, "table2-lungs-patient-fold1")
    leave(tmp_path, "table2-lungs-patient-fold2", record=False)
    leave(tmp_path, "table2-lungs-patient-fold3", told="")  # trained by hand
    jobs = plan(tmp_path, scope="headline")
    kept = {*CASCADE, "table2-lungs-patient-fold1"}
    assert set(trained(jobs)) == set(campaign("headline")) - kept
    assert not {"phantom", "fuse"} & set(jobs)
    assert Path(places(tmp_path).marker("table2-lungs")).is_file()
    assert not Path(places(tmp_path).marker("table2-infection-patient-fold1")).exists()
    assert Path(places(tmp_path).results, "table2-lungs-patient-fold0.json").is_file()  # no record is touched


def test_a_store_of_one_s_own_is_checked_and_runs_can_be_named(tiny_store: Path, tmp_path: Path) -> None:
    jobs = plan(tmp_path, profile="cpu", slices=str(tiny_store), runs="table5-full-infection table4-bu")
    assert set(trained(jobs)) == {*CASCADE, "table4-bu"}  # an alias, its first stage, and a direct run
    assert jobs["check"][0]["input"] == f"{tiny_store}/slices.csv" and "phantom" not in jobs
    for job in trained(jobs).values():
        assert {f"{tiny_store}/slices.csv", "_build/cpu/checked"} <= set(job["input"].split(", "))
        assert job["output"].startswith("_build/cpu/grid/")
        assert job["threads"] == "2"  # one at a time: both cores


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (("scope=everything",), "scope='everything'; expected one of headline, rows, all"),
        (("profile=cpu",), "profile=cpu needs a slice store"),
    ],
)
def test_what_cannot_be_run_is_refused(config: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "--config", *config)
    assert done.returncode != 0
    assert told in done.stdout  # where a dry run speaks


# ---- the steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lungs", "infection", "dropped"),
    [
        ({}, {}, []),
        ({"record": False}, {}, ["table2-lungs"]),
        ({"masks": False}, {}, []),  # nobody has yet to read them
        ({"masks": False}, {"told": ""}, ["table2-lungs"]),
        ({"masks": False}, {"told": "skipped: why"}, ["table2-infection", "table2-lungs"]),
        ({"masks": False}, {"record": False}, ["table2-infection", "table2-lungs"]),
        ({}, {"told": "failed: why"}, ["table2-infection"]),
        ({"told": "failed: why"}, {"told": "skipped: why"}, ["table2-infection", "table2-lungs"]),
    ],
)
def test_a_marker_holds_no_longer_than_its_record(
    lungs: dict, infection: dict, dropped: list[str], tmp_path: Path
) -> None:
    for run, left in zip(CASCADE, (lungs, infection), strict=True):
        leave(tmp_path, run, **left)
    first = {"table2-lungs": None, "table2-infection": "table2-lungs"}
    assert steps.drop_stale(first, places(tmp_path)) == dropped
    assert all(places(tmp_path).ended(run) == "not run" for run in dropped)


def call(folder: Path, step: str, *more: str) -> int:
    where = places(folder)
    folders = ["--grid", where.grid, "--results", where.results, "--weights", where.weights]
    return steps.main([step, *folders, *more])


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Train a run, its notebook replaced by a function of the folder; returns what the marker says."""

    def trained_by(notebook: Callable[[Path], None], *more: str) -> str:
        monkeypatch.setattr(steps, "execute", lambda *_: notebook(tmp_path))
        Path(places(tmp_path).grid).mkdir(parents=True, exist_ok=True)
        run = ("table2-infection", "--log", "log", "--parameter", "run", "table2-infection")
        assert call(tmp_path, "train", *run, *more) == 0
        return places(tmp_path).ended("table2-infection")

    return trained_by


def state(folder: Path) -> State:
    return run_state("table2-infection", profile="smoke", results=folder / "results", runs=folder / "runs")


def ends_well(folder: Path) -> None:
    path = Path(places(folder).results, "table2-infection.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"wall_seconds": 1.0, "evaluation": {"of": "something"}}))


def dies(folder: Path) -> None:
    raise RuntimeError("Kernel\n died")


def dies_with_a_reason(folder: Path) -> None:
    Path(places(folder).weights, "table2-infection", "failed.json").write_text('{"error": "its own words"}')
    dies(folder)


@pytest.mark.parametrize(
    ("notebook", "told", "listed"),
    [
        (ends_well, "done", State("done", seconds=1.0)),
        (dies, "failed: RuntimeError: Kernel died", State("failed", "RuntimeError: Kernel died")),
        (dies_with_a_reason, "failed: RuntimeError: Kernel died", State("failed", "its own words")),
    ],
)
def test_how_a_run_ended_is_told_and_listed(
    notebook: Callable, told: str, listed: State, train: Callable, tmp_path: Path
) -> None:
    assert train(notebook) == told and state(tmp_path) == listed
    if listed.status == "failed":
        os.utime(Path(places(tmp_path).weights, "table2-infection/failed.json"), (0, 0))  # of an earlier try
        assert train(lambda _: None).startswith("failed: FileNotFoundError")  # it left no record
        assert state(tmp_path).reason.startswith("FileNotFoundError")


def test_a_second_stage_is_not_tried_without_its_first(train: Callable, tmp_path: Path) -> None:
    leave(tmp_path, "table2-lungs", told="failed: why")
    told = train(pytest.fail, "--first", "table2-lungs")
    assert told == "skipped: its first stage table2-lungs is failed"
    assert state(tmp_path).status == "not run"


def test_an_interrupt_is_no_failure(train: Callable, tmp_path: Path) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(AssertionError):  # 130, where the fixture expects 0
        train(interrupt)
    assert places(tmp_path).ended("table2-infection") == "not run"
    assert state(tmp_path).status == "not run"


def test_the_report_fails_where_a_run_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    leave(tmp_path, "table2-lungs")
    assert call(tmp_path, "report", "table2-lungs") == 0
    leave(tmp_path, "table4-bu", told="failed: ValueError: why")
    assert call(tmp_path, "report", *CASCADE, "table4-bu") == 1
    told = capsys.readouterr().err
    assert "table4-bu: failed: ValueError: why" in told and "table2-infection: not run" in told
    assert "runs: 1 done, 1 failed, 1 not run" in told


def test_the_book_shows_the_two_runs_only_where_they_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(
        steps.subprocess, "run", lambda c: built.append(c) or subprocess.CompletedProcess(c, 0)
    )
    leave(tmp_path, "table2-lungs-patient-fold0")
    leave(tmp_path, "table2-infection-patient-fold0", told="failed: why")
    for run in ("table2-lungs-patient-fold0", "table2-infection-patient-fold0"):
        Path(places(tmp_path).grid, f"{run}.ipynb").write_text(run)
    (tmp_path / "06_table2.ipynb").write_text("page")
    (tmp_path / "out/notebooks").mkdir(parents=True)
    (tmp_path / "out/notebooks/05_training.ipynb").write_text("of an earlier build")
    out = tmp_path / "out"
    assert call(tmp_path, "book", "--out", str(out), str(tmp_path / "06_table2.ipynb")) == 0
    shown = {path.name: path.read_text() for path in (out / "notebooks").iterdir()}
    assert shown == {"06_table2.ipynb": "page", "05_training_lungs.ipynb": "table2-lungs-patient-fold0"}
    assert built[0][-4:] == ["--executed", out / "notebooks", "--out", out]


def test_a_page_folds_the_values_it_was_given_and_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "id": "a", "execution_count": None, "outputs": [], "source": "slices = ''",
            "metadata": {"tags": ["parameters"]}}  # fmt: skip
    check = {**cell, "id": "b", "metadata": {}, "source": "import os\nassert os.path.exists(slices), slices"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    page, out = tmp_path / "page.ipynb", tmp_path / "out/page.ipynb"
    page.write_text(
        json.dumps({"cells": [cell, check], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )
    execution.execute(page, out, tmp_path / "log", "page", {"slices": str(ROOT / "book")})
    injected = next(
        c
        for c in json.loads(out.read_text())["cells"]
        if "injected-parameters" in c["metadata"].get("tags", [])
    )
    assert (
        'slices = "../book"' in "".join(injected["source"]) and "hide-input" in injected["metadata"]["tags"]
    )


def test_the_profiles_keep_what_resuming_needs() -> None:
    local, slurm = (
        yaml.safe_load((ROOT / f"workflow/{name}/config.yaml").read_text()) for name in ("local", "slurm")
    )
    assert local["resources"] == ["gpu=1"]
    for profile in (local, slurm):
        assert profile["keep-going"] and profile["rerun-incomplete"] and profile["nolock"]
        assert profile["rerun-triggers"] == ["mtime", "input"]
    assert slurm["executor"] == "slurm" and any(s.startswith("train:gpu=") for s in slurm["set-resources"])


def test_the_slurm_script_refuses_whom_it_cannot_serve() -> None:
    script = ROOT / "workflow/one_node_slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    if os.geteuid() == 0:
        done = subprocess.run([script, "restart"], capture_output=True, text=True)
        assert done.returncode == 1 and "unknown argument 'restart'" in done.stderr
    else:
        done = subprocess.run([script], capture_output=True, text=True)
        assert done.returncode == 1 and "needs root" in done.stderr
