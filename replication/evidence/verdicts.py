"""When a number of the paper counts as reproduced: tolerances, verdicts, and the rules of its claims.

The paper prints one number a cell and no spread (register row 48), so the tolerance is ours:

* half a unit of what is printed (0.005 for 0.88), since more was not said, and
* the spread of one run: what a further seed lies within with 95 %, by the standard deviation of those
  that were run and Student's t for their number, `t s sqrt(1 + 1/n)`; but never more than the default
  below, so that unstable training cannot excuse a difference. With one seed, the default itself:
    - lungs 0.02, infection 0.05 for Pre., Rec., DSC and JI: about what independent groups differ by on
      the same 20 volumes (lungs DSC 0.91-0.96, infection 0.76-0.78, radiologists among
      themselves about 0.70);
    - 0.01 for Acc. and Spe., which nine tenths of background hold up whatever the network does.

"reproduced": the difference is within the tolerance. "partly": within twice the tolerance, or the
mean over slices is within it where the pooled score is not, since the paper does not say over what it
averages (register row 18). "not reproduced": otherwise. "not run": no record answers.
"not checkable": no run could.

Parameter counts have no spread: reproduced within half a unit, partly within 10 % (a bias more, a
head less). Counts of slices and volumes, and settings, are the same or not.

A claim is a list of comparisons. One is clear if the mean difference, paired by split and seed,
exceeds the spread of one pair, found as that of one run (0 within one run or against a bound). Reproduced: all are clear. Partly: more than half hold at all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from replication.training.grid import get_run

VERDICTS = ("reproduced", "partly", "not reproduced", "not run", "not checkable")
SPREAD = {"lungs": 0.02, "infection": 0.05}
SPREAD_BACKGROUND = 0.01  # Acc. and Spe.
PARTLY_PARAMETERS = 0.10
_EDGE = 1e-9  # a difference of exactly the tolerance is within it

# (run without its suffix, metric) -> value by suffix (split and seed).
Values = Callable[[str, str], dict[str, float]]


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on; `difference` is ours minus theirs."""

    verdict: str
    difference: float = float("nan")
    tolerance: float = float("nan")
    reason: str = ""


def printed(value: str) -> tuple[float, float]:
    """A number as the paper prints it, and half a unit of its last digit: 0.96, 96%, 7.9M, 472K, 3560.

    Raises:
        ValueError: not a number of these forms.
    """
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([%MK]?)", value)
    if not match:
        raise ValueError(f"{value!r} is no number; expected such as 0.96, 96%, 7.9M, 472K or 3560.")
    unit = {"": 1.0, "%": 0.01, "M": 1e6, "K": 1e3}[match[3]]
    digits = match[2] or ""
    whole = not digits and not match[3]  # a count is exact
    return float(f"{match[1]}.{digits or 0}") * unit, 0.0 if whole else 0.5 * unit / 10 ** len(digits)


def default_spread(target: str, metric: str) -> float:
    """What two runs of one network may differ by where only one was made."""
    return SPREAD_BACKGROUND if metric in ("Acc.", "Spe.") else SPREAD[target]


def spread(values: list[float], *, default: float) -> tuple[float, str]:
    """What a further value lies within with 95 %, at most the default; and why.

    Half the prediction interval of normal values about their mean. Two standard deviations would
    hold a further seed with 65 % where they are those of two seeds.
    """
    n = len(values)
    if n < 2:
        return default, f"default {default:g}, one seed"
    half = float(student_t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
    if half > default:
        return default, f"default {default:g}, as by {n} seeds a further one lies within {half:.3f}"
    return half, f"by {n} seeds a further one lies within {half:.3f}"


def judge_score(
    value: str, pooled: list[float], per_slice: list[float], *, target: str, metric: str
) -> Judgement:
    """A printed score against ours, one a seed.

    Args:
        value: as printed.
        pooled, per_slice: pooled scores, and means over slices.
        target: "lungs" or "infection"; metric: a column head.
    """
    paper, half = printed(value)
    extra, why = spread(pooled, default=default_spread(target, metric))
    tolerance = half + extra
    difference = float(np.mean(pooled)) - paper
    reason = f"rounding {half:g} + {why}"
    if abs(difference) <= tolerance + _EDGE:
        return Judgement("reproduced", difference, tolerance, reason)
    if abs(difference) <= 2 * tolerance + _EDGE:
        return Judgement("partly", difference, tolerance, f"{reason}; within twice that")
    if abs(float(np.mean(per_slice)) - paper) <= tolerance + _EDGE:
        return Judgement("partly", difference, tolerance, f"{reason}; the mean over slices is within it")
    return Judgement("not reproduced", difference, tolerance, reason)


def judge_parameters(value: str, ours: int) -> Judgement:
    """A printed parameter count against one of the code."""
    paper, half = printed(value)
    difference = ours - paper
    if abs(difference) <= half + _EDGE:
        return Judgement("reproduced", difference, half, "rounding")
    verdict = "partly" if abs(difference) <= PARTLY_PARAMETERS * paper else "not reproduced"
    return Judgement(verdict, difference, half, f"rounding; {difference / paper:+.0%}")


def judge_same(value: str, ours: str) -> Judgement:
    """A count or a setting: the same or not."""
    difference = float("nan")
    if re.fullmatch(r"\d+", value) and re.fullmatch(r"\d+", ours):
        difference = float(int(ours) - int(value))
    return Judgement("reproduced" if ours == value else "not reproduced", difference, 0.0, "exact")


@dataclass(frozen=True)
class Comparison:
    """`a > b`, each a (run, metric) or a bound."""

    a: tuple[str, str] | float
    b: tuple[str, str] | float


def parse_rule(rule: str) -> list[Comparison]:
    """`run metric > run metric; 0.05 > run metric; ...` of `paper_numbers.csv`.

    Raises:
        ValueError: another form.
    """
    comparisons = []
    for part in rule.split(";"):
        sides = [side.split(maxsplit=1) for side in part.split(">")]
        if len(sides) != 2 or not all(sides):
            raise ValueError(
                f"rule {part.strip()!r}; expected 'run metric > run metric' or a number for one."
            )
        comparison = Comparison(*((s[0], s[1].strip()) if len(s) == 2 else float(s[0]) for s in sides))
        if isinstance(comparison.a, float) and isinstance(comparison.b, float):
            raise ValueError(
                f"rule {part.strip()!r} compares two numbers; one side must be a run and a metric."
            )
        comparisons.append(comparison)
    return comparisons


def _margin(comparison: Comparison, differences: list[float]) -> float:
    a, b = comparison.a, comparison.b
    if isinstance(a, float) or isinstance(b, float) or a[0] == b[0]:
        return 0.0
    return spread(differences, default=default_spread(get_run(a[0]).target, a[1]))[0]


def judge_claim(rule: str, values: Values) -> tuple[Judgement, str]:
    """A claim against our records; the judgement and, in words, what was found.

    Args:
        rule: see `parse_rule`.
        values: pooled scores of a run by split and seed; empty where there is none.
    """
    found: list[tuple[float, float]] = []
    lacking: set[str] = set()
    for comparison in parse_rule(rule):
        sides = (comparison.a, comparison.b)
        scores = [None if isinstance(side, float) else values(*side) for side in sides]
        lacking |= {side[0] for side, score in zip(sides, scores) if score is not None and not score}
        common = set.intersection(*(set(score) for score in scores if score is not None))
        a, b = (
            {k: side for k in common} if isinstance(side, float) else score
            for side, score in zip(sides, scores)
        )
        differences = [a[k] - b[k] for k in sorted(common)]
        if differences:
            found.append((float(np.mean(differences)), _margin(comparison, differences)))
        elif not lacking:
            lacking |= {side[0] for side in sides if not isinstance(side, float)}
    if lacking:
        return Judgement("not run", reason=f"lacks {', '.join(sorted(lacking))}"), ""
    hold = sum(d > 0 for d, _ in found)
    clear = sum(d > m for d, m in found)
    least, margin = min(found)
    verdict = "reproduced" if clear == len(found) else "partly" if hold > len(found) / 2 else "not reproduced"
    words = f"{hold} of {len(found)} hold, {clear} clearly; least {least:+.3f}"
    return Judgement(verdict, least, margin, "differences paired by split and seed"), words
