"""What a reader can move: still pictures of the default, and frames that explore.js shows in their place.

Every frame is drawn when the book is built, from the records, from `chslib` or from the phantom. A script only chooses
which of them stands, so that nothing is computed twice, and print and readers without a script have the default.
"""

import base64
import io
import re
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from svg import circle, scale, svg, text

SIDE = 128  # of the pictures, pixels
FACTORS = (2, 4, 8, 16, 32, 64)
MAPS, KERNELS = (8, 16, 32, 48, 72, 108, 162), (1, 3, 5, 7)  # of Eq. 1: r and f
SHOWN = ("slice", "patient")  # protocols, as colours of chs.css
NAMES = {"slice": "random slices", "patient": "new patients"}


def explorer(numbers: Any, name: str) -> str:
    """One of `EXPLORERS` as HTML without a blank line."""
    inside = EXPLORERS[name](numbers)
    return f'<div class="explorer" id="explore-{name}">\n{inside}\n</div>'


# ---- parts ---------------------------------------------------------------------------------------
def slider(key: str, words: str, values: Iterable[Any], at: int) -> str:
    """A control that moves over values; the one at position `at` is where it starts."""
    texts = [str(value) for value in values]
    return (
        f'<label class="control">{escape(words)} <input type="range" min="0" max="{len(texts) - 1}" value="{at}" '
        f'data-key="{key}" data-texts="{escape("|".join(texts))}" aria-valuetext="{escape(texts[at])}">'
        f"<output>{escape(texts[at])}</output></label>"
    )


def frame(inside: str, *, shown: bool, tag: str = "div", **where: Any) -> str:
    """What stands while each slider is at the position of its key."""
    keys = "".join(f' data-{key}="{value}"' for key, value in where.items())
    return f'<{tag} class="frame{" shown" if shown else ""}"{keys}>{inside}</{tag}>'


def picture(pixels: NDArray, alt: str, *, kind: str = "PNG", css: str = "") -> str:
    """A small picture in the page itself."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=75)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img class="{css}" alt="{escape(alt)}" src="data:image/{kind.lower()};base64,{data}">'


def axes(x0: float, x1: float, y0: float, y1: float, xs: Iterable, ys: Iterable, x: Any, y: Any) -> str:
    """Thin lines and numbers of a chart; x and y place a value."""
    lines = [f'<path class="rule" d="M{x0} {y1}H{x1}M{x0} {y0}V{y1}"/>']
    lines += [text(x(v), y1 + 16, f"{v:g}", "small", "middle") for v in xs]
    lines += [text(x0 - 6, y(v) + 4, f"{v:g}", "small", "end") for v in ys]
    return "".join(lines)


# ---- the explorers ---------------------------------------------------------------------------------
def thresholds(numbers: Any) -> str:
    """Precision, recall and DSC of one network over the cut, on random slices and on new patients."""
    from chslib.metrics import scores
    from replication.analysis.thresholds import USUAL, pooled, read_thresholds

    found = {(r["profile"], r["run"]): r for r in read_thresholds(numbers.source / "results")}
    runs = {"slice": ("cpu-256", "table3-miniseg"), "patient": ("cpu-256", "table3-miniseg-patient-fold0")}
    panels, ladder = [], []
    for protocol, key in runs.items():
        if key not in found:
            return "<p>not run</p>"
        ladder = found[key]["ladder"]
        counts = scores(pooled(found[key], "test"))
        x0, x1, y0, y1 = 34, 300, 26, 210
        x, y = scale(x0, x1), scale(y1, y0)
        inside = text(x0, 16, NAMES[protocol], "head") + axes(x0, x1, y0, y1, (0, 0.5, 1), (0, 0.5, 1), x, y)
        for name in ("precision", "recall", "dsc"):
            points = " ".join(f"{x(c):.1f},{y(v):.1f}" for c, v in zip(ladder, counts[name], strict=True))
            inside += f'<polyline class="line {name}" points="{points}"/>'
            inside += text(x1 + 6, y(counts[name][-1]) + 4, name.replace("dsc", "DSC"), f"small {name}")
        for i, cut in enumerate(ladder):
            values = {name: counts[name][i] for name in ("precision", "recall", "dsc")}
            dots = "".join(circle(x(cut), y(v), 5, n) for n, v in values.items())
            told = (
                f"precision {values['precision']:.2f}, recall {values['recall']:.2f}, DSC {values['dsc']:.2f}"
            )
            mark = f'<path class="agree" d="M{x(cut):.1f} {y0}V{y1}"/>{dots}{text(x0, y1 + 36, told)}'
            inside += frame(mark, shown=i == USUAL, tag="g", cut=i)
        panels.append(
            svg(
                370,
                y1 + 46,
                inside,
                f"Precision, recall and DSC over the threshold, {NAMES[protocol]}; at 0.5 DSC {counts['dsc'][USUAL]:.2f}",
            )
        )
    return f'{slider("cut", "Cut the mask at", ladder, USUAL)}\n<div class="panels">{"".join(panels)}</div>'


def pooling(numbers: Any) -> str:
    """Max, spectral, average and strided pooling of a slice, an edge and stripes."""
    import torch
    from torch.nn import functional as F

    from chslib.pooling import spectral_resample2d
    from replication.data.phantom.volumes import make_volume

    volume = make_volume(name="coronacases_001", seed=0, size=SIDE, depth=9)
    step = np.zeros((SIDE, SIDE))
    step[:, SIDE // 2 - 3 :] = 1
    waves = np.arange(SIDE) / SIDE
    inputs = {
        "slice": (np.clip(np.rot90(volume.ct[..., 5]), -1250, 250) + 1250) / 1500,
        "edge": 0.2 + 0.6 * step,
        "stripes": np.tile(0.5 + 0.3 * np.sin(2 * np.pi * (2 * waves + 26 * waves**2)), (SIDE, 1)),
    }
    pools = {
        "max": F.max_pool2d,
        "spectral": lambda x, f: spectral_resample2d(x, (SIDE // f, SIDE // f)),
        "average": F.avg_pool2d,
        "strided": lambda x, f: x[..., ::f, ::f],
    }
    frames = []
    for i, factor in enumerate(FACTORS):
        cells = "".join(f"<b>{name}</b>" for name in ("", *pools))
        for name, plane in inputs.items():
            x = torch.from_numpy(np.ascontiguousarray(plane))[None, None].double()
            cells += f"<b>{name}</b>"
            for pool, of in pools.items():
                y = of(x, factor)
                energy = float(y.var(correction=0) / x.var(correction=0))
                beyond = max(float(y.max() - x.max()), float(x.min() - y.min()), 0.0)
                pixels = np.rint(y[0, 0].numpy().clip(0, 1) * 255).astype(np.uint8)
                alt = f"{name}, {pool} pooling by {factor}"
                words = f"energy {energy:.2f}" + (f", rings {beyond:.2f}" if beyond > 0.005 else "")
                cells += (
                    f"<figure>{picture(pixels, alt, css='pixels')}<figcaption>{words}</figcaption></figure>"
                )
        frames.append(frame(f'<div class="grid5">{cells}</div>', shown=i == 1, factor=i))
    return slider("factor", "Pool by", FACTORS, 1) + "\n" + "".join(frames)


def cost(numbers: Any) -> str:
    """Eq. 1 over output maps r and kernels f."""
    x0, x1, y0, y1 = 44, 350, 20, 220
    x, y = (
        scale(x0, x1, first=1, last=MAPS[-1]),
        scale(y1, y0, first=-2, last=0.1),
    )  # the latter of a logarithm
    inside = axes(x0, x1, y0, y1, (1, 50, 100, 150), (), x, y)
    inside += "".join(text(x0 - 6, y(np.log10(v)) + 4, f"{v:g}", "small", "end") for v in (0.01, 0.1, 1))
    inside += text(x1, y1 + 32, "output maps r", "small", "end") + text(
        x0, 12, "cost, of a standard convolution’s", "small"
    )
    for f in KERNELS:
        rs = np.geomspace(1 if f > 1 else 4, MAPS[-1], 60)
        points = " ".join(
            f"{x(r):.1f},{y(np.log10(1 / r + 1 / f**2)):.1f}" for r in rs if 1 / r + 1 / f**2 < 1.26
        )
        inside += f'<polyline class="line slice" points="{points}"/>'
        inside += text(x1 + 6, y(np.log10(1 / MAPS[-1] + 1 / f**2)) + 4, f"{f}×{f}", "small")
    marks, words = "", ""
    for i, r in enumerate(MAPS):
        for j, f in enumerate(KERNELS):
            ratio, shown = 1 / r + 1 / f**2, (i, j) == (3, 1)
            dot = circle(x(r), y(np.log10(ratio)), 6, "paper")
            marks += frame(dot, shown=shown, tag="g", maps=i, kernel=j)
            told = f"1/{r} + 1/{f}² = {ratio:.3f}: " + (
                f"{1 / ratio:.1f} times fewer multiplications" if ratio < 1 else "nothing saved"
            )
            words += frame(told, shown=shown, tag="p", maps=i, kernel=j)
    controls = slider("maps", "Output maps r", MAPS, 3) + slider(
        "kernel", "Kernel f", [f"{f}×{f}" for f in KERNELS], 1
    )
    return f"{controls}\n{words}{svg(390, y1 + 40, inside + marks, 'Eq. 1 over output maps, a curve for each kernel')}"


def volume(numbers: Any) -> str:
    """A drawn volume, slice by slice, with its masks."""
    from replication.data.phantom.volumes import make_volume

    drawn = make_volume(name="coronacases_001", seed=0, size=SIDE, depth=16)
    frames = []
    for k in range(drawn.ct.shape[2]):
        grey = (np.clip(np.rot90(drawn.ct[..., k]), -1250, 250) + 1250) / 1500
        masks = np.zeros((SIDE, SIDE, 4), np.uint8)
        masks[np.rot90(drawn.lung[..., k]) > 0] = (86, 180, 233, 90)
        masks[np.rot90(drawn.infection[..., k]) > 0] = (213, 94, 0, 170)
        both = picture(np.rint(grey * 255).astype(np.uint8), f"drawn slice {k + 1}", kind="WEBP")
        frames.append(
            frame(
                both + picture(masks, "lungs blue, infection red", css="masks pixels"), shown=k == 8, slice=k
            )
        )
    controls = (
        slider("slice", "Slice", range(1, len(frames) + 1), 8)
        + '<label class="control"><input type="checkbox" checked data-toggle="bare"> masks</label>'
    )
    return f'{controls}\n<div class="stack">{"".join(frames)}</div>'


def results(numbers: Any) -> str:
    """Every run on infection: a dot by network, protocol and size; what it is, its patients and its commit when pointed at."""
    from replication.training.grid import ROWS, RUNS, run_name
    from replication.training.profiles import PROFILES

    rows: dict[str, list[str]] = {}
    labels = {
        run_name(row, "infection"): row.label.split(" [")[0] + ", cascade" * (row.table == "Table 5")
        for row in ROWS
        if not row.same_as and "infection" in row.stages
    }
    left, right = 236, 660
    sizes = sorted({PROFILES[profile].size for profile in PROFILES if profile != "smoke"})
    x = scale(left, right)
    for profile in (p for p in PROFILES if p != "smoke"):
        for name, record in numbers.of_profile(profile).accepted.get(profile, {}).items():
            run = RUNS[name]
            if run.target != "infection":
                continue
            dsc, size = record["test"]["pooled"]["dsc"], PROFILES[profile].size
            people = [who["dsc"] for who in record["test"]["patients"].values()]
            told = f"{profile}/{name}: DSC {dsc:.3f}, {NAMES[run.protocol]}, {size}×{size}; patients {min(people):.2f} to {max(people):.2f}; commit {record['commit'][:8]}"
            dots = "".join(circle(x(p), 0, 3, f"each {run.protocol}") for p in people)
            dots = f'<g class="people">{dots}</g>' + circle(x(dsc), 0, 5 if size < 256 else 7, run.protocol)
            network = labels[re.sub(r"-(patient-fold|seed)\d$", "", name)]
            rows.setdefault(network, []).append(
                f'<g class="item" tabindex="0" role="img" aria-label="{escape(told)}" data-tell="{escape(told)}" data-protocol="{run.protocol}" data-size="{size}">'
                f"{dots}</g>"
            )
    inside, y = axes(left, right, 8, 8 + 22 * len(rows), (0, 0.25, 0.5, 0.75, 1), (), x, x), 8
    for label, dots in rows.items():
        y += 22
        inside += text(left - 8, y - 6, label, "small", "end")
        inside += f'<g transform="translate(0 {y - 10})">{"".join(dots)}</g>'
    choices = {
        "protocol": {"slice": "random slices", "patient": "new patients"},
        "size": {s: f"{s}×{s}" for s in sizes},
    }
    controls = "".join(
        f'<label class="control">{key} <select data-filter="{key}"><option value="">all</option>'
        + "".join(f'<option value="{v}">{words}</option>' for v, words in of.items())
        + "</select></label>"
        for key, of in choices.items()
    )
    chart = svg(680, y + 36, inside, "DSC of every run, a row a network", role="group")
    return f'{controls}\n<p class="told" aria-live="polite">Point at a dot, or go to it with the tab key.</p><div class="scrolls">{chart}</div>'


EXPLORERS = {"thresholds": thresholds, "pooling": pooling, "cost": cost, "volume": volume, "results": results}
