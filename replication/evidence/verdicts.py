"""When a number of the paper counts as reproduced: the spread of one run, verdicts, and the rules of claims.

The paper prints one number a cell and no spread (register row 48), so the tolerance of a score is

* half a unit of what is printed (0.005 for 0.88), since more was not said, and
* what a further run lies within with 95 %: t s sqrt(1 + 1/n) about the mean of n seeds. s is pooled within
  rows: the standard deviation of the seeds of every row that has several, each about its own mean, over all such
  rows of a kind of mask (`Spread`); t is Student's for the degrees of freedom that they have together. Where no row has
  several seeds there is no tolerance but the rounding.

A score is "compatible" within the tolerance: it is not told apart from the printed one. It is "reproduced" if it lies,
besides, within `EQUIVALENT` of it, a bound set before the runs were judged. Else it is "above the paper" or "below the
paper": a compared network that scores above what is printed for it is not as far from the paper as one below. A Jaccard
index is "not comparable": the printed column follows from no formula (the audit; register row 18).

A claim is a list of k comparisons "a > b". Means of two runs over n seeds differ clearly where they differ by more than
t s sqrt(2/n). "reproduced": each comparison holds clearly at its own 95 %; that all must hold makes chance no likelier
(an intersection-union test; Berger 1982). "contradicted": one clearly holds the other way; any of k may, so there t is
taken at 1 - 0.025/k (Bonferroni). "undecided": neither; more seeds would tell. On new patients the differences are
paired by fold, with their own deviation. Two scores of one run are of the same masks, and no chance lies between them:
such a comparison is clear where every run has it so.

Counts, settings and parameters have no spread. A parameter count is reproduced within half a unit. A count of slices is
"reproduced" or "differs". What the code was built to be, or a source declares, agrees "by construction", which is no result.
"not run": no record answers. "not checkable": no run could.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit  # all of scipy.stats takes a second to import, for one quantile

VERDICTS = (
    "reproduced", "compatible", "above the paper", "below the paper", "contradicted", "undecided", "differs",
    "by construction", "not comparable", "not run", "not checkable",
)  # fmt: skip
EQUIVALENT = 0.05  # of a score, within which two are the same for a reader
_EDGE = 1e-9  # a difference of exactly the tolerance is within it

# (run without its suffix, metric) -> value by suffix (split and seed).
Values = Callable[[str, str], dict[str, float]]
SpreadOf = Callable[[str, str], "Spread"]  # (run, metric)


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


@dataclass(frozen=True)
class Spread:
    """Standard deviation of one run, pooled within rows, and its degrees of freedom; none of both where freedom is 0."""

    deviation: float = 0.0
    freedom: int = 0

    def t(self, *, tail: float = 0.025) -> float:
        """Student's quantile above which `tail` lies; 0 without freedom."""
        return float(stdtrit(self.freedom, 1 - tail)) if self.freedom else 0.0


def pooled_spread(rows: Iterable[Sequence[float]]) -> Spread:
    """The spread of one run from the seeds of several rows, each about its own mean; rows of one seed tell nothing.

    Example:
        >>> pooled_spread([[0.70, 0.74], [0.80, 0.81, 0.82], [0.5]])
        Spread(deviation=0.018257418583505554, freedom=3)
    """
    several = [np.asarray(row, float) for row in rows if len(row) > 1]
    freedom = sum(len(row) - 1 for row in several)
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in several)
    return Spread(float(np.sqrt(squares / freedom)), freedom) if freedom else Spread()


def judge_score(value: str, pooled: list[float], *, metric: str, spread: Spread) -> Judgement:
    """A printed score against ours, one a seed.

    Args:
        value: as printed.
        pooled: pooled scores.
        metric: a column head.
        spread: of one run, for this score and kind of mask.
    """
    paper, half = printed(value)
    difference = float(np.mean(pooled)) - paper
    if metric == "JI":
        return Judgement("not comparable", difference, reason="the printed column follows from no formula")
    n = len(pooled)
    further = spread.t() * spread.deviation * (1 + 1 / n) ** 0.5
    tolerance = half + further
    reason = f"rounding {half:g} + a further run {further:.3f}, by a spread of {spread.deviation:.3f} ({spread.freedom} degrees of freedom)"
    if abs(difference) > tolerance + _EDGE:
        return Judgement(_side(difference), difference, tolerance, reason)
    same = abs(difference) <= EQUIVALENT + _EDGE
    return Judgement("reproduced" if same else "compatible", difference, tolerance, reason)


def _side(difference: float) -> str:
    return "above the paper" if difference > 0 else "below the paper"


def judge_parameters(value: str, ours: int) -> Judgement:
    """A printed parameter count against one of the code."""
    paper, half = printed(value)
    difference = ours - paper
    if abs(difference) <= half + _EDGE:
        return Judgement("reproduced", difference, half, "rounding")
    return Judgement(_side(difference), difference, half, f"rounding; {difference / paper:+.0%}")


def judge_same(value: str, ours: str, *, run: bool) -> Judgement:
    """A count or a setting: the same or not.

    Args:
        run: a run could have found otherwise; else it is so by construction.
    """
    difference = float("nan")
    if re.fullmatch(r"\d+", value) and re.fullmatch(r"\d+", ours):
        difference = float(int(ours) - int(value))
    same = "reproduced" if run else "by construction"
    return Judgement(same if ours == value else "differs", difference, 0.0, "exact")


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


@dataclass(frozen=True)
class _Found:
    """A comparison in our records: the mean difference, what is clear, and whether it holds clearly, or the other way."""

    difference: float
    margin: float
    clear: bool
    against: bool


def _compare(comparison: Comparison, differences: list[float], spread: Spread | None, k: int) -> _Found:
    """One comparison of k; nothing is clear of two runs where one pair by fold is all there is."""
    n, mean = len(differences), float(np.mean(differences))
    a, b = comparison.a, comparison.b
    numbers = isinstance(a, float) + isinstance(b, float)
    if not isinstance(a, float) and not isinstance(b, float) and a[0] == b[0]:
        return _Found(mean, 0.0, all(d > 0 for d in differences), all(d < 0 for d in differences))
    if spread is None:  # paired by fold, with their own deviation
        if n < 2:
            return _Found(mean, float("inf"), False, False)
        spread, sides = Spread(float(np.std(differences, ddof=1)), n - 1), 1
    else:
        sides = 2 - numbers
    error = spread.deviation * (sides / n) ** 0.5
    own, strict = (spread.t(tail=0.025 / of) * error for of in (1, k))
    return _Found(mean, own, mean > own, mean < -strict)


def judge_claim(rule: str, values: Values, spread_of: SpreadOf | None = None) -> tuple[Judgement, str]:
    """A claim against our records; the judgement and, in words, what was found.

    Args:
        rule: see `parse_rule`.
        values: pooled scores of a run by split and seed; empty where there is none.
        spread_of: the spread of a run's score; None: differences are paired, and have their own.
    """
    comparisons = parse_rule(rule)
    found: list[_Found] = []
    lacking: set[str] = set()
    for comparison in comparisons:
        sides: Any = (comparison.a, comparison.b)
        scores: list[Any] = [None if isinstance(side, float) else values(*side) for side in sides]
        lacking |= {side[0] for side, score in zip(sides, scores) if score is not None and not score}
        common = set.intersection(*(set(score) for score in scores if score is not None))
        a, b = (
            {k: side for k in common} if isinstance(side, float) else score
            for side, score in zip(sides, scores)
        )
        differences = [a[k] - b[k] for k in sorted(common)]
        if differences:
            run = next(side for side in sides if not isinstance(side, float))
            spread = spread_of(*run) if spread_of else None
            found.append(_compare(comparison, differences, spread, len(comparisons)))
        elif not lacking:
            lacking |= {side[0] for side in sides if not isinstance(side, float)}
    if lacking:
        return Judgement("not run", reason=f"lacks {', '.join(sorted(lacking))}"), ""
    clear, other = (sum(getattr(f, what) for f in found) for what in ("clear", "against"))
    least = min(found, key=lambda f: f.difference)
    verdict = "reproduced" if clear == len(found) else "contradicted" if other else "undecided"
    words = (
        f"{sum(f.difference > 0 for f in found)} of {len(found)} hold, {clear} clearly"
        f"{f', {other} clearly the other way' if other else ''}; least {least.difference:+.3f}"
    )
    told = f"{len(found)} comparisons, each at 95 %; the other way, together"
    return Judgement(verdict, least.difference, least.margin, told), words
