"""Performance: overall and per class, confusion matrix, ROC and precision-recall curves."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from dermalyze.config.classes import describe
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.metrics import bootstrap
from dermalyze.metrics import classification as metrics
from dermalyze.report import figures
from dermalyze.report.curves import pr_curves, roc_curves
from dermalyze.report.evaluation_data import Evaluation, Json, scores_of
from dermalyze.report.figures import PER_CLASS_PANELS, PER_CLASS_TITLES
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.style import class_styles
from dermalyze.report.text import cell, interval_or_note, meanings, value_text
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import Task


def class_tables(task: Task, spec: EvaluateSpec) -> dict[str, Any]:
    """Every per-class metric, the partial AUROC above the experiment's minimum sensitivity."""
    each = task.class_metrics(spec.ece_bins)
    partial_auroc = partial(metrics.partial_auroc, floor=spec.sensitivity_floor)
    return {name: partial_auroc if name == "partial_auroc" else metric for name, metric in each.items()}


def overall_estimates(p: Predictions, spec: EvaluateSpec, answering: Answering) -> dict[str, Any]:
    """The overall metrics of other predictions with their intervals, for comparison."""
    found = bootstrap.estimates(
        scores_of(p, answering), p.groups, p.task.overall_metrics(spec.ece_bins), resamples=spec.resamples, level=spec.level,
        seed=spec.seed, names=p.classes, basic=p.task.basic,
    )  # fmt: skip
    return {name: one.as_dict() for name, one in found.items() if isinstance(one, bootstrap.Estimate)}


def measured(j: Evaluation) -> dict[str, Any]:
    """Overall metrics, and metrics of each class.

    Each metric is {value, low, high, n, groups, undefined, note}; null with a note if it is not estimable.
    """
    overall, each = j.task.overall_metrics(j.spec.ece_bins), class_tables(j.task, j.spec)
    found = bootstrap.estimates(
        j.scores, j.p.groups, {**overall, **each}, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed,
        names=j.classes, basic=j.task.basic,
    )  # fmt: skip
    index, _ = bootstrap.group_index(j.p.groups)
    members_NC = j.task.membership(j.p.labels, len(j.classes))
    thresholds = None if j.answering.thresholds is None else j.answering.thresholds.tolist()
    return {
        "metrics": {name: found[name].as_dict() for name in overall},  # type: ignore[union-attr]
        "per_class": {
            name: {
                "description": describe(name),
                "support": int(members_NC[:, c].sum()),
                "groups": len(np.unique(index[members_NC[:, c]])),
                **({} if thresholds is None else {"threshold": thresholds[c]}),
                **{key: found[key][c].as_dict() for key in each},  # type: ignore[index]
            }
            for c, name in enumerate(j.classes)
        },
    }


def build(j: Evaluation) -> dict[str, Any]:
    """Overall metrics, metrics of each class, confusion matrix."""
    counts = metrics.Tally(j.scores, np.ones((len(j.p), 1))).confusion[0].astype(int)
    return {
        **measured(j),
        "sensitivity_floor": j.spec.sensitivity_floor,
        "confusion_matrix": {"labels": j.classes, "counts": counts.tolist()},
    }


def overall_view(m: Json) -> dict[str, Any]:
    """The table of overall metrics."""
    return {"rows": [_metric_row(name, m) for name in m["metrics"]], "level": f"{100 * m['level']:g} %"}


def class_view(m: Json) -> dict[str, Any]:
    """The tables of per-class metrics: the common ones and the others."""
    floor = m["sensitivity_floor"]
    return {
        "floor": f"{floor:g}",
        "best_partial": f"{1 - floor:g}",
        "tables": [
            {
                "columns": list(titles.values()),
                "rows": [
                    {
                        "name": name,
                        "colour": style.colour,
                        "cells": [
                            {"value": value_text(e), "interval": interval_or_note(e), "note": e["low"] is None}
                            for e in (values[key] for key in titles)
                        ],
                        **{key: values[key] for key in ("description", "support", "groups")},
                    }
                    for (name, values), style in zip(m["per_class"].items(), class_styles(m["classes"]), strict=True)
                ],
            }
            for titles in (PER_CLASS_TITLES, MORE_CLASS_TITLES)
        ],
    }


MORE_CLASS_TITLES = {
    "npv": "NPV", "false_positive_rate": "false positive rate", "false_negative_rate": "false negative rate",
    "class_kappa": "kappa", "class_mcc": "Matthews", "partial_auroc": "partial AUROC",
}  # fmt: skip


def _metric_row(name: str, m: Json) -> dict[str, Any]:
    title, best, meaning = meanings(m)[name]
    estimate = m["metrics"][name]
    return {
        "name": title,
        "value": value_text(estimate),
        "interval": interval_or_note(estimate),
        "validation": None if m["validation"] is None else cell(m["validation"][name]),
        "best": best,
        "meaning": meaning,
    }


def overall_figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """Confusion matrix, ROC curves and precision-recall curves."""
    classes, leak = m["classes"], m["accepted_leak"]
    labels, probs = j.scores.labels, j.scores.probs
    present = [0 < int((labels == c).sum()) < len(labels) for c in range(len(classes))]
    curves = [metrics.roc_curve(labels, probs, c) if present[c] else None for c in range(len(classes))]
    aurocs = [m["per_class"][name]["auroc"] | {"n": m["per_class"][name]["support"]} for name in classes]
    recalled = [metrics.pr_curve(labels, probs, c) if present[c] else None for c in range(len(classes))]
    precisions = [m["per_class"][name]["average_precision"] | {"n": m["per_class"][name]["support"]} for name in classes]
    matrix = figures.confusion_matrix(
        m["confusion_matrix"]["counts"], classes, title=figure_title("Confusion matrix", m), leak=leak
    )
    roc = roc_curves(curves, classes, aurocs, m["metrics"]["macro_auroc"], title=figure_title("ROC curves", m), leak=leak)
    recall = pr_curves(
        recalled, classes, precisions, images=len(labels), title=figure_title("Precision-recall curves", m), leak=leak
    )
    return {
        "confusion_matrix.png": Figure(
            matrix,
            "Confusion matrix: rows are true classes, columns are predicted classes. Left, each row sums to 1, so "
            f"the diagonal is the sensitivity; right, the number of images. {confusions(m)}",
        ),
        "roc_curves.png": Figure(
            roc,
            "ROC curves, each class against all others: sensitivity against the false positive rate. Closer to the upper left "
            "corner is better. A stepped curve means few images and therefore a wide interval.",
        ),
        "pr_curves.png": Figure(
            recall,
            "Precision-recall curves, each class against all others: as sensitivity rises, precision usually falls. "
            "The dotted line is chance, the share of the class in this set. In a set with another share, both curve and line "
            "are at another height. AP is average precision.",
        ),
    }


def class_figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """Sensitivity, precision and AUROC of each class with intervals."""
    title = figure_title("Per-class performance", m)
    return {
        "per_class_metrics.png": Figure(
            figures.per_class_metrics(m["per_class"], m["classes"], title=title, leak=m["accepted_leak"]),
            f"Per-class performance: {', '.join(PER_CLASS_PANELS.values())}. Black lines are intervals; a long one means "
            "that the set has few groups of the class. Look for classes with high AUROC and low sensitivity: the model "
            "ranks them well but predicts another class.",
        )
    }


def confusions(m: Json, most: int = 3) -> str:
    """The most common errors in words.

    >>> confusions({"confusion_matrix": {"labels": ["mel", "nv"], "counts": [[8, 2], [0, 90]]}})
    'Most common errors: mel predicted nv (2 of 10).'
    """
    labels, counts = m["confusion_matrix"]["labels"], m["confusion_matrix"]["counts"]
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:most]
    if not worst:
        return "There are no errors."
    said = [f"{labels[i]} predicted {labels[j]} ({n:,} of {sum(counts[i]):,})" for n, i, j in worst]
    return f"Most common errors: {', '.join(said)}."
