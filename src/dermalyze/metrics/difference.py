"""Two scored sets under one bootstrap: the difference of a metric, with the interval that what they share allows."""

# Shapes: N images, C classes, R resamples.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.bootstrap import Estimate, Weighable, estimate, group_index, group_weights, is_share
from dermalyze.metrics.ranking import Floats, Ints


@dataclass(frozen=True, eq=False)
class Scored:
    """One side of a comparison.

    Args:
        scores: labels and probabilities of N images.
        groups: the group of each image.
        weights: (N,) of each image, at least 0, as from `class_mix`; default: ones.
    """

    scores: Weighable[Any]
    groups: Sequence[str]
    weights: Floats | None = None

    def column(self) -> Floats:
        """(N, 1) weights."""
        return (np.ones(len(self.scores)) if self.weights is None else self.weights)[:, None]


def class_mix(labels_N: Ints, like_M: Ints) -> npt.NDArray[np.float64]:
    """(N,) weights that give labels the class mix of others (direct standardization); mean 1 where every class is there.

    Of images with several labels, (N, C), each combination of them counts as a class.

    >>> class_mix(np.array([0, 0, 0, 1]), np.array([0, 1])).round(3)
    array([0.667, 0.667, 0.667, 2.   ])

    Fleiss, Levin & Paik 2003, chapter 19
    """
    rows, code = np.unique(np.concatenate([labels_N, like_M]), axis=0, return_inverse=True)
    codes, classes = code.reshape(-1), len(rows)
    code_N, code_M = codes[: len(labels_N)], codes[len(labels_N) :]
    have, want = (np.bincount(one, minlength=classes) / max(1, len(one)) for one in (code_N, code_M))
    return np.asarray(np.divide(want, have, out=np.zeros(classes), where=have > 0)[code_N], dtype=np.float64)


def compare(
    a: Scored,
    b: Scored,
    metrics: Mapping[str, Callable[[Any], Floats]],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, dict[str, Estimate]]:
    """Each metric of `a` and of `b`, and `difference` = a - b, with percentile intervals.

    The groups of both sides are drawn together, so a group that is on both sides moves both: what they share cancels.

    Args:
        a, b: two sets of images, overlapping, equal or disjoint, over the same classes.
        metrics: rows of METRICS, or any function of a Tally that gives (R,).
        resamples: R.
        level: of the intervals, such as 0.95.
        seed: the same seed, the same resamples.

    >>> from dermalyze.metrics.classification import Scores, accuracy
    >>> side = Scored(Scores(np.tile([0, 1], 20), np.tile([[0.9, 0.1], [0.6, 0.4]], (20, 1))), [str(i) for i in range(40)])
    >>> found = compare(side, side, {"accuracy": accuracy}, resamples=100, level=0.95, seed=0)["accuracy"]
    >>> found["a"].value, found["difference"].low, found["difference"].high
    (0.5, 0.0, 0.0)
    """
    index, groups = group_index([*a.groups, *b.groups])
    cut = len(a.groups)
    own = {side: (len(rows), len(np.unique(rows))) for side, rows in (("a", index[:cut]), ("b", index[cut:]))}
    own["difference"] = min(own.values())  # no better founded than the smaller side
    drawn: dict[str, dict[str, list[Floats]]] = {name: {"a": [], "b": []} for name in metrics}
    for weights in group_weights(index, groups, resamples, seed):
        tallies = {"a": a.scores.under(weights[:cut] * a.column()), "b": b.scores.under(weights[cut:] * b.column())}
        for name, metric in metrics.items():
            for side, tally in tallies.items():
                drawn[name][side].append(metric(tally))
    whole = {"a": a.scores.under(a.column()), "b": b.scores.under(b.column())}
    found: dict[str, dict[str, Estimate]] = {}
    for name, metric in metrics.items():
        values = {side: float(metric(tally)[0]) for side, tally in whole.items()}
        sampled = {side: np.concatenate(drawn[name][side]) for side in ("a", "b")}
        values["difference"], sampled["difference"] = values["a"] - values["b"], sampled["a"] - sampled["b"]
        found[name] = {
            side: estimate(
                values[side],
                sampled[side],
                n=own[side][0],
                groups=own[side][1],
                level=level,
                share=None if side == "difference" else is_share(name),
            )
            for side in values
        }
    return found
