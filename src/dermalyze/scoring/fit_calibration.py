"""What a fitted calibrator is served with: its shares, referral threshold, sets and operating points, all of one part."""

# Shapes: N images, C classes.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.calibration.conformal import SERVED_SCORE, calibrate_conformal
from dermalyze.config.data import DataSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.inference import InferenceSpec
from dermalyze.config.task import TaskSpec
from dermalyze.data.sources.cards import focus_of, malignant_of
from dermalyze.metrics.classification import Scores
from dermalyze.metrics.operating_points import operating_points, questions
from dermalyze.metrics.selective import CONFIDENCE, CONFIDENCES, threshold_for
from dermalyze.scoring.predictions import Predictions


def calibration_of(
    p: Predictions,
    fitted: Calibrator,
    part: str,
    *,
    task: TaskSpec,
    data: DataSpec,
    inference: InferenceSpec,
    evaluate: EvaluateSpec,
) -> dict[str, Any]:
    """The calibration as the artifact keeps it, but for the out-of-distribution score.

    Args:
        p: predictions of the part that `fitted` was fitted on.
        fitted: the calibrator.
        part: its name.
        task: rule of the thresholds of labels.
        data: its source tells the classes that are malignant or watched, where `evaluate` leaves them to it.
        inference: referral and sets.
        evaluate: operating points.
    """
    logits = p.logits.astype(np.float64)
    shares_C = p.task.shares(p.labels, len(p.classes))
    fitted_on = {
        **fitted.as_dict(),
        "part": part,
        "images": len(p),
        "groups": len(set(p.groups)),
        "shares": dict(zip(p.classes, shares_C.tolist(), strict=True)),
        **p.task.fit_decision(fitted(logits), p.labels, p.classes, task),
    }
    if not p.task.has("conformal_sets", "operating_points"):
        return fitted_on
    malignant, focus = malignant_of(evaluate, p.classes, data), focus_of(evaluate, p.classes, data)
    asked = questions(p.classes, malignant, focus)
    return {
        **fitted_on,
        "referral": _referral(fitted(logits), inference.coverage),
        "sets": _sets(fitted(logits), p, inference.set_level),
        "operating_points": operating_points(
            Scores(p.labels, fitted(logits)), p.groups, p.classes, asked,
            sensitivity=evaluate.sensitivity, miss_cost=evaluate.miss_cost,
        ),
    }  # fmt: skip


def _referral(probs_NC: NDArray[np.float64], coverage: float | None) -> dict[str, Any] | None:
    """From which confidence on the model answers; None where it always does."""
    if coverage is None:
        return None
    threshold = threshold_for(CONFIDENCES[CONFIDENCE](probs_NC), coverage)
    return {"confidence": CONFIDENCE, "coverage": coverage, "threshold": threshold}


def _sets(probs_NC: NDArray[np.float64], p: Predictions, level: float | None) -> dict[str, Any] | None:
    """The rule that gives each answer its set; None where none is asked for."""
    if level is None:
        return None
    return calibrate_conformal(
        probs_NC, p.labels, p.groups, p.classes, score=SERVED_SCORE, level=level, by_class=True
    ).as_dict()
