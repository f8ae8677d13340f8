"""Figures of notebooks, set into their pages as SVG: their colours follow the page's theme, their words can be found and read aloud.

A notebook holds each figure as any viewer shows it, dark on white. Here its greys become mixtures of the theme's ink and
ground, and the colours of replication/figures/style.py become variables, which chs.css sets for either theme.
Loaded by _config.yml (sphinx: local_extensions).
"""

import hashlib
import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.transforms import Transform

HUES = {  # as in replication/figures/style.py -> variable of chs.css
    "#0072b2": "blue", "#56b4e9": "sky", "#009e73": "green", "#d55e00": "vermilion", "#cc79a7": "purple",
    "#2b7cab": "sky-ink", "#007a5a": "green-ink", "#b34d00": "vermilion-ink", "#a0457a": "purple-ink",
}  # fmt: skip
TEXT, GROUND = "var(--pst-color-text-base)", "var(--pst-color-background)"
COLOUR = re.compile(r"((?:fill|stroke|stop-color): ?)(#[0-9a-f]{6})\b")
GREY = re.compile(r"#([0-9a-f]{2})\1\1")
REFERRED = re.compile(r"(?:url\(|xlink:href=\")#([^)\"]+)")


def themed(colour: str) -> str:
    """A colour of a figure as CSS that follows the theme; one that is no hue of ours stays."""
    if grey := GREY.fullmatch(colour):
        ink = round(100 * (1 - int(grey[1], 16) / 255))
        mixed = f"color-mix(in srgb, {TEXT} {ink}%, {GROUND})"
        return {100: TEXT, 0: GROUND}.get(ink, mixed)
    return f"var(--chs-{HUES[colour]})" if colour in HUES else colour


def inline(svg: str, *, alt: str) -> str:
    """A figure as matplotlib wrote it, made fit to stand in a page.

    Args:
        alt: what it shows, for those who do not see it.
    """
    # Its own style sheet would be the whole page's, and its words are set in the page's letters.
    svg = re.sub(r"<(metadata|style).*?</\1>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    size = re.search(r' width="([\d.]+)pt" height="[\d.]+pt"', svg)  # of matplotlib: 72 points are 96 pixels
    wide = f"{float(size[1]) * 96 / 72:.0f}px"
    # An identifier is unique in a page: those that nothing refers to go, the others get the figure's own prefix.
    mark = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8] + "-"
    referred = set(REFERRED.findall(svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{mark}{m[1]}"' if m[1] in referred else "", svg)
    svg = re.sub(r'(url\(|xlink:href=")#', rf"\g<1>#{mark}", svg)
    svg = COLOUR.sub(lambda m: m[1] + themed(m[2]), svg)
    head = f'<svg class="figure" role="img" aria-label="{html.escape(alt)}" style="--wide: {wide}"'
    svg = svg.replace(size[0], "", 1).replace("<svg", head, 1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


class Inline(Transform):
    """Put the figures of a page in the place of the references to them, before images are collected."""

    default_priority = 900

    def apply(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.image)):
            path = Path(self.document.settings.env.srcdir, node["uri"].lstrip("/"))
            if path.suffix == ".svg" and "jupyter_execute" in path.parts and path.is_file():
                text = inline(path.read_text("utf-8"), alt=node.get("alt", ""))
                node.replace_self(nodes.raw("", text, format="html"))


def setup(app: Any) -> dict[str, bool]:
    """Connect it."""
    app.add_transform(Inline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
