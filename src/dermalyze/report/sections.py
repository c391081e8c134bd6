"""The sections of a report, in their order on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermalyze.report import abstention, checklists, controls, discrimination, failures, reliability
from dermalyze.report.judged import Json, Judged
from dermalyze.report.section import Figure, Section


def _entry(key: str) -> Any:
    """The view of a section that prints one entry of the file as it is."""
    return lambda m: m[key] or None


SECTIONS: dict[str, Section] = {
    "data": Section("The set", "external.html.jinja", _entry("external")),
    "split": Section("How the data was divided", "split.html.jinja", _entry("split")),
    "metrics": Section(
        "All figures", "metrics.html.jinja", discrimination.overall_view, discrimination.build, discrimination.overall_figures
    ),
    "classes": Section("Class by class", "classes.html.jinja", discrimination.class_view, figures=discrimination.class_figures),
    "calibration": Section(
        "Can the probabilities be taken at their word?",
        "calibration.html.jinja",
        reliability.view,
        reliability.build,
        reliability.draw,
    ),
    "silence": Section(
        "When should it keep silent?",
        "silence.html.jinja",
        abstention.silence_view,
        abstention.build_silence,
        abstention.draw_silence,
    ),
    "sets": Section("Answering with a set", "sets.html.jinja", abstention.sets_view, abstention.build_sets),
    "failures": Section("The worst mistakes", "failures.html.jinja", failures.view, failures.build, failures.figures),
    "controls": Section("Is it real?", "controls.html.jinja", controls.view),
    "biases": Section("Known biases of the training data", "biases.html.jinja", _entry("known_biases")),
    "checklists": Section("Reporting checklists", "checklists.html.jinja", checklists.view),
}


def build_sections(judged: Judged) -> dict[str, Any]:
    """What all sections put into `evaluation_metrics.json`."""
    return {key: value for section in SECTIONS.values() for key, value in section.build(judged).items()}


def draw_sections(m: Json, judged: Judged) -> Mapping[str, Mapping[str, Figure]]:
    """The figures by section and file name; of a section that is not shown there are none."""
    return {key: section.figures(m, judged) if section.view(m) is not None else {} for key, section in SECTIONS.items()}
