"""The sizes of the paper's steps against ours. A claim asks which row is higher; the paper's claims are gains of a size."""

import numpy as np
import pandas as pd

from replication.evidence.estimates import Ours
from replication.evidence.ledger import paper_numbers
from replication.evidence.verdicts import parse_rule, printed
from replication.training.grid import get_run

# What each component adds to one network and to the second of two, and what two networks add to one.
CLAIMS = ("claim-components-direct", "claim-components-infection", "claim-hierarchical")


def steps(ours: Ours) -> pd.DataFrame:
    """Each step of the infection's DSC in Tables 4 and 5: the paper's, ours, and whether ours can be that large.

    All of ours are of the one profile that has most of the rows. The intervals hold for all steps together with 95 %
    (Bonferroni), by the spread of one run (`replication.evidence.verdicts`), over the seeds that both rows have.

    Returns:
        Indexed by the step, such as "Table 4, BU+RIB less BU": paper, ours (mean), n (seeds), low, high, excluded (the
        paper's step, its rounding allowed for, is outside), profile. NaN, 0 and False where nothing was run.
    """
    numbers = paper_numbers()
    rules = numbers.set_index("id").loc[list(CLAIMS), "rule"]
    sides = [(step.a, step.b) for rule in rules for step in parse_rule(rule)]
    pairs = [(a[0], b[0]) for a, b in sides if isinstance(a, tuple) and isinstance(b, tuple)]
    cells = numbers[(numbers["metric"] == "DSC") & numbers["table"].str.startswith("Table")].set_index("run")
    profile = ours.alike([run for pair in pairs for run in pair])
    found = {}
    for more, less in pairs:
        (a, half_a), (b, half_b) = (printed(cells.loc[run, "value"]) for run in (more, less))
        each = [
            ours.values(run, "DSC", protocol="slice", profile=profile) if profile else {}
            for run in (more, less)
        ]
        of = [each[0][seed] - each[1][seed] for seed in each[0] if seed in each[1]]
        spread = ours.spread(get_run(more).target, "DSC")
        mean = float(np.mean(of)) if of else np.nan
        margin = np.inf  # no spread, no bound
        if of and spread.freedom:
            margin = spread.t(tail=0.025 / len(pairs)) * spread.deviation * (2 / len(of)) ** 0.5
        found[_name(cells, more, less)] = {
            "paper": a - b, "ours": mean, "n": len(of), "low": mean - margin, "high": mean + margin,
            "excluded": abs(a - b - mean) > margin + half_a + half_b, "profile": profile,
        }  # fmt: skip
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("step")


def _name(cells: pd.DataFrame, more: str, less: str) -> str:
    (table, a), (other, b) = (
        (cells.loc[run, "table"], cells.loc[run, "row"].split(" (")[0]) for run in (more, less)
    )
    return f"{table}, {a} less {b}" if table == other else f"{a}: {table} less {other}"
