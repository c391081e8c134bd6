"""How well a score tells out-of-distribution images from known ones: AUROC and shares refused, with intervals over groups."""

# Shapes: N known images, M out-of-distribution ones, R resamples.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.bootstrap import Estimate, estimate, group_index, group_weights
from dermalyze.metrics.ranking import Floats, ratio

MEASURES = ("auroc", "passed", "refused")
"""AUROC; share of out-of-distribution images that pass where 95 % of the known ones do (FPR at 95 % TPR); share above a
threshold."""


def separation(
    known_N: Floats,
    ood: Mapping[str, Floats],
    groups_N: Sequence[str] | npt.NDArray[Any],
    *,
    threshold: float,
    resamples: int,
    level: float,
    seed: int,
    kept: float = 0.95,
) -> tuple[Estimate, dict[str, dict[str, Estimate]]]:
    """Compare a score on known images with that on several out-of-distribution sets.

    Known images are resampled by group and those of each other set by image, apart from each other.

    Args:
        known_N: scores of known images, larger is less like them.
        ood: name of a set to its (M,) scores.
        groups_N: the group of each known image.
        threshold: above it an image is refused.
        resamples: R; level: of the intervals; seed: the same seed, the same resamples.
        kept: share of the known images that pass, for `passed`.

    Returns:
        share of the known images that is refused, and for each set the `MEASURES`.

    >>> refused, sets = separation(np.arange(40.0), {"far": np.arange(50.0, 90.0)}, range(40), threshold=37.0, resamples=100,
    ...                            level=0.95, seed=0)
    >>> refused.value, sets["far"]["auroc"].value, sets["far"]["passed"].value, sets["far"]["refused"].value
    (0.05, 1.0, 0.0, 1.0)
    """
    index, groups = group_index(groups_N)
    order = np.argsort(known_N, kind="stable")
    names, sizes = list(ood), [len(scores) for scores in ood.values()]
    places = {name: _places(known_N[order], scores) for name, scores in ood.items()}
    point = _measure(known_N[order], np.ones((len(known_N), 1)), ood, _ones(ood), places, threshold, kept)
    drawn: dict[tuple[str, str], list[Floats]] = {key: [] for key in point}
    own = [group_weights(np.arange(n), n, resamples, seed + 1 + i) for i, n in enumerate(sizes)]
    kept_back = [np.zeros((n, 0)) for n in sizes]
    for weights_NR in group_weights(index, groups, resamples, seed):
        r, weights = weights_NR.shape[1], {}
        for i, name in enumerate(names):
            while kept_back[i].shape[1] < r:
                kept_back[i] = np.concatenate([kept_back[i], next(own[i])], axis=1)
            weights[name], kept_back[i] = kept_back[i][:, :r], kept_back[i][:, r:]
        for key, values_R in _measure(known_N[order], weights_NR[order], ood, weights, places, threshold, kept).items():
            drawn[key].append(values_R)

    def one(key: tuple[str, str], n: int, counted: int) -> Estimate:
        weak = min(counted, groups)
        return estimate(
            float(point[key][0]), np.concatenate(drawn[key]), n=n, groups=counted, level=level, share=True, share_groups=(weak,)
        )

    sets = {name: {m: one((name, m), size, size) for m in MEASURES} for name, size in zip(names, sizes, strict=True)}
    return one(("", "refused"), len(known_N), groups), sets


def auroc(known_N: Floats, ood_M: Floats) -> float:
    """How often an out-of-distribution image scores above a known one, ties count half; NaN where one of them is empty.

    >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    known = np.sort(known_N)
    low, high = _places(known, ood_M)
    return float(ratio((low + high).sum() / 2, np.asarray(len(known) * len(ood_M))))


def _places(sorted_N: Floats, scores_M: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many known scores are below each of the others, and how many are not above it."""
    return np.searchsorted(sorted_N, scores_M, side="left"), np.searchsorted(sorted_N, scores_M, side="right")


def _ones(ood: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: np.ones((len(scores), 1)) for name, scores in ood.items()}


def _measure(
    sorted_N: Floats,
    weights_NR: Floats,
    ood: Mapping[str, Floats],
    weights: Mapping[str, Floats],
    places: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    threshold: float,
    kept: float,
) -> dict[tuple[str, str], Floats]:
    """Each measure of each set under each resample, (R,)."""
    below = np.zeros((len(sorted_N) + 1, weights_NR.shape[1]))
    np.cumsum(weights_NR, axis=0, out=below[1:])
    total_R = below[-1]
    found = {("", "refused"): ratio(total_R - below[np.searchsorted(sorted_N, threshold, side="right")], total_R)}
    if not len(sorted_N):
        return found | {(name, m): np.full(weights_NR.shape[1], np.nan) for name in ood for m in MEASURES}
    last_R = np.argmax(below[1:] >= kept * total_R - 1e-9, axis=0)  # the first image at which the share is reached
    limit_R = sorted_N[last_R]
    for name, scores_M in ood.items():
        low, high = places[name]
        weights_MR, sums_R = weights[name], weights[name].sum(axis=0)
        pairs_R = np.einsum("mr,mr->r", weights_MR, below[low]) + np.einsum("mr,mr->r", weights_MR, below[high])
        found[name, "auroc"] = ratio(pairs_R / 2, sums_R * total_R)
        found[name, "passed"] = ratio((weights_MR * (scores_M[:, None] <= limit_R)).sum(axis=0), sums_R)
        found[name, "refused"] = ratio((scores_M > threshold) @ weights_MR, sums_R)
    return found
