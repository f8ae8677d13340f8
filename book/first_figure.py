"""The figure of the first page: the paper's score, ours on the paper's test and ours on new patients, on one axis.

An SVG in two layouts, one a phone's. Its colours are classes, which chs.css sets for either theme; nothing in it is
typed but the words and, with its source, how far radiologists agree.
"""

from dataclasses import dataclass, field
from html import escape
from typing import Any

RADIOLOGISTS = 0.70  # one against another, on other scans: Bartoli et al. 2022
NOT_RUN = "not run"
WIDE, NARROW = 760, 380  # of the two layouts, in units of the picture
ROW, HEAD = 34, 30  # height of a row, and of a group's name


@dataclass
class Row:
    """One line: its words, its score, and those that the score is the mean of."""

    words: str
    value: float | None
    kind: str  # a class of chs.css: paper, slice, patient or copy
    each: list[float] = field(default_factory=list)


def rows_of(numbers: Any) -> dict[str, list[Row]]:
    """The rows by group, from the committed records (`page_numbers.Numbers`)."""

    def one(name: str) -> float | None:
        record = numbers.record(name)
        return record["test"]["pooled"]["dsc"] if record else None

    def group(words: str, run: str, protocol: str) -> Row:
        profile, _, name = run.rpartition("/")
        found = numbers.of_profile(profile).group(name, protocol=protocol, profile=profile)
        each = [record["test"]["pooled"]["dsc"] for record in found.values()]
        return Row(words, sum(each) / len(each) if each else None, protocol, each)

    def cascade() -> Row:
        """The training that answers the paper's score; its epochs are named until it is one of full size."""
        profile, found = numbers.ours.best("table2-infection")
        row = group("Ours, the cascade at full size", f"{profile or 'paper'}/table2-infection", "slice")
        if profile != "paper" and found:
            row.words = f"Cascade, half size, {max(r['fit']['epochs'] for r in found)} epochs"
        return row

    def copied(protocol: str) -> Row:
        told = numbers.value(f"copied {protocol} infection")
        return Row("Copying the most similar slice", float(told) if told != NOT_RUN else None, "copy")

    sealed = numbers.measured.sealed_of("paper/table4-full")
    return {
        "Random slices: patients it knows": [
            Row("The paper", float(numbers.value("paper t2-infection-dsc")), "paper"),
            Row("Ours, one network at full size", one("paper/table4-full"), "slice"),
            cascade(),
            copied("slice"),
        ],
        "New patients: people it never saw": [
            Row(
                "The same network, three people",
                sealed["pooled"]["dsc"],
                "patient",
                [*sealed["patients_dsc"].values()],
            ),
            group("Cascade, 5 epochs, five groups", "cpu/table2-infection", "patient"),
            group("U-Net at full size, five groups", "paper/table4-bu", "patient"),
            copied("patient"),
        ],
    }


def told(row: Row) -> str:
    """A row in words, for those who do not see it."""
    value = NOT_RUN if row.value is None else f"{row.value:.2f}"
    reach = f", from {min(row.each):.2f} to {max(row.each):.2f}" if len(set(row.each)) > 1 else ""
    return f"{row.words}: {value}{reach}"


def figure(numbers: Any) -> str:
    """Both layouts, as HTML."""
    groups = rows_of(numbers)
    layouts = "".join(drawing(groups, width) for width in (WIDE, NARROW))
    return f'<figure class="first-figure">\n{layouts}</figure>'


def in_words(groups: dict[str, list[Row]]) -> str:
    """The whole figure, for those who do not see it."""
    words = "; ".join(f"{name}: {', '.join(map(told, rows))}" for name, rows in groups.items())
    return f"Dice coefficients of the infection. {words}. Radiologists among themselves: about {RADIOLOGISTS:.2f}."


def drawing(groups: dict[str, list[Row]], width: int) -> str:
    """One layout, as SVG; book/_static/chs.css has the colours of its classes."""
    beside = width == WIDE  # words stand beside the axis, or above it
    left, right = (250 if beside else 2), width - 50
    row_height = ROW if beside else ROW + 16

    def x(value: float) -> float:
        return round(left + (right - left) * value, 1)

    out, y = [], 8
    top = y + HEAD
    for name, rows in groups.items():
        y += HEAD
        out.append(f'<text class="head" x="{0 if beside else left}" y="{y - 8}">{escape(name)}</text>')
        for row in rows:
            y += row_height
            at = y - ROW / 2 + 4
            where = (left - 14, at + 5, "end") if beside else (left, at - 14, "start")
            out.append(
                f'<text x="{where[0]}" y="{where[1]}" text-anchor="{where[2]}">{escape(row.words)}</text>'
            )
            out.append(f'<line class="rule" x1="{x(0)}" x2="{x(1)}" y1="{at}" y2="{at}"/>')
            out += [f'<circle class="{row.kind} each" cx="{x(each)}" cy="{at}" r="4"/>' for each in row.each]
            if row.value is None:
                out.append(f'<text x="{x(0.5)}" y="{at + 5}" text-anchor="middle">{NOT_RUN}</text>')
                continue
            out.append(f'<circle class="{row.kind}" cx="{x(row.value)}" cy="{at}" r="7.5"/>')
            past = max([row.value, *row.each])
            out.append(f'<text class="value" x="{x(past) + 13}" y="{at + 5}">{row.value:.2f}</text>')
        y += 8
    middle = x(RADIOLOGISTS)
    band = f'<line class="agree" x1="{middle}" x2="{middle}" y1="{top}" y2="{y}"/>'
    y += 16
    ends = "".join(
        f'<text class="small" x="{x(v)}" y="{y}" text-anchor="{anchor}">{text}</text>'
        for v, anchor, text in (
            (0, "start", "0"), (RADIOLOGISTS, "middle", "radiologists"), (1, "middle", "1"),
        )
    )  # fmt: skip
    kind = "wide" if beside else "narrow"
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {y + 8}" role="img" aria-label="{escape(in_words(groups))}">'
        f"{band}{''.join(out)}{ends}</svg>\n"
    )
