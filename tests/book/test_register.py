"""The register's numbers are those that the code counts, and what it points to is there."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from chslib.network import ARMS, DOUBLING, WIDTHS, build_network, count_parameters
from replication.data.getting.sources import SOURCES
from replication.evidence.audit import linked_unet_parameters, printed_rows, vgg16_parameters
from replication.evidence.estimates import parameters
from replication.training.grid import ROWS, get_run

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "book/register.md").read_text(encoding="utf-8")


def row(number: int) -> str:
    return re.search(rf"^\(row-{number}\)=$(.*?)(?=^\(row-|\Z)", TEXT, flags=re.M | re.S)[1]


@cache
def counted(arm: str = "full", **changes) -> int:
    with torch.device("meta"):
        return count_parameters(build_network(arm, **changes))


def test_the_parameters_of_the_rows_are_those_counted():
    assert f"{2 * counted():,} as chosen; {2 * counted(up_kernel=2):,} with 2×2" in row(1)
    assert f"{2 * counted(widths=DOUBLING):,} doubling from 16" in row(1)
    assert (
        f"{2 * counted():,} as chosen, {2 * counted(widths=WIDTHS[:-1]):,} with three pooled stages" in row(2)
    )
    assert f"{parameters('table3-unet'):,}, near" in row(19)
    assert f"{vgg16_parameters() / 1e6:.1f}M" in row(19) and f"{linked_unet_parameters() / 1e6:.1f}M" in row(
        19
    )
    for arm, name in zip(ARMS, ("BU", "BU+RIB", "BU+RIB+HP", "RAIU-Net")):
        assert f"{name} {counted(arm):,}" in row(58)
    assert f"{parameters('table3-miniseg'):,}; with three channels" in row(63)


def test_the_counts_of_slices_follow_from_the_sources():
    large, small = SOURCES["zenodo"].slices, SOURCES["medseg"].slices
    assert f"{small} and {large} slices. 1:1 would leave at most {2 * small}" in row(14)
    assert f"{small} + {large} − 3560 = {small + large - 3560} slices" in row(15)
    assert f"3560 slices are more than the {large}" in row(56)


def test_the_arithmetic_on_jaccard_is_that_of_the_printed_rows():
    scores = printed_rows()[["DSC", "JI"]].astype(float)
    background = 2 * scores["JI"] - scores["DSC"] / (2 - scores["DSC"])
    low = 2 * (scores["JI"] - 0.005) - (scores["DSC"] + 0.005) / (2 - scores["DSC"] - 0.005)
    assert (scores["JI"] > scores["DSC"]).all()
    assert f"in all {len(scores)} distinct rows" in row(18)
    assert f"{(background > 1).sum()} of the {len(scores)} would need" in row(18)
    assert f"({(low > 1).sum()} whatever the rounding)" in row(18)


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\.\./notebooks/(\w+)\.ipynb|</notebooks/(\w+)>", TEXT)))
)
def test_a_notebook_that_a_row_links_to_exists(link):
    assert (ROOT / "notebooks" / f"{''.join(link)}.ipynb").is_file()


def test_a_run_that_a_row_reads_is_of_the_grid_and_every_alternative_of_the_grid_has_its_row():
    for _, run in re.findall(r"\{\{ (dsc|recall|specificity|size) ([\w-]+) \}\}", TEXT):
        get_run(run)
    for alternative in (r for r in ROWS if r.table.startswith("row ")):
        assert f"dsc {alternative.key}-infection" in row(int(alternative.table.removeprefix("row ")))
