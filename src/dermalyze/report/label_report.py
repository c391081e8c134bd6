"""The report on images with any number of labels each: its sections, in their order, and the page."""

# Shapes: N images, C labels.

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.config.classes import describe
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_bytes, write_json, write_text
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.metrics import bootstrap
from dermalyze.metrics import classification as metrics
from dermalyze.metrics import multilabel as label_scores
from dermalyze.report import label_calibration, label_failures
from dermalyze.report.curves import pr_curves
from dermalyze.report.evaluation import METRICS_NAME, PAGE_NAME
from dermalyze.report.evaluation_data import Json
from dermalyze.report.figures import per_class_metrics, roc_curves
from dermalyze.report.html import page
from dermalyze.report.label_judged import JudgedLabels
from dermalyze.report.run_summary import NOT_FOR
from dermalyze.report.section import Figure, Section, figure_title
from dermalyze.report.style import class_styles
from dermalyze.report.text import LABEL_MEANINGS, cell, interval_or_note, value_text
from dermalyze.scoring.predictions import Predictions

CARDS = ("macro_auroc", "macro_average_precision", "macro_f1", "micro_f1", "subset_accuracy", "macro_ece")
TITLES = {
    "auroc": "AUROC", "average_precision": "average precision", "f1": "F1", "recall": "sensitivity",
    "specificity": "specificity", "precision": "precision",
}  # fmt: skip


def about(run: Run, spec: ExperimentSpec, p: Predictions) -> dict[str, list[str]]:
    """What the model is and was made from, and what it must not be used for, in sentences."""
    train = run.certificate()["counts"]["train"]
    weights = "given weights" if spec.model.weights or spec.model.pretrained else "random weights"
    return {
        "sentences": [
            f"A network that tells of each of {len(p.classes)} labels ({', '.join(p.classes)}) how probable it is on a "
            f"picture, which may have several or none: {spec.model.backbone} with a head of kind {spec.model.head.kind}, "
            f"trained from {weights} on {train['images']:,} images of {train['groups']:,} groups, loss {spec.train.loss.kind}."
        ],
        "not_for": [NOT_FOR[0], NOT_FOR[1], "findings that are not among its labels: it knows no others", NOT_FOR[3]],
    }


def _overall(spec: EvaluateSpec) -> dict[str, Any]:
    return {**label_scores.LABEL_METRICS, "macro_ece": partial(label_scores.macro, _each(spec)["ece"])}


def _each(spec: EvaluateSpec) -> dict[str, Any]:
    return {**label_scores.PER_LABEL_METRICS, "ece": partial(label_scores.ece, bins=spec.ece_bins)}


def build(j: JudgedLabels) -> dict[str, Any]:
    """Overall metrics and metrics of each label, each {value, low, high, n, groups, undefined, note}."""
    overall, each = _overall(j.spec), _each(j.spec)
    found = bootstrap.estimates(
        j.scores, j.p.groups, {**overall, **each}, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed,
        names=j.classes, basic=frozenset({"ece", "macro_ece"}),
    )  # fmt: skip
    index, _ = bootstrap.group_index(j.p.groups)
    return {
        "metrics": {name: found[name].as_dict() for name in overall},  # type: ignore[union-attr]
        "per_label": {
            name: {
                "description": describe(name),
                "support": int(j.scores.support[c]),
                "groups": len(np.unique(index[j.scores.positive[:, c]])),
                "threshold": float(j.thresholds[c]),
                **{key: found[key][c].as_dict() for key in each},  # type: ignore[index]
            }
            for c, name in enumerate(j.classes)
        },
        "without_label": int((~j.scores.positive.any(axis=1)).sum()),
        "labels_an_image": float(j.scores.positive.sum(axis=1).mean()) if len(j.p) else None,
    }


def judge(j: JudgedLabels) -> dict[str, Any]:
    """Every figure of a set of predictions, JSON-ready, and how it was made."""
    return {
        "classes": j.classes,
        "n_images": len(j.p),
        "n_groups": len(set(j.p.groups)),
        "resamples": j.spec.resamples,
        "level": j.spec.level,
        "least_groups": bootstrap.MIN_GROUPS,
        "least_class_groups": bootstrap.MIN_CLASS_GROUPS,
        "methods": methods(j.spec),
        "disclaimer": DISCLAIMER,
        **{key: value for section in SECTIONS.values() for key, value in section.build(j).items()},
    }


def methods(spec: EvaluateSpec) -> str:
    """How the numbers were made, in words."""
    return (
        f"Intervals: {spec.resamples:,} resamples of whole groups with replacement (cluster bootstrap), {100 * spec.level:g} % "
        "percentile intervals; for ECE, which noise biases upwards, the basic (reflected) interval. No interval with fewer "
        f"than {bootstrap.MIN_GROUPS} groups ({bootstrap.MIN_CLASS_GROUPS} that have a label for its figures), or "
        f"where more than {100 * bootstrap.MAX_UNDEFINED:g} % of the resamples leave the metric undefined. A macro mean is "
        "over the labels, and not estimable where the figure of one is not; a micro figure takes all pairs of an image and a "
        f"label together. AUROC by midranks. ECE of a label's own probability over {spec.ece_bins} equal-width bins; Brier "
        "score of a label from 0 to 1. Computed in float64 from stored logits."
    )


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
    return {"rows": rows, "level": f"{100 * m['level']:g} %", "without": f"{m['without_label']:,}", "many": many}


def overall_figures(m: Json, j: JudgedLabels) -> dict[str, Figure]:
    """ROC and precision-recall curves of each label."""
    labels, leak = m["classes"], m["accepted_leak"]
    support = [m["per_label"][name]["support"] for name in labels]
    present = [0 < n < m["n_images"] for n in support]
    # a curve of one class against the rest, on the label's own two sides
    sides = [
        (j.scores.positive[:, c].astype(np.int64), np.stack([1 - j.scores.probs[:, c], j.scores.probs[:, c]], axis=1))
        for c in range(len(labels))
    ]
    curves = [metrics.roc_curve(*side, 1) if there else None for side, there in zip(sides, present, strict=True)]
    recalled = [metrics.pr_curve(*side, 1) if there else None for side, there in zip(sides, present, strict=True)]
    aurocs, precisions = (
        [m["per_label"][name][key] | {"n": n} for name, n in zip(labels, support, strict=True)]
        for key in ("auroc", "average_precision")
    )
    macro = m["metrics"]["macro_auroc"]
    return {
        "roc_curves.png": Figure(
            roc_curves(curves, labels, aurocs, macro, title=figure_title("ROC curves", m), leak=leak),
            "ROC curves, a label each: up is more of the images with the label found, right is more of those without it called "
            "so by mistake. A stepped curve means few images, and a wide interval beside it.",
        ),
        "pr_curves.png": Figure(
            pr_curves(
                recalled,
                labels,
                precisions,
                images=m["n_images"],
                title=figure_title("Precision and sensitivity", m),
                leak=leak,
            ),
            "Precision and sensitivity, a label each. The dotted line is what guessing would give, the share of images with "
            "the label in this set; elsewhere both will lie at another height. AP is average precision.",
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
            for (name, values), style in zip(m["per_label"].items(), class_styles(m["classes"]), strict=True)
        ],
        "rule": {"f1": "with the largest F1", "youden": "with the largest sum of sensitivity and specificity"}.get(
            (m["calibration"]["fitted"] or {}).get("threshold_rule") or ""
        ),
        "part": (m["calibration"]["fitted"] or {}).get("part"),
    }


def label_figures(m: Json, j: JudgedLabels) -> dict[str, Figure]:
    """Sensitivity, precision, F1 and AUROC of each label with intervals."""
    drawn = per_class_metrics(m["per_label"], m["classes"], title=figure_title("Label by label", m), leak=m["accepted_leak"])
    said = "Label by label, at its threshold; black lines are intervals, and long ones mean that few groups have the label."
    return {"per_label_metrics.png": Figure(drawn, said)}


SECTIONS: dict[str, Section] = {
    "split": Section("How the data was divided", "label_split.html.jinja", lambda m: m["split"]),
    "metrics": Section("All figures", "label_metrics.html.jinja", overall_view, build, overall_figures),
    "labels": Section("Label by label", "labels.html.jinja", label_view, figures=label_figures),
    "calibration": Section(
        "Can the probabilities be taken at their word?", "label_calibration.html.jinja", label_calibration.view,
        label_calibration.build, label_calibration.draw,
    ),
    "failures": Section(
        "The worst mistakes", "label_failures.html.jinja", label_failures.view, label_failures.build, label_failures.figures,
    ),
}  # fmt: skip


def headline(m: Json) -> list[tuple[str, Json]]:
    """The figures that come first."""
    return [(LABEL_MEANINGS[name][0], m["metrics"][name]) for name in CARDS]


def write_report(folder: Path, m: Mapping[str, Any], j: JudgedLabels) -> list[Path]:
    """Draw and write everything into `folder`, the metrics file last: where it is, the rest is complete.

    Raises:
        ResourceError: the folder cannot be written.
    """
    drawn = {key: section.figures(m, j) if section.view(m) is not None else {} for key, section in SECTIONS.items()}
    images = {name: figure.data for of_section in drawn.values() for name, figure in of_section.items()}
    text = page(m, drawn, SECTIONS, headline)
    (folder / METRICS_NAME).unlink(missing_ok=True)
    for name, data in images.items():
        write_bytes(folder / name, data)
    write_text(folder / PAGE_NAME, text)
    write_json(folder / METRICS_NAME, m)
    return [folder / name for name in (METRICS_NAME, PAGE_NAME, *images)]
