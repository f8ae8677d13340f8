"""The verdict in sentences: what was reproduced, what the components show, what a new patient may expect."""

import numpy as np
import pandas as pd

from replication.analysis.differences import HEADLINE, SMALL
from replication.data.slices.splits import FOLDS
from replication.evidence.comparisons import (
    BEYOND,
    LAST,
    at_full_size,
    infection_rows,
    scores_of,
    with_larger,
)
from replication.evidence.estimates import Ours
from replication.evidence.ledger import NOT_RUN, paper_numbers
from replication.evidence.verdicts import VERDICTS
from replication.training.grid import get_run
from replication.training.profiles import PROFILES

HALF_A_UNIT = 0.005  # of a printed score


def in_words(lines: pd.DataFrame) -> dict[str, list[str]]:
    """What was reproduced and what was not, from a ledger: rows of Tables 2-5 by their DSC, then claims.

    Args:
        lines: the ledger.

    Returns:
        By verdict, in the order of `verdicts.VERDICTS`: each row with the paper's value and ours, each
        claim in the paper's words.
    """
    found: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    tables = [f"Table {number}" for number in range(2, 6)]
    for line in lines[(lines["metric"] == "DSC") & lines["table"].isin(tables)].to_dict("records"):
        name = ", ".join(filter(None, (line["row"].split(" [")[0], line["segmentation"])))
        ours = "" if line["verdict"] == NOT_RUN else f", here {line['ours']}"
        found[line["verdict"]].append(f"{line['table']}, {name} ({line['paper']}{ours})")
    for line in lines[lines["kind"] == "claim"].to_dict("records"):
        found[line["verdict"]].append(f"“{line['paper']}”")
    return {verdict: texts for verdict, texts in found.items() if texts}


def _full_size_in_words(ours: Ours) -> list[str]:
    """What the networks of Table 3 reach at the paper's size, and how far CHS-Net came there."""
    lines = at_full_size(ours)
    printed = scores_of(3, ours)["paper"].droplevel("segmentation")
    runs = paper_numbers("Table 3").query("metric == 'DSC'").set_index("row")["run"]
    named = {get_run(run).name: row for row, run in runs.items()}
    whole = lines[lines["run"].isin(list(named)) & (lines["ended"] != "out of time")].set_index("run")[
        "after"
    ]
    if whole.empty:
        return []
    theirs = printed[[named[run] for run in whole.index]]
    text = (
        f"At the paper’s 256×256, with up to {PROFILES['paper'].max_epochs['infection']} epochs, {len(whole)} of the "
        f"{len(printed)} networks of Table 3 were trained: they score {whole.min():.2f} to {whole.max():.2f} on random "
        f"slices, {theirs.min():.2f} to {theirs.max():.2f} in the paper."
    )
    for line in lines[(lines["run"] == HEADLINE) & (lines["ended"] == "out of time")].to_dict("records"):
        text += (
            f" The second stage of CHS-Net had {line['epochs']} epochs there before its time ran out, and "
            f"{line['after']:.2f}; what it would have reached is not known."
        )
    return [text]


def flat_or_not(courses: pd.DataFrame) -> list[str]:
    """Whether the trainings of `comparisons.courses` had come to their end, by the rule of register row 71."""
    told = []
    for of in courses.to_dict("records"):
        network = {"direct": "direct network"}.get(of["network"], of["network"])
        name = f"The {network} at {of['size']}×{of['size']}, {of['epochs']} epochs ({of['ended']})"
        if np.isnan(of["rise"]):
            told.append(f"{name}: fewer than {2 * LAST} epochs, too short to tell.")
            continue
        moves = abs(of["rise"]) > max(of["step"], HALF_A_UNIT)
        word = ("still rising" if of["rise"] > 0 else "falling") if moves else "flat"
        told.append(
            f"{name}: {word}. The mean of its last {LAST} epochs is {abs(of['rise']):.3f} "
            f"{'above' if of['rise'] > 0 else 'below'} that of the {LAST} before; neighbouring epochs lie {of['step']:.3f} apart. "
            f"Epoch {of['best epoch']} was kept."
        )
    return told


def _other_budget(line: dict[str, str]) -> str:
    """The profile of the new patients' records, where random slices are answered by another."""
    profile = line["patient records"].rpartition("(")[2].rstrip(")")
    return f", by the profile {profile}" if profile != line["profile"] else ""


def conclusions(ours: Ours, lines: pd.DataFrame) -> list[str]:
    """The verdict on the headline, on the components, and on a new patient, a sentence or two each.

    Args:
        ours: the records; lines: the ledger made of them.
    """
    by_id, found = lines.set_index("id"), []
    for name, what in (("t2-lungs-dsc", "The lungs"), ("t2-infection-dsc", "The infection, by the cascade")):
        line = by_id.loc[name]
        if line["verdict"] == NOT_RUN:
            found.append(f"{what}: {NOT_RUN}.")
            continue
        new = (
            ""
            if not line["folds"]
            else f" and {line['new patients']} on new patients ({line['folds']} of {FOLDS} folds{_other_budget(line)})"
        )
        at = f", at {line['at']}" if line["at"] else ""
        found.append(
            f"{what}: DSC {line['paper']} in the paper, {line['ours']} here on random slices{new}. "
            f"On the paper’s protocol: {line['verdict']}{at}."
        )
    rows = infection_rows(ours)
    for table in ("Table 3", "Table 4", "Table 5"):
        run = rows.loc[table].dropna(subset=["slice"])
        if len(run) < 2:
            found.append(f"{table}: fewer than two of its rows were run.")
            continue
        theirs, mine = (float(run[c].max() - run[c].min()) for c in ("paper", "slice"))
        word = (
            "does not show here"
            if mine < SMALL * theirs
            else "shows here in part"
            if mine < theirs / 2
            else "shows here, too"
        )
        found.append(
            f"{table}: {len(run)} of its {len(rows.loc[table])} rows were run. From the lowest to the highest they lie "
            f"{theirs:.2f} apart in the paper and {mine:.2f} here, with one budget: the large difference {word}."
        )
    found += _full_size_in_words(ours)
    beyond = [
        f"{np.mean([r['test']['pooled']['dsc'] for r in records]):.2f} by `{key}`{where} ({len(records)} of {FOLDS} folds)"
        for key in BEYOND
        for where, of in with_larger(ours).items()
        if (records := of.best(key, protocol="patient")[1])
    ]
    if beyond:
        found.append(
            f"A new patient, beyond the paper’s recipe, in no row of its tables: DSC {', '.join(beyond)}."
        )
    return found
