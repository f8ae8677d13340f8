"""The grid and its profiles, and what is refused before anything is trained."""

import re
import subprocess
import sys

import pytest

from chslib.data.splits import FOLDS, PROTOCOLS
from chslib.experiments import (
    PROFILES,
    RUNS,
    TARGETS,
    check_inputs,
    get_profile,
    get_run,
    main,
)
from chslib.network import ARMS, CASCADES


def test_every_run_has_a_name_of_its_own_and_known_settings():
    for name, run in RUNS.items():
        assert run.name == name and run.arm in ARMS and run.target in TARGETS
        assert run.protocol in PROTOCOLS and 0 <= run.fold < FOLDS and run.cascade in CASCADES


def test_a_second_stage_is_fed_by_a_first_of_the_same_split():
    for run in RUNS.values():
        assert (run.first_stage is not None) == (run.target == "infection")
        if run.first_stage:
            first = RUNS[run.first_stage]
            assert first.target == "lungs"
            assert (first.protocol, first.fold, first.seed) == (run.protocol, run.fold, run.seed)


def test_table_2_has_three_seeds_and_every_patient_fold_of_both_stages():
    for target in TARGETS:
        runs = [run for name, run in RUNS.items() if name.startswith(f"table2-{target}")]
        assert sorted(r.seed for r in runs if r.protocol == "slice") == [0, 1, 2]
        assert sorted(r.fold for r in runs if r.protocol == "patient") == list(range(FOLDS))


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_fits_the_network_and_has_epochs_for_both_targets(name):
    profile = get_profile(name)
    assert profile.name == name and profile.worth
    assert profile.size % 2 ** (len(profile.widths or range(5)) - 1) == 0
    assert set(profile.max_epochs) == set(TARGETS) and min(profile.max_epochs.values()) > 0


def test_unknown_names_are_told_with_the_known_ones():
    with pytest.raises(ValueError, match="'big'.*smoke, cpu, paper"):
        get_profile("big")
    with pytest.raises(ValueError, match="'table9'.*table2-lungs"):
        get_run("table9")


# ---- check -------------------------------------------------------------------------------------


def test_the_smoke_profile_needs_no_store_and_a_good_store_passes(tiny_store, capsys):
    check_inputs(profile="smoke", slices="")
    check_inputs(profile="cpu", slices=str(tiny_store))
    assert main(["check", "--profile", "cpu", "--slices", str(tiny_store)]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_first_problem_is_named_and_the_rest_are_counted(store):
    for name in ("coronacases_0_0", "coronacases_0_1", "radiopaedia_3_2"):
        (store / "lung" / f"{name}.png").unlink()
    with pytest.raises(ValueError, match=r"coronacases_0_0\.png is missing.*\(and 2 more: python -m chslib"):
        check_inputs(profile="smoke", slices=str(store))
    (store / "slices.csv").unlink()
    with pytest.raises(ValueError, match=r"slices\.csv is missing[^()]*$"):
        check_inputs(profile="cpu", slices=str(store))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["check", "--profile", "big"], "error: Unknown profile 'big'; expected one of smoke, cpu, paper."),
        (["list", "--profile", "big"], "error: Unknown profile 'big'; expected one of smoke, cpu, paper."),
        (["check", "--profile", "paper"], "error: Profile 'paper' needs a slice store: make reproduce"),
        (["check", "--profile", "cpu", "--slices", "nowhere"], "error: nowhere: no such folder"),
        (["check", "--profile", "smoke", "--slices", "nowhere"], "error: nowhere: no such folder"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1


def test_the_command_ends_with_1_and_no_traceback(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "chslib.experiments", "check", "--profile", "cpu", "--slices", tmp_path],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and result.stdout == ""
    assert re.fullmatch(r"error: .*slices\.csv is missing.*\n", result.stderr)


def test_the_list_tells_which_runs_have_a_record(tmp_path, capsys):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "table2-lungs.json").write_text("{}")
    assert main(["list", "--profile", "cpu", "--results", str(tmp_path)]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == list(RUNS)
    assert [line[0] for line in lines if line[2] == "done"] == ["table2-lungs"]
