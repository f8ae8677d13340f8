"""One score, averaged in several ways: what our runs give by each, and which of the paper's rows each could give.

The paper does not say whose Dice coefficient it prints: of all pixels pooled, a mean over slices or patients, or a mean of
the infection and the background, as some libraries return it (register row 18). No verdict hangs on this page.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chslib.metrics import scores
from replication.evidence.audit import BACKGROUND_DSC, SHARE, Interval, range_of
from replication.evidence.records import Record

POOLED, SLICES, PATIENTS, CLASSES = (
    "all pixels pooled", "mean over slices", "mean over patients", "mean of infection and background",
)  # fmt: skip
AT_MOST_HALF = {SHARE: (0.0, 0.5)}  # of the pixels of a chest slice


def ours_by_average(records: Sequence[Record]) -> pd.DataFrame:
    """The Dice coefficient of some runs, a column each, by way of averaging."""
    found = {}
    for record in records:
        test, counts = record["test"], record["test"]["confusion"]
        turned = np.array(
            [counts[key] for key in ("tn", "fn", "fp", "tp")]
        )  # background as the class that is sought
        found[record["run"]] = {
            POOLED: test["pooled"]["dsc"], SLICES: test["per_slice"]["dsc"]["mean"],
            PATIENTS: test["per_patient"]["dsc"]["mean"],
            CLASSES: (test["pooled"]["dsc"] + float(scores(turned)["dsc"])) / 2,
        }  # fmt: skip
    return pd.DataFrame(found)


def least_of_two_classes(known: Mapping[str, Interval]) -> float:
    """What a mean of infection and background is at least, given its row's accuracy: half of the background's least.

    Args:
        known: intervals of the row (`replication.evidence.audit.intervals`); its accuracy is used, and that at most half
            of the pixels are infected.
    """
    least = range_of(BACKGROUND_DSC, AT_MOST_HALF | {"Acc.": known["Acc."]})
    return least[0] / 2 if least else 0.0  # an accuracy alone always has a matrix


def with_background(known: Mapping[str, Interval]) -> Interval | None:
    """The mean of infection and background that goes with a row's accuracy, precision and recall, if these are the infection's; None: no matrix has them."""
    given = {metric: known[metric] for metric in ("Acc.", "Pre.", "Rec.")}
    one, other = (range_of(quantity, AT_MOST_HALF | given) for quantity in ("DSC", BACKGROUND_DSC))
    return ((one[0] + other[0]) / 2, (one[1] + other[1]) / 2) if one and other else None
