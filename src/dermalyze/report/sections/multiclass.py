"""What a report on one class an image shows, in its order on the page, and the figures that come first."""

from __future__ import annotations

from dermalyze.report import (
    abstention,
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
from dermalyze.report.evaluation_data import Json
from dermalyze.report.section import Section, entry
from dermalyze.report.text import MEANINGS
from dermalyze.tasks.base import TASKS

SECTIONS: dict[str, Section] = {
    "data": Section("The set", "external.html.jinja", entry("external")),
    "shift": Section("How it differs from where the model was made", "shift.html.jinja", shift.view, shift.build),
    "recalibration": Section(
        "What recalibration here would gain", "recalibration.html.jinja", recalibration.view, recalibration.build
    ),
    "split": Section("How the data was divided", "split.html.jinja", entry("split")),
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
    "biases": Section("Known biases of the training data", "biases.html.jinja", entry("known_biases")),
}


def headline(m: Json) -> list[tuple[str, Json]]:
    """Overall figures, the sensitivity for melanoma (or else for the worst class), and ECE."""
    rows = [(MEANINGS[name][0], m["metrics"][name]) for name in TASKS["multiclass"].headline]
    per_class: Json = m["per_class"]
    known = [name for name in per_class if per_class[name]["recall"]["value"] is not None]
    if "mel" in per_class:
        rows.append(("melanoma sensitivity", per_class["mel"]["recall"]))
    elif known:
        worst = min(known, key=lambda name: float(per_class[name]["recall"]["value"]))
        rows.append((f"lowest sensitivity: {worst}", per_class[worst]["recall"]))
    return [*rows, ("calibration error (ECE)", m["metrics"]["ece"])]
