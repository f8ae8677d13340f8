"""The audit's linear programs, by hand: what scores imply for one another, and which sets no matrix has."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from chslib.metrics import SCORES, scores
from replication.evidence.audit import (
    BACKGROUND_IOU,
    METRICS,
    RATIOS,
    SHARE,
    conflicts,
    consistent,
    half_width_needed,
    intervals,
    largest_consistent,
    linked_unet_parameters,
    on_its_own_numbers,
    overlap,
    printed_rows,
    range_of,
    vgg16_parameters,
)
from replication.evidence.averages import least_of_two_classes, ours_by_average, with_background
from replication.evidence.ledger import paper_numbers

HEADLINE = {"Acc.": "0.96", "Pre.": "0.85", "Spe.": "0.97", "Rec.": "0.92", "DSC": "0.88", "JI": "0.96"}


def exactly(**values: float) -> dict[str, tuple[float, float]]:
    return {key.replace("_", "."): (value, value) for key, value in values.items()}


def test_the_rows_are_those_that_the_paper_prints_each_once():
    rows = printed_rows()
    assert len(rows) == 17 and (rows["segmentation"] == "lungs").sum() == 4
    assert dict(rows.loc["Table 2, CHS-Net, infection", list(METRICS)]) == HEADLINE
    assert list(rows.loc[["Table 2, CHS-Net, infection", "Table 2, CHS-Net, lungs"], "tables"]) == [
        "2, 3, 5",
        "2, 5",
    ]
    printed = len(paper_numbers().query("kind == 'score' and table != 'Text'"))
    assert len(METRICS) * rows["tables"].str.split(", ").map(len).sum() == printed


def test_an_interval_is_half_a_unit_to_either_side_and_within_0_and_1():
    found = intervals({"DSC": "0.88", "JI": "1.00", "Pre.": "0"}, ("DSC", "JI"))
    assert list(found) == ["DSC", "JI"]
    assert found["DSC"] == pytest.approx((0.875, 0.885)) and found["JI"] == pytest.approx((0.995, 1))
    assert intervals({"DSC": "0.88"}, ["DSC"], half=0.2)["DSC"] == pytest.approx((0.68, 1))


@pytest.mark.parametrize(
    ("quantity", "of", "low", "high"),
    [
        ("DSC", ("Pre.", "Rec."), 2 * 0.845 * 0.915 / 1.76, 2 * 0.855 * 0.925 / 1.78),
        ("JI", ("DSC",), 0.875 / 1.125, 0.885 / 1.115),
        (SHARE, ("Acc.", "Spe.", "Rec."), 0, 0.02 / 0.05),
        # odds of the share = odds of the precision x (1 - specificity) / recall
        (SHARE, ("Pre.", "Spe.", "Rec."), 1 / (1 + 0.155 / 0.845 * 0.925 / 0.025), 1 / (1 + 0.145 / 0.855 * 0.915 / 0.035)),
        (BACKGROUND_IOU, ("DSC",), 0, 1),
    ],
)  # fmt: skip
def test_bounds_of_one_score_by_others_are_those_found_by_hand(quantity, of, low, high):
    assert range_of(quantity, intervals(HEADLINE, of)) == pytest.approx((low, high), abs=1e-7)


def test_bayes_precision_at_a_share_of_1_6_percent():
    known = exactly(Rec_=0.92, Spe_=0.97, share=0.016)
    assert range_of("Pre.", known) == pytest.approx((0.01472 / 0.04424,) * 2)
    assert range_of("Acc.", known) == pytest.approx((0.016 * 0.92 + 0.984 * 0.97,) * 2)


def test_every_real_matrix_is_consistent_with_its_own_rounded_scores():
    rng = np.random.default_rng(0)
    for counts in rng.integers(1, 10 ** rng.integers(1, 7, size=(40, 4))):
        rounded = {m: f"{scores(counts)[name]:.2f}" for m, name in zip(METRICS, SCORES)}
        assert consistent(intervals(rounded)), (counts, rounded)


def test_what_means_over_slices_imply_is_told_as_the_chapter_found_it():
    path = Path(__file__).resolve().parents[2] / "notebooks/11_paper_audit.ipynb"
    cells = json.loads(path.read_text())["cells"]
    prose = " ".join(" ".join("".join(c["source"]).split()) for c in cells if c["cell_type"] == "markdown")
    assert "they imply from half the true share to less than twice of it" in prose
    printed = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
    low, high = map(
        float, re.search(r"that they imply is (\S+) to (\S+) times the true one", printed).groups()
    )
    assert 0.5 <= low < high < 2


def test_the_ratios_are_those_of_the_metrics():
    counts = np.array([5, 3, 2, 11])
    expected = [*(float(scores(counts)[name]) for name in SCORES), 7 / 21, 11 / 16, 22 / 27]
    assert [np.dot(top, counts) / np.dot(bottom, counts) for top, bottom in RATIOS.values()] == pytest.approx(
        expected
    )


def test_the_headline_contradicts_itself_in_ji_alone():
    known = intervals(HEADLINE)
    assert conflicts(known) == [("Pre.", "JI"), ("Rec.", "JI"), ("DSC", "JI")]
    assert largest_consistent(known) == [("Acc.", "Pre.", "Spe.", "Rec.", "DSC")]
    # 0.88 + h = (0.96 - h)(2 - 0.88 - h)
    assert half_width_needed(HEADLINE, ("DSC", "JI")) == pytest.approx(
        (3.08 - math.sqrt(3.08**2 - 4 * 0.1952)) / 2, abs=1e-4
    )


def test_accuracy_outside_recall_and_specificity_is_a_conflict_of_three():
    row = {"Acc.": "0.94", "Spe.": "0.84", "Rec.": "0.52"}
    assert conflicts(intervals(row, row)) == [("Acc.", "Spe.", "Rec.")]
    assert [len(c) for c in largest_consistent(intervals(row, row))] == [2, 2, 2]
    assert half_width_needed(row, row) == pytest.approx(0.05, abs=1e-4)  # 0.94 - h = 0.84 + h
    assert range_of(SHARE, intervals(row, row)) is None


def test_what_all_intervals_have_in_common():
    assert overlap([(0.1, 0.3), (0.2, 0.4)]) == (0.2, 0.3)
    assert overlap([(0.1, 0.2), (0.3, 0.4), (0.0, 1.0)]) is None


def test_a_claim_is_held_against_the_paper_s_own_numbers():
    assert on_its_own_numbers("0.05 > table4-bu Rec.") == [(-0.23, False)]
    assert on_its_own_numbers("table3-chsnet DSC > table3-unet DSC; table3-unetpp Pre. > table3-attention-unet Pre.") == [
        (0.44, True), (0.0, False),
    ]  # fmt: skip


def test_vgg16_and_the_linked_u_net_have_the_published_parameters():
    rgb = 9 * 64 * 2  # Keras counts three input channels
    assert (vgg16_parameters(4), vgg16_parameters()) == (7_635_264 - rgb, 14_714_688 - rgb)
    # Four convolutions with a bias and a batch norm each, and the head.
    decoder = 2_360_832 + 1_770_240 + 442_752 + 110_784 + 577
    assert linked_unet_parameters() == 7_635_264 - rgb + decoder


def test_an_unknown_ratio_is_refused():
    for ask in (lambda: range_of("F1", {}), lambda: consistent({"F1": (0, 1)})):
        with pytest.raises(ValueError, match="'F1'; expected one of Acc., Pre."):
            ask()


def test_which_average_could_have_given_a_row():
    # By hand, of counts 5, 3, 2, 11: Dice coefficients 10 / 15 and 22 / 27, their mean 0.7407.
    record = {"run": "r", "test": {"confusion": dict(zip(("tp", "fp", "fn", "tn"), (5, 3, 2, 11))),
              "pooled": {"dsc": 10 / 15}, "per_slice": {"dsc": {"mean": 0.6}}, "per_patient": {"dsc": {"mean": 0.5}}}}  # fmt: skip
    assert ours_by_average([record])["r"].tolist() == pytest.approx(
        [10 / 15, 0.6, 0.5, (10 / 15 + 22 / 27) / 2]
    )
    # An accuracy of 0.9 with half of the pixels infected: at worst 0.4 are rightly background and 0.1 are wrong.
    assert least_of_two_classes({"Acc.": (0.9, 0.9)}) == pytest.approx(0.8 / 0.9 / 2)
    both = with_background({k: (v, v) for k, v in (("Acc.", 16 / 21), ("Pre.", 5 / 8), ("Rec.", 5 / 7))})
    assert both == pytest.approx(((10 / 15 + 22 / 27) / 2,) * 2)
    rows = {label: intervals(row) for label, row in printed_rows().iterrows()}
    # What the chapter says of the paper's rows: no column of two classes; U-Net's 0.44 is below any such mean.
    told = {label: with_background(known) for label, known in rows.items()}
    assert all(span and span[0] > rows[label]["DSC"][1] for label, span in told.items())
    assert rows["Table 3, U-Net, infection"]["DSC"][1] < least_of_two_classes(
        rows["Table 3, U-Net, infection"]
    )
