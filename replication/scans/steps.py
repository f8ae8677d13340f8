"""Which steps stand behind the networks, each by itself and measured."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Which steps are taken, in this order.

    Attributes:
        density: patches of a slice that are gas alone or fat, by their median, are dropped; needs Hounsfield units.
        largest: all but the two largest bodies, and of these one below `SMALLEST`, are dropped.
        holes: what lungs enclose is lung.
        slices: slices with less than `LEAST_AREA` of lung have none; the second network does not see them.
        inside: infection outside the lungs is dropped.
    """

    density: bool = True
    largest: bool = True
    holes: bool = True
    slices: bool = True
    inside: bool = True


STEPS = tuple(Cleaning.__dataclass_fields__)
NOTHING = Cleaning(**dict.fromkeys(STEPS, False))
