"""Every page of the book in a browser: narrow and wide, light and dark, as a reader and a screen reader have it.

Needs Chromium (Debian's package `chromium`, or Chrome); CHROMIUM names another binary. Nothing is
fetched: the book is served from this machine, and a request to any other host fails the test.
"""

import functools
import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from summary_pdf import NAMES, chromium

ROOT = Path(__file__).resolve().parents[2]

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE, NARROW = (1280, 900), (400, 800)
SETTINGS = [(size, theme) for size in (WIDE, NARROW) for theme in ("light", "dark")]
EVERY_PAGE = ("1280 light", "400 dark")  # both widths and both themes, in half the time of all four
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def listed(toc: dict) -> list[str]:
    """Every file of a part of _toc.yml."""
    below = [e for key in ("parts", "chapters", "sections") for e in toc.get(key, [])]
    return [toc[key] for key in ("root", "file") if key in toc] + [f for e in below for f in listed(e)]


PAGES = listed(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all pages."""
    if (binary := chromium()) is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH, and CHROMIUM is not set")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    """The book's address while it is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class View:
    """A page at one width and theme, and what went wrong while it was shown."""

    site: str
    page: Page
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: self._note(m.type in ("error", "warning"), f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self._note(True, f"script: {e}"))
        self.page.on("requestfailed", lambda r: self._note(True, f"failed: {r.url} ({r.failure})"))
        self.page.on("response", lambda r: self._note(r.status >= 400, f"{r.status}: {r.url}"))
        self.page.on("request", lambda r: self._note(self._leaves(r.url), f"another host: {r.url}"))

    def _leaves(self, url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob") and not url.startswith(self.site + "/")

    def _note(self, is_trouble: bool, what: str) -> None:
        if is_trouble:
            self.troubles.append(what)

    def open(self, address: str) -> Page:
        self.troubles.clear()
        self.page.goto(f"{self.site}/{address}", wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self.page


@pytest.fixture(scope="module")
def views(browser: Browser, site: str) -> Iterator[dict[str, View]]:
    """A page for each width and theme, kept open from one address to the next."""
    contexts: list[BrowserContext] = []
    views = {}
    for (width, height), theme in SETTINGS:
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=theme,
                reduced_motion="reduce",
                locale="en-GB",
            )
        )
        views[f"{width} {theme}"] = View(site, contexts[-1].new_page())
    yield views
    for context in contexts:
        context.close()


# What is wrong with the page that stands; runs in the browser.
LOOK = """() => {
  const found = [];
  const say = (what, nodes) => { for (const n of nodes) found.push(`${what}: ${n.outerHTML.slice(0, 120)}`); };
  const all = (css, root = document) => [...root.querySelectorAll(css)];
  say('no alt text', all('img').filter(i => !(i.getAttribute('alt') || '').trim()));
  say('a broken picture', all('img').filter(i => i.complete && !i.naturalWidth));
  const levels = all('h1, h2, h3, h4, h5, h6').filter(h => h.checkVisibility()).map(h => +h.tagName[1]);
  if (levels.filter(l => l === 1).length !== 1) found.push(`h1: ${levels.filter(l => l === 1).length}`);
  if (levels[0] !== 1) found.push(`the first heading is h${levels[0]}`);
  levels.forEach((l, i) => { if (l > (levels[i - 1] ?? 0) + 1) found.push(`h${l} below h${levels[i - 1]}`); });
  const width = document.documentElement.clientWidth;
  const scrolls = e => { for (; e && e !== document.body; e = e.parentElement)
    if (getComputedStyle(e).overflowX !== 'visible') return true; return false; };
  if (document.documentElement.scrollWidth > width) {
    found.push(`wider than the screen: ${document.documentElement.scrollWidth} of ${width}`);
    say('sticks out', all('.bd-main *').filter(e => e.getBoundingClientRect().right > width + 1
      && !scrolls(e.parentElement)).slice(0, 3));
  }
  say('a formula that was not set', all('.math').filter(m => !m.querySelector('mjx-container')));
  say('a formula in error', all('mjx-merror, [data-mjx-error]'));
  const text = all('article p, article li, article td, article h2').filter(e => !e.querySelector('pre, code, .math'));
  say('raw mathematics', text.filter(e => /\\$\\$|\\\\\\(|\\\\frac|\\{\\{/.test(e.textContent)));
  if (document.documentElement.lang.slice(0, 2) !== 'en') found.push('no language');
  return found;
}"""


# axe-core against WCAG 2.1, A and AA. Contrast takes it half a minute on a page of large tables, so there it is given
# one text of each colour, background, size and weight.
AXE_RUN = """async () => {
  const options = {resultTypes: ['violations'], elementRef: false, preload: false};
  const standard = await axe.run(document, {...options,
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'], rules: {'color-contrast': {enabled: false}}});
  const grounds = new Map();
  const ground = (e) => {
    if (!e) return '';
    if (!grounds.has(e)) {
      const s = getComputedStyle(e);
      grounds.set(e, `${s.backgroundColor} ${s.backgroundImage} ${s.opacity} ${ground(e.parentElement)}`);
    }
    return grounds.get(e);
  };
  const kinds = new Map();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const s = getComputedStyle(e), kind = `${s.color} ${s.fontSize} ${s.fontWeight} ${ground(e)}`;
    if (!kinds.has(kind)) kinds.set(kind, e);
  }
  const contrast = await axe.run({include: [...kinds.values()]}, {...options,
    runOnly: {type: 'rule', values: ['color-contrast']}});
  return [...standard.violations, ...contrast.violations].map(v => `${v.id} (${v.nodes.length}): `
    + `${v.nodes[0].html.slice(0, 160)} ${(v.nodes[0].any[0]?.message ?? '').slice(0, 200)}`);
}"""


def axe(page: Page) -> list[str]:
    """What axe-core finds, a line a rule."""
    page.evaluate(AXE)
    return page.evaluate(AXE_RUN)


# Chapters that draw; the ledger is tables.
LEADS = [page for page in PAGES if page.startswith("notebooks/") and page != "notebooks/13_ledger"]
TOP = "() => document.querySelector('svg.figure, .cell_output img').getBoundingClientRect().top"
LOADED = "() => [location.href, ...performance.getEntriesByType('resource').map(e => e.name)]"


@functools.cache
def sent(path: Path) -> int:
    """Bytes that a server sends of a file: compressed where it compresses."""
    content = path.read_bytes()
    return len(gzip.compress(content, 6)) if path.suffix in (".html", ".js", ".css") else len(content)


def first_sight(page: Page, name: str, built: Path) -> list[str]:
    """What is wrong with a page's weight, at most 1.5 MB, and with the place of a chapter's first figure:
    two thirds down the screen, at the latest, for enough of what follows to be seen."""
    found = []
    paths = {urlsplit(url).path.lstrip("/") for url in page.evaluate(LOADED) if url.startswith("http")}
    found += [f"the theme's script of icons: {path}" for path in paths if path.endswith("fontawesome.js")]
    if (size := sum(sent(built / path) for path in paths)) > 1_500_000:
        found.append(f"{size} bytes")
    if name in LEADS and (top := page.evaluate(TOP)) > WIDE[1] * 2 / 3:
        found.append(f"the first figure begins {top:.0f} pixels down")
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound_narrow_and_wide_light_and_dark(
    name: str, views: dict[str, View], built: Path
) -> None:
    found = {}
    for setting in EVERY_PAGE:
        page = (view := views[setting]).open(f"{name}.html")
        theme = page.evaluate("() => document.documentElement.dataset.theme")
        problems = page.evaluate(LOOK) + axe(page) + view.troubles
        problems += [] if theme in setting else [f"theme {theme}"]
        found[setting] = problems + (first_sight(page, name, built) if setting == "1280 light" else [])
    assert {setting: problems for setting, problems in found.items() if problems} == {}


def test_the_checks_see_what_is_wrong(views: dict[str, View]) -> None:
    view = views["400 light"]
    page = view.open("book/glossary.html")
    page.evaluate("""() => {
      const main = document.querySelector('article');
      main.insertAdjacentHTML('beforeend', `<h5>deep</h5><h1>twice</h1><img src="nowhere.png"><p>$$x$$</p>
        <div style="width: 900px">wide</div><span class="math">x</span><p style="color: #ddd">pale</p>`);
      console.error('an error');
      return fetch('http://127.0.0.2:9/x').catch(() => 0);
    }""")
    page.wait_for_timeout(200)
    told = "\n".join(page.evaluate(LOOK) + axe(page) + view.troubles)
    for what in ("no alt text", "h1: 2", "h5 below", "wider than the screen", "sticks out", "not set", "raw mathematics",
                 "color-contrast", "console: an error", "404", "another host: http://127.0.0.2:9/x", "failed: "):  # fmt: skip
        assert what in told, f"{what}\n{told}"


REACHABLE = """() => {
  const shown = e => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length;
  return [...document.querySelectorAll('a[href], button, input:not([type=hidden]), summary, [tabindex="0"]')]
    .filter(e => shown(e) && !e.disabled && e.tabIndex >= 0)
    .filter(e => e.closest('header, nav, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .bd-header-article'))
    .map((e, i) => e.dataset.reach = `${i} ${e.ariaLabel ?? e.textContent.trim()}`.slice(0, 60));
}"""


@pytest.mark.parametrize("setting", ["1280 light", "400 dark"])
def test_the_header_and_the_sidebar_are_reached_by_keyboard(setting: str, views: dict[str, View]) -> None:
    page = views[setting].open("notebooks/02_dsc_cost.html")
    wanted = set(page.evaluate(REACHABLE))
    assert len(wanted) > 5
    page.keyboard.press("Tab")
    first = page.evaluate("() => [document.activeElement.textContent.trim(), document.activeElement.hash]")
    assert first[0].startswith("Skip to main content"), first
    assert page.query_selector(first[1]), f"the skip link leads nowhere: {first[1]}"
    reached, styles = set(), set()
    everything = "() => document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]').length"
    for _ in range(page.evaluate(everything)):
        page.keyboard.press("Tab")
        found = page.evaluate("""() => { const e = document.activeElement, s = getComputedStyle(e);
          return [e.dataset.reach ?? '', s.outlineStyle !== 'none' || s.boxShadow !== 'none'
            || s.textDecorationLine !== 'none', e.outerHTML.slice(0, 100)]; }""")
        reached.add(found[0])
        if found[0] and not found[1]:
            styles.add(found[2])
    assert wanted - reached == set(), "not reached by Tab"
    assert styles == set(), "focus is not seen"


@pytest.mark.parametrize("setting", ["1280 dark", "400 light"])
def test_the_search_works_without_a_network(setting: str, views: dict[str, View]) -> None:
    page = views[setting].open("search.html?q=spectral+pooling")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    links = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.getAttribute('href'))")
    assert any("03_spectral_pooling" in link for link in links)
    assert views[setting].troubles == []
    views[setting].open("search.html?q=xyzzyplugh")
    page.wait_for_function("() => /did not match/.test(document.querySelector('#search-results').innerText)")


def test_paper_is_white_whatever_the_screen_has(views: dict[str, View]) -> None:
    page = views["1280 dark"].open("book/summary.html")
    themes = page.evaluate("""() => ['beforeprint', 'afterprint'].map(e => {
      window.dispatchEvent(new Event(e)); return document.documentElement.dataset.theme; })""")
    assert themes == ["light", "dark"]


def test_the_theme_button_switches_and_is_remembered(views: dict[str, View]) -> None:
    page = views["1280 light"].open("book/intro.html")
    theme = "() => document.documentElement.dataset.theme"
    for _ in range(3):
        page.click("button.theme-switch-button:visible")
        if page.evaluate(theme) == "dark":
            break
    assert page.evaluate(theme) == "dark"
    views["1280 light"].open("book/summary.html")
    assert page.evaluate(theme) == "dark"
    page.evaluate("() => localStorage.clear()")


def test_a_slider_moves_by_key_and_a_dot_tells_its_record(views: dict[str, View]) -> None:
    page = views["1280 light"].open("book/explore.html")
    shown = "() => document.querySelector('#explore-pooling .frame.shown').dataset.factor"
    assert page.evaluate(shown) == "1"
    page.focus("#explore-pooling input")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(shown) == "2"
    assert page.inner_text("#explore-pooling output") == "8"
    page.select_option("#explore-results select[data-filter=protocol]", "patient")
    dots = page.locator("#explore-results .item:visible")
    assert dots.count() == page.locator("#explore-results .item[data-protocol=patient]").count() > 10
    dots.first.focus()
    assert "new patients" in page.inner_text("#explore-results .told")
    page.emulate_media(media="print")
    assert page.locator("#explore-pooling .control").is_hidden()
    page.emulate_media(media="screen")


def test_a_figure_is_as_dark_as_its_page_and_its_words_are_seen(views: dict[str, View]) -> None:
    colours = """() => { const f = document.querySelector('svg.figure'); return [
      getComputedStyle(f.querySelector('path')).fill, getComputedStyle(document.body).backgroundColor,
      getComputedStyle(f.querySelector('text')).fill, getComputedStyle(document.body).color, getComputedStyle(f).fill]; }"""
    for setting in ("1280 light", "1280 dark"):
        ground, page, ink, text, rest = views[setting].open("notebooks/15_verdict.html").evaluate(colours)
        assert (ground, ink) == (page, text), setting
        assert rest == text, "black marks have no fill of their own, and would stay black"


def test_a_picture_fits_a_phone_or_scrolls_by_itself(views: dict[str, View]) -> None:
    wide = """() => [...document.querySelectorAll('svg.figure')].filter(f => f.getBoundingClientRect().width
      > f.closest('.cell_output').clientWidth + 1).map(f => f.ariaLabel)"""
    found = [f for name in LEADS for f in views["400 light"].open(f"{name}.html").evaluate(wide)]
    assert len(found) <= 8, found  # of 50: those of two panels by patient or seven inches
    verdict = views["400 light"].open("notebooks/15_verdict.html").evaluate(wide)
    assert verdict == []
    table = views["400 light"].open("book/open.html").locator("#what-is-open table").bounding_box()
    assert table["x"] + table["width"] <= NARROW[0], "the table of open runs is scrolled to"
