"""Slices counted: what the paper says of its fused set, beside the store that the records are of."""

from dataclasses import dataclass

from replication.data.names import DATASETS
from replication.data.slices.splits import FOLDS
from replication.evidence.estimates import Ours
from replication.evidence.records import KNOWN_DATA


@dataclass(frozen=True)
class Count:
    """Slices of the store that the records are of; `whole`: it is made of both of the paper's sources."""

    number: int | None
    whole: bool
    reason: str
    names: list[str]
    profile: str


def count_answer(rule: str, ours: Ours) -> Count:
    """Slices, or infected ones, of the store behind the headline's records.

    Infected slices are counted over the five patient folds, whose test parts are the whole store.
    """
    if rule == "infected slices":
        profile, group = ours.best("table2-infection", protocol="patient")
        complete = len(group) == FOLDS
        number = sum(row[1] + row[3] > 0 for r in group for row in r["slices"]) if complete else None
    else:
        profile, group = ours.best("table2-lungs")
        number = group[0]["data"]["slices"] if group else None
    if not group or number is None:
        return Count(None, False, "lacks records of the headline", [], "")
    data = group[0]["data"]
    whole = all(any(source in data["sources"] for source in sources) for sources in DATASETS.values())
    described = KNOWN_DATA.get(
        data["fingerprint"], f"{data['slices']} slices of {', '.join(data['sources'])}"
    )
    reason = "exact" if whole else f"the records are of {described}, not of both sources fused"
    return Count(int(number), whole, reason, [r["run"] for r in group], profile)
