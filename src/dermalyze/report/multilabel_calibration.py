"""Calibration of label probabilities: one reliability diagram per label, before and after calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from dermalyze.metrics import bootstrap
from dermalyze.metrics import multilabel as label_scores
from dermalyze.metrics.calibration_error import confidence_bins, wilson
from dermalyze.metrics.classification import defined
from dermalyze.metrics.multilabel import LabelScores
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.figures import draw as drawn
from dermalyze.report.figures import interval_text
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.style import ACCENT, GRID, INK, QUIET
from dermalyze.report.text import cell, number

COLUMNS = 4


def build(j: Evaluation) -> dict[str, Any]:
    """Reliability bins of each label, and Brier score and ECE before calibration."""
    plain: Any = j.answering.plain.scores(j.p.labels, j.p.logits)
    before = plain.under(np.ones((len(j.p), 1)))
    brier_C, ece_C = label_scores.brier(before)[0], label_scores.ece(before, j.spec.ece_bins)[0]
    return {
        "calibration": {
            "calibrator": j.calibrator.kind,
            "fitted": dict(j.fitted) if j.fitted is not None else None,
            "bins": {name: _bins(j, j.scores, c) for c, name in enumerate(j.classes)},
            "before": {
                name: {"brier": defined(brier_C[c]), "ece": defined(ece_C[c]), "bins": _bins(j, plain, c)}
                for c, name in enumerate(j.classes)
            },
        }
    }


def _bins(j: Evaluation, scores: LabelScores, c: int) -> list[dict[str, Any]]:
    """For each bin with images: images, groups, mean probability, share with the label and its Wilson interval, with the
    number of groups as sample size."""
    index, _ = bootstrap.group_index(j.p.groups)
    bin_N, rows = confidence_bins(scores.probs[:, c], j.spec.ece_bins), []
    for b in np.unique(bin_N[scores.observed[:, c]]):
        inside = (bin_N == b) & scores.observed[:, c]
        share, groups = float(scores.positive[inside, c].mean()), len(np.unique(index[inside]))
        low, high = wilson(share, groups, j.spec.level)
        mean = float(scores.probs[inside, c].mean())
        rows.append({"n": int(inside.sum()), "groups": groups, "probability": mean, "share": share, "low": low, "high": high})
    return rows


def view(m: Json) -> dict[str, Any]:
    """How the probabilities were computed, and each label before and after calibration."""
    c, fitted = m["calibration"], m["calibration"]["fitted"]
    if fitted is None:
        how = "The probabilities are the plain sigmoid of the scores and the thresholds are 0.5: nothing was calibrated."
    else:
        kind = (
            "a scale and a shift for each label"
            if c["calibrator"] == "platt"
            else "the plain sigmoid, because nothing else was better"
        )
        how = (
            f"Scores become probabilities by {kind}, chosen on {fitted['images']:,} images ({fitted['groups']:,} groups) of "
            f"the {fitted['part']} split."
        )
        if fitted["part"] == "val":
            how += " That split was also used for early stopping, so the fit is slightly optimistic."
    return {
        "how": how,
        "rows": [
            (name, *(text for key in ("brier", "ece") for text in (number(c["before"][name][key]), *cell(one[key]))))
            for name, one in m["per_class"].items()
        ],
        "trials": [
            (t["kind"], f"{t['log_loss']:.4f}", t["kind"] == c["calibrator"]) for t in (fitted or {}).get("trials") or ()
        ],
    }


def draw(m: Json, j: Evaluation) -> dict[str, Figure]:
    """One reliability diagram per label."""
    labels, c = m["classes"], m["calibration"]
    rows = -(-len(labels) // COLUMNS)

    def panel(axes: Axes, name: str) -> None:
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
        if c["calibrator"] != "none":
            then = c["before"][name]["bins"]
            axes.plot([b["probability"] for b in then], [b["share"] for b in then], color=QUIET, marker="o", markersize=2.5,
                      linewidth=0.8)  # fmt: skip
        now = c["bins"][name]
        x = [b["probability"] for b in now]
        axes.vlines(x, [b["low"] for b in now], [b["high"] for b in now], color=ACCENT, linewidth=1.2)
        axes.plot(x, [b["share"] for b in now], color=ACCENT, marker="o", markersize=3.5, linewidth=1.2, clip_on=False)
        axes.set_title(name, loc="left", fontweight="bold", color=INK)
        axes.text(0.98, 0.03, f"ECE {interval_text(m['per_class'][name]['ece'], 2)}", fontsize=8.5, ha="right", va="bottom")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", ".5", "1"])
        axes.set_yticklabels(["0", ".5", "1"])
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)

    def paint(figure: Canvas) -> None:
        grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(labels) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.flat, labels, strict=False):
            panel(axes, name)
        for column in range(min(COLUMNS, len(labels))):
            grid[(len(labels) - 1 - column) // COLUMNS, column].tick_params(labelbottom=True)
        figure.supxlabel("probability of the label", fontsize=10)
        figure.supylabel("share of images with the label", fontsize=10)

    title = figure_title("Calibration", m)
    return {
        "calibration_curves.png": Figure(
            drawn(9.6, 2.4 * rows + 0.4, title, m["accepted_leak"], paint),
            "Reliability diagrams: the share of images with the label against its predicted probability. On the dotted line, "
            "probabilities are calibrated. Vertical lines are Wilson intervals with the number of groups as sample size; the "
            "thin gray line, if there is one, is the model before calibration.",
        )
    }
