"""Tables 1-5 as the paper prints them, with ours below each row, and what was run for them."""

from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from replication.data.slices.splits import FOLDS
from replication.evidence.budgets import ANSWERING
from replication.evidence.estimates import COLUMNS, Ours
from replication.evidence.ledger import NOT_RUN, ledger_of, paper_numbers
from replication.evidence.own_rows import own_rows
from replication.training.evaluation import BOUNDARY, CONFIDENCE, OVERLAP, TOLERANCES
from replication.training.grid import RUNS, Run
from replication.training.profiles import PROFILES

DRY_RUN = "DRY RUN, no result"  # in place of "ours", and of every verdict, where smoke fills a table
HEADS = ("Param.", *COLUMNS)


def our_records(results: str | Path | Ours, profile: str | None = None, data: str | None = None) -> Ours:
    """The records that fill a table.

    Args:
        results: folder of the records, or these already read.
        profile: whose; None: row by row by the rule of `replication.evidence.budgets`. "smoke": a dry run.
        data: see `replication.evidence.records.load_records`.

    Raises:
        ValueError: an unknown profile.
    """
    if isinstance(results, Ours):
        return results
    return Ours(results, ANSWERING if profile is None else (profile,), data=data)


def _lines(ours: Ours, numbers: pd.DataFrame) -> pd.DataFrame:
    lines = ledger_of(ours, numbers)
    if "smoke" in ours.accepted:
        lines["verdict"], lines["at"], lines["borrowed"] = DRY_RUN, "", ""
    return lines


def table(
    number: int, results: str | Path | Ours, *, profile: str | None = None, data: str | None = None
) -> pd.DataFrame:
    """One table of the paper; below each of its rows ours, random slices and new patients, as `ledger` has them.

    Args:
        number: 1 to 5.
        results, profile, data: see `our_records`. "smoke" says in each row that it is no result.

    Returns:
        Table 1: a line a cell: paper, ours, verdict. Else by the table's own row (and segmentation) and "of".

    Raises:
        ValueError: another table, or an unknown profile.
    """
    if number not in range(1, 6):
        raise ValueError(f"table {number!r}; the paper has Tables 1 to 5.")
    ours = our_records(results, profile, data)
    lines, dry = _lines(ours, paper_numbers(f"Table {number}")), "smoke" in ours.accepted
    if number == 1:
        shown = lines.assign(verdict=_with_place(lines)).set_index(["row", "metric", "paper"])
        return shown[["ours", "verdict", "reason"]].rename_axis(["Dataset", "", "paper"])
    heads = [head for head in HEADS if head in set(lines["metric"])]
    rows = []
    # A row of scores of one segmentation; its parameter count, which has none, goes with it.
    for (row, segmentation), cells in lines[lines["metric"] != "Param."].groupby(
        ["row", "segmentation"], sort=False
    ):
        count = lines[(lines["row"] == row) & (lines["metric"] == "Param.")]
        cells = pd.concat([count, cells]).set_index("metric")
        labels = {"Mode": row, "Segmentation": segmentation}
        rows += [labels | line for line in _rows(cells, heads, dry=dry)]
    rows += own_rows(ours, heads, whose=DRY_RUN if dry else "ours") if number == 3 else []
    index = {2: ["Segmentation"], 3: ["Mode"], 4: ["Mode"], 5: ["Mode", "Segmentation"]}[number]
    frame = pd.DataFrame(rows).set_index([*index, "of"])[[*heads, "verdict", "records"]]
    return frame.rename_axis(["Model", "of"]) if number == 3 else frame


def _rows(cells: pd.DataFrame, heads: list[str], *, dry: bool) -> list[dict[str, str]]:
    """The paper's row, and ours for either protocol."""
    dsc = cells.loc["DSC"]
    whose = DRY_RUN if dry else "ours"
    slices = f", {dsc['n']} seed{'' if dsc['n'] == 1 else 's'}" if dsc["n"] else ""
    folds = f", {dsc['folds']} of {FOLDS} folds" if dsc["folds"] else ""
    warning = f" ({dsc['warning']})" if dsc["warning"] else ""
    profile = f" ({dsc['profile']})" if dsc["profile"] else ""
    return [
        {"of": "paper", **cells.loc[heads, "paper"], "verdict": "", "records": ""},
        {
            "of": f"{whose}, random slices{slices}",
            **cells.loc[heads, "ours"],
            "verdict": _verdict_of_row(cells),
            "records": f"{dsc['records']}{profile}{warning}" or NOT_RUN,
        },
        {
            "of": f"{whose}, new patients{folds}",
            **cells.loc[heads, "new patients"],
            "verdict": "",
            "records": dsc["patient records"] or NOT_RUN,
        },
    ]


def _with_place(lines: pd.DataFrame) -> pd.Series:
    """Verdicts, with where they were reached if that is less than the paper's, and whose tolerance they have if borrowed."""
    place = (" at " + lines["at"]).where(lines["at"] != "", "")
    borrowed = (" (tolerance of " + lines["borrowed"] + ")").where(lines["borrowed"] != "", "")
    return lines["verdict"] + place + borrowed


def _verdict_of_row(cells: pd.DataFrame) -> str:
    """DSC's verdict, and how many of the row's scores are reproduced, or compatible."""
    dsc = cells.loc["DSC"]
    if dsc["verdict"] in (NOT_RUN, DRY_RUN):
        return dsc["verdict"]
    scores = cells.loc[[c for c in COLUMNS if c != "JI"], "verdict"]  # the printed JI is comparable with none
    same, like = ((scores == verdict).sum() for verdict in ("reproduced", "compatible"))
    return (
        f"DSC {_with_place(cells).loc['DSC']}; of {len(scores)} scores {same} reproduced, {like} compatible"
    )


def claims(
    notebook: str, results: str | Path | Ours, *, profile: str | None = None, data: str | None = None
) -> pd.DataFrame:
    """The paper's claims that a notebook is about: its words, what ours say, and the verdict.

    Args:
        notebook: its name, for example "09_table5_hierarchical".
        results, profile, data: see `our_records`.
    """
    numbers = paper_numbers()
    chosen = numbers[(numbers["kind"] == "claim") & (numbers["notebook"] == notebook)]
    lines = _lines(our_records(results, profile, data), chosen)
    shown = lines.assign(verdict=_with_place(lines)).rename(
        columns={"paper": "claim", "ours": "random slices"}
    )
    return shown.set_index("claim")[["place", "random slices", "new patients", "verdict", "reason"]]


def shown_gains(differences: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.differences` as text: mean with its sign ± deviation (number of seeds or folds); "not run" for none."""

    def told(mean: float, deviation: float, number: int) -> str:
        spread = "" if pd.isna(deviation) else f" ± {deviation:.3f}"
        return f"{mean:+.3f}{spread} ({number})" if number else NOT_RUN

    shown = pd.DataFrame({"paper": differences["paper"].map("{:+.3f}".format)})
    for protocol, unit, name in (("slice", "seeds", "random slices"), ("patient", "folds", "new patients")):
        of = zip(differences[protocol], differences[f"{protocol}_std"], differences[unit])
        shown[f"ours, {name}"] = [told(*values) for values in of]
    return shown


class Shown:
    """A frame that a notebook shows styled and a text reader reads plain; the same on every run."""

    def __init__(self, frame: pd.DataFrame, html: str) -> None:
        self.frame, self.html = frame, html

    def __repr__(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.frame.to_string()

    def _repr_html_(self) -> str:
        return self.html


# The green and the vermilion of Okabe and Ito, darker on white and lighter on black: contrast above 4.5 on both. The words
# say the same.
_VERDICT_STYLE = {
    **dict.fromkeys(("below the paper", "contradicted", "differs"), "color: light-dark(#B34700, #FF8A4C)"),
    "above the paper": "color: light-dark(#0072B2, #56B4E9)",
    **dict.fromkeys(("reproduced", "compatible"), "color: light-dark(#00704F, #2FC79A)"),
    "undecided": "font-style: italic",
}


def styled(frame: pd.DataFrame, *, name: str, caption: str = "") -> Shown:
    """A table to be shown: text to the left, the paper's rows bold, what was not run faint.

    Args:
        frame: from `table`, or any frame of text.
        name: of its HTML, so that two runs write the same.
        caption: below the table.
    """

    def cell(value: Any) -> str:
        text = str(value).removeprefix("DSC ")
        if text == NOT_RUN:
            return "opacity: 0.7; white-space: nowrap"
        verdict = next((css for verdict, css in _VERDICT_STYLE.items() if text.startswith(verdict)), "")
        # A deviation goes below its mean: beside it, six of them push the DSC out of the page.
        short = "white-space: nowrap" if len(text) <= 15 and "±" not in text else ""
        return "; ".join(filter(None, (verdict, short)))

    def row(series: pd.Series) -> list[str]:
        of = series.name[-1] if isinstance(series.name, tuple) else series.name
        return ["font-weight: bold" if of == "paper" else ""] * len(series)

    styler: Styler = frame.style.set_uuid(name).map(cell).apply(row, axis=1)
    # Small and tight: a page's column is some 690 pixels wide, and a table here has ten columns.
    cells = "text-align: left; vertical-align: top; padding: 0.15em 0.45em"
    styler = styler.set_table_styles(
        [
            {"selector": "", "props": "font-size: 0.8em; border-collapse: collapse"},
            {"selector": "th", "props": cells + "; font-weight: 600"},
            {"selector": "th.level1", "props": "font-weight: normal; min-width: 7.5em"},
            {"selector": "td", "props": cells},
            {"selector": "tbody tr", "props": "border-top: 1px solid rgba(128, 128, 128, 0.25)"},
            {"selector": "caption", "props": "caption-side: bottom"},
        ]
    )
    return Shown(frame, (styler.set_caption(caption) if caption else styler).to_html())


def describe(record: dict[str, Any]) -> pd.Series:
    """What a reader needs to know of one run, from its record alone."""
    config, data, fit = record["config"], record["data"], record["fit"]
    split = data["split"]
    run: Run = RUNS[record["run"]]
    tested = split["test"]["patients"]
    shared = set(tested) & set(split["train"]["patients"])
    inside = (record["first_stage"] or {}).get("infection_inside", {}).get("test")
    rows = pd.Series(
        {
            "profile": f"{record['profile']} ({PROFILES[record['profile']].worth})",
            "split": f"random slices, 70/30, seed {run.seed}"
            if run.protocol == "slice"
            else f"whole patients, fold {run.fold} of {FOLDS}",
            "slices": ", ".join(f"{split[part]['slices']} {part}" for part in split),
            "test patients": f"{len(tested)}, {len(shared)} of them also trained on"
            if shared
            else ", ".join(tested),
            "network": f"{config['arm']}, widths {config['widths']}, {config['parameters']:,} parameters",
            "training": f"{config['optimizer']} {config['learning_rate']:g}, batch {config['batch_size']}, "
            f"{config['size']}x{config['size']}, {fit['epochs']} epochs, epoch {fit['best_epoch']} kept",
            "device": record["device"],
            "time": f"{fit['fit_seconds'] / 60:.0f} min of fitting, {record['wall_seconds'] / 60:.0f} min in all",
            "data": data["fingerprint"][:12],
            "commit": record["commit"][:12],
        },
        name="",
    )
    if inside is not None:
        rows["infection inside the predicted lungs"] = f"{inside:.1%} of its test pixels"
    return rows


def describe_evaluation(evaluation: dict[str, Any]) -> pd.DataFrame:
    """A short table of what `evaluate_masks` returns, for a notebook; undefined is NaN.

    ``from`` and ``to`` are what ``range`` names: a bootstrap interval, or percentiles over slices. ``n`` counts
    what the value is taken over, ``undefined`` what had to be left out.
    """
    rows = []

    def add(score: str, value: float | None, n: int, range_: tuple = (None, None, ""), undefined: int = 0):
        rows.append((score, value, *range_, n, undefined))

    def resampled(found: dict[str, Any]) -> tuple:
        return (
            found["low"],
            found["high"],
            f"{CONFIDENCE:.0%} interval, {found['n']} {found['resampled']} resampled",
        )

    for name in OVERLAP:
        for view, label in (("pooled", "pooled"), ("patient_mean", "mean over patients")):
            found = evaluation["overlap"][name][view]
            add(f"{name.upper()}, {label}", found["value"], found["n"], resampled(found))
    by_dsc = sorted(evaluation["patients"], key=lambda p: p["dsc"]["value"])
    for label, patient in (("lowest", by_dsc[0]), ("highest", by_dsc[-1])):
        dsc = patient["dsc"]
        add(f"DSC, {label} patient ({patient['patient']})", dsc["value"], dsc["n"], resampled(dsc))
    labels = ("HD95 (px)", *(f"surface dice at {t} px" for t in TOLERANCES))
    for name, label in zip(BOUNDARY, labels, strict=True):
        found = evaluation["boundary"][name]
        spread = (found["p5"], found["p95"], "5th to 95th percentile over slices")
        add(f"{label}, median", found["median"], found["n"], spread, found["undefined"])
        add(f"{label}, mean", found["mean"], found["n"], undefined=found["undefined"])
        mean = found["patient_mean"]
        add(f"{label}, mean over patients", mean["mean"], mean["n"], undefined=mean["undefined"])
    wrong = evaluation["false_positives"]
    for key, label in (("share_with_any", "share with any"), ("mean_pixels", "mean pixels")):
        add(f"False positives where truth is empty, {label}", wrong[key], wrong["slices"])
    columns = ["score", "value", "from", "to", "range", "n", "undefined"]
    return pd.DataFrame(rows, columns=columns).set_index("score").astype(dict.fromkeys(columns[1:4], float))
