"""The sections of a report with several labels per image, in page order, and its headline metrics."""

from __future__ import annotations

from dermalyze.report import label_calibration, label_failures, labels
from dermalyze.report.evaluation_data import Json
from dermalyze.report.section import Section, entry
from dermalyze.report.sections import multiclass
from dermalyze.report.text import LABEL_MEANINGS
from dermalyze.tasks.base import TASKS


def _shared(*keys: str) -> dict[str, Section]:
    """Sections whose numbers have the same meaning for both tasks."""
    return {key: multiclass.SECTIONS[key] for key in keys}


SECTIONS: dict[str, Section] = {
    **_shared("data", "shift", "recalibration"),
    "split": Section("Splits", "label_split.html.jinja", entry("split")),
    "metrics": Section("Performance", "label_metrics.html.jinja", labels.overall_view, labels.build, labels.overall_figures),
    "classes": Section("Per-label performance", "labels.html.jinja", labels.label_view, figures=labels.label_figures),
    "calibration": Section(
        "Calibration", "label_calibration.html.jinja", label_calibration.view,
        label_calibration.build, label_calibration.draw,
    ),
    **_shared("silence", "uncertainty", "decision", "foreign", "corruptions", "for_whom"),
    "failures": Section(
        "Largest errors", "label_failures.html.jinja", label_failures.view, label_failures.build, label_failures.figures,
    ),
    **_shared("controls", "biases"),
}  # fmt: skip


def headline(m: Json) -> list[tuple[str, Json]]:
    """The headline metrics."""
    return [(LABEL_MEANINGS[name][0], m["metrics"][name]) for name in TASKS["multilabel"].headline]
