"""Intervals of metrics of labels, by the same cluster bootstrap as for classes."""

# Shapes: N images, C labels.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.bootstrap import (
    MIN_CLASS_GROUPS,
    MIN_GROUPS,
    Estimate,
    Interval,
    estimate,
    group_index,
    not_estimable,
    resample,
)
from dermalyze.metrics.multilabel import LabelScores, LabelTally
from dermalyze.metrics.ranking import Floats

OF_ALL, OF_LACKING, OF_CALLED = ("brier", "ece"), ("specificity",), ("precision",)
"""Metrics of a label that rest on every image, on those without the label, and on those called so; others: on those with it."""


def label_estimates(
    scores: LabelScores,
    groups_N: Sequence[str] | npt.NDArray[Any],
    metrics: Mapping[str, Callable[[LabelTally], Floats]],
    *,
    resamples: int,
    level: float,
    seed: int,
    names: Sequence[str],
    basic: frozenset[str] = frozenset(),
) -> dict[str, Estimate | list[Estimate]]:
    """Each metric with its interval; a list in the order of the labels for a metric of labels.

    Args:
        scores: N images.
        groups_N: the patient or lesion of each.
        metrics: rows of `LABEL_METRICS` or `PER_LABEL_METRICS`, or any function of a `LabelTally`.
        names: of the labels, for the reasons.
        basic: names of metrics that take the basic interval, since noise biases them upwards.

    >>> from dermalyze.metrics.multilabel import subset_accuracy
    >>> scores = LabelScores(np.tile([[1, 0]], (40, 1)), np.tile([[0.9, 0.1]], (40, 1)), np.array([0.5, 0.5]))
    >>> all_right = {"subset": subset_accuracy}
    >>> label_estimates(scores, range(40), all_right, resamples=100, level=0.95, seed=0, names=["a", "b"])["subset"].low
    1.0
    """
    index, groups = group_index(groups_N)
    whole = scores.under(np.ones((len(scores), 1)))
    resampled = resample(scores, groups_N, metrics, resamples=resamples, seed=seed)
    least = MIN_CLASS_GROUPS if groups >= MIN_GROUPS else MIN_GROUPS
    everything = np.ones(len(scores), dtype=bool)
    why = _why(scores, names)

    def one(name: str, value: float, values_R: Floats, among_N: npt.NDArray[np.bool_], least_groups: int) -> Estimate:
        n, counted = int(among_N.sum()), len(np.unique(index[among_N]))
        kind: Interval = "basic" if name in basic else "percentile"
        return estimate(value, values_R, n=n, groups=counted, level=level, least_groups=least_groups, interval=kind)

    found: dict[str, Estimate | list[Estimate]] = {}
    for name, metric in metrics.items():
        value, values = metric(whole)[0], resampled[name]
        if values.ndim == 1:
            of_all = one(name, float(value), values, everything, MIN_GROUPS)
            found[name] = of_all if of_all.value is not None else replace(of_all, note=not_estimable(of_all.n, why))
        else:
            found[name] = [
                one(name, float(value[c]), values[:, c], _rests_on(name, scores, c), MIN_GROUPS if name in OF_ALL else least)
                for c in range(scores.classes)
            ]
    return found


def _rests_on(name: str, scores: LabelScores, c: int) -> npt.NDArray[np.bool_]:
    if name in OF_ALL:
        return np.ones(len(scores), dtype=bool)
    if name in OF_CALLED:
        return scores.called[:, c]
    return np.asarray(scores.targets[:, c] != (name in OF_LACKING))


def _why(scores: LabelScores, names: Sequence[str]) -> str:
    """Why a mean over labels can be undefined on this set."""
    n, support, called = len(scores), scores.support, scores.called.sum(axis=0)
    told = {
        "no image with": [name for name, k in zip(names, support, strict=True) if k == 0],
        "no image without": [name for name, k in zip(names, support, strict=True) if k == n],
        "no image called": [name for name, k, had in zip(names, called, support, strict=True) if k == 0 and had],
    }
    return "; ".join(f"{what} {', '.join(these)}" for what, these in told.items() if these) if n else ""
