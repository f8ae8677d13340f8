"""Each chapter says first what it answers, in few sentences, and last where to go; its words fit the records."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from build import entries, read_toc

from replication.analysis.leak import TINY, agreement, patient_scores
from replication.analysis.lesions import read_lesions
from replication.analysis.speed import read_benchmark, targets
from replication.evidence.audit import implied_shares
from replication.evidence.estimates import Ours
from replication.evidence.ledger import ledger_of, paper_numbers
from replication.evidence.records import pooled_counts
from replication.evidence.totals import distinct_scores

ROOT = Path(__file__).resolve().parents[2]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [entry["file"] for entry in entries(read_toc(ROOT))]


def markdown(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]


def shortfalls(texts: list[str], page: str) -> list[str]:
    """What a chapter's first and last words lack."""
    found = []
    answer = texts[0].split("\n\n")[1].removeprefix("**In short.** ")
    if not 1 <= len(re.findall(r"[.?!](?=\s|$)", answer)) <= 3:
        found.append(f"opens with more than three sentences: {answer[:60]}")
    targets = re.findall(r"Next: \[[^]]+\]\(([^)#]+)\.(?:ipynb|md)\)", "\n".join(texts[-2:]))
    nexts = [f"notebooks/{t}".replace("notebooks/../", "") for t in targets]
    if len(nexts) != 1:
        found.append("does not end with what comes next")
    elif PAGES.index(nexts[0]) <= PAGES.index(page):
        found.append(f"leads back, to {nexts[0]}")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_chapter_opens_with_its_answer_and_ends_with_the_next(path: Path) -> None:
    assert shortfalls(markdown(path), f"notebooks/{path.stem}") == []


def test_a_chapter_without_them_is_noticed() -> None:
    long = "# One\n\nIt is. It was. It will be. It never was."
    assert len(shortfalls([long, "The end."], "notebooks/04_network")) == 2
    back = shortfalls(["# One\n\nIt is.", "Next: [a](02_dsc_cost.ipynb)."], "notebooks/04_network")
    assert back == ["leads back, to notebooks/02_dsc_cost"]


def test_what_the_chapters_judge_still_holds() -> None:
    ours, cpu = Ours(ROOT / "results"), Ours(ROOT / "results", ("cpu",))
    ledger = ledger_of(ours)
    lines = {line["id"]: line for line in ledger.to_dict("records")}
    scores = distinct_scores(ledger).query("metric == 'DSC'")
    dice = scores["verdict"]
    speed = targets(read_benchmark(ROOT / "results"))
    speed = speed[speed["found"] != "not run"].reset_index()
    steps = speed[speed["target"].str.startswith("training step")]["found"].astype(float)
    curves = speed[speed["target"].str.startswith("training curve")]["verdict"]
    printed = paper_numbers("Table 2").query("segmentation == 'COVID-19'").set_index("metric")["value"]
    implied = implied_shares(
        **{
            k: float(printed[c])
            for k, c in (("precision", "Pre."), ("recall", "Rec."), ("specificity", "Spe."))
        }
    )
    tp, _, fn, _ = implied
    counts = pooled_counts(ours.best("table2-infection")[1])
    share = (counts[0] + counts[2]) / counts.sum()
    new = {t: lines[f"t2-{t}-dsc"] for t in ("lungs", "infection")}
    by_size = read_lesions(ROOT / "results")["recall"].unstack("run")
    people = {key: patient_scores(records) for key in ("table2-infection", "table4-bu", "table3-miniseg", "beyond-context",
                                                       "beyond-healed") if (records := cpu.best(key, protocol="patient")[1])}  # fmt: skip
    middle = {}
    for which, left_out in (("all", []), ("without", [TINY])):
        agree = agreement({key: of.drop(left_out) for key, of in people.items()}).to_numpy()
        middle[which] = np.median(agree[np.triu_indices(len(agree), 1)])
    held = {
        ("04", "the two networks together are smaller than the paper says"):
            lines["t3-chsnet-param"]["verdict"] == "below the paper",
        ("12", "A training step takes less than half the time of the plain form’s, and the curves stay the same."):
            steps.min() > 2 and (curves == "met").all(),
        ("12", "Most of the targets that were measured were missed."):
            speed["verdict"].str.startswith("missed").mean() > 0.5,
        ("13", "Of the Dice coefficients most come out above"): (dice == "above the paper").mean() > 0.5,
        ("13", "few rows have more than one seed"): (scores["n"] > 1).mean() < 0.5,
        ("14", "several times as much infection as ours"): (tp + fn) / implied.sum() > 3 * share,
        ("14", "for large lesions are found more fully than small ones"): (by_size.iloc[-1] > 1.5 * by_size.iloc[0]).all(),
        ("06", "The lungs come out above most of the printed scores, one seed at full size."):
            (ledger["id"].str.startswith("t2-lungs-") & (ledger["verdict"] == "above the paper")).sum() >= 3
            and new["lungs"]["n"] == 1,
        ("15", "On new patients each network that was tested there scores less."): all(
            np.mean([r["test"]["pooled"]["dsc"] for r in of["slice"]]) > np.mean([r["test"]["pooled"]["dsc"] for r in of["patient"]])
            for of in ours.both_ways("infection").values()),
        ("16", "to a good part the same patients are hard, whichever network"): middle["all"] > 0.5,
        ("16", "Without the tiny volume the networks agree less"): 0.5 < middle["without"] < middle["all"],
        ("06", "Both score less on new patients."):
            all(float(n["new patients"].split()[0]) < float(n["ours"].split()[0]) for n in new.values()),
    }  # fmt: skip
    said = {p.stem[:2]: " ".join(" ".join(markdown(p)).split()) for p in NOTEBOOKS}
    assert [
        words for (chapter, words), holds in held.items() if words not in said[chapter] or not holds
    ] == []
