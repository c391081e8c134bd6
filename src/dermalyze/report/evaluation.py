"""Predictions to a report: judge them, draw the figures, write the page. Pure and repeatable; needs no model."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.config.classes import describe
from dermalyze.config.experiment import EvaluateSpec
from dermalyze.core.atomic import write_bytes, write_json, write_text
from dermalyze.core.result import DISCLAIMER
from dermalyze.data.predictions import Predictions
from dermalyze.ops import bootstrap, calibration, metrics
from dermalyze.ops import selective as silence
from dermalyze.ops.calibrators import Calibrator
from dermalyze.report import figures
from dermalyze.report.html import page

METRICS_NAME, PAGE_NAME = "evaluation_metrics.json", "report.html"
HAM10000_IDS = ("ISIC_0024306", "ISIC_0034320")
"""Its first and last image_id; all between are its own."""
HAM10000_BIASES = (
    "Limited diversity of skin tones: mostly patients of European and Australian clinics, few dark skins.",
    "Dermoscopic images taken by professionals; clinical and phone photographs look different.",
    "Collected before 2018, with the devices and practice of that time.",
    "Labels come by different means (histology, follow-up, expert consensus, confocal microscopy), more often by "
    "histology where malignant.",
    "Lesions were selected for diagnosis; how common the classes are here is not how common they are anywhere else.",
)


def scores_of(p: Predictions, calibrator: Calibrator) -> metrics.Scores:
    """Labels and calibrated probabilities of stored predictions."""
    return metrics.Scores(p.labels, calibrator(p.logits.astype(np.float64)))


def tables(spec: EvaluateSpec) -> dict[str, Any]:
    """Every overall metric, ECE with the experiment's bins among them."""
    return {**metrics.METRICS, "ece": partial(calibration.ece, bins=spec.ece_bins)}


def judge(p: Predictions, spec: EvaluateSpec, calibrator: Calibrator) -> dict[str, Any]:
    """Every figure of a set of predictions, JSON-ready: overall, by class, confusion matrix, calibration.

    Each metric is {value, low, high, n, groups, undefined, note}; null with a note where it cannot be estimated.

    Args:
        p: predictions, with the groups that are resampled.
        spec: resamples, level, bins and seed.
        calibrator: stands between the scores and the probabilities.

    Raises:
        ModelError: probabilities that are none.
    """
    scores, classes = scores_of(p, calibrator), p.classes
    found = bootstrap.estimates(
        scores, p.groups, {**tables(spec), **metrics.PER_CLASS_METRICS}, resamples=spec.resamples, level=spec.level,
        seed=spec.seed, names=classes, basic=frozenset({"ece"}),
    )  # fmt: skip
    overall = {name: found[name].as_dict() for name in tables(spec)}  # type: ignore[union-attr]
    each = {name: found[name] for name in metrics.PER_CLASS_METRICS}
    index, groups = bootstrap.group_index(p.groups)
    counts = metrics.Tally(scores, np.ones((len(p), 1))).confusion[0].astype(int)
    per_class = {
        name: {
            "description": describe(name),
            "support": int(scores.support[c]),
            "groups": len(np.unique(index[scores.labels == c])),
            **{key: values[c].as_dict() for key, values in each.items()},  # type: ignore[index]
        }
        for c, name in enumerate(classes)
    }
    bins = calibration.reliability(scores, index, bins=spec.ece_bins, level=spec.level)
    return {
        "classes": classes,
        "n_images": len(p),
        "n_groups": groups,
        "resamples": spec.resamples,
        "level": spec.level,
        "least_groups": bootstrap.MIN_GROUPS,
        "least_class_groups": bootstrap.MIN_CLASS_GROUPS,
        "methods": methods(spec),
        "disclaimer": DISCLAIMER,
        "metrics": overall,
        "per_class": per_class,
        "confusion_matrix": {"labels": classes, "counts": counts.tolist()},
        "calibration": {
            "calibrator": calibrator.kind,
            "bins": [b.as_dict() for b in bins],
            "binning": "equal width, top label, upper edge included",
            "errors": [error.as_dict() for error in calibration.calibration_errors(scores, index, seed=spec.seed)],
            "classwise_ece": calibration.classwise_ece(scores, spec.ece_bins),
            "brier_parts": calibration.brier_parts(scores, spec.ece_bins),
            "before": _before(p, spec),
        },
    }


def selective(p: Predictions, spec: EvaluateSpec, calibrator: Calibrator, reference: Predictions | None) -> dict[str, Any]:
    """What silence would gain: quality of each confidence, and the answers that remain at several coverages.

    Args:
        p: predictions to judge.
        spec: resamples, level and seed.
        calibrator: of both.
        reference: predictions of the calibration part, from which the thresholds come; None: no thresholds.
    """
    scores = scores_of(p, calibrator)
    wrong = (scores.predicted != scores.labels).astype(np.float64)
    focus = p.classes.index("mel") if "mel" in p.classes else None
    rows = []
    if reference is not None and len(reference):
        confidence, known = (silence.CONFIDENCES[silence.CONFIDENCE](scores_of(q, calibrator).probs) for q in (p, reference))
        for asked in silence.COVERAGES:
            threshold = silence.threshold_for(known, asked)
            wanted = silence.answered_metrics((confidence >= threshold).astype(np.float64), scores, focus)
            found = bootstrap.estimates(
                scores, p.groups, wanted, resamples=spec.resamples, level=spec.level, seed=spec.seed, names=p.classes
            )
            rows.append({"asked": asked, "threshold": threshold, **{k: e.as_dict() for k, e in found.items()}})  # type: ignore[union-attr]
    return {
        "confidence": silence.CONFIDENCE,
        "part": reference.meta["set"] if reference is not None else None,
        "focus": None if focus is None else "mel",
        "quality": {name: silence.quality(of(scores.probs), wrong) for name, of in silence.CONFIDENCES.items()},
        "coverages": rows,
    }


def _before(p: Predictions, spec: EvaluateSpec) -> dict[str, Any]:
    """What calibration started from: the same figures of the plain softmax."""
    plain = Calibrator("none", {})
    index, _ = bootstrap.group_index(p.groups)
    scores = scores_of(p, plain)
    errors = calibration.calibration_errors(scores, index, counts=(spec.ece_bins,), seed=spec.seed)
    bins = calibration.reliability(scores, index, bins=spec.ece_bins, level=spec.level)
    return {
        "metrics": point_values(p, spec, plain),
        "errors": [error.as_dict() for error in errors],
        "bins": [b.as_dict() for b in bins],
    }


def methods(spec: EvaluateSpec) -> str:
    """How the numbers were made, in words."""
    return (
        f"Intervals: {spec.resamples:,} resamples of whole groups with replacement (cluster bootstrap), "
        f"{100 * spec.level:g} % percentile "
        "intervals; for ECE, which noise biases upwards, the basic (reflected) interval. No interval with fewer than "
        f"{bootstrap.MIN_GROUPS} "
        f"groups ({bootstrap.MIN_CLASS_GROUPS} of a class for that class's figures), or where more than "
        f"{100 * bootstrap.MAX_UNDEFINED:g} % "
        "of the resamples leave the metric undefined. A mean over classes is not estimable where a class is absent; "
        "precision is undefined "
        f"for a class that is never called. AUROC by midranks, one class against the rest. ECE over {spec.ece_bins} "
        "equal-width bins of the "
        "predicted class's probability. Brier in its multi-class sum form (0 to 2). Computed in float64 from stored logits."
    )


def point_values(p: Predictions, spec: EvaluateSpec, calibrator: Calibrator) -> dict[str, float | None]:
    """The overall metrics without intervals, for reference."""
    tally = metrics.Tally(scores_of(p, calibrator), np.ones((len(p), 1)))
    return {name: metrics.defined(metric(tally)[0]) for name, metric in tables(spec).items()}


def draw(m: Mapping[str, Any], p: Predictions, calibrator: Calibrator) -> dict[str, bytes]:
    """The figures by file name; their numbers come from `m`, the ROC curves' course from `p` and its calibrator."""
    classes, leak = m["classes"], m["accepted_leak"]
    part = "Test part" if m["set"] == "test" else f"External set {m['set']}"
    title = f"{part}, {m['n_images']:,} images of {m['n_groups']:,} groups, recipe {m['recipe']}"
    probs = scores_of(p, calibrator).probs
    before = m["calibration"]["before"]["bins"] if calibrator.kind != "none" else None
    present = [0 < int((p.labels == c).sum()) < len(p) for c in range(len(classes))]
    curves = [metrics.roc_curve(p.labels, probs, c) if present[c] else None for c in range(len(classes))]
    aurocs = [m["per_class"][name]["auroc"] | {"n": m["per_class"][name]["support"]} for name in classes]
    return {
        "confusion_matrix.png": figures.confusion_matrix(
            m["confusion_matrix"]["counts"], classes, title=f"Confusion matrix. {title}", leak=leak
        ),
        "roc_curves.png": figures.roc_curves(
            curves, classes, aurocs, m["metrics"]["macro_auroc"], title=f"ROC curves. {title}", leak=leak
        ),
        "per_class_metrics.png": figures.per_class_metrics(
            m["per_class"], classes, title=f"Class by class. {title}", leak=leak
        ),
        "risk_coverage.png": figures.risk_coverage(
            silence.CONFIDENCES[silence.CONFIDENCE](probs),
            (probs.argmax(axis=1) != p.labels).astype(np.float64),
            m["selective"]["coverages"],
            title=f"Keeping silent. {title}",
            leak=leak,
        ),
        "calibration_curve.png": figures.calibration_curve(
            m["calibration"]["bins"], m["metrics"]["ece"], before=before, title=f"Calibration. {title}", leak=leak
        ),
    }


def write_report(folder: Path, m: Mapping[str, Any], p: Predictions, calibrator: Calibrator) -> list[Path]:
    """Draw and write everything into `folder`, the metrics file last: where it is, the rest is complete.

    Raises:
        ResourceError: the folder cannot be written.
    """
    images = draw(m, p, calibrator)
    text = page(m, images)
    (folder / METRICS_NAME).unlink(missing_ok=True)
    for name, data in images.items():
        write_bytes(folder / name, data)
    write_text(folder / PAGE_NAME, text)
    write_json(folder / METRICS_NAME, m)
    return [folder / name for name in (METRICS_NAME, PAGE_NAME, *images)]


def versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    found = {"python": platform.python_version()}
    for name in ("dermalyze", "numpy", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
