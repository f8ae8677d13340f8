"""The verdict in words: from records alone, whatever of them there is."""

from pathlib import Path

import pandas as pd
import pytest

from replication.analysis.conclusions import conclusions, flat_or_not, in_words
from replication.analysis.differences import EXPLANATIONS, explanations
from replication.analysis.leak import RECORD, read_leakage
from replication.evidence.comparisons import at_full_size, reductions, trend
from replication.evidence.estimates import Ours
from replication.evidence.ledger import ledger_of
from replication.evidence.verdicts import VERDICTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def copied() -> dict:
    return read_leakage(ROOT / "results" / RECORD)


def test_every_explanation_has_evidence_or_says_that_it_was_not_measured(ours, copied, tmp_path):
    for records in (ours, Ours(tmp_path)):
        table = explanations(records, copied)
        assert len(table) == len(EXPLANATIONS) and table.index.is_unique
        assert table["what was measured"].str.len().min() > 0
        assert not table.apply(lambda column: column.str.contains("nan|None|inf ")).any(axis=None)
    assert (
        explanations(Ours(tmp_path), copied)["what was measured"].str.contains("not run|not measured").sum()
        >= 6
    )


def test_evidence_is_the_records_own(ours, copied):
    table = explanations(ours, copied)["what was measured"]
    record = ours.best("table2-infection")[1][0]
    inside = record["first_stage"]["infection_inside"]["test"]
    assert f"{inside:.1%} on random slices" in table["infection that the first network cuts off"]
    pooled = [e["infection"]["pooled"]["dsc"] for e in copied["entries"] if e["protocol"] == "patient"]
    assert (
        f"{sum(pooled) / len(pooled):.2f} on new patients"
        in table["slices of one patient on both sides of the split"]
    )
    assert "JI of 0.79" in table["the paper’s numbers themselves"]


def test_every_row_and_claim_is_named_once_under_its_verdict(lines):
    words = in_words(lines)
    assert list(words) == [verdict for verdict in VERDICTS if verdict in words]
    dsc = lines[(lines["metric"] == "DSC") & lines["table"].str.fullmatch("Table [2-5]")]
    claims = lines[lines["kind"] == "claim"]
    for verdict, texts in words.items():
        assert len(texts) == (dsc["verdict"] == verdict).sum() + (claims["verdict"] == verdict).sum()
    assert any(
        text.startswith("Table 2, CHS-Net, Lungs (0.96, here 0.98")
        for texts in words.values()
        for text in texts
    )


def test_conclusions_are_the_ledger_s_and_say_what_was_not_run(ours, lines, tmp_path):
    lungs, infection, *tables = conclusions(ours, lines)
    verdict = lines.set_index("id").loc["t2-infection-dsc"]
    assert verdict["verdict"] in infection and verdict["ours"] in infection and "lungs" in lungs
    assert [text[:7] for text in tables[:3]] == ["Table 3", "Table 4", "Table 5"]
    nothing = Ours(tmp_path)
    empty = conclusions(nothing, ledger_of(nothing))
    assert len(empty) == 5 and all("not run" in text for text in empty[:2])
    assert all("fewer than two" in text for text in empty[2:])


def test_seeds_alternatives_and_rows_beyond_the_recipe_are_told_once_they_are_run(ours, copied):
    profile = "cpu"  # has several seeds
    records = list(ours.group("table2-infection", protocol="slice", profile=profile).values())
    plain = ours.accepted[profile]["table4-bu-patient-fold0"]
    test = {**plain["test"], "pooled": {**plain["test"]["pooled"], "dsc": 0.77}}
    more = Ours(ROOT / "results")
    more.accepted[profile] |= {
        "table2-infection-seed1": {**records[0], "run": "table2-infection-seed1", "test": test},
        "alt-relu-infection": {**records[0], "run": "alt-relu-infection", "test": test},
        "beyond-unet-patient-fold0": {**plain, "run": "beyond-unet-patient-fold0", "test": test},
    }
    told = explanations(more, copied)["what was measured"]
    seeds = len(more.group("table2-infection", protocol="slice", profile=profile))
    assert seeds > 1 and f"{seeds} seeds of the headline by the profile {profile}: DSC 0.7" in told["chance"]
    assert (
        f"ReLU in Eq. 11 {0.77 - records[0]['test']['pooled']['dsc']:+.3f} (1 of the same seed)"
        in (told["choices where the paper is silent"])
    )
    first = {**records[0]["first_stage"], "weights_sha256": "0" * 64}
    more.accepted[profile]["alt-concat-infection"] = {
        **records[0], "run": "alt-concat-infection", "test": test, "first_stage": first,
    }  # fmt: skip
    again = explanations(more, copied)["what was measured"]["choices where the paper is silent"]
    assert "by concatenation +0.0" in again or "by concatenation -0.0" in again
    assert again.count("(1 of the same seed, its first stage trained anew)") == 1
    before = plain["test"]["pooled"]["dsc"]
    assert told["no augmentation, schedule or averaging"].startswith(
        f"beyond-unet on new patients: {before:.2f} → 0.77 (1 of the same split)"
    )
    assert (
        "in no row of its tables: DSC 0.77 by `beyond-unet` (1 of 5 folds), "
        in (conclusions(more, ledger_of(more))[-1])
    )


def test_rows_beyond_the_recipe_on_larger_slices_are_told_as_such(ours, lines, copied):
    records = Ours(ROOT / "results", ("cpu-256",)).best("beyond-miniseg", protocol="patient")[1]
    mean = sum(r["test"]["pooled"]["dsc"] for r in records) / len(records)
    last = conclusions(ours, lines)[-1]
    assert (
        f"{mean:.2f} by `beyond-miniseg` at 256×256 ({len(records)} of 5 folds)" in last and len(records) == 5
    )
    told = explanations(ours, copied)["what was measured"]["no augmentation, schedule or averaging"]
    assert "beyond-miniseg at 256×256 on new patients: 0." in told


def test_a_repeated_run_is_told_beside_the_one_it_repeats(ours, copied, tmp_path):
    changed = reductions(ROOT / "results").set_index(["run", "change"])
    line = changed.loc[("table3-miniseg", "up to four times the epochs")]
    longer = Ours(ROOT / "results", ("cpu-long",)).accepted["cpu-long"]["table3-miniseg"]
    before = ours.accepted["cpu"]["table3-miniseg"]["test"]["pooled"]["dsc"]
    after = longer["test"]["pooled"]["dsc"]
    assert line[["before", "after", "difference"]].tolist() == [before, after, after - before]
    assert line[["protocol", "best epoch", "epochs"]].tolist() == ["slice", longer["fit"]["best_epoch"], 20]
    told = explanations(ours, copied).loc["less training, smaller slices"]
    assert f"table3-miniseg {before:.2f} → {after:.2f} with up to four times" in told["what was measured"]
    larger = at_full_size(ours).query("protocol == 'slice' and ended != 'out of time'")
    larger = larger[~larger["run"].str.endswith("-lungs")]["difference"]
    most = max(changed.query("protocol == 'slice'")["difference"].max(), larger.max())
    assert f"rose by up to {most:.2f}" in told["what it means"]
    assert (
        f"{len(larger)} networks {larger.min():+.2f} to {larger.max():+.2f} with 256×256"
        in told["what was measured"]
    )
    for profile in ("cpu", "cpu-long"):  # a repetition without what it repeats is told of nowhere
        (tmp_path / profile).mkdir()
    name = "table3-miniseg.json"
    (tmp_path / "cpu-long" / name).write_text((ROOT / "results/cpu-long" / name).read_text())
    assert reductions(tmp_path).empty


@pytest.mark.parametrize(
    ("scores", "word", "rise", "step"),
    [  # thousandths of DSC, by hand
        ([800, 810, 820, 830, 840, 850, 860, 870, 880, 890], "still rising", 0.05, 0.01),
        ([0, 500, 600, 700, 750, 770, 780, 790, 800, 805], "still rising", 0.279, 0.0894),
        # The best of all epochs is among the last, and the ones after it are lower.
        ([830, 845, 835, 840, 835, 860, 838, 836, 837, 834], "flat", 0.004, 0.0098),
        ([840, 840, 840, 840, 840, 844, 844, 844, 844, 844], "flat", 0.004, 0.0004),  # less than half a unit
        (
            [840, 840, 840, 340, 840, 840, 840, 840, 840, 840],
            "flat",
            0.1,
            0.1111,
        ),  # one epoch that broke down
        ([900, 100, 840, 840, 840, 840, 840, 880, 880, 880, 880, 880], "still rising", 0.04, 0.0044),
        ([890, 880, 870, 860, 850, 840, 830, 820, 810, 800], "falling", -0.05, 0.01),
        ([100, 200, 300, 400, 500, 600, 700, 800, 900], "too short to tell", None, None),
    ],
)
def test_a_curve_rises_by_what_five_epochs_are_above_the_five_before_not_by_its_peak(
    scores, word, rise, step
):
    found = trend([score / 1000 for score in scores])
    if rise is not None:
        assert found == pytest.approx((rise, step), abs=6e-5)
    row = {"network": "cascade", "size": 128, "epochs": len(scores), "ended": "all epochs", "best epoch": 6}
    (told,) = flat_or_not(pd.DataFrame([row | dict(zip(("rise", "step"), found))]))
    assert word in told and sum(other in told for other in ("rising", "flat", "falling", "too short")) == 1
    assert rise is None or f"{abs(rise):.3f} {'above' if rise > 0 else 'below'}" in told
