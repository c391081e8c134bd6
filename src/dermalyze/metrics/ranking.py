"""One class's ranking of the images: one sort serves every weighting. What AUROC and average precision stand on."""

# Shapes: N images, R weightings (resamples), P positives, K knots.

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Images in order of one class's probability, and where its positives fall among ties.

    `order`: image indices, ascending; `positives`: their places in `order`; `knots`: places where a tie group that holds a
    positive begins or ends, from 0; `low`, `high`: for each positive, which knot begins and which ends its tie group.
    """

    order: Ints
    positives: Ints
    knots: Ints
    low: Ints
    high: Ints


def rank(positive_N: npt.NDArray[np.bool_], score_N: Floats) -> Ranking:
    """Sort by score and find the tie groups that hold positives.

    >>> rank(np.array([True, False, False]), np.array([0.5, 0.5, 0.1])).knots
    array([0, 1])
    """
    order = np.argsort(score_N, kind="stable")
    score = score_N[order]
    places = np.flatnonzero(positive_N[order])
    begins, ends = np.searchsorted(score, score[places], side="left"), np.searchsorted(score, score[places], side="right")
    knots = np.unique(np.concatenate([[0], begins, ends[ends < len(score)]])).astype(np.int64)
    return Ranking(order, places, knots, np.searchsorted(knots, begins), np.searchsorted(knots, ends))


def rank_among(among_N: npt.NDArray[np.bool_], positive_N: npt.NDArray[np.bool_], score_N: Floats) -> Ranking:
    """The ranking of some of the images alone; the others' weights are never looked at.

    >>> rank_among(np.array([True, False, True]), np.array([True, True, False]), np.array([0.5, 0.5, 0.1])).order
    array([2, 0])
    """
    rows = np.flatnonzero(among_N)
    ranking = rank(positive_N[rows], score_N[rows])
    return replace(ranking, order=rows[ranking.order])


def auroc_of(ranking: Ranking, weights_NR: Floats) -> Floats:
    """(R,) area under the ROC curve, ties by midranks; NaN without positives or without negatives.

    A positive counts the negatives' weight below its tie group, and half of that within it.

    >>> auroc_of(rank(np.array([True, False, False]), np.array([0.5, 0.5, 0.1])), np.ones((3, 1)))
    array([0.75])
    """
    if len(ranking.positives) == 0:
        return np.full(weights_NR.shape[1], np.nan)
    sorted_NR = weights_NR[ranking.order]
    positive = sorted_NR[ranking.positives]
    sorted_NR[ranking.positives] = 0
    below = _sums_before_knots(sorted_NR, ranking.knots)
    pairs = np.einsum("pr,pr->r", positive, below[ranking.low]) + np.einsum("pr,pr->r", positive, below[ranking.high])
    return ratio(pairs / 2, positive.sum(axis=0) * below[-1])


def average_precision_of(ranking: Ranking, weights_NR: Floats) -> Floats:
    """(R,) sum over positives of the precision at their score, weighted; equal scores are one step. NaN without positives.

    >>> average_precision_of(rank(np.array([True, False]), np.array([0.1, 0.9])), np.ones((2, 1)))
    array([0.5])
    """
    if len(ranking.positives) == 0:
        return np.full(weights_NR.shape[1], np.nan)
    sorted_NR = weights_NR[ranking.order]
    positive = sorted_NR[ranking.positives]
    below_all = _sums_before_knots(sorted_NR, ranking.knots)
    sorted_NR[ranking.positives] = 0
    below_negative = _sums_before_knots(sorted_NR, ranking.knots)
    called = below_all[-1] - below_all[ranking.low]
    true = called - (below_negative[-1] - below_negative[ranking.low])
    steps = np.divide(positive * true, called, out=np.zeros_like(called), where=called > 0)
    return ratio(steps.sum(axis=0), positive.sum(axis=0))


def partial_auroc_of(ranking: Ranking, weights_NR: Floats, floor: float) -> Floats:
    """(R,) area under the ROC curve and above the line sensitivity = floor; NaN without positives or without negatives.

        pAUC = integral of the specificity over the sensitivity, from floor to 1

    The curve runs straight through equal scores. A perfect ranking has 1 - floor, chance (1 - floor)^2 / 2. The score of the
    ISIC 2024 challenge with floor 0.8; other than scikit-learn's `max_fpr`, which bounds the other axis and standardizes.

    >>> perfect = rank(np.array([True, False]), np.array([0.9, 0.1]))
    >>> partial_auroc_of(perfect, np.ones((2, 1)), 0.8).round(3)
    array([0.2])

    Kurtansky et al. 2024, doi:10.1038/s41597-024-03743-w; Jiang et al. 1996, doi:10.1148/radiology.201.3.8939225
    """
    if len(ranking.positives) == 0:
        return np.full(weights_NR.shape[1], np.nan)
    sorted_NR = weights_NR[ranking.order]
    first = np.flatnonzero(np.diff(ranking.low, prepend=-1))  # the positives of one tie group stand together
    group_GR = np.add.reduceat(sorted_NR[ranking.positives], first, axis=0)
    sorted_NR[ranking.positives] = 0
    below = _sums_before_knots(sorted_NR, ranking.knots)
    found_GR = np.cumsum(group_GR[::-1], axis=0)[::-1]  # positives at this score or a higher one
    positives, negatives = found_GR[0], below[-1]
    end_GR, step_GR = ratio(found_GR, positives), ratio(group_GR, positives)  # sensitivity at the group's end, and its part
    start_GR = end_GR - step_GR
    part_GR = np.clip(end_GR - np.maximum(start_GR, floor), 0, None)  # of the step, what lies above the floor
    low_GR, high_GR = ratio(below[ranking.low[first]], negatives), ratio(below[ranking.high[first]], negatives)
    share_GR = np.divide(part_GR, step_GR, out=np.zeros_like(part_GR), where=step_GR > 0)
    mean_GR = low_GR + share_GR * (high_GR - low_GR) / 2  # of the specificity on that part, which ends at `low`
    return np.asarray((part_GR * mean_GR).sum(axis=0))


def midranks(values_N: Floats) -> Floats:
    """(N,) place of each value in ascending order, from 1; equal values share the mean of their places.

    >>> midranks(np.array([3.0, 1.0, 3.0]))
    array([2.5, 1. , 2.5])
    """
    _, which_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which_N], dtype=np.float64)


def spearman(a_N: Floats, b_N: Floats) -> float | None:
    """Rank correlation, -1 to 1, ties by midranks; None where one of both is constant. Spearman 1904, doi:10.2307/1412159

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 1000.0, 100.0]))
    0.5
    """
    a, b = (midranks(np.asarray(values)) - (len(values) + 1) / 2 for values in (a_N, b_N))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale > 0 else None


def spearman_p(rho: float | None, cases: int) -> float | None:
    """Two-sided p-value of no rank correlation, by the t distribution with `cases` - 2 degrees of freedom.

    Args:
        rho: the rank correlation; None where undefined.
        cases: independent ones: groups, not images, where a group has several.

    >>> round(spearman_p(0.5, 20), 4), spearman_p(None, 20), spearman_p(0.5, 2)
    (0.0248, None, None)

    Kendall & Stuart 1973, The Advanced Theory of Statistics, volume 2, section 31.19
    """
    from scipy.special import stdtr

    if rho is None or cases < 3:
        return None
    if abs(rho) >= 1:
        return 0.0
    t = abs(rho) * np.sqrt((cases - 2) / (1 - rho * rho))
    return float(2 * stdtr(cases - 2, -t))


def ratio(over: Floats, under: Floats) -> Floats:
    """over / under, NaN where under is 0."""
    over, under = np.broadcast_arrays(np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64))
    return np.asarray(np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0))


def _sums_before_knots(values_NR: Floats, knots_K: Ints) -> Floats:
    """(K + 1, R): sums of the rows before each knot (the first is 0), and last the sum of all."""
    sums = np.zeros((len(knots_K) + 1, values_NR.shape[1]))
    np.cumsum(np.add.reduceat(values_NR, knots_K, axis=0), axis=0, out=sums[1:])
    return sums
