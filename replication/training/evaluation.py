"""What goes beyond the paper's scores, for the test part of one run: intervals, boundaries, false positives.

`chslib.metrics` has the scores of Tables 2-5 and the rule for empty masks; both are used here as they
are (register row 18). The paper gives one number a cell, without spread, distance or worst case.
`book/metrics.md` says what each number here answers and where it misleads.

Boundary distances are MONAI's (`monai.metrics`): a boundary pixel is a mask pixel with one of its four
neighbours outside the mask, the edge of the slice counting as outside. They are in pixels of the
run's grid, since a slice store holds no spacing. MONAI is imported where it is used: training needs none.
"""

import math
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from chslib.metrics import confusion, group_counts, scores

OVERLAP = ("dsc", "ji")
TOLERANCES = (1, 2)  # pixels
BOUNDARY = ("hd95", *(f"surface_dice_{t}px" for t in TOLERANCES))
CONFIDENCE = 0.95
WORST = 10  # slices listed
NO_EMPTY_TRUTH = "none in this store's test part"


def evaluate_masks(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    slice_ids: Sequence[str],
    patients: Sequence[str],
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Intervals, boundary distances, false positives and worst cases of one test part.

    The result does not depend on the order of the slices.

    Args:
        prediction, truth: 0/1 masks, uint8 (N, H, W).
        slice_ids, patients: N names each; a slice_id occurs once.
        seed, resamples: of the bootstrap.

    Returns:
        Ready for JSON; what is undefined is None, and counted. ``overlap``: pooled DSC and JI, and their
        means over patients, with 95 % intervals from resampled patients. ``patients``: each patient's
        DSC and JI with intervals from its resampled slices, and the means of its boundary scores.
        ``boundary``: HD95 (pixels) and surface dice over slices. ``false_positives``: on slices
        whose truth is empty. ``worst``: the slices with the lowest DSC among those whose truth is not.

    Raises:
        ValueError: no slice; shapes, values or numbers of names that do not fit; a slice_id twice.
        AssertionError: a DSC and a JI that contradict each other.
    """
    names, who, predicted, true = _ordered(prediction, truth, slice_ids, patients)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1 (2000 is usual).")
    counts = confusion(torch.from_numpy(predicted), torch.from_numpy(true))
    groups, by_patient = group_counts(counts, who)
    per_slice, per_patient, pooled = (scores(c) for c in (counts, by_patient, counts.sum(0)))
    for cases, table in ((names, per_slice), (groups, per_patient), (["all slices"], pooled)):
        _check_identity(table["dsc"], table["ji"], cases)

    boundary = _boundary_scores(predicted, true)
    by_person = _patients(counts, boundary, groups, who, seed=seed, resamples=resamples)
    pixels_true, pixels_predicted = counts[:, 0] + counts[:, 2], counts[:, 0] + counts[:, 1]
    infected = np.flatnonzero(pixels_true > 0)
    # Of equal DSC (0, mostly) the larger miss comes first.
    worst = sorted(infected, key=lambda i: (per_slice["dsc"][i], -pixels_true[i], names[i]))[:WORST]
    return {
        "slices": len(names),
        "size": list(true.shape[1:]),
        "method": _method(seed, resamples),
        "overlap": _overlap(by_patient, seed=seed, resamples=resamples),
        "boundary": {
            "both_empty": int(((pixels_true == 0) & (pixels_predicted == 0)).sum()),
            "only_truth_empty": int(((pixels_true == 0) & (pixels_predicted > 0)).sum()),
            "only_prediction_empty": int(((pixels_true > 0) & (pixels_predicted == 0)).sum()),
            **{
                name: {
                    **_spread(boundary[name]),
                    "patient_mean": _mean(np.array([_nan(p[name]["mean"]) for p in by_person])),
                }
                for name in BOUNDARY
            },
        },
        "patients": by_person,
        "false_positives": _false_positives(pixels_predicted[pixels_true == 0], true[0].size),
        "slices_with_truth": len(infected),
        "slices_with_truth_and_dsc_0": int((per_slice["dsc"][infected] == 0).sum()),
        "worst": [
            {
                "slice_id": names[i],
                "patient": who[i],
                **{name: float(per_slice[name][i]) for name in OVERLAP},
                "hd95": _none(boundary["hd95"][i]),
                "truth_pixels": int(pixels_true[i]),
                "predicted_pixels": int(pixels_predicted[i]),
            }
            for i in worst
        ],
    }


def _overlap(by_patient: np.ndarray, *, seed: int, resamples: int) -> dict[str, Any]:
    """Pooled DSC and JI, and their means over patients, with intervals from resampled patients."""
    patients, per_patient, pooled = len(by_patient), scores(by_patient), scores(by_patient.sum(0))
    # How often each patient is drawn, (resamples, patients); both views see the same draws.
    drawn = draw(np.random.default_rng(seed), patients, resamples)
    pooled_draws = scores(drawn @ by_patient)
    return {
        name: {
            "pooled": {
                "value": float(pooled[name]),
                **_interval(pooled_draws[name], units="patients", n=patients),
            },
            "patient_mean": {
                "value": float(per_patient[name].mean()),
                "std": float(per_patient[name].std(ddof=1)) if patients > 1 else None,
                **_interval(drawn @ per_patient[name] / patients, units="patients", n=patients),
            },
        }
        for name in OVERLAP
    }


def _patients(
    counts: np.ndarray,
    boundary: dict[str, np.ndarray],
    groups: Sequence[str],
    who: Sequence[str],
    *,
    seed: int,
    resamples: int,
) -> list[dict[str, Any]]:
    """Each patient's DSC and JI with intervals from its resampled slices, and its mean boundary scores."""
    found = []
    for patient in groups:
        rows = np.flatnonzero(np.array(who) == patient)
        # A stream of its own, so that the interval does not depend on who else is in the part.
        stream = np.random.default_rng([seed, zlib.crc32(patient.encode())])
        draws, value = scores(draw(stream, len(rows), resamples) @ counts[rows]), scores(counts[rows].sum(0))
        entry: dict[str, Any] = {"patient": patient, "slices": len(rows)}
        for name in OVERLAP:
            interval = _interval(draws[name], units="slices", n=len(rows))
            entry[name] = {"value": float(value[name]), **interval}
        found.append(entry | {name: _mean(boundary[name][rows]) for name in BOUNDARY})
    return found


def _ordered(
    prediction: np.ndarray, truth: np.ndarray, slice_ids: Sequence[str], patients: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Names, patients and masks, checked, in the order of (patient, slice_id)."""
    for name, masks in (("prediction", prediction), ("truth", truth)):
        if masks.ndim != 3 or masks.dtype != np.uint8:
            raise ValueError(
                f"{name} is {masks.dtype} of shape {masks.shape}; expected uint8 (N, H, W): "
                "drop the channel axis with [:, 0], or convert with .astype('uint8')."
            )
    if prediction.shape != truth.shape:
        raise ValueError(f"Masks of shapes {prediction.shape} and {truth.shape}; expected the same.")
    if not truth.size:
        raise ValueError(f"No pixel to evaluate (shape {truth.shape}); is the test part of the split empty?")
    who, names = [str(p) for p in patients], [str(s) for s in slice_ids]
    if not len(truth) == len(names) == len(who):
        raise ValueError(
            f"{len(truth)} slices, {len(names)} slice_ids and {len(who)} patients; expected one each."
        )
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"slice_id {twice!r} occurs more than once; expected each slice once.")
    order = sorted(range(len(names)), key=lambda i: (who[i], names[i]))
    return [names[i] for i in order], [who[i] for i in order], prediction[order], truth[order]


def _check_identity(dsc: np.ndarray, ji: np.ndarray, cases: Sequence[str]) -> None:
    """JI = DSC / (2 - DSC) for every single confusion matrix; the paper's columns break it (row 18)."""
    dsc, ji = np.atleast_1d(dsc), np.atleast_1d(ji)
    wrong = np.flatnonzero(~(np.abs(ji - dsc / (2 - dsc)) < 1e-9))
    if len(wrong):
        i = wrong[0]
        raise AssertionError(
            f"JI {ji[i]:.6f} of {cases[i]} contradicts its DSC {dsc[i]:.6f}: JI = DSC / (2 - DSC) gives "
            f"{dsc[i] / (2 - dsc[i]):.6f} ({len(wrong)} of {len(dsc)} cases). The scores are computed wrongly."
        )


def draw(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """How often each of n units is drawn in n draws with replacement: (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def middle(draws: np.ndarray) -> tuple[float, float]:
    """What holds the middle 95 % of draws."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(draws, [tail, 100 - tail]).tolist()
    return low, high


def _interval(draws: np.ndarray, *, units: str, n: int) -> dict[str, Any]:
    """Percentile interval; None for a single unit, which has no spread to resample.

    It cannot leave the range of its n values, which holds the median of their distribution with probability
    1 - 2^(1-n): 0.5 for two, 0.875 for four. Below six, "95 %" is out of reach (`coverage_at_most`).
    """
    low, high = middle(draws) if n > 1 else (None, None)
    return {"low": low, "high": high, "resampled": units, "n": n, "coverage_at_most": 1 - 2.0 ** (1 - n)}


def _boundary_scores(prediction: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """HD95 and surface dice of each slice, float64 (N,), NaN where undefined (one of the masks empty)."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    some = np.stack([prediction.any((1, 2)), truth.any((1, 2))])
    found = {name: np.where(some.any(0), 0.0, 1.0) for name in BOUNDARY}
    found["hd95"] = np.where(some.any(0), np.nan, 0.0)
    # MONAI is asked where both masks have a boundary; elsewhere it warns, and the rule above holds.
    with warnings.catch_warnings():
        # MONAI 1.6 passes itself an argument that it deprecates.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        for i in np.flatnonzero(some.all(0)):
            found_, true = (torch.from_numpy(m[i : i + 1, None]) for m in (prediction, truth))  # (1, 1, H, W)
            hd95 = compute_hausdorff_distance(found_, true, include_background=True, percentile=95)
            found["hd95"][i] = hd95.item()
            for name, tolerance in zip(BOUNDARY[1:], TOLERANCES, strict=True):
                dice = compute_surface_dice(
                    found_, true, class_thresholds=[tolerance], include_background=True
                )
                found[name][i] = dice.item()
    return found


def _false_positives(pixels: np.ndarray, of: int) -> dict[str, Any]:
    """Predicted pixels of the slices without truth, each slice of `of` pixels."""
    n = len(pixels)
    return {
        "slices": n,
        "note": None if n else NO_EMPTY_TRUTH,
        "with_any": int((pixels > 0).sum()),
        "share_with_any": float((pixels > 0).mean()) if n else None,
        "mean_pixels": float(pixels.mean()) if n else None,
        "mean_share": float(pixels.mean() / of) if n else None,
    }


def _mean(values: np.ndarray) -> dict[str, Any]:
    defined = values[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else None
    return {"mean": mean, "n": len(defined), "undefined": len(values) - len(defined)}


def _spread(values: np.ndarray) -> dict[str, Any]:
    defined = values[~np.isnan(values)]
    quantiles = np.percentile(defined, [5, 50, 95]).tolist() if len(defined) else [None] * 3
    return {**_mean(values), **dict(zip(("p5", "median", "p95"), quantiles, strict=True))}


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _method(seed: int, resamples: int) -> dict[str, Any]:
    """How the numbers were made, for the record."""
    import monai

    return {
        "interval": "percentile bootstrap (linear between order statistics)",
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "std_ddof": 1,
        "unit": "pixels of the run's grid; the spacing in mm is not in the store",
        "tolerances": list(TOLERANCES),
        "hd95": "larger of the two directed 95th percentiles",
        "empty": "both: HD95 0, surface dice 1; one: HD95 undefined, surface dice 0",
        "monai": monai.__version__,
    }
