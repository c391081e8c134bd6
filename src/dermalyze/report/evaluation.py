"""From predictions to a report: compute metrics, draw figures, write the page. Deterministic; needs no model."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dermalyze.config.classes import describe
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


def measure(j: Evaluation) -> dict[str, Any]:
    """Every metric of a set of predictions, ready for JSON: what the sections compute, and the methods.

    Raises:
        ModelError: values that are not probabilities.
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
        "ece_bins": j.spec.ece_bins,
        "focus": list(j.focus),
        "methods": methods(j.spec, j.task),
        "disclaimer": DISCLAIMER,
        "warnings": warnings_of(j),
        **build_sections(j),
    }


def warnings_of(j: Evaluation) -> list[str]:
    """What a reader has to know before any metric: a model that predicts one class alone, and predictions that are ties."""
    if not j.task.has("one_class") or not len(j.p):
        return []
    largest_N = j.scores.probs.max(axis=1, keepdims=True)
    ties, predicted = int(((j.scores.probs == largest_N).sum(axis=1) > 1).sum()), set(j.scores.probs.argmax(axis=1).tolist())
    said = []
    if len(predicted) == 1:
        said.append(
            f"The model predicts {describe(j.classes[predicted.pop()])} for every image. "
            "Its sensitivity is 1 for this class and 0 for all others, and does not show that it tells classes apart."
        )
    if ties:
        said.append(
            f"{ties:,} of {len(j.p):,} images have two or more classes of the same largest probability; the first of them, in "
            "the order of the classes, counts as predicted."
        )
    return said


def methods(spec: EvaluateSpec, task: Task) -> str:
    """The statistical methods, in words."""
    return (
        f"Intervals: {spec.resamples:,} resamples of whole groups with replacement (cluster bootstrap), {100 * spec.level:g} % "
        "percentile intervals; for ECE, which noise biases upwards, basic (reflected) intervals. No interval is given "
        f"with fewer than {bootstrap.MIN_GROUPS} groups ({bootstrap.MIN_CLASS_GROUPS} of a class or label, for its metrics) "
        f"or if more than {100 * bootstrap.MAX_UNDEFINED:g} % of the resamples leave the metric undefined. A share of 0 or 1, "
        "which every resample repeats, has the exact interval (Clopper-Pearson) with groups as independent cases. "
        f"{task.methods(spec.ece_bins)} Computed in float64 from stored logits."
    )


def write_report(folder: Path, m: Mapping[str, Any], j: Evaluation) -> list[Path]:
    """Draw and write everything into `folder`, the metrics file last: if it exists, the rest is complete.

    Raises:
        ResourceError: the folder cannot be written.
    """
    figures = draw_sections(m, j)
    texts = {PAGE_NAME: page(m, figures)}
    if m["files"] is not None:  # a run's own test split, not an external set
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
    """Versions of the software that computed the metrics."""
    found = {"python": platform.python_version()}
    for name in ("dermalyze", "numpy", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
