"""Rows below Table 3's: networks of one's own, which the paper has not (`replication.peers.OWN`)."""

from replication.evidence.estimates import COLUMNS, Ours, parameters, shorten
from replication.evidence.ledger import NOT_RUN, mean_and_std
from replication.training.grid import ROWS

NO_ROW = "not in the paper"


def own_rows(ours: Ours, heads: list[str], *, whose: str) -> list[dict[str, str]]:
    """Three lines a network, as the paper's rows have them: the paper's, ours on random slices, ours on new patients.

    Args:
        heads: the table's columns. whose: the scores are, in words.
    """
    rows = []
    for row in (row for row in ROWS if row.table == "own"):
        labels = {"Mode": row.label, "Segmentation": "infection"}
        empty = dict.fromkeys([*heads, "verdict", "records"], "")
        rows.append(empty | labels | {"of": "paper", "records": NO_ROW})
        for protocol, name in (("slice", "random slices"), ("patient", "new patients")):
            cells = {head: ours.cell(row.key, head, protocol=protocol) for head in heads if head in COLUMNS}
            names = cells["DSC"].names if cells["DSC"] else []
            rows.append(
                empty | labels
                | {head: mean_and_std(cell.pooled) if cell else NOT_RUN for head, cell in cells.items()}
                | ({"Param.": f"{parameters(row.key):,}"} if protocol == "slice" else {})
                | {"of": f"{whose}, {name}", "records": shorten(names) if names else NOT_RUN}
            )  # fmt: skip
    return rows
