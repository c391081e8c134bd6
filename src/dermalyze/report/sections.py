"""The sections of a report, in their order on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermalyze.report import (
    abstention,
    checklists,
    controls,
    discrimination,
    failures,
    for_whom,
    operating,
    reader,
    recalibration,
    reliability,
    robustness,
    shift,
    uncertainty,
)
from dermalyze.report import aggregation as units
from dermalyze.report import conformal as sets
from dermalyze.report import ood_images as foreign
from dermalyze.report.evaluation_data import Json, Judged
from dermalyze.report.section import Figure, Section


def _entry(key: str) -> Any:
    """The view of a section that prints one entry of the file as it is."""
    return lambda m: m[key] or None


SECTIONS: dict[str, Section] = {
    "data": Section("The set", "external.html.jinja", _entry("external")),
    "shift": Section("How it differs from where the model was made", "shift.html.jinja", shift.view, shift.build),
    "recalibration": Section(
        "What recalibration here would gain", "recalibration.html.jinja", recalibration.view, recalibration.build
    ),
    "split": Section("How the data was divided", "split.html.jinja", _entry("split")),
    "metrics": Section(
        "All figures", "metrics.html.jinja", discrimination.overall_view, discrimination.build, discrimination.overall_figures
    ),
    "units": Section("An image, a lesion, a patient", "units.html.jinja", units.view, units.build),
    "classes": Section("Class by class", "classes.html.jinja", discrimination.class_view, figures=discrimination.class_figures),
    "operating": Section(
        "Malignant or not, and from which probability on",
        "operating.html.jinja",
        operating.view,
        operating.build,
        operating.figures,
    ),
    "reader": Section("Beside a reader", "reader.html.jinja", reader.view, reader.build),
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
    "uncertainty": Section(
        "Where does the doubt come from?", "uncertainty.html.jinja", uncertainty.view, uncertainty.build, uncertainty.draw
    ),
    "sets": Section("Answering with a set", "sets.html.jinja", sets.view, sets.build),
    "decision": Section(
        "What is answered and what is referred", "decision.html.jinja", foreign.decision_view, foreign.build_decision
    ),
    "foreign": Section("Does it know what it has never seen?", "foreign.html.jinja", foreign.ood_view, foreign.build_ood),
    "corruptions": Section(
        "When the photograph is bad", "corruptions.html.jinja", robustness.view, robustness.build, robustness.draw_figures
    ),
    "for_whom": Section("For whom?", "for_whom.html.jinja", for_whom.view, for_whom.build, for_whom.figures),
    "failures": Section("The worst mistakes", "failures.html.jinja", failures.view, failures.build, failures.figures),
    "controls": Section("Is it real?", "controls.html.jinja", controls.view),
    "biases": Section("Known biases of the training data", "biases.html.jinja", _entry("known_biases")),
    "checklists": Section("Reporting checklists", "checklists.html.jinja", lambda m: checklists.view(m, shown_titles(m))),
}


def shown_titles(m: Json) -> dict[str, str]:
    """Titles of the sections that have something to show, by key; not the checklists themselves, which are filled from them."""
    return {key: section.title for key, section in SECTIONS.items() if key != "checklists" and section.view(m) is not None}


def build_sections(judged: Judged) -> dict[str, Any]:
    """What all sections put into `evaluation_metrics.json`."""
    return {key: value for section in SECTIONS.values() for key, value in section.build(judged).items()}


def draw_sections(m: Json, judged: Judged) -> Mapping[str, Mapping[str, Figure]]:
    """The figures by section and file name; of a section that is not shown there are none."""
    return {key: section.figures(m, judged) if section.view(m) is not None else {} for key, section in SECTIONS.items()}
