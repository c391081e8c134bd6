"""Figures of a report, drawn through matplotlib's objects (no global state) and returned as PNG bytes."""

# Shapes: C classes.

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from dermalyze.core.progress import say
from dermalyze.metrics import selective
from dermalyze.report.style import ACCENT, ALARM, DPI, GRID, INK, QUIET, RC, class_styles, families, short_names

Floats = npt.NDArray[np.float64]
EstimateDict = Mapping[str, Any]  # {value, low, high, n, note} as in evaluation_metrics.json
LESS_IS_BETTER = (
    "log loss", "Brier score", "expected calibration error", "Hamming loss", "macro Brier score",
    "macro calibration error (ECE)",
)  # fmt: skip
MANY = 20
"""More classes than this are drawn with less to each."""
_BLUES = LinearSegmentedColormap.from_list("dermalyze", ["#ffffff", "#cfe3f2", "#6aa9d6", "#0072B2", "#003f66"])


def draw(
    width_in: float, height_in: float, title: str, leak: str | None, paint: Callable[[Figure], None], legend: Sequence[str] = ()
) -> bytes:
    """Draw on a new figure with its title and, if a leak was accepted, the reason in red above it; return PNG bytes.

    Args:
        legend: lines below the title, such as those of `short_names`.
    """
    with mpl.rc_context({**RC, "font.family": families()}):
        stamp = textwrap.wrap(f"LEAK ACCEPTED, NOT A FAIR RESULT: {leak}", int(width_in * 11)) if leak else []
        notes = [part for line in legend for part in textwrap.wrap(line, int(width_in * 14), subsequent_indent="    ")]
        below_in = 0.17 * len(notes) + (0.1 if notes else 0)
        head_in = 0.42 + 0.21 * len(stamp) + below_in
        total = height_in + head_in
        figure = Figure(figsize=(width_in, total), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(rect=(0, 0, 1, height_in / total), w_pad=0.09, h_pad=0.07)  # type: ignore[union-attr, call-arg]
        for number, line in enumerate(notes):
            figure.text(0.01, (height_in + below_in - 0.17 * number) / total, line, color=QUIET, fontsize=8.5, va="top")
        for number, line in enumerate(stamp):
            y = 1 - (0.1 + 0.21 * number) / total
            figure.text(0.01, y, line, color=ALARM, fontsize=10.5, fontweight="bold", va="top")
        figure.text(0.01, (height_in + below_in + 0.3) / total, title, fontsize=12.5, fontweight="bold", va="top")
        stream = io.BytesIO()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            paint(figure)
            figure.savefig(stream, format="png", metadata={"Software": None})
    lacking = dict.fromkeys(letter for one in warned if (letter := _letter_lacking(str(one.message))) is not None)
    if lacking:
        _tell_letters("".join(lacking))
    for one in warned:
        if _letter_lacking(str(one.message)) is None:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return stream.getvalue()


def _letter_lacking(warning: str) -> str | None:
    """The letter that a warning of matplotlib says no font has; None for another warning.

    >>> _letter_lacking("Glyph 30179 (CJK UNIFIED IDEOGRAPH-75E3) missing from font(s) DejaVu Sans.")
    '痣'
    """
    found = re.match(r"Glyph (\d+) .*missing from font", warning, flags=re.S)
    return None if found is None else chr(int(found[1]))


@cache  # once per set of letters, not once per figure
def _tell_letters(letters: str) -> None:
    say(
        f"figures: no font of this machine has the letters {letters}; boxes are in their place, and the tables of the report "
        "have the names; install a font with these letters, such as Noto Sans CJK, to see them"
    )


def interval_text(estimate: EstimateDict, digits: int = 3) -> str:
    """'0.912 (0.890–0.931)', the value alone if there is no interval, or why there is no value.

    >>> interval_text({"value": 0.5, "low": 0.4, "high": 0.61, "n": 9, "note": ""}, 2)
    '0.50 (0.40–0.61)'
    """
    if estimate["value"] is None:
        return str(estimate["note"] or f"not estimable (n = {estimate['n']})")
    value = f"{estimate['value']:.{digits}f}"
    if estimate["low"] is None:
        return value
    return f"{value} ({estimate['low']:.{digits}f}–{estimate['high']:.{digits}f})"


def confusion_matrix(
    counts_CC: Sequence[Sequence[int]], classes: Sequence[str], *, title: str, leak: str | None = None
) -> bytes:
    """Two panels: shares of each true class (rows sum to 1), and counts. Both are colored by share.

    Of more than `MANY` classes only the shares are drawn, and those below 5 % without their number.
    """
    many = len(classes) > MANY
    shown, legend = short_names(classes)
    counts = np.asarray(counts_CC, dtype=float).reshape(len(classes), len(classes))
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    size, font = max(4.4, (0.3 if many else 0.5) * len(classes) + 1.3), 9.5 if len(classes) <= 8 else 7.0

    def panel(axes: Axes, text: Callable[[int, int], str], name: str) -> AxesImage:
        image = axes.imshow(share, cmap=_BLUES, vmin=0, vmax=1)
        axes.set_xticks(range(len(classes)), shown, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), shown)
        axes.set_xlabel("predicted class")
        axes.set_title(name, loc="left")
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.8)
        axes.tick_params(which="both", length=0)
        for i in range(len(classes)):
            for j in range(len(classes)):
                if many and share[i, j] < 0.05:
                    continue
                colour = "white" if share[i, j] > 0.55 else QUIET if counts[i, j] == 0 else INK
                axes.text(j, i, text(i, j), ha="center", va="center", fontsize=font, color=colour)
        return image

    def paint(figure: Figure) -> None:
        grid = figure.add_gridspec(1, 2 if many else 3, width_ratios=[1, 0.03] if many else [1, 1, 0.045])
        left, *others, bar = (figure.add_subplot(grid[0, k]) for k in range(2 if many else 3))
        image = panel(left, lambda i, j: f"{share[i, j]:.2f}" if rows[i, 0] else "–", "share of the true class")
        for right in others:
            panel(right, lambda i, j: f"{int(counts[i, j])}", "number of images")
        left.set_ylabel("true class")
        colours = figure.colorbar(image, cax=bar, label="share of the true class")
        colours.outline.set_visible(False)

    slanted_in = 0.05 * max(0, max(map(len, shown), default=0) - 8)
    return draw((1 if many else 2) * size + 0.6, size + 0.1 + slanted_in, title, leak, paint, legend)


PER_CLASS_TITLES = {
    "recall": "sensitivity", "specificity": "specificity", "precision": "precision", "f1": "F1", "auroc": "AUROC",
    "average_precision": "average precision",
}  # fmt: skip
PER_CLASS_PANELS = {"recall": "sensitivity (recall)", "precision": "precision", "f1": "F1", "auroc": "AUROC"}


def per_class_metrics(
    per_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str], *, title: str, leak: str | None = None
) -> bytes:
    """Four panels with one bar per class and its interval; without a value, a note replaces the bar."""
    styles, (shown, legend) = class_styles(classes), short_names(classes)
    rows = np.arange(len(classes))

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(PER_CLASS_PANELS), sharey=True)
        for axes, (key, name) in zip(panels, PER_CLASS_PANELS.items(), strict=True):
            for row, label, style in zip(rows, classes, styles, strict=True):
                estimate = per_class[label][key]
                if estimate["value"] is None:
                    axes.text(0.02, row, "not estimable", va="center", fontsize=8.5, color=QUIET, style="italic")
                    continue
                axes.barh(row, estimate["value"], color=style.colour, height=0.62)
                if estimate["low"] is not None:
                    ends = [estimate["low"], estimate["high"]]
                    for colour, width in (("white", 3.6), (INK, 1.4)):  # a white rim, to be seen on dark bars
                        axes.plot(ends, [row, row], "-", color=colour, linewidth=width, clip_on=False)
                        axes.plot(ends, [row, row], "|", color=colour, markersize=7, markeredgewidth=width, clip_on=False)
                axes.text(1.04, row, f"{estimate['value']:.2f}", va="center", fontsize=9, clip_on=False)
            axes.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"])
            axes.set_title(name, loc="left")
            axes.grid(axis="x", color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        labels = [f"{short}  (n = {per_class[name]['support']})" for short, name in zip(shown, classes, strict=True)]
        panels[0].set_yticks(rows, labels)
        panels[0].set_ylim(len(classes) - 0.5, -0.5)
        figure.get_layout_engine().set(wspace=0.09)  # type: ignore[union-attr, call-arg]

    return draw(10.0, max(2.6, 0.44 * len(classes) + 0.8), title, leak, paint, legend)


def calibration_curve(
    bins: Sequence[Mapping[str, Any]],
    ece: EstimateDict,
    *,
    title: str,
    before: Sequence[Mapping[str, Any]] | None = None,
    leak: str | None = None,
) -> bytes:
    """Accuracy against confidence in equal-width bins with Wilson intervals, and below the number of images per bin.

    Args:
        before: the bins of the same predictions before calibration, drawn as a thin line behind.
    """
    filled = [b for b in bins if b["n"]]
    middle = [(b["lower"] + b["upper"]) / 2 for b in bins]

    def paint(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        upper.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (2, 3)), label="perfectly calibrated")
        if before is not None:
            points = [(b["confidence"], b["accuracy"]) for b in before if b["n"]]
            upper.plot(
                *zip(*points, strict=True), color=QUIET, marker="o", markersize=3, linewidth=0.9, label="before calibration"
            )
        if filled:
            x, y = [b["confidence"] for b in filled], [b["accuracy"] for b in filled]
            upper.fill_between(x, x, y, color=ACCENT, alpha=0.12, linewidth=0, label="gap")
            upper.vlines(x, [b["low"] for b in filled], [b["high"] for b in filled], color=ACCENT, linewidth=1.5, clip_on=False)
            upper.plot(
                x, y, color=ACCENT, marker="o", markersize=5, linewidth=1.4, label="this model, with interval", clip_on=False
            )
        else:
            upper.text(0.5, 0.5, "not estimable (n = 0)", ha="center", color=QUIET)
        upper.text(0.97, 0.1, "overconfident", ha="right", color=QUIET, fontsize=9, style="italic")
        upper.text(0.03, 0.94, "underconfident", va="top", color=QUIET, fontsize=9, style="italic")
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        upper.set_ylabel("accuracy")
        upper.set_title(f"ECE {interval_text(ece)}, {len(bins)} equal-width bins", loc="left", fontsize=10)
        upper.legend(loc="lower right", bbox_to_anchor=(1.0, 0.14))
        lower.bar(middle, [b["n"] for b in bins], width=0.86 / len(bins), color=ACCENT, alpha=0.85)
        lower.set_ylabel("images")
        lower.set_xlabel("confidence: probability of the predicted class")
        for axes in (upper, lower):
            axes.grid(color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)

    return draw(7.2, 6.2, title, leak, paint)


def risk_coverage(
    confidence_N: npt.NDArray[np.float64],
    wrong_N: npt.NDArray[np.float64],
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str,
    leak: str | None = None,
) -> bytes:
    """Error rate of the most confident predictions against coverage, with the best possible and a random order.

    Args:
        confidence_N: higher is more confident.
        wrong_N: 1 if the prediction is wrong.
        rows: coverage and accuracy as estimates, at the thresholds of the calibration split.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        if len(wrong_N):
            for order, colour, dash, name in (
                (np.zeros(len(wrong_N)), QUIET, (0, (2, 3)), "random order"),
                (confidence_N, ACCENT, "-", "this model"),
                (-wrong_N, "#009E73", (0, (4, 1.5)), "best order of the same predictions"),
            ):
                coverage, risk = selective.risk_coverage(order, wrong_N)
                axes.plot(coverage, risk, color=colour, linestyle=dash, linewidth=1.5, label=name)
            for row in rows:
                if row["accuracy"]["value"] is not None and row["accuracy"]["low"] is not None:
                    x, y = row["coverage"]["value"], 1 - row["accuracy"]["value"]
                    axes.vlines(
                        x, 1 - row["accuracy"]["high"], 1 - row["accuracy"]["low"], color="#D55E00", linewidth=1.6, zorder=4
                    )
                    axes.plot(x, y, "o", color="#D55E00", markersize=5, zorder=5)
                    axes.annotate(f"{100 * row['asked']:g} %", (x, y), xytext=(-5, 6), textcoords="offset points",
                                  ha="right", fontsize=9, color="#A04000")  # fmt: skip
            axes.plot([], [], "o-", color="#D55E00", markersize=5, label="thresholds from the calibration split, with interval")
            axes.legend(loc="upper left")
        else:
            axes.text(0.5, 0.5, "not estimable (n = 0)", ha="center", color=QUIET, transform=axes.transAxes)
        top = selective.risk_coverage(confidence_N, wrong_N)[1].max(initial=0.0)
        axes.set(xlim=(0, 1.01), ylim=(0, max(0.05, 1.4 * top)))  # room for the legend
        axes.set_xlabel("coverage: share of images kept, most confident first")
        axes.set_ylabel("error rate of these images")
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)

    return draw(7.2, 4.6, title, leak, paint)


def differences_figure(differences: Mapping[str, EstimateDict], *, title: str, leak: str | None = None) -> bytes:
    """One row per metric: the difference with its interval and a line at 0; hollow points where lower is better."""
    shown = {name: one for name, one in differences.items() if one["value"] is not None}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, (name, one) in enumerate(shown.items()):
            if one["low"] is not None:
                axes.plot([one["low"], one["high"]], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
            hollow = name in LESS_IS_BETTER
            axes.plot(one["value"], row, "o", markersize=7, color=ACCENT, markerfacecolor="white" if hollow else ACCENT)
        axes.axvline(0, color=QUIET, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
        axes.set_yticks(range(len(shown)), list(shown))
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("difference")

    return draw(7.6, 0.31 * len(shown) + 0.75, title, leak, paint)


def training_curves(
    history: Mapping[str, Sequence[float | None]], best_epoch: int, monitor: str, *, title: str, leak: str | None = None
) -> bytes:
    """Loss, accuracies, macro AUROC and learning rate per epoch; the epoch whose weights were kept is marked.

    Args:
        history: `epoch` and any of train_loss, val_loss, train_accuracy, val_accuracy, val_balanced_accuracy,
            val_macro_auroc, lr; one value per epoch, None where undefined.
        best_epoch: counted from 1.
        monitor: the metric that selected it.
    """
    epochs = list(history["epoch"])
    train, val, other = (QUIET, (0, (4, 1.5))), (ACCENT, "-"), ("#D55E00", (0, (1.2, 1)))
    panels: list[tuple[str, list[tuple[str, str, tuple[str, Any]]]]] = [
        ("loss", [("train_loss", "train (augmented)", train), ("val_loss", "validation", val)]),
        ("accuracy", [("train_accuracy", "train (augmented)", train), ("val_accuracy", "validation", val),
                      ("val_balanced_accuracy", "validation, balanced", other)]),
        ("macro AUROC", [("val_macro_auroc", "validation", val)]),
        ("learning rate", [("lr", "at the end of the epoch", ("#4D4D4D", "-"))]),
    ]  # fmt: skip

    def paint(figure: Figure) -> None:
        grid = figure.subplots(2, 2, sharex=True)
        for axes, (name, lines) in zip(grid.flat, panels, strict=True):
            axes.axvline(best_epoch, color="#009E73", linewidth=1.2, zorder=1)
            drawn = 0
            for key, label, (colour, dash) in lines:
                values = [np.nan if v is None else float(v) for v in history.get(key, [])]
                if len(values) == len(epochs) and not np.isnan(values).all():
                    mark = "o" if len(epochs) <= 3 else None
                    axes.plot(
                        epochs, values, color=colour, linestyle=dash, linewidth=1.7, label=label, marker=mark, markersize=4
                    )
                    drawn += 1
            if not drawn:
                axes.text(0.5, 0.5, "not recorded", ha="center", color=QUIET, transform=axes.transAxes)
            axes.set_title(name, loc="left")
            axes.grid(color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.yaxis.set_major_formatter("{x:g}")
            if drawn > 1:
                axes.legend(loc="best")
        late = 2 * best_epoch > len(epochs)
        grid[1, 0].annotate(
            f"kept: epoch {best_epoch}", (best_epoch, 0), xycoords=("data", "axes fraction"), xytext=(-4 if late else 4, 4),
            textcoords="offset points", ha="right" if late else "left", va="bottom", fontsize=9, color="#00684d",
        )  # fmt: skip
        for axes in grid[1]:
            axes.set_xlabel("epoch")
        figure.supxlabel(f"green line: the epoch kept, selected by {monitor}", fontsize=9, color=QUIET)

    return draw(9.6, 6.4, title, leak, paint)
