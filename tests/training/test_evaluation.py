"""What goes beyond the paper's scores: by hand and by enumeration."""

import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from chslib.metrics import confusion, evaluate, scores
from replication.evidence.tables import describe_evaluation
from replication.training import evaluation
from replication.training.evaluation import evaluate_masks


def square(*, x: int = 5, side: int = 10, shape: tuple[int, int] = (20, 24)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[5 : 5 + side, x : x + side] = 1
    return mask


def run(prediction: list, truth: list, patients: str | list[str] | None = None, **options) -> dict:
    """Slices s00, s01, ... of patients named by one letter each (all of p if none is named)."""
    names = [f"s{i:02}" for i in range(len(truth))]
    who = list(patients or "p" * len(truth))
    options = {"resamples": 50} | options
    return evaluate_masks(np.stack(prediction), np.stack(truth), slice_ids=names, patients=who, **options)


def random_masks(n: int, *, seed: int = 0, shape=(12, 15)) -> tuple[np.ndarray, np.ndarray]:
    """Truths of n slices, and predictions that err in more pixels from slice to slice."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, *shape)) < rng.uniform(0.1, 0.6, (n, 1, 1))
    flips = rng.random((n, *shape)) < rng.uniform(0.02, 0.5, (n, 1, 1))
    return (truth ^ flips).astype(np.uint8), truth.astype(np.uint8)


EMPTY, FULL = np.zeros((20, 24), np.uint8), np.ones((20, 24), np.uint8)


# Two 10 x 10 squares, one moved by k pixels, 36 boundary pixels each. Along the direction of the move the
# sides lie k apart. Within 1 px for k = 2: 8 + 1 of each long side, and 2 next to the corners: 20. At x = 0 the
# edge of the slice is a boundary. The last case is the same square with a false pixel 9 away: one of 37, beyond the 95 %.
@pytest.mark.parametrize("x", [5, 0])
@pytest.mark.parametrize(
    "k, far, expected",
    [(0, False, (0, 1, 1)), (2, False, (2, 20 / 36, 1)), (3, False, (3, 18 / 36, 22 / 36)), (0, True, (0, 72 / 73, 72 / 73))],
)  # fmt: skip
def test_two_squares_moved_by_k_pixels_are_k_apart(x, k, far, expected):
    predicted = square(x=x + k)
    predicted[14, x + 18] = far
    for pair in ((predicted, square(x=x)), (square(x=x), predicted)):
        found = run([pair[0]], [pair[1]])["boundary"]
        means = [found[name]["mean"] for name in ("hd95", "surface_dice_1px", "surface_dice_2px")]
        assert means == pytest.approx(expected)


def test_a_slice_with_an_empty_mask_keeps_to_the_rule_and_is_counted():
    # both empty; only the truth empty; only the prediction, twice; a perfect slice; one that is 2 px off
    prediction = [EMPTY, square(), EMPTY, EMPTY, square(), square(x=7)]
    truth = [EMPTY, EMPTY, square(), square(), square(), square()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(prediction, truth, "aabbbb")
    found = result["boundary"]
    sides = ("both_empty", "only_truth_empty", "only_prediction_empty")
    assert [found[k] for k in sides] == [1, 1, 2]
    hd95 = found["hd95"]
    assert hd95.pop("patient_mean") == {"mean": (0 + 1) / 2, "n": 2, "undefined": 0}
    assert hd95 == pytest.approx({"mean": 2 / 3, "n": 3, "undefined": 3, "p5": 0, "median": 0, "p95": 1.8})
    dice = found["surface_dice_1px"]
    assert (dice["n"], dice["undefined"]) == (6, 0)
    assert dice["mean"] == pytest.approx((1 + 0 + 0 + 0 + 1 + 20 / 36) / 6)
    assert dice["median"] == pytest.approx(20 / 36 / 2)
    assert dice["patient_mean"]["mean"] == pytest.approx((1 / 2 + (1 + 20 / 36) / 4) / 2)
    a, b = result["patients"]
    assert a["hd95"] == {"mean": 0, "n": 1, "undefined": 1}
    assert b["hd95"] == {"mean": 1, "n": 2, "undefined": 2}
    alone = run([EMPTY, square(x=8)], [square(), square()], "ab")
    assert alone["patients"][0]["hd95"] == {"mean": None, "n": 0, "undefined": 1}
    assert alone["boundary"]["hd95"]["patient_mean"] == {"mean": 3, "n": 1, "undefined": 1}


def test_false_positives_are_those_of_slices_without_truth():
    one, four = EMPTY.copy(), EMPTY.copy()
    one[0, 0] = four[3, 3:7] = 1
    found = run([EMPTY, one, four, EMPTY, FULL], [EMPTY, EMPTY, EMPTY, EMPTY, square()])["false_positives"]
    assert found == {
        "slices": 4, "note": None, "with_any": 2, "share_with_any": 0.5,
        "mean_pixels": 5 / 4, "mean_share": 5 / 4 / 480,
    }  # fmt: skip
    found = run([EMPTY], [square()])["false_positives"]
    assert found["slices"] == 0 and found["note"].startswith("none in this store")
    assert [found[k] for k in ("share_with_any", "mean_pixels", "mean_share")] == [None] * 3


def test_the_worst_cases_are_the_lowest_dsc_among_slices_with_truth():
    # s00: truth empty, DSC 0. Then 12 squares, moved by 11 (no overlap), 10 (none), 9, ... 0 pixels.
    moved = [square(x=5 + k, shape=(20, 30)) for k in range(11, -1, -1)]
    truth = [square(shape=(20, 30)) for _ in moved]
    truth[1][0, 0] = 1  # one pixel more to miss than in the other slice of DSC 0
    small = np.zeros_like(truth[0])
    result = run([moved[0], *moved], [small, *truth], "a" + "b" * 12)
    worst = result["worst"]
    assert [w["slice_id"] for w in worst] == ["s02", "s01", *(f"s{i:02}" for i in range(3, 11))]
    assert worst[2] == pytest.approx(
        {
            "slice_id": "s03", "patient": "b", "dsc": 0.1, "ji": 10 / 190,
            "hd95": 9, "truth_pixels": 100, "predicted_pixels": 100,
        }
    )  # fmt: skip
    assert (worst[0]["truth_pixels"], worst[0]["predicted_pixels"], worst[0]["dsc"]) == (101, 100, 0)
    assert (result["slices_with_truth"], result["slices_with_truth_and_dsc_0"]) == (12, 2)
    missed = run([EMPTY], [square()])["worst"]
    assert [(w["dsc"], w["hd95"], w["predicted_pixels"]) for w in missed] == [(0, None, 0)]


def test_the_scores_are_those_of_chslib_metrics():
    prediction, truth = random_masks(9, seed=3)
    who = list("bbaaaccca")
    result = run(list(prediction), list(truth), who)
    counts = confusion(torch.from_numpy(prediction), torch.from_numpy(truth))
    theirs = evaluate(counts, who)
    for name in ("dsc", "ji"):
        found = result["overlap"][name]
        assert found["pooled"]["value"] == theirs["pooled"][name]
        assert found["patient_mean"]["value"] == pytest.approx(theirs["per_patient"][name]["mean"])
        # metrics has ddof 0
        assert found["patient_mean"]["std"] == pytest.approx(
            theirs["per_patient"][name]["std"] * np.sqrt(3 / 2)
        )
        ours = {p["patient"]: p[name]["value"] for p in result["patients"]}
        assert ours == {patient: s[name] for patient, s in theirs["patients"].items()}
    assert [p["slices"] for p in result["patients"]] == [4, 2, 3]


def between_quantiles(value: float, exact: list[float], share: float) -> bool:
    """Whether a quantile of drawn resamples fits the list of all equally likely ones."""
    low, high = np.quantile(exact, [share - 0.01, share + 0.01])
    return low - 1e-12 <= value <= high + 1e-12


def test_intervals_are_those_of_all_possible_resamples():
    """Five patients of unlike size and score: 3125 resamples; a patient of five slices as well."""
    prediction, truth = random_masks(14, seed=5)
    prediction[-5:] = truth[-5:] ^ (np.random.default_rng(1).random((5, 12, 15)) < 0.02)
    who = list("aabcdddddeeeee")
    result = run(list(prediction), list(truth), who, resamples=20_000)
    counts = confusion(torch.from_numpy(prediction), torch.from_numpy(truth))
    by_patient = np.stack([counts[[w == p for w in who]].sum(0) for p in "abcde"])
    of_d = counts[[w == "d" for w in who]]
    draws = np.array(list(itertools.product(range(5), repeat=5)))
    for name in ("dsc", "ji"):
        exact = {
            "pooled": scores(by_patient[draws].sum(1))[name],
            "patient_mean": scores(by_patient)[name][draws].mean(1),
        }
        found = dict(result["overlap"][name], d=result["patients"][3][name])
        exact["d"] = scores(of_d[draws].sum(1))[name]
        for view, values in exact.items():
            assert between_quantiles(found[view]["low"], values, 0.025), view
            assert between_quantiles(found[view]["high"], values, 0.975), view
        assert (found["pooled"]["resampled"], found["pooled"]["n"]) == ("patients", 5)
        assert (found["d"]["resampled"], found["d"]["n"]) == ("slices", 5)


@pytest.mark.parametrize("patients, at_most", [("aabbbb", 0.5), ("aabbcc", 0.75)])
def test_with_two_or_three_patients_the_interval_is_their_range(patients, at_most):
    prediction, truth = random_masks(6, seed=2)
    result = run(list(prediction), list(truth), patients, resamples=2000)
    each = [p["dsc"]["value"] for p in result["patients"]]
    for view in ("pooled", "patient_mean"):
        found = result["overlap"]["dsc"][view]
        assert (found["low"], found["high"]) == pytest.approx((min(each), max(each)))
        assert found["coverage_at_most"] == at_most and found["n"] == len(each)


def test_a_single_unit_has_no_interval():
    result = run([square(x=6)], [square()])
    for found in (*result["overlap"]["dsc"].values(), result["patients"][0]["ji"]):
        assert (found["low"], found["high"], found["n"], found["coverage_at_most"]) == (None, None, 1, 0)
    assert result["overlap"]["dsc"]["patient_mean"]["std"] is None


def test_the_seed_decides_and_the_order_of_slices_does_not():
    prediction, truth = random_masks(16, seed=4)
    prediction[0] = truth[1] = 0
    names, who = [f"s{i:02}" for i in range(16)], list("aabbbbbbbbbbccdd")

    def on(rows, seed=0):
        given = {"slice_ids": [names[i] for i in rows], "patients": [who[i] for i in rows]}
        return evaluate_masks(prediction[rows], truth[rows], **given, seed=seed, resamples=200)

    first = on(range(16))
    assert on(range(16)) == first
    assert on(np.random.default_rng(0).permutation(16)) == first
    other = on(range(16), seed=1)
    assert other["patients"][1]["dsc"] != first["patients"][1]["dsc"]
    assert other["overlap"] != first["overlap"]
    # A patient's interval does not hang on who else is tested.
    assert on(range(2, 13))["patients"][0] == first["patients"][1]
    assert (first["method"]["seed"], other["method"]["seed"]) == (0, 1)


@pytest.mark.parametrize(
    "shape, case", [((4, 4), "s01"), ((2, 4), "b"), ((4,), "all slices")], ids=["slice", "patient", "pooled"]
)
@pytest.mark.parametrize("value", [0.96, np.nan])
def test_a_ji_that_contradicts_its_dsc_is_refused(monkeypatch, shape, case, value):
    """The paper's headline: DSC 0.88 beside JI 0.96."""

    def doctored(counts):
        table = scores(counts)
        if counts.shape == shape:
            ji = np.atleast_1d(table["ji"]).copy()
            ji[0 if case == "all slices" else 1] = value
            table["ji"] = ji.reshape(counts.shape[:-1])
        return table

    monkeypatch.setattr(evaluation, "scores", doctored)
    with pytest.raises(AssertionError, match=rf"JI {value:.6f} of {case} contradicts.*1 of \d cases"):
        run([square(x=7)] * 4, [square()] * 4, "aabb")


@pytest.mark.parametrize(
    "prediction, truth, patients",
    [
        ([EMPTY], [EMPTY], "a"),
        ([FULL], [EMPTY], "a"),
        ([EMPTY, EMPTY], [FULL, square()], "ab"),
        ([FULL, square()], [FULL, EMPTY], "aa"),
    ],
)
def test_the_result_is_json_without_nan_and_can_be_described(prediction, truth, patients):
    result = run(prediction, truth, patients)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    table = describe_evaluation(result)
    assert table["value"].dtype == float and len(table) == 17


def test_the_description_says_what_was_resampled_and_left_out():
    result = run([square(x=7), EMPTY, FULL], [square(), square(), EMPTY], "abb")
    table = describe_evaluation(json.loads(json.dumps(result)))
    assert isinstance(table, pd.DataFrame) and table.index.is_unique
    pooled = table.loc["DSC, pooled"]
    found = result["overlap"]["dsc"]["pooled"]
    assert (pooled["value"], pooled["from"], pooled["to"]) == (found["value"], found["low"], found["high"])
    assert pooled["range"] == "95% interval, 2 patients resampled" and pooled["n"] == 2
    assert table.loc["DSC, highest patient (a)", "value"] == pytest.approx(0.8)
    assert np.isnan(table.loc["DSC, highest patient (a)", "from"])
    assert table.loc["DSC, lowest patient (b)", "n"] == 2
    hd95 = table.loc["HD95 (px), median"]
    assert (hd95["value"], hd95["n"], hd95["undefined"]) == (2, 1, 2)
    patients = table.loc["HD95 (px), mean over patients"]
    assert (patients["n"], patients["undefined"]) == (1, 1)
    assert table.loc["surface dice at 1 px, mean", "value"] == pytest.approx(20 / 36 / 3)
    wrong = table.loc["False positives where truth is empty, mean pixels"]
    assert (wrong["value"], wrong["n"]) == (480, 1)


GOOD = {"slice_ids": ["s0", "s1"], "patients": ["a", "b"]}
PAIR = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    "prediction, truth, given, message",
    [
        (PAIR[:, None], PAIR, {}, r"prediction is uint8 of shape \(2, 1, 4, 4\); .*drop the channel"),
        (PAIR, PAIR.astype(float), {}, r"truth is float64 of shape .*astype"),
        (PAIR, PAIR[:, :2], {}, r"\(2, 4, 4\) and \(2, 2, 4\); expected the same"),
        (PAIR + 255, PAIR, {}, "prediction holds values other than 0 and 1"),
        (PAIR[:0], PAIR[:0], {"slice_ids": [], "patients": []}, "No pixel to evaluate"),
        (PAIR, PAIR, {"slice_ids": ["s0"]}, "2 slices, 1 slice_ids and 2 patients"),
        (PAIR, PAIR, {"patients": ["a"]}, "2 slices, 2 slice_ids and 1 patients"),
        (PAIR, PAIR, {"slice_ids": ["s0", "s0"]}, "slice_id 's0' occurs more than once"),
        (PAIR, PAIR, {"resamples": 0}, "resamples is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(prediction, truth, given, message):
    with pytest.raises(ValueError, match=message):
        evaluate_masks(prediction, truth, **GOOD | given)
