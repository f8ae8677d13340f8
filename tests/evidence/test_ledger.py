"""From records to lines, tables and comparisons."""

import numpy as np
import pytest
from made_up import a_record, signed, write
from scipy.stats import t as student_t

from chslib.metrics import evaluate
from replication.evidence.comparisons import at_full_size, differences, gains, scores_of
from replication.evidence.counts import count_answer
from replication.evidence.estimates import COLUMNS, Ours
from replication.evidence.ledger import LEDGER_COLUMNS, NOT_RUN, ledger, paper_numbers
from replication.evidence.steps import steps
from replication.evidence.tables import DRY_RUN, claims, describe, shown_gains, styled, table
from replication.evidence.totals import distinct_scores, totals
from replication.evidence.verdicts import VERDICTS
from replication.figures.scores import plot_arms, plot_parameters


def test_without_records_every_score_and_claim_reads_not_run(tmp_path):
    lines = ledger(tmp_path)
    assert tuple(lines.columns) == LEDGER_COLUMNS and len(lines) == len(paper_numbers())
    assert set(lines["verdict"]) <= set(VERDICTS)
    assert set(lines.query("kind == 'score'")["verdict"]) == {NOT_RUN}
    assert set(lines.query("kind == 'score'")["ours"]) == {NOT_RUN}
    decided = set(lines.query("kind == 'claim' and verdict not in ('not run', 'not checkable')")["id"])
    assert decided == {"eq1-cost"}
    assert lines.set_index("id").loc["t3-chsnet-param", "verdict"] == "below the paper"
    assert "table4-hp" in lines.set_index("id").loc["claim-components-direct", "reason"]
    assert (lines["reason"] != "").sum() >= len(lines) - 2


def test_a_record_answers_its_own_numbers_and_no_others(tmp_path):
    write(tmp_path, a_record("table2-lungs", dsc=0.95))
    lines = ledger(tmp_path).set_index("id")
    answered = lines.query("kind == 'score' and verdict != 'not run'").index
    assert set(answered) == {f"{t}-{m}" for t in ("t2-lungs", "t5-full-lungs")
                             for m in ("acc", "pre", "spe", "rec", "dsc", "ji")}  # fmt: skip
    line = lines.loc["t2-lungs-dsc"]
    assert (line["ours"], line["n"], line["verdict"], line["profile"]) == (
        "0.950",
        1,
        "below the paper",
        "cpu",
    )
    assert line["at"] == "128x128, 2 epochs" and line["records"] == "table2-lungs"
    assert line["new patients"] == NOT_RUN and line["difference"] == pytest.approx(-0.01)
    assert lines.loc["s42-test", "ours"] == "30%" and lines.loc["s42-train", "verdict"] == "by construction"
    assert lines.loc["s41-size", "verdict"] == "differs" and lines.loc["s41-size", "ours"] == "128x128x1"
    # Ten slices of one source are no fused set, whatever their number.
    assert lines.loc["t1-fused-slices", ["ours", "verdict"]].tolist() == ["10", NOT_RUN]


def test_new_patients_stand_beside_and_never_decide(tmp_path):
    for fold in (0, 3):
        write(tmp_path, a_record(f"table2-infection-patient-fold{fold}", dsc=0.6 + fold / 10))
    line = ledger(tmp_path).set_index("id").loc["t2-infection-dsc"]
    assert line["verdict"] == NOT_RUN and line["ours"] == NOT_RUN
    assert line["new patients"] == "0.750 ± 0.212" and line["folds"] == 2
    assert line["patient records"] == "table2-infection-patient-fold0, 3 (cpu)"
    false = ledger(tmp_path).set_index("id").loc["s43-false-positives"]
    assert false["new patients"] == "0.250 ± 0.212"  # 1 - precision


@pytest.mark.parametrize(
    ("trained", "answers"),
    [
        (
            [("cpu", 0.5), ("paper", 0.3)],
            ("0.300", 1, "paper", ""),
        ),  # the worse score, if it is of the larger budget
        ([("cpu", 0.5), ("cpu-long", 0.6), ("cpu-30", 0.4)], ("0.400", 1, "cpu-30", "128x128, 2 epochs")),
        ([("cpu-256", 0.7), ("cpu", 0.5), ("cpu-long", 0.6)], ("0.600", 1, "cpu-long", "128x128, 2 epochs")),
        ([("cpu-256", 0.7)], ("0.700", 1, "cpu-256", "256x256, 2 epochs")),
        ([("cpu-256", 0.7), ("cpu", 0.5)], ("0.500 ± 0.000", 2, "cpu", "128x128, 2 epochs")),
        ([("smoke", 0.7)], (NOT_RUN, 0, "", "")),
    ],
)
def test_of_several_budgets_one_answers_whatever_its_score_and_seeds(tmp_path, trained, answers):
    for profile, dsc in trained:
        write(tmp_path, a_record("table4-bu", profile, dsc=dsc))
    for seed, dsc in ((1, 0.5), (2, 0.54)):  # another row's, which tell the spread of every row
        write(tmp_path, a_record(f"table4-rib-seed{seed}", "cpu", dsc=dsc))
    if ("cpu", 0.5) in trained:
        write(tmp_path, a_record("table4-bu-seed1", "cpu", dsc=0.5))
    lines = ledger(tmp_path).set_index("id")
    assert tuple(lines.loc["t4-bu-dsc", ["ours", "n", "profile", "at"]]) == answers
    if answers[1]:
        freedom = 2 if ("cpu", 0.5) in trained else 1
        assert f"({freedom} degrees of freedom)" in lines.loc["t4-bu-dsc", "reason"]
    assert ledger(tmp_path, profiles=("cpu",)).set_index("id").loc["t4-rib-dsc", "ours"].startswith("0.520")


def test_a_claim_compares_one_budget_and_waits_for_all_its_runs(tmp_path):
    def claim(id):
        return ledger(tmp_path).set_index("id").loc[id, ["ours", "profile", "verdict"]].tolist()

    rows = ("table4-bu", "table4-rib", "table4-hp", "table4-full")
    for run, dsc in zip(rows, (0.4, 0.5, 0.6, 0.7)):
        write(tmp_path, a_record(run, "cpu", dsc=dsc))
    before = claim("claim-components-direct")
    assert before[0].startswith("3 of 3 hold") and before[1] == "cpu"
    # Beside rivals of five epochs this one would turn it round.
    write(tmp_path, a_record("table4-full", "cpu-30", dsc=0.3))
    write(tmp_path, a_record("table4-hp", "cpu-30", dsc=0.9))
    assert claim("claim-components-direct") == before
    assert ledger(tmp_path).set_index("id").loc["t4-full-dsc", "profile"] == "cpu-30"
    scores = scores_of(4, tmp_path)
    assert set(scores["profile"]) == {"cpu"} and gains(scores)["slice"].iloc[-1] == pytest.approx(0.1)
    for run in rows[:2]:
        write(tmp_path, a_record(run, "cpu-30", dsc=0.5))
    assert claim("claim-components-direct")[0].startswith("1 of 3 hold")
    assert claim("claim-components-direct")[1] == "cpu-30"


def out_of_time(run: str, profile: str, *, dsc: float) -> dict:
    record = a_record(run, profile, dsc=dsc)
    record["fit"] |= {"out_of_time": True, "stopped_early": False}
    return signed(record)


def test_what_its_clock_cut_short_answers_no_number_and_is_told_of(tmp_path):
    write(tmp_path, out_of_time("table4-bu", "paper", dsc=0.3))
    assert ledger(tmp_path).set_index("id").loc["t4-bu-dsc", "ours"] == "not run"
    ours = Ours(tmp_path)
    assert ours.refusals == [
        "paper/table4-bu.json does not count: its time ran out after 2 of 30 epochs"
    ] and list(ours.cut_short["paper"]) == ["table4-bu"]
    write(tmp_path, a_record("table4-bu", "cpu", dsc=0.5))
    assert ledger(tmp_path).set_index("id").loc["t4-bu-dsc", ["ours", "profile"]].tolist() == ["0.500", "cpu"]
    rows = at_full_size(tmp_path).set_index("run")
    assert rows.loc["table4-bu", ["protocol", "ended"]].tolist() == ["slice", "out of time"]
    assert rows.loc["table4-bu", "difference"] == pytest.approx(-0.2, abs=1e-3)


def test_of_new_patients_more_folds_go_before_the_preferred_profile(tmp_path):
    for fold in (0, 1, 2):
        write(tmp_path, a_record(f"table4-bu-patient-fold{fold}", "cpu", dsc=0.5))
    write(tmp_path, a_record("table4-bu-patient-fold1", "paper", dsc=0.7))
    assert Ours(tmp_path).best("table4-bu", protocol="patient")[0] == "cpu"
    for fold in (0, 2):
        write(tmp_path, a_record(f"table4-bu-patient-fold{fold}", "paper", dsc=0.7))
    profile, group = Ours(tmp_path).best("table4-bu", protocol="patient")
    assert profile == "paper" and len(group) == 3
    assert Ours(tmp_path).best("table4-rib", protocol="patient") == ("", [])


def test_a_network_is_shown_both_ways_where_both_were_run(tmp_path):
    for run in (
        "table4-bu",
        "table4-bu-seed1",
        "table4-bu-patient-fold2",
        "table4-rib",
        "table3-miniseg-patient-fold0",
    ):
        write(tmp_path, a_record(run, "cpu", dsc=0.5))
    both = Ours(tmp_path).both_ways("infection")
    assert {
        label: {p: [r["run"] for r in of] for p, of in groups.items()} for label, groups in both.items()
    } == {
        "U-Net, direct": {"slice": ["table4-bu", "table4-bu-seed1"], "patient": ["table4-bu-patient-fold2"]}
    }
    assert Ours(tmp_path).both_ways("lungs") == {}


def test_rows_are_compared_within_the_profile_that_has_most_of_them(tmp_path):
    for run, profile, dsc in (("table4-bu", "cpu", 0.5), ("table4-rib", "cpu", 0.6), ("table4-hp", "cpu", 0.7),
                              ("table4-bu", "paper", 0.8)):  # fmt: skip
        write(tmp_path, a_record(run, profile, dsc=dsc))
    scores = scores_of(4, tmp_path)
    assert scores["slice"].iloc[:3].tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert scores["full"].iloc[0] == pytest.approx(0.8) and scores["full"].iloc[1:].isna().all()
    assert ledger(tmp_path).set_index("id").loc["t4-bu-dsc", "profile"] == "paper"
    drawn = plot_arms(scores).axes[0].get_legend_handles_labels()[1]
    assert "ours, random slices, at full size" in drawn
    for run in ("table4-rib", "table4-hp"):
        write(tmp_path, a_record(run, "paper", dsc=0.9))
    scores = scores_of(4, tmp_path)  # as many: the preferred one
    assert scores["slice"].iloc[:3].tolist() == pytest.approx([0.8, 0.9, 0.9]) and scores["full"].isna().all()
    ours = Ours(tmp_path)
    assert ours.alike(["table9-never"]) == "" and list(ours.only("cpu").accepted) == ["cpu"]
    with pytest.raises(ValueError, match="No records of profile 'smoke' here; expected one of paper, cpu"):
        ours.only("smoke")


def test_smoke_never_counts(tmp_path):
    for run in ("table2-lungs", "table2-infection"):
        write(tmp_path, a_record(run, "smoke", dsc=0.96))
    assert set(ledger(tmp_path).query("kind == 'score'")["verdict"]) == {NOT_RUN}
    for profiles in (("smoke",), ("paper", "smoke")):
        with pytest.raises(ValueError, match="smoke records .* never count"):
            ledger(tmp_path, profiles=profiles)
    with pytest.raises(ValueError, match="'tiny'"):
        ledger(tmp_path, profiles=("tiny",))
    dry = table(2, tmp_path, profile="smoke")
    assert dry.loc[("Lungs", f"{DRY_RUN}, random slices, 1 seed"), ["DSC", "verdict"]].tolist() == [
        "0.960",
        DRY_RUN,
    ]
    assert not dry.to_string().count("ours") and not dry["verdict"].str.contains("reproduced").any()
    assert set(claims("09_table5_hierarchical", tmp_path, profile="smoke")["verdict"]) == {DRY_RUN}


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_table_has_every_cell_of_the_paper_and_ours_below_each_row(number, tmp_path, full):
    for folder, seeds, folds in ((tmp_path, "", ""), (full, ", 3 seeds", ", 5 of 5 folds")):
        shown = table(number, folder)
        theirs = shown[shown.index.get_level_values("of") == "paper"]
        heads = [c for c in shown.columns if c not in ("verdict", "records")]
        printed_cells = paper_numbers(f"Table {number}")["value"].tolist()
        assert sorted(theirs[heads].to_numpy().ravel()) == sorted(printed_cells)
        of = shown.index.get_level_values("of")
        assert list(of) == ["paper", f"ours, random slices{seeds}", f"ours, new patients{folds}"] * len(
            theirs
        )
        assert len(shown.columns) + shown.index.nlevels <= 11
        mine = shown[of != "paper"][list(COLUMNS)]
        assert (mine == NOT_RUN).all(axis=None) if folder is tmp_path else (mine != NOT_RUN).all(axis=None)
        assert shown.index.is_unique
        html = styled(shown, name="x")._repr_html_()
        assert html == styled(table(number, folder), name="x")._repr_html_() and "font-weight: bold" in html
    assert {r for r in shown["verdict"] if r} != {NOT_RUN} and "(cpu)" in shown["records"].iloc[1]


def test_table_1_and_unknown_tables(tmp_path):
    shown = table(1, tmp_path)
    assert len(shown) == 8 and shown.index.is_unique and "<table" in styled(shown, name="t")._repr_html_()
    assert {"9", "20", "3560", "2200"} <= set(shown.index.get_level_values("paper"))
    for number in (0, 6):
        with pytest.raises(ValueError, match="Tables 1 to 5"):
            table(number, tmp_path)
    with pytest.raises(ValueError, match="'tiny'.*smoke, cpu, paper"):
        table(2, tmp_path, profile="tiny")


def test_the_full_grid_decides_every_claim(full):
    lines = ledger(full).set_index("id")
    undecided = lines.query("verdict == 'not run'").index
    assert set(undecided) <= {
        "t1-fused-slices",
        "t1-fused-lungs",
        "t1-fused-infection",
        "s15-slices",
        "s41-slices",
        "s42-folds",
    }
    hierarchical = lines.loc["claim-hierarchical"]
    assert hierarchical["verdict"] == "reproduced" and hierarchical["difference"] == pytest.approx(
        0.1, abs=2e-3
    )
    assert (
        hierarchical["new patients"].startswith("4 of 4 hold") and hierarchical["at"] == "128x128, 2 epochs"
    )
    assert "table4-bu-seed2" in hierarchical["records"]
    # Two settings of one network: the first-stage arms differ by 0.1 in the made-up lungs too.
    assert lines.loc["claim-components-lungs", "verdict"] == "reproduced"
    assert lines.loc["claim-bu-background-direct", "verdict"] == "contradicted"


def test_a_fused_set_is_counted_exactly(tmp_path):
    for run in ("table2-lungs", *(f"table2-infection-patient-fold{k}" for k in range(5))):
        record = a_record(run)
        record["data"]["sources"] = {"coronacases": 5, "medseg": 5}
        if run.endswith("fold4"):
            record["slices"][0][1:] = [0, 0, 0, 128**2]
            counts = np.array([row[1:] for row in record["slices"]])
            record["test"] = evaluate(counts, ["a", "b_1", "a"])
        write(tmp_path, signed(record))
    ours = Ours(tmp_path)
    assert (count_answer("slices", ours).number, count_answer("slices", ours).whole) == (10, True)
    assert count_answer("infected slices", ours).number == 14
    assert ledger(tmp_path).set_index("id").loc["t1-fused-slices", "verdict"] == "differs"
    (tmp_path / "cpu" / "table2-infection-patient-fold2.json").unlink()
    assert count_answer("infected slices", Ours(tmp_path)).number is None


def test_rows_are_compared_over_the_seeds_that_both_have(tmp_path):
    scored = {"table4-bu": 0.5, "table4-bu-seed1": 0.7, "table4-rib": 0.6, "table4-hp": 0.65, "table4-hp-seed1": 0.6,
              "table4-bu-patient-fold2": 0.4, "table4-rib-patient-fold3": 0.1}  # fmt: skip
    for run, dsc in scored.items():
        write(tmp_path, a_record(run, "cpu", dsc=dsc))
    scores = scores_of(4, tmp_path)
    added = gains(scores)
    assert added["slice"].iloc[:2].tolist() == pytest.approx([0.1, 0.05])
    assert added["seeds"].tolist() == [1, 1, 0] and added["slice"].isna().tolist() == [False, False, True]
    assert not added["folds"].any() and added["patient"].isna().all()
    whole = differences(scores.iloc[[2]], scores.iloc[[0]])
    assert whole[["slice", "slice_std", "seeds"]].iloc[0].tolist() == pytest.approx([0.025, 0.25 / 2**0.5, 2])
    shown = shown_gains(whole).iloc[0]
    assert shown.tolist() == ["+0.580", "+0.025 ± 0.177 (2)", NOT_RUN]
    assert shown_gains(added)["ours, random slices"].tolist() == ["+0.100 (1)", "+0.050 (1)", NOT_RUN]
    other = scores.assign(profile="paper")
    assert not differences(other, scores)["seeds"].any()


def test_scores_as_numbers_gains_and_figures(tmp_path, full):
    scores = scores_of(5, full).xs("Infection", level="segmentation", drop_level=False)
    assert scores["slice"].tolist() == pytest.approx([0.61, 0.71, 0.81, 0.91])
    assert scores["slice_std"].tolist() == pytest.approx([0.01] * 4) and set(scores["seeds"]) == {3}
    assert gains(scores).index.tolist() == ["+RIB", "+HP", "+SSD"]
    assert gains(scores)["paper"].tolist() == pytest.approx([0.35, 0.18, 0.10])
    assert gains(scores)["slice"].tolist() == pytest.approx([0.1] * 3)
    assert gains(scores_of(4, tmp_path))["slice"].isna().all()
    for folder in (tmp_path, full):
        said = [t.get_text() for axis in plot_arms(scores_of(5, folder)).axes for t in axis.texts]
        assert said == (["ours: not run"] * 2 if folder is tmp_path else [])
        axis = plot_parameters(folder).axes[0]
        assert {"U-Net", "U-Net++", "AU-Net", "Inf-Net", "MiniSeg", "CHS-Net"} <= {
            t.get_text() for t in axis.texts
        }


def test_each_score_counts_once_and_what_says_little_apart(tmp_path):
    for run in ("table2-infection", "table2-infection-seed1", "table4-bu"):
        write(tmp_path, a_record(run, dsc=0.44))
    write(tmp_path, a_record("table4-bu", "paper", dsc=0.44))
    lines = ledger(tmp_path)
    once = distinct_scores(lines).set_index("id")
    # The headline's precision: Tables 2, 3 and 5, the conclusion, and 15 % of Sec. 4.3. U-Net and BU are one run here.
    assert once.loc[["t2-infection-pre", "t2-infection-dsc"], "times"].tolist() == [5, 4]
    assert (once.loc["t3-unet-dsc", "verdict"], once.loc["t4-bu-dsc", "verdict"]) == (
        "reproduced",
        "above the paper",
    )
    assert once.loc["t3-unet-acc", "times"] == 2 and "t4-bu-acc" not in once.index
    # The full-size run has the tolerance of the smaller ones, which alone have two seeds; so it has when they are left out.
    assert once.loc[["t3-unet-dsc", "t2-infection-dsc"], "borrowed"].tolist() == [
        "128x128, up to 5 epochs",
        "",
    ]
    assert Ours(tmp_path).only("paper").spread("infection", "DSC").freedom == 1
    shown = table(3, tmp_path)["verdict"]
    assert "(tolerance of 128x128, up to 5 epochs); of 5" in shown.iloc[1] and "tol" not in shown.iloc[-2]
    found = totals(lines).drop(index="not run")
    assert found["infection, Acc. and Spe."].to_dict()["above the paper"] == 2
    assert (
        found["others, borrowed spread"].sum()
        == found["all"].sum() - 4 - found["others, own spread"].sum()
        == 6
    )
    assert (found["all"] == found.iloc[:, 1:].sum(axis=1)).all()


def test_the_size_of_each_step_is_held_against_ours(tmp_path, full):
    assert len(none := steps(Ours(tmp_path))) == 10 and not none["excluded"].any()
    write(tmp_path, a_record("table4-bu", dsc=0.5))
    write(tmp_path, a_record("table4-rib", dsc=0.5))
    assert not steps(Ours(tmp_path))["excluded"].any()  # no seeds, no bound
    found = steps(ours := Ours(full))
    # By hand: seeds 0.01 apart, so a deviation of 0.01, three of each; t at 1 - 0.025 / 10 for the freedom of all rows.
    spread = ours.spread("infection", "DSC")
    margin = student_t.ppf(1 - 0.0025, spread.freedom) * 0.01 * (2 / 3) ** 0.5
    line = found.loc["Table 4, BU+RIB less BU"]
    assert line[["low", "high"]].tolist() == pytest.approx([0.1 - margin, 0.1 + margin], abs=1e-3)
    # Ours are +0.10 each. Of the paper's, those within this margin and the rounding of two numbers, 0.01:
    assert found["paper"][~found["excluded"]].round(2).tolist() == [0.07, 0.1, 0.13]
    assert line["excluded"] and line["n"] == 3
    # Two seeds 0.02 apart: a deviation of 0.01414, and t at 1 - 0.025 / 10 for a freedom of 2 is 14.089, so a margin of
    # 0.199, and 0.01 for the rounding. The paper's step is 0.36.
    for rib, excluded in ((0.663, False), (0.659, True)):
        for seed, off in (("", -0.01), ("-seed1", 0.01)):
            write(tmp_path, a_record(f"table4-bu{seed}", dsc=0.51 + off))
            write(tmp_path, a_record(f"table4-rib{seed}", dsc=rib + off))
        assert steps(Ours(tmp_path)).loc["Table 4, BU+RIB less BU", "excluded"] == excluded


def test_a_run_in_words():
    described = describe(a_record())
    assert "1,234 parameters" in described["network"] and described["split"] == "whole patients, fold 0 of 5"
    assert described["test patients"] == "a, b_1"
    assert describe(a_record("table2-lungs-seed2"))["test patients"] == "2, 2 of them also trained on"
