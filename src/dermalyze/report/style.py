"""Style of figures: one color per class, color-blind safe and distinct in gray (dash and marker also differ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from dermalyze.config.classes import HAM10000_CLASSES

INK, QUIET, GRID, ALARM, ACCENT = "#1a1a1a", "#5f6368", "#e3e5e8", "#b00020", "#0072B2"
DPI = 150
RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Segoe UI", "Arial Unicode MS",
)  # fmt: skip
"""Fonts for letters that DejaVu Sans does not have, taken where they are installed."""


@cache
def families() -> list[str]:
    """The font of figures, and those of this machine that help it out."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [RC["font.family"], *(name for name in _FAMILIES if name in installed)]


LONGEST_NAME = 20
"""Characters of a class name that a figure shows in full."""


def short_names(classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names for figures: those that are too long with their number in place of the rest, and the legend of these.

    >>> short_names(["nv", "pigmented lesion of the face, grade 1"])
    (['nv', '2 pigmented lesion…'], ['2 pigmented lesion…: pigmented lesion of the face, grade 1'])
    """
    shown = []
    for number, name in enumerate(classes, 1):
        start = f"{number} {name}"
        shown.append(name if len(name) <= LONGEST_NAME else f"{start[: LONGEST_NAME - 1].rstrip()}…")
    return shown, [f"{short}: {name}" for short, name in zip(shown, classes, strict=True) if short != name]


@dataclass(frozen=True)
class ClassStyle:
    """Color, dash and marker of one class."""

    colour: str
    dash: Any
    marker: str


# Okabe & Ito 2008 (jfly.uni-koeln.de/color) without yellow, which is hard to see on white, and with dark gray for black.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#4D4D4D")
_DASHES: tuple[Any, ...] = (
    (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)), (0, (5, 1.5)), (0, (1.2, 1)), (0, (5, 1.5, 1.2, 1.5)), "-", (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HAM10000 = tuple(HAM10000_CLASSES)


def class_styles(classes: Sequence[str]) -> list[ClassStyle]:
    """One style per class. The seven of HAM10000 always keep theirs; others take the free ones in order, then repeat.

    >>> class_styles(["nv", "mel"])[1] == class_styles(["mel"])[0]
    True
    """
    taken = {_HAM10000.index(name) for name in classes if name in _HAM10000}
    free = [slot for slot in range(len(_COLOURS)) if slot not in taken] or list(range(len(_COLOURS)))
    others = 0
    styles = []
    for name in classes:
        if name in _HAM10000:
            slot = shift = _HAM10000.index(name)
        else:
            slot, shift = free[others % len(free)], others
            others += 1
        styles.append(ClassStyle(_COLOURS[slot], _DASHES[shift % len(_DASHES)], _MARKERS[shift % len(_MARKERS)]))
    return styles
