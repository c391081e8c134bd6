"""ROC curves, precision-recall curves and decision curves."""

# Shapes: T thresholds.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermalyze.report.figures import MANY, EstimateDict, Floats, draw, interval_text
from dermalyze.report.style import ACCENT, GRID, INK, QUIET, class_styles, short_names

COLUMNS = 4
LINES = 10
"""ROC curves that are named, of many classes."""


def roc_curves(
    curves: Sequence[tuple[Floats, Floats] | None],
    classes: Sequence[str],
    aurocs: Sequence[EstimateDict],
    macro: EstimateDict,
    *,
    title: str,
    leak: str | None = None,
) -> bytes:
    """One curve per class against the rest, with its AUROC and interval; classes without a curve are also listed.

    Of more than `MANY` classes those of the lowest AUROC are named, and the others are gray.
    """
    shown, legend_lines = short_names(classes)
    value = [auroc["value"] if auroc["value"] is not None else 2.0 for auroc in aurocs]
    named = set(sorted(range(len(classes)), key=value.__getitem__)[: LINES if len(classes) > MANY else len(classes)])
    rest = f"\nthe {LINES} lowest of {len(classes)}, the others in gray" if len(named) < len(classes) else ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.text(0.63, 0.585, "chance", color=QUIET, rotation=45, rotation_mode="anchor", ha="center", fontsize=9)
        each = zip(curves, shown, class_styles(classes), aurocs, strict=True)
        for place, (curve, name, style, auroc) in enumerate(each):
            if place not in named:
                if curve is not None:
                    axes.plot(*curve, color="#c8ccd0", linewidth=0.8, zorder=1)
                continue
            text = f" {name}" if name.startswith("_") else name  # matplotlib hides labels with a leading underscore
            label = f"{text}  {interval_text(auroc)}" + (f"  n = {auroc['n']}" if auroc["value"] is not None else "")
            false, true = curve if curve is not None else (np.array([np.nan]), np.array([np.nan]))
            axes.plot(false, true, color=style.colour, linestyle=style.dash, linewidth=1.8, label=label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("false positive rate (1 − specificity)")
        axes.set_ylabel("sensitivity (true positive rate)")
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        mean = interval_text(macro) if macro["value"] is not None else "not estimable"
        legend = axes.legend(
            loc="upper left", bbox_to_anchor=(1.02, 1.0), title=f"AUROC with interval\nmean  {mean}{rest}",
            alignment="left", handlelength=3.2, labelspacing=0.8, borderaxespad=0,
        )  # fmt: skip
        legend.get_title().set_fontsize(9.5)

    width_in = max(9.2, 8.6 + 0.085 * max(map(len, shown), default=0))
    return draw(width_in, 5.6, title, leak, paint, legend_lines)


def pr_curves(
    curves: Sequence[tuple[Floats, Floats] | None],
    classes: Sequence[str],
    precisions: Sequence[EstimateDict],
    *,
    images: int,
    title: str,
    leak: str | None = None,
) -> bytes:
    """One panel per class with its curve and average precision; the dotted line is the precision of chance.

    Args:
        curves: recall and precision per class, or None for a class without a curve.
        precisions: average precision of each class; `n` is its number of images.
        images: number of images in the whole set.
    """
    rows, (shown, legend) = -(-len(classes) // COLUMNS), short_names(classes)

    def panel(axes: Axes, curve: tuple[Floats, Floats] | None, name: str, style: Any, found: EstimateDict) -> None:
        axes.set_title(name, loc="left", fontweight="bold", color=INK)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", ".5", "1"])
        axes.set_yticklabels(["0", ".5", "1"])
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        if curve is None:
            axes.text(0.5, 0.5, f"not estimable\n(n = {found['n']})", ha="center", va="center", color=QUIET, style="italic")
            return
        guess, (recall, precision) = found["n"] / images, curve
        axes.axhline(guess, color=QUIET, linewidth=0.9, linestyle=(0, (2, 3)))
        axes.plot(np.append(0, recall), np.append(precision[0], precision), color=style.colour, linewidth=1.8,
                  drawstyle="steps-pre", clip_on=False)  # fmt: skip
        low = (found["value"] or 0) < 0.35  # the words go where the curve leaves room
        axes.text(
            0.97 if low else 0.04, 0.97 if low else guess + 0.05 if guess < 0.35 else 0.05,
            f"AP {interval_text(found, 2)}\nn = {found['n']:,}", fontsize=8.5, ha="right" if low else "left",
            va="top" if low else "bottom",
        )  # fmt: skip

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(classes) :]:
            axes.set_visible(False)
        for axes, curve, name, style, found in zip(grid.flat, curves, shown, class_styles(classes), precisions, strict=False):
            panel(axes, curve, name, style, found)
        for column in range(min(COLUMNS, len(classes))):
            lowest = grid[(len(classes) - 1 - column) // COLUMNS, column]
            lowest.tick_params(labelbottom=True)
        figure.supxlabel("sensitivity (recall)", fontsize=10)
        long = rows > 1  # one row has no room for the longer label
        figure.supylabel("precision (share of predictions that are correct)" if long else "precision", fontsize=10)

    return draw(9.6, 2.3 * rows + 0.4, title, leak, paint, legend)


def decision_curve(curve: Mapping[str, Any], what: str, *, title: str, leak: str | None = None) -> bytes:
    """Net benefit of the model with its interval band, of treating all and of treating none.

    Args:
        curve: as in evaluation_metrics.json, see `metrics.decision_curve.DecisionCurve`.
        what: the condition, such as malignancy.
    """
    x, model, everyone = (np.asarray(curve[key]) for key in ("thresholds", "model", "everyone"))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        if curve["low"] is not None:
            axes.fill_between(x, curve["low"], curve["high"], color=ACCENT, alpha=0.18, linewidth=0)
        top = max(float(np.max(curve["high"] if curve["high"] is not None else model)), float(everyone.max()), 0.01)
        bottom = -0.16 * top
        axes.axhline(0, color=INK, linewidth=1.2)
        axes.plot(x, everyone, color=QUIET, linewidth=1.6, linestyle=(0, (5, 1.5)))
        axes.plot(x, model, color=ACCENT, linewidth=2.2)
        axes.set(xlim=(0, float(x[-1]) * 1.01), ylim=(bottom, 1.1 * top))
        axes.text(x[-1], -0.015 * top, "treat none", color=INK, fontsize=9.5, ha="right", va="top")
        begins = int(0.6 * len(x))
        rim = model[begins] if curve["high"] is None else curve["high"][begins]
        axes.text(
            x[begins],
            rim + 0.02 * top,
            "treat those the model predicts positive",
            color=ACCENT,
            fontsize=9.5,
            fontweight="bold",
        )
        shown = np.flatnonzero(everyone > 0.3 * top)
        at = int(shown[-1]) if len(shown) else 0
        axes.annotate("treat all", (x[at], everyone[at]), xytext=(-8, -8), textcoords="offset points", color=QUIET,
                      fontsize=9.5, ha="right", va="top")  # fmt: skip
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel(f"threshold probability of {what} (further right, false positives weigh more)")
        axes.set_ylabel("net benefit (true positives per image)")
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)

    return draw(7.6, 4.6, title, leak, paint)
