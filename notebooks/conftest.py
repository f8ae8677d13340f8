"""nbval compares what a cell prints, and no pictures: a vector differs in its last digits from machine to machine."""

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    """Leave SVG out of the comparison, as nbval itself leaves PNG out."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("image/svg+xml",)
