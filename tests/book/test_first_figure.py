"""The first page's figure: every dot is a record's, in both layouts, and a missing record reads "not run"."""

import re
from pathlib import Path

import first_figure
import pytest
import readme
from page_numbers import Numbers

from replication.evidence.estimates import Ours
from replication.evidence.records import load_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def groups():
    return first_figure.rows_of(Numbers(ROOT))


def test_the_dots_are_the_records(groups) -> None:
    records = {profile: load_records(ROOT / "results", profile)[0] for profile in ("cpu", "paper")}

    def dsc(profile: str, run: str) -> float:
        return records[profile][run]["test"]["pooled"]["dsc"]

    known, new = groups.values()
    assert max(len(row.words) for row in known + new) <= 31, "the wide layout has room for no more"
    assert [row.kind for row in known + new] == [
        "paper",
        "slice",
        "slice",
        "copy",
        "patient",
        "patient",
        "patient",
        "copy",
    ]
    assert known[0].value == 0.88 and known[1].value == dsc("paper", "table4-full")
    answers, group = Ours(ROOT / "results").best("table2-infection")
    assert known[2].each == [record["test"]["pooled"]["dsc"] for record in group]
    assert str(group[0]["fit"]["epochs"]) in known[2].words or answers == "paper"
    assert {records["cpu"][f"table2-infection-patient-fold{k}"]["fit"]["epochs"] for k in range(5)} == {5}
    for row, profile, run in ((new[1], "cpu", "table2-infection"), (new[2], "paper", "table4-bu")):
        assert row.each == [dsc(profile, f"{run}-patient-fold{k}") for k in range(5)]
        assert row.value == pytest.approx(sum(row.each) / 5)
    assert len(new[0].each) == 3 and min(new[0].each) < new[0].value < max(new[0].each)


def test_both_layouts_show_each_row_where_its_score_lies_and_say_it_in_words(groups) -> None:
    html = first_figure.figure(Numbers(ROOT))
    layouts = html.split("<svg")[1:]
    assert len(layouts) == 2
    for svg in layouts:
        ends = [float(x) for x in re.search(r'class="rule" x1="([\d.]+)" x2="([\d.]+)"', svg).groups()]
        for row in (row for rows in groups.values() for row in rows):
            at = ends[0] + row.value * (ends[1] - ends[0])
            assert f'<circle class="{row.kind}" cx="{at:.1f}"' in svg
            assert f">{row.words}</text>" in svg and f"{row.words}: {row.value:.2f}" in svg
        assert max(float(x) for x in re.findall(r'cx="([\d.]+)"', svg)) <= ends[1]


def test_without_records_nothing_is_drawn_in_their_place(tmp_path, groups, monkeypatch) -> None:
    empty = {"one": [first_figure.Row("Ours", None, "slice")]}
    monkeypatch.setattr(first_figure, "rows_of", lambda numbers: empty)
    html = first_figure.figure(None)
    assert "circle" not in html and html.count("not run") == 4


def test_the_readme_begins_with_the_first_page_as_the_records_now_make_it() -> None:
    """`python book/readme.py` writes what is out of date."""
    made = readme.files()
    assert (
        len(made) == 3
        and [path for path, content in made.items() if path.read_text("utf-8") != content] == []
    )
    for theme in readme.THEMES:
        picture = made[ROOT / f"book/_static/first-figure-{theme}.svg"]
        assert (
            'xmlns="http' in picture
            and "var(" not in picture
            and readme.THEMES[theme]["text-base"] in picture
        )
