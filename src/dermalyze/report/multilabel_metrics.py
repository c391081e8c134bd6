"""Several labels per image: overall metrics and metrics per label."""

# Shapes: N images, C labels.

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.metrics import classification as metrics
from dermalyze.report.curves import pr_curves, roc_curves
from dermalyze.report.discrimination import measured
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.figures import per_class_metrics
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.style import class_styles
from dermalyze.report.text import LABEL_MEANINGS, cell, interval_or_note, value_text

TITLES = {
    "auroc": "AUROC", "average_precision": "average precision", "f1": "F1", "recall": "sensitivity",
    "specificity": "specificity", "precision": "precision",
}  # fmt: skip


def build(j: Evaluation) -> dict[str, Any]:
    """Overall and per-label metrics, the number of images without a label, labels per image, and missing targets."""
    positive = j.scores.positive
    return {
        **measured(j),
        "without_label": int(j.scores.negative.all(axis=1).sum()),
        "labels_an_image": float(positive.sum(axis=1).mean()) if len(j.p) else None,
        "missing_targets": int((~j.scores.observed).sum()),
    }


def overall_view(m: Json) -> dict[str, Any]:
    """The table of overall metrics."""
    rows = [
        {
            "name": LABEL_MEANINGS[name][0],
            "value": value_text(estimate),
            "interval": interval_or_note(estimate),
            "best": LABEL_MEANINGS[name][1],
            "meaning": LABEL_MEANINGS[name][2],
        }
        for name, estimate in m["metrics"].items()
    ]
    many = "–" if m["labels_an_image"] is None else f"{m['labels_an_image']:.2f}"
    return {
        "rows": rows, "level": f"{100 * m['level']:g} %", "without": f"{m['without_label']:,}", "many": many,
        "missing": f"{m['missing_targets']:,}" if m["missing_targets"] else None,
    }  # fmt: skip


def overall_figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """ROC and precision-recall curves of each label."""
    labels, leak = m["classes"], m["accepted_leak"]
    support = [m["per_class"][name]["support"] for name in labels]
    # a curve of one class against the rest, on the label's own two sides, of the images whose target is there
    curves, recalled = [], []
    for c in range(len(labels)):
        there = j.scores.observed[:, c]
        target, p = j.scores.targets[there, c], j.scores.probs[there, c]
        side = (target, np.stack([1 - p, p], axis=1))
        both = 0 < target.sum() < len(target)
        curves.append(metrics.roc_curve(*side, 1) if both else None)
        recalled.append(metrics.pr_curve(*side, 1) if both else None)
    aurocs, precisions = (
        [m["per_class"][name][key] | {"n": n} for name, n in zip(labels, support, strict=True)]
        for key in ("auroc", "average_precision")
    )
    macro = m["metrics"]["macro_auroc"]
    return {
        "roc_curves.png": Figure(
            roc_curves(curves, labels, aurocs, macro, title=figure_title("ROC curves", m), leak=leak),
            "ROC curves, one per label: sensitivity against the false positive rate. Closer to the upper left is better. "
            "A stepped curve means few images and therefore a wide interval.",
        ),
        "pr_curves.png": Figure(
            pr_curves(
                recalled,
                labels,
                precisions,
                images=m["n_images"],
                title=figure_title("Precision-recall curves", m),
                leak=leak,
            ),
            "Precision-recall curves, one per label. The dotted line is chance, the share of the label in this set. "
            "In a set with another share, both curve and line are at another height. AP is average precision.",
        ),
    }


def label_view(m: Json) -> dict[str, Any]:
    """The table of labels."""
    return {
        "columns": list(TITLES.values()),
        "rows": [
            {
                "name": name,
                "colour": style.colour,
                "threshold": f"{values['threshold']:.3f}",
                "cells": [(*cell(values[key]), values[key]["low"] is None) for key in TITLES],
                **{key: values[key] for key in ("description", "support")},
            }
            for (name, values), style in zip(m["per_class"].items(), class_styles(m["classes"]), strict=True)
        ],
        "rule": {"f1": "with the largest F1", "youden": "with the largest sum of sensitivity and specificity"}.get(
            (m["calibration"]["fitted"] or {}).get("threshold_rule") or ""
        ),
        "part": (m["calibration"]["fitted"] or {}).get("part"),
    }


def label_figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """Sensitivity, precision, F1 and AUROC per label, with intervals."""
    drawn = per_class_metrics(
        m["per_class"], m["classes"], title=figure_title("Per-label performance", m), leak=m["accepted_leak"]
    )
    said = (
        "Per-label performance at the threshold of each label. Black lines are intervals; a long one means that few groups "
        "have the label."
    )
    return {"per_class_metrics.png": Figure(drawn, said)}
