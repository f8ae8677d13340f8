"""The confusion matrix and its scores: by hand, against torchmetrics, and on empty masks."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as reference

from chslib.metrics import COUNTS, SCORES, confusion, evaluate, group_counts, scores

PREDICTION = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
TARGET = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0]])
REFERENCES = {
    "accuracy": reference.binary_accuracy,
    "precision": reference.binary_precision,
    "specificity": reference.binary_specificity,
    "recall": reference.binary_recall,
    "dsc": reference.binary_f1_score,
    "ji": reference.binary_jaccard_index,
}


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("axes", [(1, 2, 4), (1, 1, 2, 4)])
def test_the_confusion_matrix_counts_pixels_of_each_slice(dtype, axes):
    counts = confusion(PREDICTION.to(dtype).view(axes), TARGET.to(dtype).view(axes))
    assert counts.dtype == np.int64 and counts.tolist() == [[2, 1, 2, 3]]
    counts = confusion(PREDICTION.to(dtype)[:, None], TARGET.to(dtype)[:, None])
    assert counts.tolist() == [[1, 1, 1, 1], [1, 0, 1, 2]]


def test_scores_are_the_fractions_of_fig_13():
    expected = {
        "accuracy": 5 / 8, "precision": 2 / 3, "specificity": 3 / 4, "recall": 2 / 4,
        "dsc": 4 / 7, "ji": 2 / 5,
    }  # fmt: skip
    ours = scores(np.array([2, 1, 2, 3]))
    assert tuple(ours) == SCORES and {k: float(v) for k, v in ours.items()} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", SCORES)
def test_scores_agree_with_torchmetrics(name, seed):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(3, 1, 20, 20, generator=generator) > 0.8
    prediction = target ^ (torch.rand(3, 1, 20, 20, generator=generator) > 0.9)
    counts = confusion(prediction, target)
    for i in range(3):
        expected = REFERENCES[name](prediction[i].int(), target[i].int())
        assert float(scores(counts)[name][i]) == pytest.approx(float(expected), abs=1e-6)
    pooled = REFERENCES[name](prediction.int(), target.int())
    assert float(scores(counts.sum(0))[name]) == pytest.approx(float(pooled), abs=1e-6)


# A slice of 8 pixels at each corner of the matrix.
@pytest.mark.parametrize(
    "tp, fp, fn, tn, expected",
    [
        # accuracy, precision, specificity, recall, dsc, ji
        (0, 0, 0, 8, (1, 1, 1, 1, 1, 1)),  # no infection, none predicted
        (0, 3, 0, 5, (5 / 8, 0, 5 / 8, 0, 0, 0)),  # no infection, some predicted
        (0, 0, 3, 5, (5 / 8, 0, 1, 0, 0, 0)),  # infection, none predicted
        (8, 0, 0, 0, (1, 1, 1, 1, 1, 1)),  # all infected, all predicted
        (5, 0, 3, 0, (5 / 8, 1, 0, 5 / 8, 10 / 13, 5 / 8)),  # all infected, some missed
        (0, 8, 0, 0, (0, 0, 0, 0, 0, 0)),  # no infection, all predicted
        (0, 0, 8, 0, (0, 0, 0, 0, 0, 0)),  # all infected, none predicted
        (0, 3, 5, 0, (0, 0, 0, 0, 0, 0)),  # nothing right
    ],
)
def test_an_undefined_score_is_one_for_full_agreement_and_zero_otherwise(tp, fp, fn, tn, expected):
    ours = scores(np.array([tp, fp, fn, tn]))
    assert tuple(float(ours[name]) for name in SCORES) == pytest.approx(expected)


def test_pooled_per_slice_and_per_patient_are_three_different_averages():
    # Two slices of patient b, one of patient a.
    counts = np.array([[3, 1, 0, 6], [0, 0, 2, 8], [1, 0, 1, 8]])
    result = evaluate(counts, ["b", "b", "a"])
    assert result["confusion"] == dict(zip(COUNTS, (4, 1, 3, 22)))
    assert result["pooled"]["dsc"] == pytest.approx(8 / 12)
    of_slices = [6 / 7, 0, 2 / 3]
    assert result["per_slice"]["dsc"] == pytest.approx({"mean": np.mean(of_slices), "std": np.std(of_slices)})
    of_patients = {"a": 2 / 3, "b": 6 / 9}
    assert {k: v["dsc"] for k, v in result["patients"].items()} == pytest.approx(of_patients)
    assert result["per_patient"]["dsc"] == pytest.approx({"mean": 2 / 3, "std": 0.0})
    assert result["patients"]["b"]["precision"] == pytest.approx(3 / 4)
    assert list(result["patients"]) == ["a", "b"]


def test_counts_are_added_up_by_group_in_the_order_of_names():
    names, summed = group_counts(np.arange(12).reshape(3, 4), ["y", "x", "y"])
    assert names == ["x", "y"] and summed.tolist() == [[4, 5, 6, 7], [8, 10, 12, 14]]


def test_a_large_test_set_does_not_overflow():
    assert float(scores(np.full((4,), 2**40))["dsc"]) == 0.5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: confusion(PREDICTION, TARGET[:1]), r"\(2, 4\) and \(1, 4\); expected the same"),
        (
            lambda: confusion(PREDICTION * 0.7, TARGET),
            "prediction holds values other than 0 and 1.*Threshold",
        ),
        (lambda: confusion(PREDICTION, TARGET * 255), "target holds values other than 0 and 1"),
        (lambda: confusion(PREDICTION * torch.nan, TARGET), "prediction holds values other"),
        (lambda: group_counts(np.zeros((3, 4)), ["a"]), "3 rows of counts but 1 group names"),
        (lambda: evaluate(np.zeros((0, 4)), []), "No slice to evaluate"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
