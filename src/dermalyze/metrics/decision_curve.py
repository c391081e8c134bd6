"""Decision curves: what acting on a model is worth, beside acting on everyone and on no one."""

# Shapes: N images, T thresholds, R resamples.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermalyze.metrics.bootstrap import MIN_CLASS_GROUPS, MIN_GROUPS, group_index, group_weights, not_estimable
from dermalyze.metrics.ranking import Floats, ratio
from dermalyze.metrics.scores import Scores

THRESHOLDS = np.arange(1, 51) / 100
"""Who would act only above even odds needs no model for a suspicious case."""


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit at each threshold probability, in true positives an image; acting on no one has 0.

    Attributes:
        thresholds: (T,) least probability at which one would act.
        model, everyone: (T,) net benefit of acting on those the model calls, and on all.
        low, high: (T,) interval of `model`; None where there are too few groups, and `note` says so.
        better: first and last threshold of the longest stretch where the model is above both others; None: nowhere.
    """

    thresholds: Floats
    model: Floats
    everyone: Floats
    low: Floats | None
    high: Floats | None
    better: tuple[float, float] | None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        listed = {name: value.tolist() for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return {**vars(self), **listed, "better": None if self.better is None else list(self.better)}


def decision_curve(
    asked: Scores, groups_N: Sequence[str], *, resamples: int, level: float, seed: int, thresholds_T: Floats = THRESHOLDS
) -> DecisionCurve | None:
    """Net benefit over threshold probabilities with a pointwise bootstrap band; None without positives or without negatives.

        net benefit = TP / n - FP / n * p_t / (1 - p_t)

    Who acts at a probability p_t holds a miss for (1 - p_t) / p_t times as bad as a false alarm. It takes calibrated
    probabilities, and speaks of the class mix of this set.

    Args:
        asked: of one question, as `operating.two_classes` gives it.
        groups_N: the group of each image.
        thresholds_T: between 0 and 1.

    >>> scores = Scores(np.array([1, 0]), np.array([[0.2, 0.8], [0.9, 0.1]]))
    >>> curve = decision_curve(scores, ["a", "b"], resamples=100, level=0.95, seed=0, thresholds_T=np.array([0.2, 0.5]))
    >>> curve.model.tolist(), curve.everyone.round(3).tolist()
    ([0.5, 0.5], [0.375, 0.0])

    Vickers & Elkin 2006, doi:10.1177/0272989X06295361
    """
    positive, (index, groups) = asked.labels == 1, group_index(groups_N)
    if positive.all() or not positive.any():
        return None
    odds = thresholds_T / (1 - thresholds_T)
    worth_TN = np.where(positive, 1.0, -odds[:, None])  # of acting on an image
    everyone = worth_TN.mean(axis=1)
    worth_TN = worth_TN * (asked.probs[:, 1] >= thresholds_T[:, None])
    model = worth_TN.mean(axis=1)
    least = min(len(np.unique(index[side])) for side in (positive, ~positive))
    low = high = None
    note = ""
    if groups >= MIN_GROUPS and least >= MIN_CLASS_GROUPS:
        drawn = [ratio(worth_TN @ weights, weights.sum(axis=0)) for weights in group_weights(index, groups, resamples, seed)]
        low, high = np.quantile(np.concatenate(drawn, axis=1), [(1 - level) / 2, (1 + level) / 2], axis=1)
    else:
        note = "band " + not_estimable(len(positive), f"{groups} groups, {least} of the rarer answer")
    return DecisionCurve(
        thresholds_T, model, everyone, low, high, _longest(thresholds_T, model > np.maximum(everyone, 0)), note
    )


def _longest(thresholds_T: Floats, holds_T: Any) -> tuple[float, float] | None:
    """Ends of the longest stretch where something holds; of equals the first."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds_T, [False]]).astype(int)))
    if not len(edges):
        return None
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return float(thresholds_T[begins[longest]]), float(thresholds_T[ends[longest] - 1])
