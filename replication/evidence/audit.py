"""Checks of the paper's printed scores: what they imply for one another, whatever was measured.

A value printed to two decimals stands for an interval, 0.88 for [0.875, 0.885]. The six scores of a
row (Fig. 13) are ratios of the four counts of one confusion matrix, and a bound on a ratio is linear
in the counts. So two questions are small linear programs: does any confusion matrix agree with what is
printed, and between which bounds is any other ratio then? The answers are exact for pooled counts;
means over slices obey some of the rules (JI <= DSC), not all (register row 18).
"""

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import OptimizeResult, linprog

from replication.evidence.estimates import COLUMNS
from replication.evidence.ledger import paper_numbers
from replication.evidence.verdicts import parse_rule, printed

METRICS = tuple(COLUMNS)  # Acc., Pre., Spe., Rec., DSC, JI
SHARE, BACKGROUND_IOU, BACKGROUND_DSC = "share", "IoU of the background", "DSC of the background"
Interval = tuple[float, float]

# Numerator and denominator of each ratio, as weights of the counts (tp, fp, fn, tn).
RATIOS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "Acc.": ((1, 0, 0, 1), (1, 1, 1, 1)),
    "Pre.": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "Spe.": ((0, 0, 0, 1), (0, 1, 0, 1)),
    "Rec.": ((1, 0, 0, 0), (1, 0, 1, 0)),
    "DSC": ((2, 0, 0, 0), (2, 1, 1, 0)),
    "JI": ((1, 0, 0, 0), (1, 1, 1, 0)),
    SHARE: ((1, 0, 1, 0), (1, 1, 1, 1)),  # of all pixels that are infection (or lung) in truth
    BACKGROUND_IOU: ((0, 0, 0, 1), (0, 1, 1, 1)),
    BACKGROUND_DSC: ((0, 0, 0, 2), (0, 1, 1, 2)),
}
# Channels of VGG16's convolution blocks, each convolution 3x3 with a bias; one input channel.
VGG16 = ((1, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))


def printed_rows() -> pd.DataFrame:
    """The distinct rows of scores of Tables 2-5, as printed; CHS-Net's stand in Tables 2, 3 and 5.

    Returns:
        Indexed by a label such as "Table 5, BU+RIB, lungs"; columns table, segmentation ("lungs" or
        "infection"), tables (all that print the row) and `METRICS`, text.
    """
    numbers = paper_numbers().query("kind == 'score' and table != 'Text'")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for (table, row, segmentation), cells in numbers.groupby(["table", "row", "segmentation"], sort=False):
        values = cells.set_index("metric")["value"]
        kind = "lungs" if segmentation == "Lungs" else "infection"
        number = table.removeprefix("Table ")
        if known := rows.get((kind, *values[list(METRICS)])):
            known["tables"] += f", {number}"
            continue
        short = row.split(" [")[0].replace("BU+RIB+HP+SSD (RAIU-Net)", "RAIU-Net")
        head = {"label": f"{table}, {short}, {kind}", "table": table, "segmentation": kind, "tables": number}
        rows[(kind, *values[list(METRICS)])] = head | values[list(METRICS)].to_dict()
    return pd.DataFrame(rows.values()).set_index("label")


def intervals(
    row: Mapping[str, str], metrics: Iterable[str] = METRICS, *, half: float | None = None
) -> dict[str, Interval]:
    """What the printed values of a row stand for, within [0, 1].

    Args:
        row: printed text by metric; metrics: which of them.
        half: half-width of each interval; None: half a unit of the last printed digit.
    """
    found = {}
    for metric in metrics:
        value, unit = printed(row[metric])
        width = unit if half is None else half
        found[metric] = (max(0.0, value - width), min(1.0, value + width))
    return found


def _solve(quantity: str, known: Mapping[str, Interval], sign: int) -> OptimizeResult:
    """Least (sign 1) or greatest (-1) value of a ratio, its denominator scaled to 1 (Charnes, Cooper 1962)."""
    if unknown := [key for key in (quantity, *known) if key not in RATIOS]:
        raise ValueError(f"Unknown ratio {unknown[0]!r}; expected one of {', '.join(RATIOS)}.")
    numerator, denominator = np.array(RATIOS[quantity], dtype=float)
    rules = []  # each <= 0
    for key, (low, high) in known.items():
        top, bottom = np.array(RATIOS[key], dtype=float)
        rules += [low * bottom - top, top - high * bottom]
    limits = {"A_ub": np.array(rules), "b_ub": np.zeros(len(rules))} if rules else {}
    end = linprog(
        sign * numerator, A_eq=[denominator], b_eq=[1.0], bounds=(0, None), method="highs", **limits
    )
    if end.status not in (0, 2):  # solved, or no such matrix
        raise ArithmeticError(f"{quantity} given {dict(known)}: {end.message}")
    return end


def range_of(quantity: str, known: Mapping[str, Interval]) -> Interval | None:
    """Least and greatest value of a ratio over all confusion matrices that agree with what is known.

    Args:
        quantity: a key of `RATIOS`.
        known: intervals by key of `RATIOS`.

    Returns:
        The interval, or None where no confusion matrix agrees. Its ends are limits: a matrix may come
        as near as one likes without having them (where a denominator would be 0).

    Raises:
        ValueError: a ratio that is not in `RATIOS`.
    """
    ends = [_solve(quantity, known, sign) for sign in (1, -1)]
    return None if any(end.status for end in ends) else (float(ends[0].fun), -float(ends[1].fun))


def consistent(known: Mapping[str, Interval]) -> bool:
    """Whether any confusion matrix agrees with all intervals, slices with nothing to find and nothing found aside."""
    return _solve("JI", known, 1).status == 0  # JI's denominator is 1: tp + fp + fn > 0


def conflicts(known: Mapping[str, Interval]) -> list[tuple[str, ...]]:
    """The sets of scores that contradict one another while no part of theirs does.

    Any set of the scores that holds none of these is consistent.
    """
    found: list[tuple[str, ...]] = []
    for size in range(1, len(known) + 1):
        for chosen in combinations(known, size):
            if not _holds_any(chosen, found) and not consistent({key: known[key] for key in chosen}):
                found.append(chosen)
    return found


def largest_consistent(
    known: Mapping[str, Interval], found: Iterable[tuple[str, ...]] | None = None
) -> list[tuple[str, ...]]:
    """The largest sets of scores that one confusion matrix can have; there may be several.

    Args:
        found: the `conflicts`, where they are known already.
    """
    found = conflicts(known) if found is None else list(found)
    for size in range(len(known), 0, -1):
        if whole := [c for c in combinations(known, size) if not _holds_any(c, found)]:
            return whole
    return []


def _holds_any(chosen: tuple[str, ...], found: Iterable[tuple[str, ...]]) -> bool:
    return any(set(part) <= set(chosen) for part in found)


def half_width_needed(row: Mapping[str, str], metrics: Iterable[str] = METRICS) -> float:
    """By how much some printed value must at least be off for a row to be possible, to four digits.

    Up to 0.005 is rounding, up to 0.01 could be digits cut off or a slip in the last one; more is neither.
    """
    low, high = 0.0, 1.0
    while high - low > 2e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if consistent(intervals(row, metrics, half=middle)) else (middle, high)
    return round(high, 4)


def overlap(spans: Iterable[Interval]) -> Interval | None:
    """What all intervals have in common, or None."""
    lows, highs = zip(*spans)
    return (max(lows), min(highs)) if max(lows) <= min(highs) else None


def on_its_own_numbers(rule: str) -> list[tuple[float, bool]]:
    """A claim of the paper against the paper's own tables.

    Args:
        rule: of `paper_numbers.csv`, see `replication.evidence.verdicts.parse_rule`.

    Returns:
        For each comparison its difference as printed, and whether it is more than rounding could make.
    """
    cells = paper_numbers().query("kind == 'score' and table != 'Text'").set_index(["run", "metric"])["value"]
    found = []
    for comparison in parse_rule(rule):
        (a, half_a), (b, half_b) = (
            (side, 0.0) if isinstance(side, float) else printed(cells[side])
            for side in (comparison.a, comparison.b)
        )
        found.append((round(a - b, 4), a - b > half_a + half_b))
    return found


def implied_shares(*, precision: float, recall: float, specificity: float) -> np.ndarray:
    """The confusion matrix that three scores imply: TP, FP, FN, TN as shares of all pixels.

    Scores alone hold no counts, but with p the share of positive pixels,
    precision = p recall / (p recall + (1 - p) (1 - specificity)) has one solution.

    Raises:
        ValueError: scores that leave p open.
    """
    if not (0 < precision < 1 and 0 < recall <= 1 and 0 <= specificity < 1):
        raise ValueError(
            f"precision {precision}, recall {recall}, specificity {specificity} leave the share of positive "
            "pixels open; expected precision and specificity below 1 and none 0."
        )
    odds = precision * (1 - specificity) / (recall * (1 - precision))
    p = odds / (1 + odds)
    return np.array([p * recall, (1 - p) * (1 - specificity), p * (1 - recall), (1 - p) * specificity])


def vgg16_parameters(blocks: int = 5) -> int:
    """Weights and biases in the first `blocks` (of 5) convolution blocks of VGG16."""
    return sum(9 * a * b + b for widths in VGG16[:blocks] for a, b in zip(widths, widths[1:]))


def linked_unet_parameters(classes: int = 1) -> int:
    """Trainable parameters of the "U-Net+VGG16" in the code that Table 3's footnote 2 links to.

    `vgg_unet` of divamgupta/image-segmentation-keras: VGG16's first four blocks, then four 3x3
    convolutions with bias and batch normalisation, three of them on a concatenation, and a 3x3 head.
    """
    decoder = ((512, 512), (512 + 256, 256), (256 + 128, 128), (128 + 64, 64))
    head = 9 * 64 * classes + classes
    return vgg16_parameters(4) + sum(9 * a * b + 3 * b for a, b in decoder) + head
