"""The picture of the verdict: a line a row, its word that of the ledger, no dot where nothing was run."""

import matplotlib.pyplot as plt
import pytest

from replication.evidence.estimates import Ours
from replication.evidence.ledger import ledger_of
from replication.figures.style import STYLES
from replication.figures.verdict import WORDS, plot_verdicts, verdict_rows


@pytest.fixture(scope="module")
def lines():
    from pathlib import Path

    return ledger_of(Ours(Path(__file__).resolve().parents[2] / "results"))


def drawn(lines):
    figure = plot_verdicts(lines)
    axis = figure.axes[0]
    dots = {line.get_color(): line.get_xdata() for line in axis.lines if line.get_linestyle() == "None"}
    words = [text.get_text() for text in axis.texts]
    names = [label.get_text() for label in axis.get_yticklabels()]
    plt.close(figure)
    return dots, words, names


def test_every_row_has_its_dots_and_its_verdict(lines):
    rows = verdict_rows(lines)
    assert len(rows) == 20 and set(rows["table"]) == {"Table 2", "Table 3", "Table 4", "Table 5"}
    dots, words, names = drawn(lines)
    for column, key in (("paper", "paper"), ("ours", "slice"), ("new patients", "patient")):
        assert dots[STYLES[key][1]] == pytest.approx(rows[column].to_numpy(), nan_ok=True)
    assert words[: len(rows)] == [WORDS[verdict][0] for verdict in rows["verdict"]]
    assert names[:4] == ["CHS-Net, lungs", "CHS-Net, infection", "U-Net", "U-Net++"]


def test_without_records_every_row_reads_not_run(tmp_path):
    rows = ledger_of(Ours(tmp_path))
    dots, words, _ = drawn(rows)
    assert words.count("not run") == len(verdict_rows(rows))
    assert all(x != x for x in dots[STYLES["slice"][1]])
