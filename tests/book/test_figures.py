"""Figures stand in their pages as vectors whose colours follow the theme and whose words can be read aloud."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from sphinx_figures import COLOUR, GREY, HUES, inline

from replication.figures import style

ROOT = Path(__file__).resolve().parents[2]

CSS = (ROOT / "book" / "_static" / "chs.css").read_text(encoding="utf-8")
MAPPED = {"02_dsc_cost": 1}  # figures with a colour map in them, whose colours are their own
PICTURES = {"17_your_scan": 1}  # files that a command wrote, and that are shown as they are
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def outputs(path: Path, kind: str) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    return ["".join(data[kind]) for data in found if kind in data]


def strangers(svg: str) -> set[str]:
    """Colours of a figure that no theme knows."""
    return {c for _, c in COLOUR.findall(svg) if c not in HUES and not GREY.fullmatch(c)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_figures_are_vectors_in_the_book_s_colours(path: Path) -> None:
    assert len(outputs(path, "image/png")) == PICTURES.get(path.stem, 0)
    strange = [found for svg in outputs(path, "image/svg+xml") if (found := strangers(svg))]
    assert len(strange) == MAPPED.get(path.stem, 0), strange


def test_a_figure_in_another_colour_is_noticed() -> None:
    assert strangers('<path style="fill: #bf00bf; stroke: #0072b2"/><text style="fill: #595959"/>') == {
        "#bf00bf"
    }


def test_each_colour_of_the_figures_has_a_place_in_either_theme() -> None:
    ours = {
        c.lower()
        for c in (style.BLUE, style.SKY, style.GREEN, style.VERMILION, style.PURPLE, *style.INK.values())
    }
    assert set(HUES) == ours
    for name in HUES.values():
        assert len(re.findall(rf"--chs-{name}: #", CSS)) == 2, name
    light = CSS[CSS.index("html {\n  --chs-blue") :]
    for colour, name in HUES.items():
        assert re.search(rf"--chs-{name}: ({colour})", light), (
            f"{name} of the light theme is not the notebook's"
        )


def drawn() -> str:
    import io

    with plt.rc_context(style.LOOK):
        figure, axes = plt.subplots(1, 2)
        for axis in axes:  # the same twice: clips and markers of one are not the other's
            axis.plot([0, 1], "o-", color=style.BLUE, label="risen & shone")
            axis.axvline(0.5, color="0.35")
            style.name_ends(axis)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
    return file.getvalue()


def test_a_figure_is_named_and_disturbs_nothing_on_its_page() -> None:
    page = inline(drawn(), alt='a line, "risen"') + inline(
        drawn().replace("risen", "fallen"), alt="the other"
    )
    assert 'role="img" aria-label="a line, &quot;risen&quot;"' in page
    assert (
        "var(--chs-blue)" in page
        and "color-mix(in srgb, var(--pst-color-text-base) 65%, var(--pst-color-background))" in page
    )
    assert not COLOUR.search(page), "a colour that does not follow the theme"
    assert "<style" not in page and "<?xml" not in page and "font-family" not in page
    named = re.findall(r' id="([^"]+)"', page)
    referred = re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", page)
    assert len(named) == len(set(named)) and set(referred) == set(named)
    assert "risen &amp; shone" in page, "words are no longer words"


def test_the_same_figure_is_the_same_file() -> None:
    assert drawn() == drawn()


def test_names_stand_at_the_right_ends_and_apart() -> None:
    figure, axis = plt.subplots()
    axis.plot([3, 1, 2], [0.5, 0, 0], label="one", color=style.SKY)  # its end is not its last point
    axis.plot([1, 3], [0, 0.5], label="two", color=style.BLUE)
    axis.plot([1, 3], [1, 1])  # without a name
    style.name_ends(axis, apart=11)
    names = {text.get_text(): text for text in axis.texts}
    assert set(names) == {"one", "two"} and all(text.xy == pytest.approx((3, 0.5)) for text in names.values())
    assert abs(names["one"].xyann[1] - names["two"].xyann[1]) >= 11
    assert names["one"].get_color() == style.INK[style.SKY]
    plt.close(figure)
