"""Why our numbers differ from the paper's: each explanation with what was measured, from records alone.

What no record measures says so; nothing here is typed by hand that a record could contradict.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from chslib.metrics import COUNTS, scores
from replication.analysis.leak import mean_of_copies
from replication.analysis.thresholds import read_thresholds, thresholds_of
from replication.evidence.audit import implied_shares
from replication.evidence.comparisons import (
    BEYOND,
    at_full_size,
    of_both,
    pooled_dsc,
    reductions,
    with_larger,
)
from replication.evidence.estimates import Ours
from replication.evidence.ledger import NOT_RUN, mean_and_std, paper_numbers
from replication.evidence.records import first_stage_warning, pooled_counts
from replication.training.grid import ROWS, run_name
from replication.training.profiles import PROFILES

SMALL = 0.2  # a share below which something is called absent
NOT_MEASURED = "not measured"
HEADLINE = "table2-infection"


class Explanation(NamedTuple):
    """One reason why ours and theirs may differ, what was measured of it, and which way it pushes a score."""

    name: str
    evidence: str
    meaning: str


def _paper(metric: str, *, row: str = "COVID-19") -> float:
    numbers = paper_numbers("Table 2").query("metric == @metric and segmentation == @row")
    return float(numbers["value"].iloc[0])


def _leak(ours: Ours, copied: dict[str, Any]) -> Explanation:
    alike = ours.alike([HEADLINE], protocols=("slice", "patient"))  # one budget under both protocols
    shown = [
        f"{name} {mean_and_std(pooled_dsc(records), digits=2) if records else NOT_RUN}"
        for name, protocol in (("on random slices", "slice"), ("on new patients", "patient"))
        for records in ((ours.only(alike) if alike else ours).best(HEADLINE, protocol=protocol)[1],)
    ]
    return Explanation(
        "slices of one patient on both sides of the split",
        f"Copying the mask of the most similar training slice scores {mean_of_copies(copied, 'slice'):.2f} on random "
        f"slices and {mean_of_copies(copied, 'patient'):.2f} on new patients; CHS-Net {', '.join(shown)}.",
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
    changed = reductions(ours.results, data=ours.data).query("protocol == 'slice' and run in @runs")
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


def _beyond(ours: Ours, _: dict[str, Any]) -> Explanation:
    found = []
    for key, plain in BEYOND.items():
        for protocol, name in (("slice", "random slices"), ("patient", "new patients")):
            for where, of in with_larger(ours).items():
                if both := of_both(of, key, plain, protocol=protocol):
                    mine, base = both
                    found.append(
                        f"{key}{where} on {name}: {np.mean(pooled_dsc(base)):.2f} → {np.mean(pooled_dsc(mine)):.2f} "
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
    groups = {profile: ours.only(profile).best(HEADLINE)[1] for profile in ours.accepted}
    profile = max(groups, key=lambda name: len(groups[name]))
    values = pooled_dsc(groups[profile])
    if len(values) < 2:
        return Explanation(
            "chance", f"{len(values)} seed of the headline: {NOT_MEASURED}.", "Other rows have several."
        )
    answer = np.mean(pooled_dsc(ours.best(HEADLINE)[1]))
    return Explanation(
        "chance",
        f"{len(values)} seeds of the headline by the profile {profile}: DSC {mean_and_std(values)}.",
        f"The distance of {answer:.2f}, which answers, to the paper’s {_paper('DSC'):.2f} is {abs(answer - _paper('DSC')) / max(float(np.std(values, ddof=1)), 1e-9):.0f} of these deviations.",
    )


def _choices(ours: Ours, _: dict[str, Any]) -> Explanation:
    found, missing = [], 0
    for row in (r for r in ROWS if r.key.startswith("alt-")):
        run = run_name(row, "infection")
        cascade = row.first or row.cascade == "truth"
        plain = HEADLINE if cascade else "table3-miniseg" if row.arm == "miniseg" else "table4-full"
        if both := of_both(ours, run, plain, protocol="slice"):
            mine, base = both
            difference = np.mean(pooled_dsc(mine)) - np.mean(pooled_dsc(base))
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
        copied: the record of the nearest slice's mask (`leak.read_leakage`).

    Returns:
        Indexed by explanation: "what was measured", "what it means".
    """
    rows = [explain(ours, copied) for explain in EXPLANATIONS]
    columns = ["difference", "what was measured", "what it means"]
    return pd.DataFrame(rows, columns=columns).set_index("difference")
