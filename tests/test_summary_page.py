"""Every number of book/summary.md is that of the records, of the ledger or of the register."""

import re
from pathlib import Path

import numpy as np
import pytest

from chslib.answers import Ours
from chslib.leakage import RECORD, read_leakage
from chslib.ledger import NOT_RUN, ledger_of
from chslib.records import KNOWN_DATA, load_records

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "book/summary.md").read_text(encoding="utf-8")
PROSE = " ".join(TEXT.split())
# The first cell of a row of the page's table -> the line of the ledger that it sums up.
LINES = {
    "CHS-Net, lungs (Table 2)": "t2-lungs-dsc",
    "CHS-Net, infection (Table 2)": "t2-infection-dsc",
    "One RAIU-Net, infection (Table 4)": "t4-full-dsc",
    "Plain U-Net, infection (Table 4)": "t4-bu-dsc",
    "U-Net++ (Table 3)": "t3-unetpp-dsc",
    "Attention U-Net (Table 3)": "t3-attention-unet-dsc",
    "Inf-Net (Table 3)": "t3-infnet-dsc",
    "MiniSeg (Table 3)": "t3-miniseg-dsc",
    "Each component improves the direct network (Table 4)": "claim-components-direct",
    "The cascade beats the direct network, arm by arm (Tables 4, 5)": "claim-hierarchical",
}


@pytest.fixture(scope="module")
def ledger() -> dict[str, dict]:
    lines = ledger_of(Ours(ROOT / "results")).to_dict("records")
    return {line["id"]: line for line in lines}


def row(label: str, line: dict) -> str:
    """The row of the page's table that a line of the ledger gives."""
    claim = line["kind"] == "claim"

    def shown(value: str) -> str:
        if value.startswith(NOT_RUN):
            return NOT_RUN
        return value if claim else f"{float(value.split(' ')[0]):.2f}"

    paper = "claimed" if claim else line["paper"]
    verdict = re.sub(" at .*", "", line["verdict"])
    return f"| {label} | {paper} | {shown(line['ours'])} | {shown(line['new patients'])} | {verdict} |"


def test_the_table_is_the_ledger_s(ledger: dict[str, dict]) -> None:
    expected = [row(label, ledger[key]) for label, key in LINES.items()]
    found = [line for line in TEXT.splitlines() if line.startswith("| ")]
    assert found[0].startswith("| | Paper |")
    assert found[1:] == expected, "write these rows instead:\n" + "\n".join(expected)


def test_what_was_run_is_what_the_records_say() -> None:
    records, refused = load_records(ROOT / "results", "cpu")
    assert refused == {} and not list((ROOT / "results/paper").glob("*.json")), "the page knows of cpu alone"
    for run in records.values():
        config = run["config"]
        assert (config["seed"], config["size"], run["device"].split(", ")[-1]) == (0, 128, "1 threads")
        assert run["data"]["fingerprint"] in KNOWN_DATA
        assert f"{run['fit']['epochs']} epochs ({config['target']})" in PROSE
        assert f"on {run['data']['slices']} prepared slices of {run['data']['patients']} patients" in PROSE
        assert config["protocol"] == "slice" or config["fold"] == 0


def test_the_sentences_are_the_records(ledger: dict[str, dict]) -> None:
    records, _ = load_records(ROOT / "results", "cpu")
    three = [
        records[name]["test"]["pooled"]["dsc"] for name in ("table4-bu", "table4-full", "table2-infection")
    ]
    bound = float(re.search(r"the cascade score within ([\d.]+) of each other", PROSE)[1])
    assert bound / 2 < max(three) - min(three) <= bound
    copied = read_leakage(ROOT / "results" / RECORD)["entries"]
    own = {
        protocol: np.mean([e["infection"]["pooled"]["dsc"] for e in copied if e["protocol"] == protocol])
        for protocol in ("slice", "patient")
    }
    assert f"scores {own['slice']:.2f} for infection on random slices, and {own['patient']:.2f}" in PROSE
    size = ledger["t3-chsnet-param"]
    pair = float(size["ours"].replace(",", "")) / 1e6
    assert f"pair has {pair:.1f}M parameters by our count (the paper: {size['paper']})" in PROSE


def test_the_paper_s_numbers_are_the_ledger_s(ledger: dict[str, dict]) -> None:
    lungs, infection, index = (
        ledger[f"t2-{k}"]["paper"] for k in ("lungs-dsc", "infection-dsc", "infection-ji")
    )
    assert f"{lungs} for lungs and {infection} for infection" in PROSE
    implied = float(infection) / (2 - float(infection))
    assert (
        f"of {infection} implies a Jaccard index of {implied:.2f} for the same counts, the paper has {index}"
        in PROSE
    )
    assert f"paper counts {ledger['t1-fused-slices']['paper']} and" in PROSE
    rows = re.findall(r"^\(row-\d+\)=$", (ROOT / "book/register.md").read_text(encoding="utf-8"), flags=re.M)
    assert f"which is so at {len(rows)} points" in PROSE
