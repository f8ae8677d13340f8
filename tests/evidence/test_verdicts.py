"""Verdicts by hand-worked examples: spreads, scores, counts, claims."""

import math

import pytest

from replication.evidence.estimates import code_answer, parameters
from replication.evidence.ledger import NOT_RUN
from replication.evidence.verdicts import (
    Spread,
    judge_claim,
    judge_parameters,
    judge_same,
    judge_score,
    parse_rule,
    pooled_spread,
)


def test_the_spread_of_one_run_is_pooled_within_rows():
    # By hand: squares about the rows' means are 2 * 0.02^2 and 2 * 0.01^2, their freedom 1 + 2.
    spread = pooled_spread([[0.70, 0.74], [0.80, 0.81, 0.82], [0.5], []])
    assert spread.freedom == 3 and spread.deviation == pytest.approx(math.sqrt((2 * 0.0004 + 2 * 0.0001) / 3))
    assert spread.t() == pytest.approx(3.1824, abs=1e-4)  # Student's table
    assert pooled_spread([[0.5], []]) == Spread() and Spread().t() == 0


def test_a_score_is_judged_by_rounding_and_what_a_further_run_may_be():
    spread = Spread(0.02, 8)  # t is 2.3060 for 8 degrees of freedom

    def verdict(*ours, value="0.88", metric="DSC", spread=spread):
        return judge_score(value, list(ours), metric=metric, spread=spread)

    one = 0.005 + 2.3060 * 0.02 * math.sqrt(2)  # 0.0702
    assert verdict(0.88).tolerance == pytest.approx(one, abs=1e-5)
    # Told apart beyond the tolerance, the same within 0.05, and between them neither.
    found = [verdict(0.88 + d).verdict for d in (-0.071, -0.070, -0.050, 0.050, 0.051, 0.070, 0.071)]
    assert found == [
        "below the paper", "compatible", "reproduced", "reproduced", "compatible", "compatible", "above the paper",
    ]  # fmt: skip
    # However near, a score beyond its tolerance is no reproduction.
    assert verdict(0.91, spread=Spread(0.001, 8)).verdict == "above the paper"
    three = verdict(0.80, 0.81, 0.82)
    assert three.tolerance == pytest.approx(0.005 + 2.3060 * 0.02 * math.sqrt(4 / 3), abs=1e-5)
    assert three.difference == pytest.approx(-0.07) and three.verdict == "below the paper"
    assert "8 degrees of freedom" in three.reason
    # Seeds that happen to agree change nothing: the spread is that of all rows.
    assert verdict(0.82, 0.82).tolerance == verdict(0.7, 0.94).tolerance
    assert verdict(0.885, spread=Spread()).verdict == "reproduced"  # the edge of the rounding
    assert verdict(0.886, spread=Spread()).verdict == "above the paper"
    assert verdict(0.88, metric="JI").verdict == "not comparable"


def test_parameters_and_counts_are_judged_by_rounding_alone():
    assert [judge_parameters("7.9M", n).verdict for n in (7_850_000, 7_849_999, 7_950_001)] == [
        "reproduced", "below the paper", "above the paper",
    ]  # fmt: skip
    assert judge_same("3560", "3560", run=True).verdict == "reproduced"
    assert judge_same("3560", "3560", run=False).verdict == "by construction"
    assert judge_same("3560", "3561", run=True).difference == 1
    assert (
        judge_same("3560", "3561", run=True).verdict == judge_same("a", "b", run=False).verdict == "differs"
    )


def test_a_claim_is_judged_comparison_by_comparison():
    def judge(rule, *, paired=False, **values):
        return judge_claim(rule.replace("A", "table5-bu-infection").replace("B", "table4-bu"),
                           lambda run, metric: values["A" if "5" in run else "B"],
                           None if paired else lambda run, metric: Spread(0.02, 8))  # fmt: skip

    rule = "A DSC > B DSC"
    margin = 2.3060 * 0.02 * math.sqrt(2)  # one comparison of one seed each: 0.0652
    judged, words = judge(rule, A={"": 0.57}, B={"": 0.50})
    assert judged.verdict == "reproduced" and judged.tolerance == pytest.approx(margin, abs=1e-5)
    assert words == "1 of 1 hold, 1 clearly; least +0.070"
    assert judge(rule, A={"": 0.56}, B={"": 0.50})[0].verdict == "undecided"  # holds, not clearly
    assert judge(rule, A={"": 0.44}, B={"": 0.50})[0].verdict == "undecided"
    judged, words = judge(rule, A={"": 0.40}, B={"": 0.50})
    assert judged.verdict == "contradicted" and "1 clearly the other way" in words
    # Means over two seeds need less. That all hold needs no more than that each does; that one fails clearly is asked of
    # three, with t at 1 - 0.025 / 3, 3.0158: then -0.084 is no contradiction, and -0.086 is.
    assert judge(rule, A={"": 0.55, "-seed1": 0.75}, B={"": 0.5, "-seed1": 0.7})[
        0
    ].tolerance == pytest.approx(2.3060 * 0.02, abs=1e-5)
    three = "; ".join([rule] * 3)
    assert judge(three, A={"": 0.57}, B={"": 0.50})[0].verdict == "reproduced"
    found = [judge(three, A={"": 0.50 - d}, B={"": 0.50})[0].verdict for d in (0.084, 0.086)]
    assert found == ["undecided", "contradicted"] and 0.084 < 3.0158 * 0.02 * math.sqrt(2) < 0.086
    # New patients: paired by fold, with the deviation of the differences. t is 12.7062 for two pairs.
    pairs = {"A": {"-f0": 0.51, "-f1": 0.712}, "B": {"-f0": 0.50, "-f1": 0.70, "-f2": 0.9}}
    judged, words = judge(rule, paired=True, **pairs)
    assert judged.difference == pytest.approx(0.011) and judged.verdict == "undecided"
    assert judged.tolerance == pytest.approx(12.7062 * 0.002 / math.sqrt(2) / math.sqrt(2), abs=1e-4)
    assert judge(rule, paired=True, A={"-f0": 0.9}, B={"-f0": 0.5})[0].verdict == "undecided"  # one pair
    for lacking in ({"A": {"": 0.5}, "B": {}}, {"A": {"": 0.5}, "B": {"-seed1": 0.5}}):
        judged, words = judge(rule, **lacking)
        assert judged.verdict == NOT_RUN and "table4-bu" in judged.reason and words == ""
    # Against a bound there is one run's spread, not two.
    assert judge("0.9 > A Rec.", A={"": 0.85})[0].tolerance == pytest.approx(2.3060 * 0.02, abs=1e-5)
    assert judge("0.9 > A Rec.", A={"": 0.85})[0].verdict == "reproduced"
    for bad in ("A DSC", "A DSC > ", "1 > 2", "A DSC > B DSC > A DSC"):
        with pytest.raises(ValueError, match="rule"):
            parse_rule(bad)


def test_two_scores_of_one_run_are_compared_within_each_run():
    # By hand: specificity above accuracy is specificity above recall times the share of infection, 0.02 of 0.1.
    scores = {"Spe.": {"": 0.998, "-seed1": 0.90}, "Rec.": {"": 0.898, "-seed1": 0.80},
              "Acc.": {"": 0.996, "-seed1": 0.898}, "DSC": {"": 0.999, "-seed1": 0.5},
              "JI": {"": 0.999, "-seed1": 0.95}}  # fmt: skip
    judged = {
        metric: judge_claim(f"A Spe. > A {metric}", lambda run, metric: scores[metric], lambda *_: Spread(0.2, 8))[0]
        for metric in ("Rec.", "Acc.", "DSC", "JI", "Spe.")
    }  # fmt: skip
    assert {metric: of.verdict for metric, of in judged.items()} == {
        "Rec.": "reproduced", "Acc.": "reproduced", "DSC": "undecided", "JI": "contradicted", "Spe.": "undecided",
    }  # fmt: skip
    assert judged["Acc."].difference == pytest.approx(0.002)


def test_the_code_answers_for_parameters_settings_and_equation_1():
    assert parameters("table3-unet") == 7_762_465 and parameters("table3-chsnet") == 3_811_478
    answers = {rule: code_answer(rule) for rule in ("filters", "stages", "halving", "ladder", "folds", "eq1")}
    assert answers == {
        "filters": "1x1, 3x3, 5x5", "stages": "four", "halving": "50%", "ladder": "50%", "folds": "5",
        "eq1": "1/r + 1/f^2",
    }  # fmt: skip
    assert code_answer("unheard of") is None
