"""Calibration of the probabilities."""

from __future__ import annotations

from typing import Any

from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.metrics import bootstrap
from dermalyze.metrics import calibration_error as calibration
from dermalyze.report import figures
from dermalyze.report.discrimination import overall_estimates
from dermalyze.report.evaluation_data import Evaluation, Json, scores_of
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.text import MEANINGS, cell, number
from dermalyze.scoring.predictions import Predictions


def build(j: Evaluation) -> dict[str, Any]:
    """Reliability bins, errors next to those of a perfect model, Brier decomposition, and values before calibration."""
    if j.scores.ranks_only:
        return {"calibration": None}
    index, _ = bootstrap.group_index(j.p.groups)
    bins = calibration.reliability(j.scores, index, bins=j.spec.ece_bins, level=j.spec.level)
    return {
        "calibration": {
            "calibrator": j.calibrator.kind,
            "given": j.p.meta.get("scores") == "probabilities",
            "fitted": j.fitted,
            "bins": [b.as_dict() for b in bins],
            "binning": "equal width, top label, upper edge included",
            "errors": [error.as_dict() for error in calibration.calibration_errors(j.scores, index, seed=j.spec.seed)],
            "classwise_ece": calibration.classwise_ece(j.scores, j.spec.ece_bins),
            "brier_parts": calibration.brier_decomposition(j.scores, j.spec.ece_bins),
            "before": _before(j.p, j.spec),
        }
    }


def _before(p: Predictions, spec: EvaluateSpec) -> dict[str, Any]:
    """Before calibration: the same metrics of the plain softmax."""
    plain = p.answering()
    index, _ = bootstrap.group_index(p.groups)
    scores = scores_of(p, plain)
    errors = calibration.calibration_errors(scores, index, counts=(spec.ece_bins,), seed=spec.seed)
    bins = calibration.reliability(scores, index, bins=spec.ece_bins, level=spec.level)
    return {
        "metrics": overall_estimates(p, spec, plain),
        "errors": [error.as_dict() for error in errors],
        "bins": [b.as_dict() for b in bins],
    }


def view(m: Json) -> dict[str, Any] | None:
    """What the page shows: how the probabilities were computed, before and after, next to a perfectly calibrated model; None
    for scores that are no probabilities."""
    c = m["calibration"]
    if c is None:
        return None
    fitted = c["fitted"]
    kind = c["calibrator"].replace("_", " ")
    if c["given"]:
        how = "The probabilities are those of the imported predictions file, unchanged."
    elif c["calibrator"] == "none":
        how = "The probabilities are the plain softmax of the scores; no calibrator was applied."
    else:
        how = (
            f"Scores become probabilities by a calibrator of kind {kind}, fitted on {fitted['images']:,} images "
            f"({fitted['groups']:,} groups) of the {fitted['part']} split."
        )
    if fitted and fitted["part"] == "val":
        how += " That split was also used for early stopping, so the fit is slightly optimistic."
    changed = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
    before = c["before"]["metrics"]
    parts = c["brier_parts"]
    return {
        "how": how,
        "changes": [(MEANINGS[name][0], cell(before[name]), cell(m["metrics"][name])) for name in changed]
        if c["calibrator"] != "none"
        else [],
        "errors": [
            {
                "name": f"{error['bins']} bins of {error['binning']}",
                **{key: number(error[key]) for key in ("value", "largest", "perfect", "high")},
                "p": number(error["p_value"]),
            }
            for error in c["errors"]
        ],
        "classwise": None if c["classwise_ece"] is None else number(c["classwise_ece"]),
        "parts": None if parts is None else ", ".join(f"{name} {number(value)}" for name, value in parts.items()),
        "trials": [
            (t["kind"].replace("_", " "), f"{t['log_loss']:.4f}", t["kind"] == c["calibrator"]) for t in fitted["trials"]
        ]
        if fitted and fitted["trials"]
        else [],
    }


def draw(m: Json, j: Evaluation) -> dict[str, Figure]:
    """The reliability diagram, before and after."""
    c = m["calibration"]
    before = c["before"]["bins"] if c["calibrator"] != "none" else None
    title = figure_title("Calibration", m)
    return {
        "calibration_curve.png": Figure(
            figures.calibration_curve(c["bins"], m["metrics"]["ece"], before=before, title=title, leak=m["accepted_leak"]),
            "Reliability diagram: accuracy against confidence. On the dotted line the model is perfectly calibrated; below it "
            "the model is overconfident. Lower panel: images per point. Vertical lines are Wilson intervals with the number "
            "of groups as sample size. The thin gray line, if there is one, is the model before calibration.",
        )
    }
