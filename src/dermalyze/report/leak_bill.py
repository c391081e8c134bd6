"""The figure of a leak bill: pairs of scores with intervals, one panel a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from dermalyze.report.figures import draw
from dermalyze.report.style import ACCENT, ALARM, GRID, QUIET

HEADS = {
    "test_parts": "each split's own test split",
    "within_random": "random split: lesion trained on, or new",
    "same_known": "same images, lesion in random training",
    "same_new": "same images, lesion new to both",
}


def leak_bill_figure(bill: Mapping[str, Any], titles: Mapping[str, str]) -> bytes:
    """PNG: in each panel a metric, in each block two sides of one comparison with their intervals and their difference.

    Args:
        bill: the content of report/leak_bill.json.
        titles: metric to the words over its panel.
    """
    comparisons = bill["comparisons"]
    rows = [(c, k) for c in comparisons for k in ("a", "b")]
    y_of = {(c["key"], k): 3.4 * n + (1.0 if k == "a" else 2.0) for n, c in enumerate(comparisons) for k in ("a", "b")}
    top = 3.4 * len(comparisons)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(titles), sharey=True)
        for axes, (metric, title) in zip(panels, titles.items(), strict=True):
            for c, k in rows:
                estimate, y = c["metrics"][metric][k], y_of[c["key"], k]
                colour = ALARM if k == "a" else ACCENT
                if estimate["low"] is None:
                    words = "not estimable" if estimate["value"] is None else "too few groups"
                    axes.text(0.02, y, words, transform=axes.get_yaxis_transform(), color=QUIET, fontsize=8.5, va="center")
                    continue
                axes.plot([estimate["low"], estimate["high"]], [y, y], color=colour, linewidth=2.0, solid_capstyle="butt")
                axes.plot([estimate["value"]], [y], marker="o" if k == "a" else "s", color=colour, markersize=6)
            for n, c in enumerate(comparisons):
                axes.text(
                    0.02, 3.4 * n + 0.12, difference_text(c["metrics"][metric]["difference"]),
                    transform=axes.get_yaxis_transform(), fontsize=8.5, color=QUIET, va="center",
                )  # fmt: skip
            axes.set_title(title + (" (lower is better)" if metric == "log_loss" else ""), loc="left")
            axes.grid(axis="x", color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.margins(x=0.12)
        panels[0].set_ylim(top - 0.4, -0.5)
        panels[0].set_yticks(
            [*y_of.values(), *(3.4 * n + 0.12 for n in range(len(comparisons)))],
            [*(f"{c[k]['name']}  (n = {c[k]['images']:,})" for c, k in rows), *(HEADS[c["key"]] for c in comparisons)],
        )
        for label in panels[0].get_yticklabels()[len(rows) :]:
            label.set_fontweight("bold")
            label.set_fontsize(9)
        figure.supxlabel(
            f"intervals {100 * bill['level']:g} %, over lesions; in gray: difference, red minus blue", fontsize=9, color=QUIET
        )

    return draw(13.0, 4.6, f"{bill['title']}, {bill['settings']['epochs']} epochs each", None, paint)


def difference_text(estimate: Mapping[str, Any]) -> str:
    """A difference in few letters; nothing where it has no interval.

    >>> difference_text({"value": 0.02, "low": -0.01, "high": 0.05})
    '+0.020 (-0.010, +0.050)'
    """
    if estimate["low"] is None:
        return ""
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f}, {estimate['high']:+.3f})"
