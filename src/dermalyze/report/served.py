"""The evaluation stored in a served model: its model card and its headline metrics."""

from __future__ import annotations

from typing import Any

from dermalyze.artifact.artifact import CARD_NAME, METRICS_NAME
from dermalyze.artifact.edit import rewrite, with_evaluation
from dermalyze.artifact.record import check_record
from dermalyze.core.atomic import json_bytes
from dermalyze.core.run import Run, read_json
from dermalyze.report.model_card import model_card
from dermalyze.report.operating import measured_points
from dermalyze.report.sections import headline

PER_CLASS = ("recall", "specificity", "precision", "auroc")


def served_metrics(m: dict[str, Any]) -> dict[str, Any]:
    """The content of the artifact's `metrics.json`: headline and per-class metrics and the reliability diagram, with
    intervals; nothing about single images.

    Args:
        m: the content of `evaluation_metrics.json` of a run's own test split.
    """
    classes = {
        name: {"description": row["description"], "support": row["support"], **{key: row[key] for key in PER_CLASS}}
        for name, row in m["per_class"].items()
    }
    return {
        "schema_version": 1,
        "title": m["title"],
        "set": m["set"],
        "recipe": m["recipe"],
        "n_images": m["n_images"],
        "n_groups": m["n_groups"],
        "level": m["level"],
        "methods": m["methods"],
        "accepted_leak": m["accepted_leak"],
        "known_biases": m["known_biases"],
        "headline": [{"name": name, **estimate} for name, estimate in headline(m)],
        "per_class": classes,
        "operating": measured_points(m.get("operating")),
        "reliability": {"calibrator": m["calibration"]["calibrator"], "bins": m["calibration"]["bins"]},
        "disclaimer": m["disclaimer"],
    }


def into_artifact(run: Run, m: dict[str, Any], scores_sha256: str | None) -> bool:
    """Put the evaluation into the run's exported artifact; an artifact of other scores or another calibration
    stays unchanged.

    Args:
        run: run with an export.
        m: the content of `evaluation_metrics.json`.
        scores_sha256: of the predictions that were evaluated.

    Returns:
        Whether the evaluation was stored in the artifact.
    """
    if not run.artifact_record_path.exists():
        return False
    values = read_json(run.artifact_record_path)
    if check_record(values).scores_sha256 != scores_sha256 or values["recipe"] != m["recipe"]:
        return False
    path = run.calibration_path(m["recipe"])
    if values.get("calibration") != (read_json(path).get("calibration") if path.exists() else None):
        return False  # the evaluated predictions are not those of the artifact
    files = {CARD_NAME: model_card(m).encode(), METRICS_NAME: json_bytes(served_metrics(m))}
    made = with_evaluation(values, files)
    if made != values:
        rewrite(run.artifact_dir, made, files)
    return True
