"""Why our numbers differ from the paper's: each explanation with what was measured, from records alone.

What no record measures says so; nothing here is typed by hand that a record could contradict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chslib.metrics import COUNTS, scores
from replication.analysis.thresholds import read_thresholds, thresholds_of
from replication.data.splits import FOLDS
from replication.evidence.comparisons import at_full_size, reductions, scores_of
from replication.evidence.estimates import Ours
from replication.evidence.ledger import NOT_RUN, mean_and_std, paper_numbers
from replication.evidence.records import Record, first_stage_warning
from replication.evidence.verdicts import VERDICTS
from replication.figures.patients import implied_shares, infection_rows, pooled_counts
from replication.training.grid import ROWS, get_run, run_name
from replication.training.profiles import PROFILES

SMALL = 0.2  # a share below which something is called absent
NOT_MEASURED = "not measured"
HEADLINE = "table2-infection"
# Rows beyond the paper's recipe, and the table's row that trains the same network by it.
BEYOND = {
    row.key: next(
        plain.key for plain in ROWS
        if (plain.arm, plain.stages) == (row.arm, row.stages) and not (plain.recipe or plain.same_as)
        and plain.table.startswith("Table")
    )
    for row in ROWS if row.recipe
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """One reason why ours and theirs may differ.

    Attributes:
        name: the reason.
        evidence: what was measured.
        meaning: which way it pushes our score, or what it takes from theirs.
    """

    name: str
    evidence: str
    meaning: str


def _paper(metric: str, *, row: str = "COVID-19") -> float:
    numbers = paper_numbers("Table 2").query("metric == @metric and segmentation == @row")
    return float(numbers["value"].iloc[0])


def _scores_of(records: Sequence[Record], score: str = "dsc") -> list[float]:
    return [record["test"]["pooled"][score] for record in records]


def _lookup(copied: dict[str, Any], protocol: str) -> float:
    return float(
        np.mean([e["infection"]["pooled"]["dsc"] for e in copied["entries"] if e["protocol"] == protocol])
    )


def _of_both(ours: Ours, run: str, plain: str, *, protocol: str) -> tuple[list[Record], list[Record]] | None:
    """Records of two runs under the seeds or folds that both have, in the same order; None if there are none."""
    profile = ours.best(run, protocol=protocol)[0]
    if not profile:
        return None
    mine, base = (ours.group(name, protocol=protocol, profile=profile) for name in (run, plain))
    common = [suffix for suffix in mine if suffix in base]
    return ([mine[s] for s in common], [base[s] for s in common]) if common else None


def _leak(ours: Ours, copied: dict[str, Any]) -> Explanation:
    shown = [
        f"{name} {mean_and_std(_scores_of(records), digits=2) if records else NOT_RUN}"
        for name, protocol in (("on random slices", "slice"), ("on new patients", "patient"))
        if (records := ours.best(HEADLINE, protocol=protocol)[1]) or True
    ]
    return Explanation(
        "slices of one patient on both sides of the split",
        f"Copying the mask of the most similar training slice scores {_lookup(copied, 'slice'):.2f} on random "
        f"slices and {_lookup(copied, 'patient'):.2f} on new patients; CHS-Net {', '.join(shown)}.",
        f"The split of the paper’s {_paper('DSC'):.2f} rewards remembering. Ours on random slices have the same leak, so it "
        "does not explain why they are lower; it is why neither says what a new patient will see.",
    )


def _test_set(ours: Ours, _: dict[str, Any]) -> Explanation:
    p, r, s = (_paper(metric) for metric in ("Pre.", "Rec.", "Spe."))
    tp, _fp, fn, _tn = implied_shares(precision=p, recall=r, specificity=s)
    counts = pooled_counts(ours.best(HEADLINE)[1])
    share = f"{(counts[0] + counts[2]) / counts.sum():.1%}" if counts is not None else NOT_RUN
    meaning = "Test sets, or ways of counting, that differ so much are not comparable score by score."
    if counts is not None:
        ours_share = (counts[0] + counts[2]) / counts.sum()
        at = ours_share * r / (ours_share * r + (1 - ours_share) * (1 - s))
        meaning += (
            f" At our share of infection, the paper’s recall of {r:.2f} and specificity of {s:.2f} make a "
            f"precision of {at:.2f}, not {p:.2f}."
        )
    return Explanation(
        "another test set",
        f"Infected pixels: {share} of all in our test part; Pre., Rec. and Spe. of Table 2 imply {tp + fn:.0%} "
        "in the paper’s.",
        meaning,
    )


def _empty_slices(ours: Ours, _: dict[str, Any]) -> Explanation:
    records = ours.best(HEADLINE)[1]
    if not records:
        return Explanation("no slice without infection", NOT_RUN, "")
    rows = np.array([row[1:] for record in records for row in record["slices"]])
    empty = int((rows[:, [0, 2]].sum(1) == 0).sum())
    counts = dict(zip(COUNTS, rows.sum(0), strict=True))
    more = np.array([counts["tp"], 2 * counts["fp"], counts["fn"], 0])
    return Explanation(
        "only slices with infection",
        f"{empty} of our {len(rows)} test slices have none at this size. If as many without infection joined, each with as "
        f"many false positive pixels as these have, the DSC would go from {scores(rows.sum(0))['dsc']:.2f} to "
        f"{scores(more)['dsc']:.2f}.",
        "An estimate, not a run. It could only lower ours: it does not explain why ours is lower."
        if empty < SMALL * len(rows)
        else "Such slices are in our test part.",
    )


def _budget(ours: Ours, _: dict[str, Any]) -> Explanation:
    runs = {run_name(row, "infection") for row in ROWS if row.table.startswith("Table")}
    records = [record for run in sorted(runs) for record in ours.best(run)[1]]
    if not records:
        return Explanation("less training", NOT_RUN, "")
    last = [r for r in records if r["fit"]["best_epoch"] == r["fit"]["epochs"]]
    rise = [
        r["fit"]["history"][-1]["val_dsc"] - r["fit"]["history"][-2]["val_dsc"]
        for r in records
        if len(r["fit"]["history"]) > 1
    ]
    sizes = sorted({r["config"]["size"] for r in records})
    epochs = sorted({r["fit"]["epochs"] for r in records})
    stopped = sum(r["fit"]["stopped_early"] for r in records)
    meaning = "Recall and Dice would most likely still rise: the likeliest part of what ours lack."
    changed = reductions(ours.results, data=ours.data).query("protocol == 'slice'")
    repeated = [
        f"{line['run']} {line['before']:.2f} → {line['after']:.2f} with {line['change']}"
        for line in changed.to_dict("records")
    ]
    larger = at_full_size(ours)
    larger = larger[
        larger["run"].isin(runs) & (larger["protocol"] == "slice") & (larger["ended"] != "out of time")
    ]
    if len(larger):
        gained = larger["difference"]
        full = PROFILES["paper"]
        repeated.append(
            f"{len(gained)} networks {gained.min():+.2f} to {gained.max():+.2f} with {full.size}×{full.size}, batches of "
            f"{full.batch_size} and up to {full.max_epochs['infection']} epochs at once"
        )
    if len(risen := [*changed["difference"], *larger["difference"]]):
        best = max(risen)
        meaning = (
            f"Where a run was repeated with more, its Dice rose by up to {best:.2f} on random slices: "
            + (
                f"{len(larger)} other networks show what CHS-Net may lack."
                if len(larger)
                else "a part of what ours lack."
            )
            if best > 0
            else "No run that was repeated with more of either got better on random slices."
        )
    if stopped == len(records):
        meaning = "All were trained until the validation loss no longer fell."
    return Explanation(
        "less training, smaller slices",
        f"{'-'.join(str(e) for e in {epochs[0]: 0, epochs[-1]: 0})} epochs at "
        f"{', '.join(f'{s}×{s}' for s in sizes)}; {stopped} of {len(records)} infection runs on random slices "
        f"stopped by themselves, in {len(last)} the last epoch was the best; the validation DSC changed by "
        f"{np.median(rise):+.3f} in the last epoch (median)."
        + (f" Repeated: {'; '.join(repeated)}." if repeated else ""),
        meaning,
    )


def _with_larger(ours: Ours) -> dict[str, Ours]:
    """The records as they are, and those of `cpu`'s runs on larger slices: by what their names get behind them."""
    size = PROFILES["cpu-256"].size
    return {"": ours, f" at {size}×{size}": Ours(ours.results, ("cpu-256",), data=ours.data)}


def _beyond(ours: Ours, _: dict[str, Any]) -> Explanation:
    found = []
    for key, plain in BEYOND.items():
        for protocol, name in (("slice", "random slices"), ("patient", "new patients")):
            for where, of in _with_larger(ours).items():
                if both := _of_both(of, key, plain, protocol=protocol):
                    mine, base = both
                    found.append(
                        f"{key}{where} on {name}: {np.mean(_scores_of(base)):.2f} → {np.mean(_scores_of(mine)):.2f} "
                        f"({len(mine)} of the same split{'s' * (len(mine) > 1)})"
                    )
    return Explanation(
        "no augmentation, schedule or averaging",
        "; ".join(found) + "." if found else NOT_RUN,
        "Rows beyond the paper’s recipe, in none of its tables: what the same network can do with more of it, or with the neighbouring slices."
        if found
        else "Rows beyond the paper’s recipe would tell.",
    )


def _threshold(ours: Ours, _: dict[str, Any]) -> Explanation:
    worth = thresholds_of(read_thresholds(ours.results)).query("profile != 'smoke'")
    gains = {protocol: of["chosen"] - of["usual"] for protocol, of in worth.groupby("protocol", sort=False)}
    told = [
        f"{name}: DSC {gained.min():+.3f} to {gained.max():+.3f} ({len(gained)} run{'s' * (len(gained) > 1)})"
        for protocol, name in (("slice", "random slices"), ("patient", "new patients"))
        if (gained := gains.get(protocol)) is not None
    ]
    meaning = "The paper gives none."
    if len(gains) == 2 and gains["patient"].abs().mean() > gains["slice"].abs().mean():
        either = ", for better or worse" if gains["patient"].min() < 0 < gains["patient"].max() else ""
        meaning += f" It matters more on new patients, of whom a network is less sure{either}."
    return Explanation(
        "the threshold of the mask",
        f"One chosen on validation slices in place of 0.5, on {'; on '.join(told)}."
        if told
        else NOT_MEASURED,
        meaning,
    )


def _cascade(ours: Ours, _: dict[str, Any]) -> Explanation:
    found, left = [], []
    for protocol, name in (("slice", "random slices"), ("patient", "new patients")):
        for record in ours.best(HEADLINE, protocol=protocol)[1]:
            inside = (record["first_stage"] or {}).get("infection_inside", {}).get("test")
            if inside is not None:
                recall = record["test"]["pooled"]["recall"]
                found.append(f"{inside:.1%} on {name} ({record['run']}), where recall is {recall:.0%}")
                left.append((1 - inside) / (1 - recall))
    if not found:
        return Explanation("infection that the first network cuts off", NOT_RUN, "")
    shown = f"{min(left):.0%}" if len(left) == 1 else f"{min(left):.0%} to {max(left):.0%}"
    return Explanation(
        "infection that the first network cuts off",
        f"Infected test pixels inside the predicted lungs: {'; '.join(found)}.",
        f"A cap on recall that no second network lifts: {shown} of the missed infection.",
    )


def _seeds(ours: Ours, _: dict[str, Any]) -> Explanation:
    values = _scores_of(ours.best(HEADLINE)[1])
    if len(values) < 2:
        return Explanation(
            "chance",
            f"{len(values)} seed of the headline: {NOT_MEASURED}.",
            "The verdicts allow a fixed spread in its place.",
        )
    return Explanation(
        "chance",
        f"{len(values)} seeds of the headline: DSC {mean_and_std(values)}.",
        f"The distance to the paper’s {_paper('DSC'):.2f} is {abs(np.mean(values) - _paper('DSC')) / max(np.std(values, ddof=1), 1e-9):.0f} of these deviations.",
    )


def _choices(ours: Ours, _: dict[str, Any]) -> Explanation:
    found, missing = [], 0
    for row in (r for r in ROWS if r.key.startswith("alt-")):
        run = run_name(row, "infection")
        if both := _of_both(ours, run, HEADLINE, protocol="slice"):
            mine, base = both
            difference = np.mean(_scores_of(mine)) - np.mean(_scores_of(base))
            of = ours.accepted[ours.best(run)[0]]
            anew = any(first_stage_warning(record["run"], of) for record in mine)
            found.append(
                f"{row.label} {difference:+.3f} ({len(mine)} of the same seed{'s' * (len(mine) > 1)}"
                + (", its first stage trained anew)" if anew else ")")
            )
        else:
            missing += 1
    return Explanation(
        "choices where the paper is silent",
        (
            "; ".join(found) + (f"; {missing} {NOT_RUN}." if missing else ".")
            if found
            else f"{missing} alternatives of the register: {NOT_RUN}."
        ),
        "Each could account for a part; the register names them. What is smaller than the spread of the seeds says nothing."
        if found
        else "Each could account for a part; the register names them.",
    )


def _own_numbers(_: Ours, __: dict[str, Any]) -> Explanation:
    dsc, ji = _paper("DSC"), _paper("JI")
    return Explanation(
        "the paper’s numbers themselves",
        f"A DSC of {dsc:.2f} implies a JI of {dsc / (2 - dsc):.2f} for the same counts; the paper prints {ji:.2f}.",
        "At least one of the two is not what its formula says, so no run can reproduce both.",
    )


def _preparation(_: Ours, __: dict[str, Any]) -> Explanation:
    return Explanation(
        "preparation of the slices",
        f"{NOT_MEASURED}: one preparation was trained on.",
        "Window, contrast and size change what a network sees; the direction is open.",
    )


EXPLANATIONS: tuple[Callable[[Ours, dict[str, Any]], Explanation], ...] = (
    _test_set, _budget, _leak, _cascade, _beyond, _threshold, _empty_slices, _seeds, _choices, _preparation, _own_numbers,
)  # fmt: skip


def explanations(ours: Ours, copied: dict[str, Any]) -> pd.DataFrame:
    """Every explanation of a difference in infection, with its evidence.

    Args:
        ours: the records.
        copied: the record of the nearest slice's mask (`leakage.read_leakage`).

    Returns:
        Indexed by explanation: "what was measured", "what it means".
    """
    rows = [explain(ours, copied) for explain in EXPLANATIONS]
    table = pd.DataFrame(
        {"what was measured": [r.evidence for r in rows], "what it means": [r.meaning for r in rows]},
        index=pd.Index([r.name for r in rows], name="difference"),
    )
    return table


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
            else f" and {line['new patients']} on new patients ({line['folds']} of {FOLDS} folds)"
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
            f"{theirs:.2f} apart in the paper and {mine:.2f} here, trained alike: the large difference {word}."
        )
    found += _full_size_in_words(ours)
    beyond = [
        f"{np.mean(_scores_of(records)):.2f} by `{key}`{where} ({len(records)} of {FOLDS} folds)"
        for key in BEYOND
        for where, of in _with_larger(ours).items()
        if (records := of.best(key, protocol="patient")[1])
    ]
    if beyond:
        found.append(
            f"A new patient, beyond the paper’s recipe, in no row of its tables: DSC {', '.join(beyond)}."
        )
    return found
