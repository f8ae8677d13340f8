"""Drawings that stand in a page as SVG: their colours are classes, which chs.css sets for either theme."""

from collections.abc import Callable
from html import escape


def svg(width: int, height: float, inside: str, alt: str, *, role: str = "img", css: str = "") -> str:
    """A drawing that shrinks with its page, and grows to `width` where no class says how far."""
    look = f'class="{css}"' if css else f'style="max-width:{width}px"'
    return f'<svg {look} viewBox="0 0 {width} {height:.0f}" role="{role}" aria-label="{escape(alt)}">{inside}</svg>'


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    """Words, at the height of their baseline."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def circle(x: float, y: float, r: float, css: str) -> str:
    """A dot of a chart."""
    return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}"/>'


def line(css: str, x0: float, x1: float, y0: float, y1: float) -> str:
    """A straight line from one point to another."""
    return f'<line class="{css}" x1="{x0:.1f}" x2="{x1:.1f}" y1="{y0:.1f}" y2="{y1:.1f}"/>'


def scale(low: float, high: float, *, first: float = 0.0, last: float = 1.0) -> Callable[[float], float]:
    """Where between two pixels a value from `first` to `last` lies."""
    return lambda value: low + (high - low) * (value - first) / (last - first)
