"""From the scores of labels to probabilities, and from which probability on a label is called.

A scale and a shift for each label (Platt): a temperature alone could not undo the shift that weights of rare labels, or a
loss that counts negatives less, leave in the scores. Both keep the order of the images, so AUROC and average precision stay.
"""

# Shapes: N images, C labels.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dermalyze.calibration.calibrators import SMALLEST_SCALE, Method, fit_none
from dermalyze.calibration.newton import minimise
from dermalyze.errors import DataError, ModelError
from dermalyze.metrics.activation import sigmoid
from dermalyze.metrics.ranking import Floats, Ints

SCALE_RIDGE, BIAS_RIDGE = 1.0, 0.01
"""Weights, in images, of the priors that the scale is 1 and the shift 0: a label of three images is not trusted."""


def fit_platt(logits_NC: Floats, targets_NC: Ints, shift_C: Floats) -> dict[str, Any]:
    """A scale and a shift for each label by maximum likelihood, with weak priors at 1 and 0.

        p = 1 / (1 + exp(-(a z + b))),   a at least 0.01

    Args:
        logits_NC: scores of the calibration split.
        targets_NC: 1, 0, or -1 where missing; that image then says nothing of that label.
        shift_C: not used: the shift of each label takes it up.

    Platt 1999, "Probabilistic outputs for support vector machines"
    """
    there_NC = targets_NC >= 0
    fitted = [_platt(logits_NC[there_NC[:, c], c], targets_NC[there_NC[:, c], c]) for c in range(logits_NC.shape[1])]
    return {"scale": [a for a, _ in fitted], "bias": [b for _, b in fitted]}


def apply_platt(logits_BC: Floats, *, scale: Sequence[float], bias: Sequence[float]) -> Floats:
    """Sigmoid of scale * logits + bias."""
    return sigmoid(logits_BC * np.asarray(scale) + np.asarray(bias))


LABEL_CALIBRATORS: dict[str, Method] = {
    "none": Method(fit_none, sigmoid, {}),
    "platt": Method(fit_platt, apply_platt, {"scale": 1, "bias": 1}, ("scale",)),
}
"""The simplest first: the choice prefers it where the other is not clearly better."""
LABEL_CHOICES = {"auto": tuple(LABEL_CALIBRATORS)}


def _platt(z_N: Floats, target_N: Ints) -> tuple[float, float]:
    design_N2 = np.stack([z_N, np.ones_like(z_N)], axis=1)
    theta = _newton(design_N2, np.zeros_like(z_N), target_N, np.array([1.0, 0.0]), np.array([SCALE_RIDGE, BIAS_RIDGE]))
    if theta[0] >= SMALLEST_SCALE:
        return float(theta[0]), float(theta[1])
    bias = _newton(design_N2[:, 1:], SMALLEST_SCALE * z_N, target_N, np.zeros(1), np.array([BIAS_RIDGE]))
    return SMALLEST_SCALE, float(bias[0])


def _newton(design_NK: Floats, offset_N: Floats, target_N: Ints, start_K: Floats, ridge_K: Floats) -> Floats:
    """Minimise the summed log loss of sigmoid(offset + design theta) + ridge / 2 (theta - start)^2, which is convex."""

    def value(at_K: Floats) -> float:
        z = offset_N + design_NK @ at_K
        return float((np.logaddexp(0, z) - target_N * z).sum() + (ridge_K / 2 * np.square(at_K - start_K)).sum())

    def shape(at_K: Floats) -> tuple[Floats, Floats]:
        p = sigmoid(offset_N + design_NK @ at_K)
        slope_K = design_NK.T @ (p - target_N) + ridge_K * (at_K - start_K)
        return slope_K, (design_NK * (p * (1 - p))[:, None]).T @ design_NK + np.diag(ridge_K)

    return minimise(value, shape, start_K)


def best_thresholds(
    probs_NC: Floats, targets_NC: Ints, names: Sequence[str], rule: Literal["f1", "youden"]
) -> dict[str, float]:
    """From which probability on each label is called: midway between two that occur, the highest of the best.

    Args:
        probs_NC: of the calibration split.
        targets_NC: 1, 0, or -1 where missing.
        names: of the labels.
        rule: f1: the largest F1; youden: the largest sensitivity + specificity - 1 (Youden 1950).

    Raises:
        DataError: a label that no image of the part has, or every one.

    >>> best_thresholds(np.array([[0.1], [0.3], [0.7]]), np.array([[0], [0], [1]]), ["mass"], "f1")
    {'mass': 0.5}
    """
    found = {}
    for c, name in enumerate(names):
        there_N = targets_NC[:, c] >= 0
        p, y = probs_NC[there_N, c], targets_NC[there_N, c]
        if not 0 < y.sum() < len(y):
            raise DataError(
                f"label '{name}' stands on {int(y.sum())} of the {len(y)} images that calibrate, so no threshold can be found; "
                "split again with more of it, or leave the label out"
            )
        order = np.argsort(-p, kind="stable")
        last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # the last image of each different probability
        hits, called = np.cumsum(y[order])[last], last + 1
        score = 2 * hits / (y.sum() + called) if rule == "f1" else hits / y.sum() - (called - hits) / (len(y) - y.sum())
        best = int(np.argmax(score.round(12)))
        below = p[order][last[best] + 1] if last[best] + 1 < len(p) else 0.0
        found[name] = float((p[order][last[best]] + below) / 2)
    return found


def read_thresholds(calibration: Mapping[str, Any] | None, classes: Sequence[str]) -> Floats:
    """(C,) thresholds of a calibration, as `calibrate` writes it; 0.5 without one.

    Raises:
        ModelError: damaged.
    """
    if calibration is None:
        return np.full(len(classes), 0.5)
    known = calibration.get("thresholds")
    if not isinstance(known, dict) or known.keys() != set(classes) or not _numbers(list(known.values()), len(classes)):
        raise ModelError("calibration: its thresholds do not fit the labels; calibrate again")
    return np.array([known[name] for name in classes], dtype=np.float64)


def _numbers(values: Any, length: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == length
        and all(isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values)
    )
