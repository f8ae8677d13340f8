// What the theme leaves open for a keyboard and a screen reader. Nothing here is needed to read a page.

document.addEventListener("DOMContentLoaded", () => {
  // The arrows that open a part of the table of contents have no name of their own.
  for (const arrow of document.querySelectorAll("nav summary")) {
    const entry = arrow.closest("li")?.querySelector("a");
    arrow.setAttribute("aria-label", `Pages below ${entry ? entry.textContent.trim() : "this one"}`);
  }
  // Sphinx sets long signatures as lists without terms, and docutils gives sources roles that ARIA gave up.
  for (const list of document.querySelectorAll(".sig > dl")) {
    for (const part of [list, ...list.children]) {
      part.setAttribute("role", "none");
    }
  }
  for (const part of document.querySelectorAll(".citation-list, .citation")) {
    part.removeAttribute("role");
  }
  // A sentence in a table's cell is not set a word a line; the table scrolls instead.
  for (const cell of document.querySelectorAll(".cell_output td, article table td")) {
    if (cell.textContent.length > 60) {
      cell.style.minWidth = "16em";
    }
  }
  // What scrolls sideways can be scrolled by keys.
  const wide = ".cell_output, .cell_output .text_html, .cell_output pre, .table-wrapper, .pst-scrollable-table-container, div.highlight pre, mjx-container[display='true']";
  for (const part of document.querySelectorAll(wide)) {
    if (part.scrollWidth > part.clientWidth && getComputedStyle(part).overflowX !== "visible") {
      part.tabIndex = 0;
    }
  }
});

// Paper is white: what is printed has the light theme, whatever the screen has.
window.addEventListener("beforeprint", () => {
  const page = document.documentElement;
  const shown = page.dataset.theme;
  page.dataset.theme = "light";
  window.addEventListener("afterprint", () => (page.dataset.theme = shown), { once: true });
});
