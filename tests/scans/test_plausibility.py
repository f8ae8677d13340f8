"""What a body cannot have is told as what it is; what it can have is not."""

import re

import pytest
from chest import Dark, cascade_of

from replication.data.reading.scan import Scan
from replication.scans.plausibility import implausible
from replication.scans.segment import segment
from replication.scans.steps import NOTHING

SOUND = {
    "lungs_ml": 4200.0,
    "infection_ml": 300.0,
    "scan_ml": 40_000.0,
    "dsc": {"lungs": 0.98, "infection": 0.77},
}
ODD = {
    "53 l": ({"lungs_ml": 53_000.0, "scan_ml": 90_000.0}, "lungs of 53 l; no body has more than 11"),
    "all lung": ({"lungs_ml": 39_900.0}, "100% of all voxels are called lung"),
    "all infected": ({"infection_ml": 4190.0}, "100% of the lungs are called infected"),
    "a thimble": ({"lungs_ml": 90.0, "infection_ml": 0.0}, "lungs of 90 ml; an adult keeps 500"),
    "weights that learnt nothing": ({"dsc": {"lungs": 0.18, "infection": None}}, "0.18 for lungs .* learnt next to nothing"),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_cannot_be_is_told(what: str) -> None:
    changed, says = ODD[what]
    (told,) = implausible(**SOUND | changed)
    assert re.search(says, told)


@pytest.mark.parametrize("litres", [0.6, 2.1, 6.0, 10.5])
def test_what_can_be_is_not(litres: float) -> None:
    assert implausible(**SOUND | {"lungs_ml": 1000 * litres}) == []


@pytest.mark.parametrize(
    "low, says", [(-1.0, "100% of all voxels.*100% of the lungs"), (2.0, "no lung was found.*learnt nothing")]
)
def test_networks_that_mark_all_or_nothing_are_told_of_in_the_report(low, says, drawn, put) -> None:
    blind = cascade_of(Dark(low, 3.0), Dark(low, 3.0))
    found = segment(Scan(put(drawn.hu, drawn.affine)), blind, cleaning=NOTHING)
    assert re.search(says, " ".join(found.warnings))
