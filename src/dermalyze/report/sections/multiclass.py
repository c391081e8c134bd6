"""The sections of a report with one class per image, in page order, and its headline metrics."""

from __future__ import annotations

from dermalyze.report import aggregation as units
from dermalyze.report import conformal as sets
from dermalyze.report import (
    controls,
    discrimination,
    largest_errors,
    operating,
    reader,
    recalibration,
    reliability,
    robustness,
    selective_prediction,
    shift,
    subgroups,
    uncertainty,
)
from dermalyze.report import ood_images as foreign
from dermalyze.report.evaluation_data import Json
from dermalyze.report.section import Section, entry
from dermalyze.report.text import MEANINGS
from dermalyze.tasks.base import TASKS

SECTIONS: dict[str, Section] = {
    "data": Section("Data", "external.html.jinja", entry("external")),
    "shift": Section("Distribution shift", "shift.html.jinja", shift.view, shift.build),
    "recalibration": Section("Recalibration", "recalibration.html.jinja", recalibration.view, recalibration.build),
    "split": Section("Splits", "split.html.jinja", entry("split")),
    "metrics": Section(
        "Performance", "metrics.html.jinja", discrimination.overall_view, discrimination.build, discrimination.overall_figures
    ),
    "units": Section("Image, lesion and patient level", "units.html.jinja", units.view, units.build),
    "classes": Section(
        "Per-class performance", "classes.html.jinja", discrimination.class_view, figures=discrimination.class_figures
    ),
    "operating": Section(
        "Operating points",
        "operating.html.jinja",
        operating.view,
        operating.build,
        operating.figures,
    ),
    "reader": Section("Reader comparison", "reader.html.jinja", reader.view, reader.build),
    "calibration": Section(
        "Calibration",
        "calibration.html.jinja",
        reliability.view,
        reliability.build,
        reliability.draw,
    ),
    "selective_prediction": Section(
        "Selective prediction",
        "selective_prediction.html.jinja",
        selective_prediction.view,
        selective_prediction.build,
        selective_prediction.draw,
    ),
    "uncertainty": Section("Uncertainty", "uncertainty.html.jinja", uncertainty.view, uncertainty.build, uncertainty.draw),
    "sets": Section("Conformal prediction", "sets.html.jinja", sets.view, sets.build),
    "decision": Section("Decision rule", "decision.html.jinja", foreign.decision_view, foreign.build_decision),
    "foreign": Section("Out-of-distribution detection", "foreign.html.jinja", foreign.ood_view, foreign.build_ood),
    "corruptions": Section(
        "Corruption robustness", "corruptions.html.jinja", robustness.view, robustness.build, robustness.draw_figures
    ),
    "subgroups": Section("Subgroups", "subgroups.html.jinja", subgroups.view, subgroups.build, subgroups.figures),
    "largest_errors": Section(
        "Largest errors", "largest_errors.html.jinja", largest_errors.view, largest_errors.build, largest_errors.figures
    ),
    "controls": Section("Negative controls", "controls.html.jinja", controls.view),
    "biases": Section("Known biases of the training data", "biases.html.jinja", entry("known_biases")),
}


def headline(m: Json) -> list[tuple[str, Json]]:
    """Overall metrics, the sensitivity of each class of `evaluate.focus` (without one: the lowest of a class), and ECE."""
    rows = [(MEANINGS[name][0], m["metrics"][name]) for name in TASKS["multiclass"].headline]
    per_class: Json = m["per_class"]
    known = [name for name in per_class if per_class[name]["recall"]["value"] is not None]
    if m["focus"]:
        rows += [(f"sensitivity: {per_class[name]['description']}", per_class[name]["recall"]) for name in m["focus"]]
    elif known:
        worst = min(known, key=lambda name: float(per_class[name]["recall"]["value"]))
        rows.append((f"lowest sensitivity: {worst}", per_class[worst]["recall"]))
    return [*rows, (f"calibration error (ECE, {m['ece_bins']} bins)", m["metrics"]["ece"])]
