"""The paper's numbers, as typed, and its rules."""

import pytest

from replication.evidence.estimates import COLUMNS
from replication.evidence.ledger import KINDS, paper_numbers
from replication.evidence.verdicts import (
    judge_claim,
    parse_rule,
    printed,
)
from replication.training.grid import ROWS, get_run

# Read from the paper's text a second time, row by row.
PRINTED = {
    ("Table 2", "Lungs"): ["0.99 0.97 0.99 0.95 0.96 0.98"],
    ("Table 2", "COVID-19"): ["0.96 0.85 0.97 0.92 0.88 0.96"],
    ("Table 3", "Infection"): [
        "0.94 0.38 0.84 0.52 0.44 0.59", "0.95 0.67 0.90 0.71 0.69 0.77", "0.95 0.67 0.98 0.76 0.71 0.78",
        "0.95 0.74 0.98 0.76 0.75 0.81", "0.96 0.69 0.97 0.85 0.76 0.82", "0.96 0.85 0.97 0.92 0.88 0.96",
    ],
    ("Table 4", "Infection"): [
        "0.68 0.04 0.80 0.28 0.07 0.25", "0.75 0.55 0.90 0.35 0.43 0.50",
        "0.88 0.63 0.95 0.68 0.65 0.68", "0.92 0.69 0.96 0.75 0.72 0.77",
    ],
    ("Table 5", "Lungs"): [
        "0.92 0.73 0.95 0.78 0.75 0.77", "0.98 0.85 0.98 0.88 0.86 0.90",
        "0.98 0.91 0.99 0.92 0.91 0.94", "0.99 0.97 0.99 0.95 0.96 0.98",
    ],
    ("Table 5", "Infection"): [
        "0.75 0.21 0.80 0.32 0.25 0.28", "0.88 0.68 0.94 0.53 0.60 0.64",
        "0.95 0.75 0.95 0.81 0.78 0.85", "0.96 0.85 0.97 0.92 0.88 0.96",
    ],
}  # fmt: skip


def test_every_cell_of_tables_1_to_5_is_present_as_printed():
    for (name, segmentation), rows in PRINTED.items():
        scores = paper_numbers(name).query("segmentation == @segmentation and kind == 'score'")
        found = scores.groupby("row", sort=False).apply(
            lambda cells: " ".join(cells.set_index("metric")["value"][list(COLUMNS)]), include_groups=False
        )
        assert list(found) == rows, (name, segmentation)
    assert [len(paper_numbers(f"Table {n}")) for n in range(1, 6)] == [8, 12, 42, 24, 48]
    counts = paper_numbers("Table 3").query("metric == 'Param.'")["value"]
    assert list(counts) == ["7.9M", "9M", "8.7M", "33M", "472K", "4.2M"]
    assert sorted(paper_numbers("Table 1").query("kind == 'count'")["value"]) == [
        "20",
        "2200",
        "3560",
        "3560",
        "9",
    ]
    concluded = paper_numbers().query("place == 'Sec. 5'").set_index("metric")["value"]
    assert list(concluded[["Acc.", "Pre.", "Rec.", "Spe.", "DSC", "JI"]]) == "96% 85% 92% 97% 88% 96%".split()


def test_each_number_is_answered_by_the_run_of_its_own_row():
    numbers = paper_numbers()
    assert numbers["id"].is_unique and set(numbers["kind"]) == set(KINDS)
    for number in numbers.to_dict("records"):
        if number["run"]:
            run = get_run(number["run"])
            assert run.seed == 0 and run.protocol == "slice"
            lungs = number["segmentation"] == "Lungs" or number["kind"] in ("setting", "count")
            assert lungs or run.target == "infection", number["id"]
            if number["segmentation"] == "Lungs":
                assert run.target == "lungs", number["id"]
        if number["kind"] == "score" and number["table"] != "Text":
            label = number["row"].removesuffix(" (Ours)")
            row = next(r for r in ROWS if r.table == number["table"] and r.label == label)
            assert number["run"] in (row.key, f"{row.key}-lungs", f"{row.key}-infection"), number["id"]
        if number["kind"] == "claim" and number["rule"] not in ("", "eq1"):
            for comparison in parse_rule(number["rule"]):
                for side in (comparison.a, comparison.b):
                    assert isinstance(side, float) or (get_run(side[0]) and side[1] in COLUMNS)


def test_the_paper_s_own_cells_decide_its_claims_as_it_says():
    """The rules say what the claims say: the printed numbers fulfil them, but for what row 60 tells."""
    numbers = paper_numbers().query("kind == 'score' and table != 'Text'")
    cells = {(n["run"], n["metric"]): float(n["value"]) for n in numbers.to_dict("records")}
    judged = {
        n["id"]: judge_claim(n["rule"], lambda run, metric: {"": cells[run, metric]})[1].split(" hold")[0]
        for n in paper_numbers().query("kind == 'claim' and rule not in ('', 'eq1')").to_dict("records")
    }
    whole = {i for i, words in judged.items() if len(set(words.split(" of "))) == 1}
    assert set(judged) - whole == {
        "claim-bu-background-direct", "claim-bu-background-hierarchical",
        "claim-accuracy-peers", "claim-specificity-peers",  # in the abstract, not in Table 3
    }  # fmt: skip
    assert len(whole) == 11


@pytest.mark.parametrize(
    ("value", "number", "half"),
    [("0.96", 0.96, 0.005), ("96%", 0.96, 0.005), ("7.9M", 7.9e6, 5e4), ("9M", 9e6, 5e5), ("472K", 472e3, 500),
     ("3560", 3560, 0)],
)  # fmt: skip
def test_a_printed_number_has_half_a_unit(value, number, half):
    assert printed(value) == pytest.approx((number, half))
    with pytest.raises(ValueError, match="no number"):
        printed("x" + value)
