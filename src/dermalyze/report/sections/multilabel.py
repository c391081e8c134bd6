"""The sections of a report with several labels per image, in page order, and its headline metrics."""

from __future__ import annotations

from dermalyze.report import multilabel_calibration, multilabel_errors, multilabel_metrics
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
    "split": Section("Splits", "multilabel_split.html.jinja", entry("split")),
    "metrics": Section(
        "Performance", "multilabel_metrics.html.jinja", multilabel_metrics.overall_view, multilabel_metrics.build,
        multilabel_metrics.overall_figures,
    ),
    "classes": Section(
        "Per-label performance", "multilabel_classes.html.jinja", multilabel_metrics.label_view,
        figures=multilabel_metrics.label_figures,
    ),
    "calibration": Section(
        "Calibration", "multilabel_calibration.html.jinja", multilabel_calibration.view,
        multilabel_calibration.build, multilabel_calibration.draw,
    ),
    **_shared("selective_prediction", "uncertainty", "decision", "foreign", "corruptions", "subgroups"),
    "largest_errors": Section(
        "Largest errors", "multilabel_errors.html.jinja", multilabel_errors.view, multilabel_errors.build,
        multilabel_errors.figures,
    ),
    **_shared("controls", "biases"),
}  # fmt: skip


def headline(m: Json) -> list[tuple[str, Json]]:
    """The headline metrics."""
    return [(LABEL_MEANINGS[name][0], m["metrics"][name]) for name in TASKS["multilabel"].headline]
