"""How many scores came out how, each once, and apart where a verdict says little.

In an infected slice of a
chest 98 % of the pixels are none of it, so that marking nothing has an accuracy of 0.98 and a specificity of 1: a score
above the paper's there says little, and is counted apart. So is a verdict whose tolerance is that of other runs
(`Ours.borrowed`).
"""

import pandas as pd

from replication.evidence.verdicts import VERDICTS
from replication.training.grid import get_run

EASY = ("Acc.", "Spe.")  # of the infection


def distinct_scores(lines: pd.DataFrame) -> pd.DataFrame:
    """The scores of a ledger, each of ours once.

    The paper prints the headline in three tables and the conclusion, and our baseline U-Net answers a row of Table 3 and
    one of Table 4. One score of one training counts once for each verdict that it got.

    Args:
        lines: the ledger.

    Returns:
        The first line of each, with the columns target ("lungs" or "infection") and times (that it stands there).
    """
    scores = lines[lines["kind"] == "score"].copy()
    runs = [get_run(run) for run in scores["run"]]
    turned = scores["metric"] == "1 - Pre."  # precision, told from the other side
    sides = {"above the paper": "below the paper", "below the paper": "above the paper"}
    verdicts = scores["verdict"].where(~turned, scores["verdict"].replace(sides))
    keys = pd.Series(
        list(zip([run.name for run in runs], scores["metric"].where(~turned, "Pre."), verdicts)),
        index=scores.index,
    )
    return scores.assign(target=[r.target for r in runs], times=keys.map(keys.value_counts()))[
        ~keys.duplicated()
    ]


def totals(lines: pd.DataFrame) -> pd.DataFrame:
    """Distinct scores by verdict: the infection's accuracy and specificity, and of the others those by a spread of their
    own budget and by a borrowed one.

    Args:
        lines: the ledger.
    """
    scores = distinct_scores(lines)
    easy = (scores["target"] == "infection") & scores["metric"].isin(EASY)
    borrowed = scores["borrowed"] != ""
    columns = {
        "all": easy | ~easy, "infection, Acc. and Spe.": easy, "others, own spread": ~easy & ~borrowed,
        "others, borrowed spread": ~easy & borrowed,
    }  # fmt: skip
    found = pd.DataFrame({name: scores[of]["verdict"].value_counts() for name, of in columns.items()})
    return found.reindex([v for v in VERDICTS if v in found.index]).fillna(0).astype(int)
