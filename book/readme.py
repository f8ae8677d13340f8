"""The first screen of README.md: the question, the figure and the words of the book's first page, from the records.

python book/readme.py    # writes it, and the figure in book/_static, light and dark
"""

import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

from first_figure import WIDE, drawing, in_words, rows_of  # noqa: E402
from page_numbers import Numbers  # noqa: E402

BEGIN, END = "<!-- book/intro.md, by book/readme.py -->\n", "<!-- end -->\n"
# Of the page that shows the figure, GitHub's; chs.css has the colours of the dots.
THEMES = {
    "light": {"text-base": "#1f2328", "text-muted": "#59636e", "border": "#d1d9e0", "background": "#ffffff"},
    "dark": {"text-base": "#f0f6fc", "text-muted": "#9198a1", "border": "#3d444d", "background": "#0d1117"},
}


def picture(groups: dict, theme: str, css: str) -> str:
    """The figure as a file of its own: the book's rules for it, with a theme's colours in place of the names."""
    light, dark = (dict(re.findall(r"(--chs-[\w-]+): (#\w+);", block))
                   for block in re.findall(r"^html[^{]*{([^}]*--chs-blue:[^}]*)}", css, flags=re.M))  # fmt: skip
    colours = {"light": light, "dark": dark}[theme]
    colours |= {f"--pst-color-{name}": value for name, value in THEMES[theme].items()}
    rules = re.findall(r"^\.first-figure ((?:text|:is|\.)[^{]*{[^}]*})", css, flags=re.M)
    style = re.sub(r"var\((--[\w-]+)\)", lambda name: colours[name[1]], " ".join(rules))
    style = f"<style>text {{ font-family: system-ui, sans-serif }} {' '.join(style.split())}</style>"
    head, tail = drawing(groups, WIDE).split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{tail}'


def files(root: Path = ROOT) -> dict[Path, str]:
    """What the records and the first page make of the README and of both pictures, by path."""
    numbers = Numbers(root)
    groups = rows_of(numbers)
    css = (root / "book/_static/chs.css").read_text(encoding="utf-8")
    names = {theme: f"book/_static/first-figure-{theme}.svg" for theme in THEMES}
    shown = (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{names["dark"]}">\n'
        f'  <img src="{names["light"]}" alt="{escape(in_words(groups))}">\n</picture>\n'
    )
    page = (root / "book/intro.md").read_text(encoding="utf-8")
    words = page.split("\n", 1)[1].split("::::{grid}")[0].strip()
    words = re.sub(r"```{raw} html\n{{ figure }}\n```\n", lambda _: shown, words)
    before, _, rest = (root / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    made = {root / name: picture(groups, theme, css) for theme, name in names.items()}
    return made | {root / "README.md": f"{before}{BEGIN}{numbers.filled(words)}\n{END}{after}"}


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content, encoding="utf-8")
