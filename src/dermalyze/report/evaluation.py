"""Predictions to a report: measure them, draw the figures, write the page. Pure and repeatable; needs no model."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.core.atomic import write_bytes, write_json, write_text
from dermalyze.core.result import DISCLAIMER
from dermalyze.metrics import bootstrap
from dermalyze.report import checklists
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.html import page
from dermalyze.report.model_card import model_card
from dermalyze.report.sections import build_sections, draw_sections, shown_titles
from dermalyze.tasks.base import Task

METRICS_NAME, PAGE_NAME = "evaluation_metrics.json", "report.html"
CARD_NAME, CHECKLISTS_NAME = "model_card.md", "checklists.md"
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


def measure(j: Evaluation) -> dict[str, Any]:
    """Every figure of a set of predictions, JSON-ready; what the sections give, and how it was made.

    Raises:
        ModelError: probabilities that are none.
    """
    return {
        "task": j.task.kind,
        "classes": j.classes,
        "n_images": len(j.p),
        "n_groups": len(set(j.p.groups)),
        "resamples": j.spec.resamples,
        "level": j.spec.level,
        "least_groups": bootstrap.MIN_GROUPS,
        "least_class_groups": bootstrap.MIN_CLASS_GROUPS,
        "methods": methods(j.spec, j.task),
        "disclaimer": DISCLAIMER,
        **build_sections(j),
    }


def methods(spec: EvaluateSpec, task: Task) -> str:
    """How the numbers were made, in words."""
    return (
        f"Intervals: {spec.resamples:,} resamples of whole groups with replacement (cluster bootstrap), {100 * spec.level:g} % "
        "percentile intervals; for ECE, which noise biases upwards, the basic (reflected) interval. No interval with fewer "
        f"than {bootstrap.MIN_GROUPS} groups ({bootstrap.MIN_CLASS_GROUPS} of a class or label for its figures), or where more "
        f"than {100 * bootstrap.MAX_UNDEFINED:g} % of the resamples leave the metric undefined. {task.methods(spec.ece_bins)} "
        "Computed in float64 from stored logits."
    )


def write_report(folder: Path, m: Mapping[str, Any], j: Evaluation) -> list[Path]:
    """Draw and write everything into `folder`, the metrics file last: where it is, the rest is complete.

    Raises:
        ResourceError: the folder cannot be written.
    """
    figures = draw_sections(m, j)
    texts = {PAGE_NAME: page(m, figures)}
    if m["files"] is not None:  # a run's own test part, not another set
        texts |= {CARD_NAME: model_card(m), CHECKLISTS_NAME: checklists.markdown(m, shown_titles(m))}
    (folder / METRICS_NAME).unlink(missing_ok=True)
    images = {name: figure.data for of_section in figures.values() for name, figure in of_section.items()}
    for name, data in images.items():
        write_bytes(folder / name, data)
    for name, text in texts.items():
        write_text(folder / name, text)
    write_json(folder / METRICS_NAME, m)
    return [folder / name for name in (METRICS_NAME, *texts, *images)]


def versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    found = {"python": platform.python_version()}
    for name in ("dermalyze", "numpy", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
