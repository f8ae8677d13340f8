"""The grid and its profiles, and what is refused before anything is trained."""

from dataclasses import asdict

import pytest

from chslib.network import ARMS, CASCADES
from replication.cli import main
from replication.data.slices.splits import FOLDS, PROTOCOLS
from replication.evidence.ledger import paper_numbers
from replication.peers import PEERS
from replication.training.grid import (
    ALIASES,
    ROWS,
    RUNS,
    SETTINGS,
    TARGETS,
    campaign,
    get_run,
    run_name,
    table_networks,
)
from replication.training.profiles import PROFILES, check_inputs, get_profile
from replication.training.recipe import RECIPES
from replication.training.state import failure_file, run_state

TABLES = {  # rows of each table, and whether its network is a cascade
    "Table 2": (1, True), "Table 3": (6, False), "Table 4": (4, False), "Table 5": (4, True),
}  # fmt: skip


def test_every_run_has_a_name_of_its_own_and_known_settings():
    for name, run in RUNS.items():
        assert run.name == name and (run.arm in ARMS or run.arm in PEERS) and run.target in TARGETS
        assert run.protocol in PROTOCOLS and 0 <= run.fold < FOLDS and run.cascade in (*CASCADES, "truth")
    trainings = {(r.arm, r.target, r.protocol, r.fold, r.seed, r.first_stage, r.cascade, str(r.network), r.recipe, r.loss)
                 for r in RUNS.values()}  # fmt: skip
    assert len(trainings) == len(RUNS), "one training has two names; make one an alias"


def test_the_rows_are_those_of_the_tables_each_with_every_seed_and_fold():
    for table, (count, cascade) in TABLES.items():
        rows = [row for row in ROWS if row.table == table]
        assert len(rows) == count
        for row in rows:
            assert (row.stages == TARGETS) == cascade
            for target in row.stages:
                runs = [get_run(run_name(row, target, suffix)) for suffix in SETTINGS]
                assert sorted(r.seed for r in runs if r.protocol == "slice") == [0, 1, 2]
                assert sorted(r.fold for r in runs if r.protocol == "patient") == list(range(FOLDS))
                assert {r.target for r in runs} == {target}


def test_a_second_stage_is_fed_by_a_first_of_the_same_split_and_a_direct_run_by_none():
    for run in RUNS.values():
        if run.first_stage:
            first = RUNS[run.first_stage]
            assert (first.target, run.target) == ("lungs", "infection")
            assert (first.protocol, first.fold, first.seed) == (run.protocol, run.fold, run.seed)
            if not run.name.startswith("alt-concat"):
                assert (first.arm, first.network) == (run.arm, run.network)
        elif run.target == "infection":
            direct = tuple(row.key for row in ROWS if row.stages == ("infection",) and not row.first)
            assert run.name.startswith((*direct, "alt-truth-"))
    assert RUNS["alt-truth-infection"].cascade == "truth"


def test_what_is_beyond_the_paper_s_recipe_answers_no_number_of_the_paper_and_comes_last():
    beyond = {name for name, run in RUNS.items() if run.recipe}
    assert beyond == {name for name in RUNS if name.startswith("beyond-")}
    assert len(beyond) == 5 * len(SETTINGS)
    assert not beyond & set(paper_numbers()["run"]) and not beyond & set(ALIASES.values())
    rules = " ".join(paper_numbers()["rule"])
    assert "beyond" not in rules
    for scope in ("rows", "all"):
        names = campaign(scope)
        last = [name for name in names if name in beyond]
        assert last and names[-len(last) :] == last and "patient" in last[0]
    assert not beyond & set(campaign("headline"))
    assert all(("recipe" in asdict(run)) == (name in beyond) for name, run in RUNS.items())
    assert {RUNS[name].recipe for name in beyond} <= set(RECIPES)


def test_rows_that_are_one_training_share_it():
    assert get_run("table5-full-infection-seed1") is get_run("table2-infection-seed1")
    assert get_run("table3-unet") is get_run("table4-bu")
    assert get_run("table3-chsnet-patient-fold2") is get_run("table2-infection-patient-fold2")
    assert not set(ALIASES) & set(RUNS) and set(ALIASES.values()) <= set(RUNS)


def test_each_network_of_the_tables_is_named_once_by_its_own_run():
    lungs, infection = (table_networks(target) for target in ("lungs", "infection"))
    assert [*lungs] == ["table2-lungs", "table5-bu-lungs", "table5-rib-lungs", "table5-hp-lungs"]
    assert len(infection) == 12 and not {*lungs, *infection} & ALIASES.keys()
    assert all(len(set(names.values())) == len(names) for names in (lungs, infection))
    assert (infection["table2-infection"], infection["table4-bu"]) == ("CHS-Net", "U-Net, direct")
    assert infection["table5-rib-infection"] == "BU+RIB, two stages"


@pytest.mark.parametrize("scope", ["headline", "rows", "all"])
def test_a_campaign_trains_first_stages_before_what_they_feed(scope):
    names = campaign(scope)
    assert len(set(names)) == len(names) and set(names) <= set(RUNS)
    for name in names:
        first = get_run(name).first_stage
        assert first is None or names.index(first) < names.index(name)
    assert names[:2] == ["table2-lungs", "table2-infection"]


def test_the_widest_campaign_is_everything_and_the_next_has_each_row_under_both_protocols():
    assert set(campaign("all")) == set(RUNS)
    rows = set(campaign("rows"))
    assert rows == {
        n for n in RUNS if not n.endswith(("-seed1", "-seed2", *(f"-fold{k}" for k in range(1, 5))))
    }
    with pytest.raises(ValueError, match="'some'.*headline, rows, all"):
        campaign("some")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_fits_the_network_and_has_epochs_for_both_targets(name):
    profile = get_profile(name)
    assert profile.name == name and profile.worth
    assert profile.size % 2 ** (len(profile.widths or range(5)) - 1) == 0
    assert set(profile.max_epochs) == set(TARGETS) and min(profile.max_epochs.values()) > 0


def test_unknown_names_are_told_with_the_known_ones():
    with pytest.raises(ValueError, match="'big'.*smoke, cpu, paper"):
        get_profile("big")
    with pytest.raises(ValueError, match="'table9'.*table2-infection.*-patient-fold4"):
        get_run("table9")


# ---- check -------------------------------------------------------------------------------------


def test_the_smoke_profile_needs_no_store_and_a_good_store_passes(tiny_store, capsys):
    check_inputs(profile="smoke", slices="")
    check_inputs(profile="cpu", slices=str(tiny_store))
    assert main(["data", "check", str(tiny_store), "--profile", "cpu"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_first_problem_is_named_and_the_rest_are_counted(store):
    for name in ("coronacases_0_0", "coronacases_0_1", "radiopaedia_3_2"):
        (store / "lung" / f"{name}.png").unlink()
    with pytest.raises(
        ValueError, match=r"coronacases_0_0\.png is missing.*\(and 2 more: chs-net data check"
    ):
        check_inputs(profile="smoke", slices=str(store))
    (store / "slices.csv").unlink()
    with pytest.raises(ValueError, match=r"slices\.csv is missing[^()]*$"):
        check_inputs(profile="cpu", slices=str(store))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("data check --profile big", "Unknown profile 'big'; expected one of smoke, cpu, paper, cpu-long, cpu-30, cpu-256."),
        ("list --profile big", "Unknown profile 'big'; expected one of smoke, cpu, paper, cpu-long, cpu-30, cpu-256."),
        ("data check --profile paper", "Profile 'paper' needs a slice store: make reproduce"),
        ("data check nowhere --profile cpu", "nowhere: no such folder"),
        ("data check nowhere --profile smoke", "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_the_list_tells_what_is_done_what_failed_and_how_long_it_took(tmp_path, capsys):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "table2-lungs.json").write_text('{"wall_seconds": 90}')
    failed = failure_file("table4-bu", profile="cpu", runs=tmp_path)
    failed.parent.mkdir(parents=True)
    failed.write_text('{"error": "ValueError: no luck"}')
    where = ["--profile", "cpu", "--results", str(tmp_path), "--runs", str(tmp_path)]
    assert main(["list", *where]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == campaign()
    assert [line for line in lines if "not run" not in line] == [
        "table2-lungs                             slice    done        1.5 min",
        "table4-bu                                slice    failed   ValueError: no luck",
    ]
    assert last == f"cpu: 1 done, 1 failed, {len(RUNS) - 2} not run; 1.5 min"
    assert main(["list", *where, "--names", "--scope", "rows"]) == 0
    assert capsys.readouterr().out.split() == campaign("rows")


def test_a_record_stands_whatever_a_later_try_ran_into_and_a_broken_one_is_told(tmp_path):
    where = {"profile": "cpu", "results": tmp_path / "results", "runs": tmp_path / "runs"}
    record = tmp_path / "results" / "cpu" / "table4-bu.json"
    failed = failure_file("table4-bu", profile="cpu", runs=where["runs"])
    for path in (record, failed):
        path.parent.mkdir(parents=True)
    failed.write_text('{"error": "ValueError: later"}')
    record.write_text('{"wall_seconds": 1}')
    assert run_state("table4-bu", **where).status == "done"
    record.write_text("{")
    state = run_state("table4-bu", **where)
    assert state.status == "failed" and "cannot be read" in state.reason
