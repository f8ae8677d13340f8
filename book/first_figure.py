"""The figure of the first page: the paper's score, ours on the paper's test and ours on new patients, on one axis.

An SVG in two layouts, one a phone's. Its colours are classes, which chs.css sets for either theme; nothing in it is
typed but the words and, with its source, how far radiologists agree.
"""

from dataclasses import dataclass, field
from typing import Any

from svg import circle, line, scale, svg, text

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
    x, y, out = scale(left, right), 8, []
    top = y + HEAD
    for name, rows in groups.items():
        y += HEAD
        out.append(text(0 if beside else left, y - 8, name, "head"))
        for row in rows:
            y += row_height
            at = y - ROW / 2 + 4
            where = (left - 14, at + 5) if beside else (left, at - 14)
            out.append(text(*where, row.words, anchor="end" if beside else "start"))
            out.append(line("rule", x(0), x(1), at, at))
            out += [circle(x(each), at, 4, f"{row.kind} each") for each in row.each]
            if row.value is None:
                out.append(text(x(0.5), at + 5, NOT_RUN, anchor="middle"))
                continue
            out.append(circle(x(row.value), at, 7.5, row.kind))
            out.append(text(x(max([row.value, *row.each])) + 13, at + 5, f"{row.value:.2f}", "value"))
        y += 8
    band = line("agree", x(RADIOLOGISTS), x(RADIOLOGISTS), top, y)
    y += 16
    ends = ((0, "start", "0"), (RADIOLOGISTS, "middle", "radiologists"), (1, "middle", "1"))
    out += [text(x(value), y, words, "small", anchor) for value, anchor, words in ends]
    kind = "wide" if beside else "narrow"
    return svg(width, y + 8, band + "".join(out), in_words(groups), css=kind) + "\n"
