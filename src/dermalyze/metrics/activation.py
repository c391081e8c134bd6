"""Logits to probabilities, in float64."""

# Shapes: B images, C classes or labels.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.ranking import Floats


def softmax(logits_BC: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities in float64, so that each row sums to 1; any finite logits, B may be 0.

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    return np.exp(log_softmax(logits_BC))


def log_softmax(logits_BC: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Their logarithms: no probability underflows to 0."""
    shifted_BC = logits_BC.astype(np.float64)
    shifted_BC = shifted_BC - shifted_BC.max(axis=1, keepdims=True)
    return np.asarray(shifted_BC - np.log(np.exp(shifted_BC).sum(axis=1, keepdims=True)), dtype=np.float64)


def sigmoid(logits: NDArray[np.floating[Any]]) -> Floats:
    """Probability of each label, float64; any finite logits.

    >>> sigmoid(np.array([0.0, 1000.0])).tolist()
    [0.5, 1.0]
    """
    z = np.asarray(logits, dtype=np.float64)
    return np.exp(-np.logaddexp(0.0, -z))
