"""A map of features in two dimensions: a figure, and a page on which each point shows its image."""

# Shapes: N images.

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from dermalyze.core.result import DISCLAIMER
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.report.evaluation_data import Json
from dermalyze.report.figures import draw
from dermalyze.report.html import template
from dermalyze.report.style import ACCENT, ALARM, QUIET, ClassStyle, class_styles

MOST = 7
"""Categories of their own color; what is rarer shares one more. Classes have up to 12."""
MOST_CLASSES = 12
PALE = "#d5d9de"
WIDTH_IN = 10.0
WIDTH_PX, HEIGHT_PX, MARGIN_PX = 800, 640, 14
# drawn as matplotlib draws the markers of report.style, about 10 px wide
PATHS = {
    "o": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0",
    "s": "M-4,-4h8v8h-8z",
    "^": "M0,-5.2L4.8,3.8H-4.8z",
    "D": "M0,-5.4L5.4,0L0,5.4L-5.4,0z",
    "v": "M0,5.2L4.8,-3.8H-4.8z",
    "P": "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "X": "M-5,-3l2,-2l3,3l3,-3l2,2l-3,3l3,3l-2,2l-3,-3l-3,3l-2,-2l3,-3z",
}


@dataclass(frozen=True, eq=False)
class Colouring:
    """One way to color the points.

    Attributes:
        by: what it shows, such as `class`.
        names: of the categories.
        of: (N,) category of each point.
        styles: one per category.
    """

    by: str
    names: tuple[str, ...]
    of: Ints
    styles: tuple[ClassStyle, ...]


STYLES = {
    "right": ClassStyle("#8fa3b3", "-", "o"),
    "wrong": ClassStyle(ALARM, "-", "X"),
    "absent": ClassStyle("#8fa3b3", "-", "o"),
    "present": ClassStyle(ACCENT, "-", "s"),
    "not known": ClassStyle("#D55E00", "-", "^"),
}
"""Of the categories that are the same in every set."""


def colouring(by: str, values_N: Sequence[str], order: Sequence[str] = (), *, most: int = MOST) -> Colouring:
    """Categories and their styles: in the given order, else the commonest first; the rarest share one category.

    Args:
        by: what the categories are.
        values_N: category of each point.
        order: of the categories; one that lacks some of them is not used.
        most: categories, with the shared one.

    >>> found = colouring("site", ["back", "face", "back"])
    >>> found.names, found.of.tolist()
    (('back', 'face'), [0, 1, 0])
    """
    counts = Counter(values_N)
    names = [name for name in order if name in counts]
    if len(names) < len(counts):
        names = sorted(counts, key=lambda name: (-counts[name], name))
    rest = names[most - 1 :] if len(names) > most else []
    kept = names[: most - 1] if rest else names
    shown = [*kept, *([f"{len(rest)} others"] if rest else [])]
    index = {name: place for place, name in enumerate(kept)}
    styles = class_styles(shown)
    if set(shown) <= set(STYLES):
        styles = [STYLES[name] for name in shown]
    of = np.array([index.get(value, len(kept)) for value in values_N], dtype=np.int64)
    return Colouring(by, tuple(shown), of, tuple(styles))


def map_figure(points_N2: Floats, colors: Colouring, *, title: str, caption: str, leak: str | None = None) -> bytes:
    """All points with their categories named, and beside them each category before the others in gray, so that none hides one.

    Args:
        points_N2: coordinates.
        colors: of the same points.
        title: what is shown.
        caption: what to see, and what not; printed beneath.
    """
    count = len(colors.names)
    columns = 3 if count <= 2 else 4
    rows = 2 + max(0, -(-(count - 2 * (columns - 2)) // columns))
    low, high = points_N2.min(axis=0), points_N2.max(axis=0)
    spread = np.maximum(high - low, 1e-9)
    shape = float(np.clip(spread[1] / spread[0], 0.6, 1.0))  # of every panel, height over width; both axes to one scale
    half = 0.54 * max(float(spread[0]), float(spread[1]) / shape)
    cell_in = WIDTH_IN / columns * shape + 0.2
    lines = textwrap.wrap(f"{caption} {DISCLAIMER}", 155)
    foot_in = 0.19 * len(lines) + 0.15
    size = float(np.clip(9000 / max(1, len(points_N2)), 3.0, 24))

    def panel(axes: Axes) -> None:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=PALE)
        x, y = (low + high) / 2
        axes.set(xlim=(x - half, x + half), ylim=(y - half * shape, y + half * shape), aspect="equal")

    def dots(axes: Axes, c: int, s: float) -> None:
        style, inside = colors.styles[c], points_N2[colors.of == c]
        axes.scatter(inside[:, 0], inside[:, 1], s=s, c=style.colour, marker=style.marker, linewidths=0, alpha=0.8)

    def paint(canvas: Canvas) -> None:
        grid = canvas.add_gridspec(rows + 1, columns, height_ratios=[*[cell_in] * rows, foot_in])
        overview = canvas.add_subplot(grid[:2, :2])
        panel(overview)
        for c in np.argsort(-np.bincount(colors.of, minlength=count)):  # the rare ones on top
            dots(overview, int(c), 1.6 * size)
        _label(overview, points_N2, colors)
        overview.set_title(f"all {len(points_N2):,} images by {colors.by}", loc="left")
        cells = [(row, column) for row in range(rows) for column in range(columns) if row >= 2 or column >= 2]
        for c, (row, column) in zip(range(count), cells, strict=False):
            axes = canvas.add_subplot(grid[row, column])
            panel(axes)
            others = points_N2[colors.of != c]
            axes.scatter(others[:, 0], others[:, 1], s=0.5 * size, c=PALE, linewidths=0)
            dots(axes, c, size)
            axes.set_title(f"{colors.names[c]}   n = {int((colors.of == c).sum()):,}", loc="left", fontsize=9.5)
        foot = canvas.add_subplot(grid[rows, :])
        foot.axis("off")
        foot.text(0, 1, "\n".join(lines), fontsize=8.8, color=QUIET, va="top", linespacing=1.4, transform=foot.transAxes)

    return draw(WIDTH_IN, rows * cell_in + foot_in, title, leak, paint)


def _label(axes: Axes, points_N2: Floats, colors: Colouring) -> None:
    """Each category's name above where its points are densest, moved up where two would overlap."""
    taken: list[tuple[float, float]] = []
    left, right = axes.get_xlim()
    step = 0.04 * (right - left)
    for c in range(len(colors.names)):
        x, y = densest(points_N2[colors.of == c])
        x, y = float(np.clip(x, left + 2 * step, right - 2 * step)), y + step
        while any(abs(y - other) < step and abs(x - beside) < 4.5 * step for beside, other in taken):
            y += step
        taken.append((x, y))
        text = axes.text(
            x, y, colors.names[c], color=colors.styles[c].colour, fontsize=11, fontweight="bold", ha="center", va="center"
        )
        text.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])


def densest(points_N2: Floats, k: int = 15) -> tuple[float, float]:
    """The point whose k-th nearest fellow is nearest; of at most 500 points, evenly taken.

    >>> densest(np.array([[0.0, 0.0], [9.0, 9.0], [9.0, 9.1], [9.1, 9.0]]), 2)
    (9.0, 9.0)
    """
    some = points_N2[:: max(1, len(points_N2) // 500)]
    far = ((some[:, None] - some) ** 2).sum(axis=2)
    reach = np.partition(far, min(k, len(some) - 1), axis=1)[:, min(k, len(some) - 1)]
    x, y = some[reach.argmin()]
    return float(x), float(y)


def on_page(points_N2: Floats) -> tuple[Floats, int]:
    """(N, 2) places in the plot, px, y downwards, both axes to one scale; and the plot's height, px."""
    low, high = points_N2.min(axis=0), points_N2.max(axis=0)
    spread = np.maximum(high - low, 1e-9)
    inner = np.array([WIDTH_PX, HEIGHT_PX]) - 2 * MARGIN_PX
    scale = float((inner / spread).min())
    placed = (points_N2 - low) * scale
    height = float(spread[1]) * scale
    beside = (inner[0] - float(spread[0]) * scale) / 2
    return np.stack([placed[:, 0] + beside + MARGIN_PX, height - placed[:, 1] + MARGIN_PX], axis=1), round(
        height + 2 * MARGIN_PX
    )


def map_page(
    points_N2: Floats,
    colourings: Mapping[str, Colouring],
    thumbnails: Sequence[str | None],
    words: Sequence[Sequence[str]],
    *,
    title: str,
    subtitle: str,
    caption: str,
    leak: str | None = None,
) -> str:
    """One self-contained page; its one script is named by its hash, and no other may run.

    Args:
        points_N2: coordinates of the points that are shown.
        colourings: of the same points, by name; the first is shown at first.
        thumbnails: JPEG in base64 of each; None where an image is gone.
        words: lines about each, the first its name.
        title, subtitle, caption: of the page.
        leak: the reason with which training on leaking data was accepted.
    """
    script = template("map.js.jinja").render()
    placed, height_px = on_page(points_N2)
    first = next(iter(colourings.values()))
    markers = list(PATHS)

    def appearance(colors: Colouring) -> Json:
        return {
            "of": colors.of.tolist(),
            "marks": [
                {"name": name, "colour": style.colour, "marker": markers.index(style.marker), "n": int(n)}
                for name, style, n in zip(colors.names, colors.styles, np.bincount(colors.of), strict=True)
            ],
        }

    by = {name: appearance(colors) for name, colors in colourings.items()}
    return template("map.html.jinja").render(
        title=title,
        subtitle=subtitle,
        caption=caption,
        leak=leak,
        disclaimer=DISCLAIMER,
        script=script,
        script_hash=script_hash(script),
        width_px=WIDTH_PX,
        height_px=height_px,
        paths=list(PATHS.values()),
        points=[
            {"x": f"{x:.1f}", "y": f"{y:.1f}", **by[first.by]["marks"][c], "title": ", ".join(lines)}
            for (x, y), c, lines in zip(placed, first.of, words, strict=True)
        ],
        by=by,
        data={"by": by, "thumbnails": list(thumbnails), "words": [list(lines) for lines in words]},
    )


def script_hash(script: str) -> str:
    """The source expression by which a content security policy allows one inline script.

    >>> script_hash("alert('Hello, world.');")
    'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='

    W3C Content Security Policy Level 3, section 2.3.1; the example is of its level 2, section 7.17.2
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def even_sample(labels_N: Sequence[str] | NDArray[Any], most: int, generator: np.random.Generator) -> Ints:
    """At most `most` rows, as many of each class as there are, or as evenly as can be; in order.

    >>> even_sample(["nv"] * 98 + ["df"] * 2, 4, np.random.default_rng(0))[-2:].tolist()
    [98, 99]
    """
    labels = np.asarray(labels_N)
    turn = np.zeros(len(labels), dtype=np.int64)  # the how-manieth of its class
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        turn[generator.permutation(rows)] = np.arange(len(rows))
    return np.sort(np.argsort(turn, kind="stable")[:most])
