"""Tables come from records that a run wrote; anything else is refused, and gaps read "not run"."""

import csv
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chslib.metrics import evaluate
from chslib.network import ARMS
from replication.evidence.comparisons import at_equal_epochs, at_full_size, differences, gains, scores_of
from replication.evidence.estimates import COLUMNS, Ours, code_answer, count_answer, parameters, shorten
from replication.evidence.ledger import KINDS, LEDGER_COLUMNS, NOT_RUN, ledger, mean_and_std, paper_numbers
from replication.evidence.records import KNOWN_DATA, first_stage_warning, load_records, read_record
from replication.evidence.tables import DRY_RUN, claims, describe, shown_gains, styled, table
from replication.evidence.verdicts import (
    VERDICTS,
    Spread,
    judge_claim,
    judge_parameters,
    judge_same,
    judge_score,
    parse_rule,
    pooled_spread,
    printed,
)
from replication.figures.scores import plot_arms, plot_parameters
from replication.provenance import digest
from replication.training.grid import ROWS, RUNS, get_run
from replication.training.profiles import PROFILES, get_profile

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted(
    p for p in (ROOT / "results").glob("*/*.json") if p.parent.name in PROFILES and p.parent.name != "smoke"
)
RUN = "table2-lungs-patient-fold0"
DATA = "f" * 64


def a_record(run: str = RUN, profile: str = "cpu", *, dsc: float = 0.9, schema: int = 2, data: str = DATA):
    """A record as a run would write it; FP = FN, and this pooled DSC."""
    what, how = get_run(run), get_profile(profile)
    hits, patients = round(1000 * dsc), ["a", "b_1"]
    rest = {"train": ["c"], "validation": ["d"]} if what.protocol == "patient" else {}
    who = ["a", "b_1", "a"]
    truth, extra = [1000, 2000, 1000], [-80, 80, 0]  # so that the mean over slices is not the pooled score
    counts = []
    for pixels, more in zip(truth, extra):
        tp = hits * pixels // 1000 + more
        counts.append([tp, pixels - tp, pixels - tp, how.size**2 - 2 * pixels + tp])
    counts = np.array(counts)
    first = what.first_stage and {"run": what.first_stage, "weights_sha256": f"weights of {what.first_stage}"}
    widths = ({"widths": how.widths} if how.widths else {}) | what.network
    record = {
        "schema": schema, "run": what.name, "profile": profile,
        "config": {
            **json.loads(json.dumps(asdict(what))), "profile": profile, "size": how.size,
            "batch_size": how.batch_size, "learning_rate": how.learning_rate, "patience": how.patience,
            "max_epochs": how.max_epochs[what.target], "optimizer": "Adam", "augmentation": None,
            "loss": "0.5 BCE (mean) + 0.5 Dice", "parameters": 1234, "data_fingerprint": data,
            "widths": list(widths.get("widths", ARMS.get(what.arm, {}).get("widths", (8,)))),
            **({"first_stage_weights": first["weights_sha256"]} if first else {}),
        },
        "data": {
            "fingerprint": data, "slices": 10, "sources": {"coronacases": 10}, "patients": 4,
            "split": {
                "train": {"slices": 5, "patients": rest.get("train", patients)},
                "validation": {"slices": 2, "patients": rest.get("validation", patients)},
                "test": {"slices": 3, "patients": patients},
            },
        },
        "first_stage": first,
        "fit": {"epochs": 2, "best_epoch": 1, "fit_seconds": 60.0, "history": []},
        "test": evaluate(counts, who),
        "slices": [[f"{p}_{i:03d}", *map(int, row)] for i, (p, row) in enumerate(zip(who, counts))],
        "weights_sha256": f"weights of {what.name}",
        "device": "CPU", "versions": {}, "commit": "c" * 40, "wall_seconds": 61.0,
    }  # fmt: skip
    return signed(record)


def signed(record: dict) -> dict:
    if record["schema"] > 1:
        record["digest"] = digest(record)
    return record


def write(folder: Path, record: dict, *, profile: str = "", name: str = "") -> Path:
    path = folder / (profile or record["profile"]) / f"{name or record['run']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """Made-up records of the whole grid."""
    folder = tmp_path_factory.mktemp("full")
    base = {"bu": 0.5, "rib": 0.6, "rib-hp": 0.7, "full": 0.8}
    for name, run in RUNS.items():
        write(
            folder,
            a_record(name, dsc=base.get(run.arm, 0.55) + 0.1 * bool(run.first_stage) + 0.01 * run.seed),
        )
    return folder


# ---- the paper's numbers -----------------------------------------------------------------------

# Read from the paper's text a second time, row by row.
PRINTED = {
    ("Table 2", "Lungs"): ["0.99 0.97 0.99 0.95 0.96 0.98"],
    ("Table 2", "COVID-19"): ["0.96 0.85 0.97 0.92 0.88 0.96"],
    ("Table 3", "Infection"): [
        "0.94 0.38 0.84 0.52 0.44 0.59", "0.95 0.67 0.90 0.71 0.69 0.77", "0.95 0.67 0.98 0.76 0.71 0.78",
        "0.95 0.74 0.98 0.76 0.75 0.81", "0.96 0.69 0.97 0.85 0.76 0.82", "0.96 0.85 0.97 0.92 0.88 0.96",
    ],
    ("Table 4", "Infection"): [
        "0.68 0.04 0.80 0.28 0.07 0.25", "0.75 0.55 0.90 0.35 0.43 0.50",
        "0.88 0.63 0.95 0.68 0.65 0.68", "0.92 0.69 0.96 0.75 0.72 0.77",
    ],
    ("Table 5", "Lungs"): [
        "0.92 0.73 0.95 0.78 0.75 0.77", "0.98 0.85 0.98 0.88 0.86 0.90",
        "0.98 0.91 0.99 0.92 0.91 0.94", "0.99 0.97 0.99 0.95 0.96 0.98",
    ],
    ("Table 5", "Infection"): [
        "0.75 0.21 0.80 0.32 0.25 0.28", "0.88 0.68 0.94 0.53 0.60 0.64",
        "0.95 0.75 0.95 0.81 0.78 0.85", "0.96 0.85 0.97 0.92 0.88 0.96",
    ],
}  # fmt: skip


def test_every_cell_of_tables_1_to_5_is_present_as_printed():
    for (name, segmentation), rows in PRINTED.items():
        scores = paper_numbers(name).query("segmentation == @segmentation and kind == 'score'")
        found = scores.groupby("row", sort=False).apply(
            lambda cells: " ".join(cells.set_index("metric")["value"][list(COLUMNS)]), include_groups=False
        )
        assert list(found) == rows, (name, segmentation)
    assert [len(paper_numbers(f"Table {n}")) for n in range(1, 6)] == [8, 12, 42, 24, 48]
    counts = paper_numbers("Table 3").query("metric == 'Param.'")["value"]
    assert list(counts) == ["7.9M", "9M", "8.7M", "33M", "472K", "4.2M"]
    assert sorted(paper_numbers("Table 1").query("kind == 'count'")["value"]) == [
        "20",
        "2200",
        "3560",
        "3560",
        "9",
    ]
    concluded = paper_numbers().query("place == 'Sec. 5'").set_index("metric")["value"]
    assert list(concluded[["Acc.", "Pre.", "Rec.", "Spe.", "DSC", "JI"]]) == "96% 85% 92% 97% 88% 96%".split()


def test_each_number_is_answered_by_the_run_of_its_own_row():
    numbers = paper_numbers()
    assert numbers["id"].is_unique and set(numbers["kind"]) == set(KINDS)
    for number in numbers.to_dict("records"):
        if number["run"]:
            run = get_run(number["run"])
            assert run.seed == 0 and run.protocol == "slice"
            lungs = number["segmentation"] == "Lungs" or number["kind"] in ("setting", "count")
            assert lungs or run.target == "infection", number["id"]
            if number["segmentation"] == "Lungs":
                assert run.target == "lungs", number["id"]
        if number["kind"] == "score" and number["table"] != "Text":
            label = number["row"].removesuffix(" (Ours)")
            row = next(r for r in ROWS if r.table == number["table"] and r.label == label)
            assert number["run"] in (row.key, f"{row.key}-lungs", f"{row.key}-infection"), number["id"]
        if number["kind"] == "claim" and number["rule"] not in ("", "eq1"):
            for comparison in parse_rule(number["rule"]):
                for side in (comparison.a, comparison.b):
                    assert isinstance(side, float) or (get_run(side[0]) and side[1] in COLUMNS)


def test_the_paper_s_own_cells_decide_its_claims_as_it_says():
    """The rules say what the claims say: the printed numbers fulfil them, but for what row 60 tells."""
    numbers = paper_numbers().query("kind == 'score' and table != 'Text'")
    cells = {(n["run"], n["metric"]): float(n["value"]) for n in numbers.to_dict("records")}
    judged = {
        n["id"]: judge_claim(n["rule"], lambda run, metric: {"": cells[run, metric]})[1].split(" hold")[0]
        for n in paper_numbers().query("kind == 'claim' and rule not in ('', 'eq1')").to_dict("records")
    }
    whole = {i for i, words in judged.items() if len(set(words.split(" of "))) == 1}
    assert set(judged) - whole == {
        "claim-bu-background-direct", "claim-bu-background-hierarchical",
        "claim-accuracy-peers", "claim-specificity-peers",  # in the abstract, not in Table 3
    }  # fmt: skip
    assert len(whole) == 11


@pytest.mark.parametrize(
    ("value", "number", "half"),
    [("0.96", 0.96, 0.005), ("96%", 0.96, 0.005), ("7.9M", 7.9e6, 5e4), ("9M", 9e6, 5e5), ("472K", 472e3, 500),
     ("3560", 3560, 0)],
)  # fmt: skip
def test_a_printed_number_has_half_a_unit(value, number, half):
    assert printed(value) == pytest.approx((number, half))
    with pytest.raises(ValueError, match="no number"):
        printed("x" + value)


# ---- records -----------------------------------------------------------------------------------


def test_a_good_record_is_accepted_with_and_without_digest(tmp_path):
    for schema in (1, 2):
        assert read_record(write(tmp_path, a_record(schema=schema)))["schema"] == schema
    for run in ("table3-miniseg", "alt-doubling-lungs", "alt-concat-infection-seed1", "table5-rib-infection"):
        assert read_record(write(tmp_path, a_record(run)))
    assert read_record(write(tmp_path, a_record(profile="smoke")))


CHANGES = [
    (lambda r: r["test"]["pooled"].update(dsc=0.99), "pooled dsc is 0.99 but its own counts give 0.9"),
    (lambda r: r["test"]["per_slice"]["dsc"].update(std=0.0), "per_slice dsc std is 0 but"),
    (lambda r: r["test"]["per_patient"]["ji"].update(mean=0.5), "per_patient ji mean is 0.5 but"),
    (lambda r: r["test"]["patients"]["a"].update(recall=1.0), "patients a recall is 1 but"),
    (lambda r: r["test"]["confusion"].update(fp=0), "confusion fp is 0 but"),
    (lambda r: r["test"]["pooled"].pop("dsc"), "entries, expected"),
    (lambda r: r["test"]["pooled"].update(dsc="0.9"), "part of it is missing or of another kind"),
    (lambda r: r["slices"][0].__setitem__(4, 1), r"the counts of slice a_000 add up to \d+ pixels, expected 16384"),
    (lambda r: r["slices"][0].__setitem__(1, -5), "four whole numbers"),
    (lambda r: r["slices"].pop(), "counts of 2 slices, its test part has 3"),
    (lambda r: r["slices"].__setitem__(1, r["slices"][0]), "counts of 2 slices"),
    (lambda r: r["data"].update(slices=11), "parts of 10 slices together, its store has 11"),
    (lambda r: r["data"]["split"]["train"]["patients"].append("a"), "patient a is tested and trained on"),
    (lambda r: r["config"].update(size=256), "size=256, the cpu profile's .* has 128"),
    (lambda r: r["config"].update(batch_size=1), "batch_size=1"),
    (lambda r: r["config"].update(learning_rate=0.1), "learning_rate=0.1"),
    (lambda r: r["config"].update(max_epochs=50), "max_epochs=50"),
    (lambda r: r["config"].update(patience=1), "patience=1"),
    (lambda r: r["config"].update(arm="bu"), "arm='bu'"),
    (lambda r: r["config"].update(target="infection"), "target='infection'"),
    (lambda r: r["config"].update(protocol="slice"), "protocol='slice'"),
    (lambda r: r["config"].update(fold=1), "fold=1"),
    (lambda r: r["config"].update(seed=1), "seed=1"),
    (lambda r: r["config"].update(first_stage="x"), "first_stage='x'"),
    (lambda r: r["config"].update(cascade="truth"), "cascade='truth'"),
    (lambda r: r["config"].update(network={"gate": "relu"}), "network="),
    (lambda r: r["config"].update(widths=[1, 2]), r"widths=\[1, 2\]"),
    (lambda r: r["config"].update(profile="paper"), "profile='paper'"),
    (lambda r: r["config"].pop("patience"), "part of it is missing"),
    (lambda r: r["config"].update(data_fingerprint="0"), "two fingerprints"),
    (lambda r: r["fit"].update(epochs=9), "best epoch 1 of 9, at most 3"),
    (lambda r: r.update(first_stage={"run": "table2-lungs"}), "fed by table2-lungs, the grid says None"),
    (lambda r: r.update(schema=3), "schema 3"),
    (lambda r: r.update(profile="paper"), "may not be renamed"),
    (lambda r: r.update(run="table2-lungs"), "may not be renamed"),
    (lambda r: r.pop("slices"), "lacks slices"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_record_that_is_not_what_it_says_is_refused(tmp_path, change, message):
    record = a_record()
    change(record)
    path = write(tmp_path, signed(record), profile="cpu", name=RUN)  # even where the digest was made to fit
    with pytest.raises(ValueError, match=message):
        read_record(path)
    accepted, refused = load_records(tmp_path, "cpu")
    assert accepted == {} and re.search(message, refused[RUN]) and str(tmp_path) not in refused[RUN]


def test_any_change_behind_the_digest_is_noticed(tmp_path):
    for change in ({"device": "GPU"}, {"digest": "0" * 64}, {"evaluation": {}}):
        with pytest.raises(ValueError, match="digest"):
            read_record(write(tmp_path, a_record() | change))
    record = a_record()
    del record["digest"]
    with pytest.raises(ValueError, match="digest"):
        read_record(write(tmp_path, record))


def test_scores_hold_together_where_slice_names_do_not_tell_the_patient(tmp_path):
    record = a_record()
    for i, row in enumerate(record["slices"]):
        row[0] = f"slice{i}"
    read_record(write(tmp_path, signed(record)))
    record["test"]["per_patient"]["dsc"]["mean"] += 0.01
    with pytest.raises(ValueError, match="per_patient dsc mean"):
        read_record(write(tmp_path, signed(record)))
    record["test"]["patients"]["z"] = record["test"]["patients"].pop("a")
    with pytest.raises(ValueError, match="not those of its test part"):
        read_record(write(tmp_path, signed(record)))


def test_a_broken_missing_or_foreign_file_is_named_and_never_raises_in_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such record"):
        read_record(tmp_path / "cpu" / "x.json")
    write(tmp_path, a_record("table2-lungs"))
    write(tmp_path, a_record()).write_text("{")
    write(tmp_path, a_record("table4-bu")).write_text("[1]")
    write(tmp_path, a_record("table2-lungs") | {"run": "table5-full-lungs"})
    write(tmp_path, a_record("table2-lungs") | {"run": "table9"})
    write(tmp_path, a_record("table4-rib", profile="smoke"), profile="cpu")
    accepted, refused = load_records(tmp_path, "cpu")
    assert list(accepted) == ["table2-lungs"]
    assert {name: why.split(";")[0] for name, why in refused.items()} | {RUN: ""} == {
        RUN: "",
        "table4-bu": "the record lacks everything",
        "table4-rib": "the record says it is smoke/table4-rib",
        "table5-full-lungs": refused["table5-full-lungs"].split(";")[0],
        "table9": refused["table9"].split(";")[0],
    }
    assert "not JSON" in refused[RUN]
    whys = {"table5-full-lungs": "the same training as table2-lungs", "table9": "no run of the grid"}
    for name, why in whys.items():
        with pytest.raises(ValueError, match=why):
            read_record(write(tmp_path, signed(a_record("table2-lungs") | {"run": name})))
    with pytest.raises(ValueError, match="'tiny'.*smoke, cpu, paper"):
        load_records(tmp_path, "tiny")


def test_records_of_other_data_are_refused(tmp_path):
    for run, data in (("table2-lungs", "a"), ("table4-bu", "b"), ("table4-rib", "b")):
        write(tmp_path, a_record(run, data=data * 64))
    assert list(load_records(tmp_path, "cpu")[0]) == ["table4-bu", "table4-rib"]  # the majority
    (tmp_path / "cpu" / "table4-rib.json").unlink()
    accepted, refused = load_records(tmp_path, "cpu")  # even: the headline's
    assert list(accepted) == ["table2-lungs"]
    assert (
        refused["table4-bu"] == f"of other data: fingerprint {'b' * 12}, the other records are of {'a' * 12}"
    )
    accepted, refused = load_records(tmp_path, "cpu", data="b" * 64)
    assert list(accepted) == ["table4-bu"] and f"expected {'b' * 12}" in refused["table2-lungs"]


def test_the_project_s_own_results_must_be_of_known_data(tmp_path):
    results = tmp_path / "results"
    write(results, a_record("table2-lungs"))
    write(results, a_record("table2-lungs", profile="smoke"))
    assert load_records(results, "cpu")[0]  # some folder called results
    (tmp_path / "_toc.yml").touch()
    assert "KNOWN_DATA" in load_records(results, "cpu")[1]["table2-lungs"]
    assert load_records(results, "smoke")[0]
    write(results, a_record("table2-lungs", data=next(iter(KNOWN_DATA))))
    assert load_records(results, "cpu")[0]


def test_a_second_stage_fed_by_other_weights_is_told_of(tmp_path):
    first, second = "table2-lungs", "table2-infection"
    for run in (first, second):
        write(tmp_path, a_record(run))
    assert first_stage_warning(second, load_records(tmp_path, "cpu")[0]) == ""
    write(tmp_path, signed(a_record(first) | {"weights_sha256": "others"}))
    accepted = load_records(tmp_path, "cpu")[0]
    assert "other weights" in first_stage_warning(second, accepted) and not first_stage_warning(
        first, accepted
    )
    assert "other weights" in table(2, tmp_path).loc[("COVID-19", "ours, random slices, 1 seed"), "records"]
    assert "other weights" in ledger(tmp_path).set_index("id").loc["t2-infection-dsc", "warning"]


# ---- verdicts ----------------------------------------------------------------------------------


def test_the_spread_of_one_run_is_pooled_within_rows():
    # By hand: squares about the rows' means are 2 * 0.02^2 and 2 * 0.01^2, their freedom 1 + 2.
    spread = pooled_spread([[0.70, 0.74], [0.80, 0.81, 0.82], [0.5], []])
    assert spread.freedom == 3 and spread.deviation == pytest.approx(math.sqrt((2 * 0.0004 + 2 * 0.0001) / 3))
    assert spread.t() == pytest.approx(3.1824, abs=1e-4)  # Student's table
    assert pooled_spread([[0.5], []]) == Spread() and Spread().t() == 0


def test_a_score_is_judged_by_rounding_and_what_a_further_run_may_be():
    spread = Spread(0.02, 8)  # t is 2.3060 for 8 degrees of freedom

    def verdict(*ours, value="0.88", metric="DSC", spread=spread):
        return judge_score(value, list(ours), metric=metric, spread=spread)

    one = 0.005 + 2.3060 * 0.02 * math.sqrt(2)  # 0.0702
    assert verdict(0.88).tolerance == pytest.approx(one, abs=1e-5)
    found = [verdict(0.88 + d).verdict for d in (-0.071, -0.070, 0.070, 0.071)]
    assert found == ["below the paper", "reproduced", "reproduced", "above the paper"]
    three = verdict(0.80, 0.81, 0.82)
    assert three.tolerance == pytest.approx(0.005 + 2.3060 * 0.02 * math.sqrt(4 / 3), abs=1e-5)
    assert three.difference == pytest.approx(-0.07) and three.verdict == "below the paper"
    assert "8 degrees of freedom" in three.reason
    # Seeds that happen to agree change nothing: the spread is that of all rows.
    assert verdict(0.82, 0.82).tolerance == verdict(0.7, 0.94).tolerance
    assert verdict(0.885, spread=Spread()).verdict == "reproduced"  # the edge of the rounding
    assert verdict(0.886, spread=Spread()).verdict == "above the paper"
    assert verdict(0.88, metric="JI").verdict == "not comparable"


def test_parameters_and_counts_are_judged_by_rounding_alone():
    assert [judge_parameters("7.9M", n).verdict for n in (7_850_000, 7_849_999, 7_950_001)] == [
        "reproduced", "below the paper", "above the paper",
    ]  # fmt: skip
    assert judge_same("3560", "3560", run=True).verdict == "reproduced"
    assert judge_same("3560", "3560", run=False).verdict == "by construction"
    assert judge_same("3560", "3561", run=True).difference == 1
    assert (
        judge_same("3560", "3561", run=True).verdict == judge_same("a", "b", run=False).verdict == "differs"
    )


def test_a_claim_is_judged_comparison_by_comparison():
    def judge(rule, *, paired=False, **values):
        return judge_claim(rule.replace("A", "table5-bu-infection").replace("B", "table4-bu"),
                           lambda run, metric: values["A" if "5" in run else "B"],
                           None if paired else lambda run, metric: Spread(0.02, 8))  # fmt: skip

    rule = "A DSC > B DSC"
    margin = 2.3060 * 0.02 * math.sqrt(2)  # one comparison of one seed each: 0.0652
    judged, words = judge(rule, A={"": 0.57}, B={"": 0.50})
    assert judged.verdict == "reproduced" and judged.tolerance == pytest.approx(margin, abs=1e-5)
    assert words == "1 of 1 hold, 1 clearly; least +0.070"
    assert judge(rule, A={"": 0.56}, B={"": 0.50})[0].verdict == "undecided"  # holds, not clearly
    assert judge(rule, A={"": 0.44}, B={"": 0.50})[0].verdict == "undecided"
    judged, words = judge(rule, A={"": 0.40}, B={"": 0.50})
    assert judged.verdict == "contradicted" and "1 clearly the other way" in words
    # Means over two seeds need less, three comparisons more: t at 1 - 0.025 / 3 is 3.0158.
    assert judge(rule, A={"": 0.55, "-seed1": 0.75}, B={"": 0.5, "-seed1": 0.7})[
        0
    ].tolerance == pytest.approx(2.3060 * 0.02, abs=1e-5)
    three = judge("; ".join([rule] * 3), A={"": 0.57}, B={"": 0.50})[0]
    assert three.tolerance == pytest.approx(3.0158 * 0.02 * math.sqrt(2), abs=1e-4)
    assert three.verdict == "undecided"  # alone each would be clear
    # New patients: paired by fold, with the deviation of the differences. t is 12.7062 for two pairs.
    pairs = {"A": {"-f0": 0.51, "-f1": 0.712}, "B": {"-f0": 0.50, "-f1": 0.70, "-f2": 0.9}}
    judged, words = judge(rule, paired=True, **pairs)
    assert judged.difference == pytest.approx(0.011) and judged.verdict == "undecided"
    assert judged.tolerance == pytest.approx(12.7062 * 0.002 / math.sqrt(2) / math.sqrt(2), abs=1e-4)
    assert judge(rule, paired=True, A={"-f0": 0.9}, B={"-f0": 0.5})[0].verdict == "undecided"  # one pair
    for lacking in ({"A": {"": 0.5}, "B": {}}, {"A": {"": 0.5}, "B": {"-seed1": 0.5}}):
        judged, words = judge(rule, **lacking)
        assert judged.verdict == NOT_RUN and "table4-bu" in judged.reason and words == ""
    # Against a bound there is one run's spread, not two.
    assert judge("0.9 > A Rec.", A={"": 0.85})[0].tolerance == pytest.approx(2.3060 * 0.02, abs=1e-5)
    assert judge("0.9 > A Rec.", A={"": 0.85})[0].verdict == "reproduced"
    assert judge("A Spe. > A Rec.", A={"": 0.899})[0].verdict == "undecided"  # equal is not more
    for bad in ("A DSC", "A DSC > ", "1 > 2", "A DSC > B DSC > A DSC"):
        with pytest.raises(ValueError, match="rule"):
            parse_rule(bad)


def test_the_code_answers_for_parameters_settings_and_equation_1():
    assert parameters("table3-unet") == 7_762_465 and parameters("table3-chsnet") == 3_811_478
    answers = {rule: code_answer(rule) for rule in ("filters", "stages", "halving", "ladder", "folds", "eq1")}
    assert answers == {
        "filters": "1x1, 3x3, 5x5", "stages": "four", "halving": "50%", "ladder": "50%", "folds": "5",
        "eq1": "1/r + 1/f^2",
    }  # fmt: skip
    assert code_answer("unheard of") is None


# ---- ledger and tables -------------------------------------------------------------------------


def test_without_records_every_score_and_claim_reads_not_run(tmp_path):
    lines = ledger(tmp_path)
    assert tuple(lines.columns) == LEDGER_COLUMNS and len(lines) == len(paper_numbers())
    assert set(lines["verdict"]) <= set(VERDICTS)
    assert set(lines.query("kind == 'score'")["verdict"]) == {NOT_RUN}
    assert set(lines.query("kind == 'score'")["ours"]) == {NOT_RUN}
    decided = set(lines.query("kind == 'claim' and verdict not in ('not run', 'not checkable')")["id"])
    assert decided == {"eq1-cost"}
    assert lines.set_index("id").loc["t3-chsnet-param", "verdict"] == "below the paper"
    assert "table4-hp" in lines.set_index("id").loc["claim-components-direct", "reason"]
    assert (lines["reason"] != "").sum() >= len(lines) - 2


def test_a_record_answers_its_own_numbers_and_no_others(tmp_path):
    write(tmp_path, a_record("table2-lungs", dsc=0.95))
    lines = ledger(tmp_path).set_index("id")
    answered = lines.query("kind == 'score' and verdict != 'not run'").index
    assert set(answered) == {f"{t}-{m}" for t in ("t2-lungs", "t5-full-lungs")
                             for m in ("acc", "pre", "spe", "rec", "dsc", "ji")}  # fmt: skip
    line = lines.loc["t2-lungs-dsc"]
    assert (line["ours"], line["n"], line["verdict"], line["profile"]) == (
        "0.950",
        1,
        "below the paper",
        "cpu",
    )
    assert line["at"] == "128x128, 2 epochs" and line["records"] == "table2-lungs"
    assert line["new patients"] == NOT_RUN and line["difference"] == pytest.approx(-0.01)
    assert lines.loc["s42-test", "ours"] == "30%" and lines.loc["s42-train", "verdict"] == "by construction"
    assert lines.loc["s41-size", "verdict"] == "differs" and lines.loc["s41-size", "ours"] == "128x128x1"
    # Ten slices of one source are no fused set, whatever their number.
    assert lines.loc["t1-fused-slices", ["ours", "verdict"]].tolist() == ["10", NOT_RUN]


def test_new_patients_stand_beside_and_never_decide(tmp_path):
    for fold in (0, 3):
        write(tmp_path, a_record(f"table2-infection-patient-fold{fold}", dsc=0.6 + fold / 10))
    line = ledger(tmp_path).set_index("id").loc["t2-infection-dsc"]
    assert line["verdict"] == NOT_RUN and line["ours"] == NOT_RUN
    assert line["new patients"] == "0.750 ± 0.212" and line["folds"] == 2
    assert line["patient records"] == "table2-infection-patient-fold0, 3 (cpu)"
    false = ledger(tmp_path).set_index("id").loc["s43-false-positives"]
    assert false["new patients"] == "0.250 ± 0.212"  # 1 - precision


def test_paper_is_preferred_to_cpu_cell_by_cell(tmp_path):
    for run, profile, dsc in (("table4-bu", "cpu", 0.5), ("table4-bu-seed1", "cpu", 0.5),
                              ("table4-bu", "paper", 0.3), ("table4-rib", "cpu", 0.43)):  # fmt: skip
        write(tmp_path, a_record(run, profile, dsc=dsc))
    lines = ledger(tmp_path).set_index("id")
    assert lines.loc["t4-bu-dsc", ["ours", "n", "profile", "at"]].tolist() == ["0.300", 1, "paper", ""]
    assert lines.loc["t4-rib-dsc", ["ours", "profile", "at"]].tolist() == [
        "0.430",
        "cpu",
        "128x128, 2 epochs",
    ]
    only = ledger(tmp_path, profiles=("cpu",)).set_index("id")
    assert only.loc["t4-bu-dsc", ["ours", "n"]].tolist() == ["0.500 ± 0.000", 2]
    assert (
        table(4, tmp_path, profile="cpu")
        .loc[("BU", "ours, random slices, 2 seeds"), "DSC"]
        .startswith("0.500")
    )


def out_of_time(run: str, profile: str, *, dsc: float) -> dict:
    record = a_record(run, profile, dsc=dsc)
    record["fit"] |= {"out_of_time": True, "stopped_early": False}
    return signed(record)


def test_what_its_clock_cut_short_answers_no_number_and_is_told_of(tmp_path):
    write(tmp_path, out_of_time("table4-bu", "paper", dsc=0.3))
    assert ledger(tmp_path).set_index("id").loc["t4-bu-dsc", "ours"] == "not run"
    ours = Ours(tmp_path)
    assert ours.refusals == [
        "paper/table4-bu.json does not count: its time ran out after 2 of 30 epochs"
    ] and list(ours.cut_short["paper"]) == ["table4-bu"]
    write(tmp_path, a_record("table4-bu", "cpu", dsc=0.5))
    assert ledger(tmp_path).set_index("id").loc["t4-bu-dsc", ["ours", "profile"]].tolist() == ["0.500", "cpu"]
    rows = at_full_size(tmp_path).set_index("run")
    assert rows.loc["table4-bu", ["protocol", "ended"]].tolist() == ["slice", "out of time"]
    assert rows.loc["table4-bu", "difference"] == pytest.approx(-0.2, abs=1e-3)


def test_of_new_patients_more_folds_go_before_the_preferred_profile(tmp_path):
    for fold in (0, 1, 2):
        write(tmp_path, a_record(f"table4-bu-patient-fold{fold}", "cpu", dsc=0.5))
    write(tmp_path, a_record("table4-bu-patient-fold1", "paper", dsc=0.7))
    assert Ours(tmp_path).best("table4-bu", protocol="patient")[0] == "cpu"
    for fold in (0, 2):
        write(tmp_path, a_record(f"table4-bu-patient-fold{fold}", "paper", dsc=0.7))
    profile, group = Ours(tmp_path).best("table4-bu", protocol="patient")
    assert profile == "paper" and len(group) == 3
    assert Ours(tmp_path).best("table4-rib", protocol="patient") == ("", [])


def test_a_network_is_shown_both_ways_where_both_were_run(tmp_path):
    for run in (
        "table4-bu",
        "table4-bu-seed1",
        "table4-bu-patient-fold2",
        "table4-rib",
        "table3-miniseg-patient-fold0",
    ):
        write(tmp_path, a_record(run, "cpu", dsc=0.5))
    both = Ours(tmp_path).both_ways("infection")
    assert {
        label: {p: [r["run"] for r in of] for p, of in groups.items()} for label, groups in both.items()
    } == {
        "U-Net, direct": {"slice": ["table4-bu", "table4-bu-seed1"], "patient": ["table4-bu-patient-fold2"]}
    }
    assert Ours(tmp_path).both_ways("lungs") == {}


def test_rows_are_compared_within_the_profile_that_has_most_of_them(tmp_path):
    for run, profile, dsc in (("table4-bu", "cpu", 0.5), ("table4-rib", "cpu", 0.6), ("table4-hp", "cpu", 0.7),
                              ("table4-bu", "paper", 0.8)):  # fmt: skip
        write(tmp_path, a_record(run, profile, dsc=dsc))
    scores = scores_of(4, tmp_path)
    assert scores["slice"].iloc[:3].tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert scores["full"].iloc[0] == pytest.approx(0.8) and scores["full"].iloc[1:].isna().all()
    assert ledger(tmp_path).set_index("id").loc["t4-bu-dsc", "profile"] == "paper"
    drawn = plot_arms(scores).axes[0].get_legend_handles_labels()[1]
    assert "ours, random slices, at full size" in drawn
    for run in ("table4-rib", "table4-hp"):
        write(tmp_path, a_record(run, "paper", dsc=0.9))
    scores = scores_of(4, tmp_path)  # as many: the preferred one
    assert scores["slice"].iloc[:3].tolist() == pytest.approx([0.8, 0.9, 0.9]) and scores["full"].isna().all()
    ours = Ours(tmp_path)
    assert ours.alike(["table9-never"]) == "" and list(ours.only("cpu").accepted) == ["cpu"]
    with pytest.raises(ValueError, match="No records of profile 'smoke' here; expected one of paper, cpu"):
        ours.only("smoke")


def test_smoke_never_counts(tmp_path):
    for run in ("table2-lungs", "table2-infection"):
        write(tmp_path, a_record(run, "smoke", dsc=0.96))
    assert set(ledger(tmp_path).query("kind == 'score'")["verdict"]) == {NOT_RUN}
    for profiles in (("smoke",), ("paper", "smoke")):
        with pytest.raises(ValueError, match="smoke records .* never count"):
            ledger(tmp_path, profiles=profiles)
    with pytest.raises(ValueError, match="'tiny'"):
        ledger(tmp_path, profiles=("tiny",))
    dry = table(2, tmp_path, profile="smoke")
    assert dry.loc[("Lungs", f"{DRY_RUN}, random slices, 1 seed"), ["DSC", "verdict"]].tolist() == [
        "0.960",
        DRY_RUN,
    ]
    assert not dry.to_string().count("ours") and not dry["verdict"].str.contains("reproduced").any()
    assert set(claims("09_table5_hierarchical", tmp_path, profile="smoke")["verdict"]) == {DRY_RUN}


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_table_has_every_cell_of_the_paper_and_ours_below_each_row(number, tmp_path, full):
    for folder, seeds, folds in ((tmp_path, "", ""), (full, ", 3 seeds", ", 5 of 5 folds")):
        shown = table(number, folder)
        theirs = shown[shown.index.get_level_values("of") == "paper"]
        heads = [c for c in shown.columns if c not in ("verdict", "records")]
        printed_cells = paper_numbers(f"Table {number}")["value"].tolist()
        assert sorted(theirs[heads].to_numpy().ravel()) == sorted(printed_cells)
        of = shown.index.get_level_values("of")
        assert list(of) == ["paper", f"ours, random slices{seeds}", f"ours, new patients{folds}"] * len(
            theirs
        )
        assert len(shown.columns) + shown.index.nlevels <= 11
        mine = shown[of != "paper"][list(COLUMNS)]
        assert (mine == NOT_RUN).all(axis=None) if folder is tmp_path else (mine != NOT_RUN).all(axis=None)
        assert shown.index.is_unique
        html = styled(shown, name="x")._repr_html_()
        assert html == styled(table(number, folder), name="x")._repr_html_() and "font-weight: bold" in html
    assert {r for r in shown["verdict"] if r} != {NOT_RUN} and "(cpu)" in shown["records"].iloc[1]


def test_table_1_and_unknown_tables(tmp_path):
    shown = table(1, tmp_path)
    assert len(shown) == 8 and shown.index.is_unique and "<table" in styled(shown, name="t")._repr_html_()
    assert {"9", "20", "3560", "2200"} <= set(shown.index.get_level_values("paper"))
    for number in (0, 6):
        with pytest.raises(ValueError, match="Tables 1 to 5"):
            table(number, tmp_path)
    with pytest.raises(ValueError, match="'tiny'.*smoke, cpu, paper"):
        table(2, tmp_path, profile="tiny")


def test_the_full_grid_decides_every_claim(full):
    lines = ledger(full).set_index("id")
    undecided = lines.query("verdict == 'not run'").index
    assert set(undecided) <= {
        "t1-fused-slices",
        "t1-fused-lungs",
        "t1-fused-infection",
        "s15-slices",
        "s41-slices",
        "s42-folds",
    }
    hierarchical = lines.loc["claim-hierarchical"]
    assert hierarchical["verdict"] == "reproduced" and hierarchical["difference"] == pytest.approx(
        0.1, abs=2e-3
    )
    assert (
        hierarchical["new patients"].startswith("4 of 4 hold") and hierarchical["at"] == "128x128, 2 epochs"
    )
    assert "table4-bu-seed2" in hierarchical["records"]
    # Two settings of one network: the first-stage arms differ by 0.1 in the made-up lungs too.
    assert lines.loc["claim-components-lungs", "verdict"] == "reproduced"
    assert lines.loc["claim-bu-background-direct", "verdict"] == "contradicted"


def test_a_fused_set_is_counted_exactly(tmp_path):
    for run in ("table2-lungs", *(f"table2-infection-patient-fold{k}" for k in range(5))):
        record = a_record(run)
        record["data"]["sources"] = {"coronacases": 5, "medseg": 5}
        if run.endswith("fold4"):
            record["slices"][0][1:] = [0, 0, 0, 128**2]
            counts = np.array([row[1:] for row in record["slices"]])
            record["test"] = evaluate(counts, ["a", "b_1", "a"])
        write(tmp_path, signed(record))
    ours = Ours(tmp_path)
    assert (count_answer("slices", ours).number, count_answer("slices", ours).whole) == (10, True)
    assert count_answer("infected slices", ours).number == 14
    assert ledger(tmp_path).set_index("id").loc["t1-fused-slices", "verdict"] == "differs"
    (tmp_path / "cpu" / "table2-infection-patient-fold2.json").unlink()
    assert count_answer("infected slices", Ours(tmp_path)).number is None


def test_rows_are_compared_over_the_seeds_that_both_have(tmp_path):
    scored = {"table4-bu": 0.5, "table4-bu-seed1": 0.7, "table4-rib": 0.6, "table4-hp": 0.65, "table4-hp-seed1": 0.6,
              "table4-bu-patient-fold2": 0.4, "table4-rib-patient-fold3": 0.1}  # fmt: skip
    for run, dsc in scored.items():
        write(tmp_path, a_record(run, "cpu", dsc=dsc))
    scores = scores_of(4, tmp_path)
    added = gains(scores)
    assert added["slice"].iloc[:2].tolist() == pytest.approx([0.1, 0.05])
    assert added["seeds"].tolist() == [1, 1, 0] and added["slice"].isna().tolist() == [False, False, True]
    assert not added["folds"].any() and added["patient"].isna().all()
    whole = differences(scores.iloc[[2]], scores.iloc[[0]])
    assert whole[["slice", "slice_std", "seeds"]].iloc[0].tolist() == pytest.approx([0.025, 0.25 / 2**0.5, 2])
    shown = shown_gains(whole).iloc[0]
    assert shown.tolist() == ["+0.580", "+0.025 ± 0.177 (2)", NOT_RUN]
    assert shown_gains(added)["ours, random slices"].tolist() == ["+0.100 (1)", "+0.050 (1)", NOT_RUN]
    other = scores.assign(profile="paper")
    assert not differences(other, scores)["seeds"].any()


def test_scores_as_numbers_gains_and_figures(tmp_path, full):
    scores = scores_of(5, full).xs("Infection", level="segmentation", drop_level=False)
    assert scores["slice"].tolist() == pytest.approx([0.61, 0.71, 0.81, 0.91])
    assert scores["slice_std"].tolist() == pytest.approx([0.01] * 4) and set(scores["seeds"]) == {3}
    assert gains(scores).index.tolist() == ["+RIB", "+HP", "+SSD"]
    assert gains(scores)["paper"].tolist() == pytest.approx([0.35, 0.18, 0.10])
    assert gains(scores)["slice"].tolist() == pytest.approx([0.1] * 3)
    assert gains(scores_of(4, tmp_path))["slice"].isna().all()
    for folder in (tmp_path, full):
        said = [t.get_text() for axis in plot_arms(scores_of(5, folder)).axes for t in axis.texts]
        assert said == (["ours: not run"] * 2 if folder is tmp_path else [])
        axis = plot_parameters(folder).axes[0]
        assert {"U-Net", "U-Net++", "AU-Net", "Inf-Net", "MiniSeg", "CHS-Net"} <= {
            t.get_text() for t in axis.texts
        }


def test_small_helpers():
    assert mean_and_std([0.5]) == "0.500" and mean_and_std([0.5, 0.7]) == "0.600 ± 0.141"
    assert shorten(["table2-lungs", "table2-lungs-seed1"]) == "table2-lungs, -seed1"
    assert shorten([f"table4-bu-patient-fold{k}" for k in (0, 1, 4)]) == "table4-bu-patient-fold0, 1, 4"
    described = describe(a_record())
    assert "1,234 parameters" in described["network"] and described["split"] == "whole patients, fold 0 of 5"
    assert described["test patients"] == "a, b_1"
    assert describe(a_record("table2-lungs-seed2"))["test patients"] == "2, 2 of them also trained on"


# ---- what is committed -------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_committed_record_holds_together(path):
    record = read_record(path)
    assert record["profile"] in PROFILES and record["run"] in RUNS
    assert not str(record).count(str(ROOT.parent) + "/") and not str(record).count("/home/")


# Second stages whose first was trained again, on another kind of processor, and so to other weights; the pages say so.
FED_ANEW = {"cpu": {"alt-concat-infection"}, "paper": {"table2-infection"}}


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "smoke"])
def test_every_committed_record_counts_and_knows_its_first_stage(profile):
    accepted, refused = load_records(ROOT / "results", profile)
    assert refused == {}
    assert len(accepted) == sum(path.parent.name == profile for path in COMMITTED)
    fed_anew = {name for name in accepted if first_stage_warning(name, accepted)}
    assert fed_anew <= FED_ANEW.get(profile, set())


def test_smoke_records_are_never_committed():
    assert "results/smoke/" in (ROOT / ".gitignore").read_text().split()


def test_the_paper_s_numbers_are_a_plain_csv():
    with open(ROOT / "replication/evidence/paper_numbers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert pd.DataFrame(rows).equals(paper_numbers())
    assert {row["notebook"].split("_")[0] for row in rows} <= {f"{n:02d}" for n in range(1, 13)}


def test_at_equal_epochs_a_cut_short_run_stands_beside_finished_ones():
    ours = Ours(ROOT / "results")
    lines = at_equal_epochs(ours).set_index("run")
    assert {"table2-infection", "table4-full", "table4-bu", "table3-infnet"} <= set(lines.index)
    assert lines["validation"].is_monotonic_decreasing
    record = ours.cut_short["paper"]["table2-infection"]
    assert lines.loc["table2-infection", "validation"] == record["fit"]["history"][9]["val_dsc"]
    assert lines.loc["table2-infection", "ended"] == "out of time"
    assert at_equal_epochs(ours, epoch=11).set_index("run").index.isin(["table2-infection"]).sum() == 0
