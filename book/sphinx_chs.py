"""The book's own Sphinx extension: docstrings as plain text, what a page says of itself to those who link to it, and launch
buttons that open what exists.

The docstrings are written to be read in an editor. The API pages take them as they are: what
reStructuredText would misread is mended here, and a row of the register that is cited becomes a link.
Loaded by _config.yml (sphinx: local_extensions).
"""

import html
import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from docutils import nodes

# "register row 3", "rows 1 and 2"; but not the "Table 1 row 2" of the paper.
ROW = re.compile(r"(?<!\d )\b(rows?) (\d+(?:(?:, and |, | and )\d+)*)")
CODE = re.compile(r"(``.+?``|`.+?`)")
ITEM = re.compile(r"[-*] ")
CITED = re.compile(r" ?\[[^\[\]]*\b\d{4}[a-z]?\]")
NO_PROSE = (
    nodes.Admonition,
    nodes.block_quote,
    nodes.definition_list,
    nodes.table,
    nodes.container,
)  # the last: cells
PREVIEW = "_static/preview.png"  # book/preview.py draws it
SITE = "COVID-19 infection in chest CT by CHS-Net: the paper run again, with code, weights and a record of every run."
ICONS = re.compile(r"<(?:script|link)[^>]*fontawesome\.js[^>]*>(?:</script>)?")
POLICY = {  # pages that may ask no other host for anything, whatever a library of theirs would like
    "book/try": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'self' 'unsafe-inline'"
}
IVAR = re.compile(r":ivar ((?:\w+, )+\w+):")


def _inline(line: str) -> str:
    """A line of prose: a lone | or * is that character, and rows are links; code stays code."""
    if line.lstrip().startswith(">>>"):
        return line
    start = ITEM.match(line.lstrip())
    head = line[: len(line) - len(line.lstrip()) + (2 if start else 0)]
    parts = CODE.split(line[len(head) :])
    for i in range(0, len(parts), 2):
        text = re.sub(r"([|*])", r"\\\1", parts[i])
        parts[i] = ROW.sub(lambda m: f"{m[1]} " + re.sub(r"\d+", r":ref:`\g<0> <row-\g<0>>`", m[2]), text)
    return head + "".join(parts)


def to_rst(lines: list[str], *, drawings: bool) -> list[str]:
    """A docstring's lines as reStructuredText.

    Args:
        drawings: an indented block behind a blank line is a drawing or a formula, to be kept as it is.
    """
    out: list[str] = []
    verbatim = in_list = nested = False
    for line in lines:
        behind_text = bool(out and out[-1].strip())
        indented, item = line.startswith(" "), bool(ITEM.match(line.lstrip()))
        if not line.strip():
            nested = False
        elif drawings and indented and not in_list and (verbatim or not behind_text):
            out += [] if verbatim else [".. code-block:: text", ""]
            verbatim = True
            out.append(line)
            continue
        elif item and (not indented or in_list):
            if behind_text and not (nested if indented else in_list):
                out.append("")
            verbatim, in_list, nested = False, True, indented
        elif not indented:
            if behind_text and (in_list or verbatim):
                out.append("")
            verbatim = in_list = nested = False
        out.append(_inline(line))
    return out


def read_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mend a docstring before napoleon reads its sections (event autodoc-process-docstring)."""
    lines[:] = to_rst(lines, drawings=what == "module")


def split_attributes(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Give each of "a, b: text" its own line, as napoleon does for arguments, but not for attributes."""
    out: list[str] = []
    block: list[str] = []  # a field and what continues it
    for line in [*lines, ""]:
        if block and line.startswith(" "):
            block.append(line)
            continue
        if block:
            match = IVAR.match(block[0])
            for one in match[1].split(", "):
                out += [f":ivar {one}:{block[0][match.end() :]}", *block[1:]]
        block = [line] if IVAR.match(line) else []
        out += [] if block else [line]
    lines[:] = out[:-1]


def shorten_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show Any where a default without a literal keeps Sphinx from it (event autodoc-process-signature)."""
    return signature and signature.replace("~typing.", "").replace("<factory>", "..."), returns


def skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple, of which its signature tells all (autodoc-skip-member)."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field number") else None


def launch_committed(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let a page that a run made launch the committed notebook it was made from (event html-page-context).

    notebooks/05_training_lungs is 05_training under other parameters; the repository has only the latter.
    """
    if source := app.config.launch_sources.get(page):
        for group in context.get("header_buttons", []):
            for button in group.get("buttons", []):
                if "url" in button:
                    button["url"] = button["url"].replace(f"{page}.ipynb", f"{source}.ipynb")


def drop_scripts(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out scripts that a page has no use for (event html-page-context).

    Jupyter Book brings sphinx-thebe along, whose settings are written twice: a script error on every page. They name
    another host, and no button of this book starts it. MathJax goes where there is no formula.
    """
    math = doctree is not None and any(
        doctree.findall(lambda n: isinstance(n, (nodes.math, nodes.math_block)))
    )

    def unused(script: Any) -> bool:
        told = (
            f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', {}).get('body', '')}".lower()
        )
        return "thebe" in told or ("mathjax" in told and not math)

    context["script_files"] = [s for s in context.get("script_files", []) if not unused(s)]


def description_of(doctree: Any) -> str:
    """The first sentences of a page's own prose, as much as a search result shows; `SITE` where there are none."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        above = paragraph.parent
        while above is not None and not isinstance(above, NO_PROSE):
            above = above.parent
        text = CITED.sub("", " ".join(paragraph.astext().split()))
        if above is None and len(text) >= 30:
            return textwrap.shorten(text, 200, placeholder=" …", break_on_hyphens=False)
    return SITE


def describe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page a description, and title, text and picture for those who link to it (event html-page-context).

    A picture has to be named by its whole address, which is known where the book's is (html_baseurl); else it is named from
    the page, and only some readers find it.
    """
    base, text = app.config.html_baseurl, description_of(doctree)
    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title") or context["docstitle"]))
    told = {
        'name="description"': text, 'name="twitter:card"': "summary_large_image",
        'property="og:type"': "article", 'property="og:site_name"': context["docstitle"],
        'property="og:title"': title, 'property="og:description"': text, 'property="og:image:alt"': "CHS-Net, replicated",
        'property="og:image"': urljoin(base, PREVIEW) if base else context["pathto"](PREVIEW, 1),
    }  # fmt: skip
    lines = (f'<meta {key} content="{html.escape(value)}" />\n' for key, value in told.items())
    context["metatags"] = context.get("metatags", "") + "".join(lines)


def restrict(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page its Content-Security-Policy, before anything that it is for (event html-page-context)."""
    if policy := POLICY.get(page):
        told = f'<meta http-equiv="Content-Security-Policy" content="{policy}" />\n'
        context["metatags"] = told + context.get("metatags", "")


def drop_icons(app: Any, exception: Exception | None) -> None:
    """Leave out the theme's script of icons, a megabyte and a half: its style sheet has them as a font (event build-finished)."""
    for path in Path(app.outdir).rglob("*.html") if exception is None else ():
        page = path.read_text(encoding="utf-8")
        if (light := ICONS.sub("", page)) != page:
            path.write_text(light, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Connect all of it."""
    app.add_config_value("launch_sources", {}, "html")
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", split_attributes, priority=600)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("html-page-context", launch_committed, priority=900)  # the theme's buttons: 501
    app.connect("html-page-context", drop_scripts, priority=900)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", restrict, priority=800)
    app.connect("build-finished", drop_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
