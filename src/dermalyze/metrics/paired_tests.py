"""Models on the same images: differences under one bootstrap, DeLong's test, McNemar's test, Holm's correction."""

# Shapes: N images, C classes, R resamples, M models, P positives, Q negatives.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.bootstrap import (
    MIN_CLASS_GROUPS,
    MIN_GROUPS,
    Estimate,
    Interval,
    Weighable,
    estimate,
    group_index,
    is_share,
    not_estimable,
    resample,
)
from dermalyze.metrics.ranking import Floats, Ints

Pair = tuple[str, str]


@dataclass(frozen=True)
class Difference:
    """A figure of one model minus that of another, with its interval and how likely so large a one is by chance.

    Attributes:
        estimate: the difference.
        p_value: two-sided, 0..1; None where the difference has no interval.
    """

    estimate: Estimate
    p_value: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.estimate.as_dict(), "p_value": self.p_value}


@dataclass(frozen=True)
class Discordance:
    """McNemar's test of two models on the same images.

    Attributes:
        both, first, second, neither: images that both, only the first, only the second, and neither call right.
        exact, mid_p: two-sided, 0..1.
    """

    both: int
    first: int
    second: int
    neither: int
    exact: float
    mid_p: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(vars(self))


# -- cluster bootstrap ---------------------------------------------------------------------------------------------------


def paired(
    scores: Mapping[str, Weighable[Any]],
    groups_N: Sequence[str],
    metrics: Mapping[str, Callable[[Any], Floats]],
    *,
    resamples: int,
    level: float,
    seed: int,
    among: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    basic: frozenset[str] = frozenset(),
) -> tuple[dict[str, dict[str, Estimate]], dict[Pair, dict[str, Difference]]]:
    """Each metric of each model, and the difference of every two models, first minus second.

    The same seed draws the same groups for each model, so what the images have in common cancels. The p-value is the level
    at which the percentile interval of the difference would just touch 0, with one resample added to each side; with R
    resamples it cannot be below 2 / (R + 1).

    Args:
        scores: a name to labels and probabilities; the same images in the same order in all.
        groups_N: the group of each image.
        metrics: rows of METRICS, or any function of what `under` gives that gives (R,).
        among: (N,) the images that a metric rests on, by its name, where those are not all.
        basic: names of metrics whose values take the basic interval; differences never do, their bias cancels.

    Returns:
        model to metric to estimate, and (first, second) to metric to difference.

    >>> from dermalyze.metrics.classification import Scores, accuracy
    >>> one = Scores(np.tile([0, 1], 20), np.tile([[0.9, 0.1], [0.6, 0.4]], (20, 1)))
    >>> found = paired({"a": one, "b": one}, range(40), {"accuracy": accuracy}, resamples=100, level=0.95, seed=0)[1]
    >>> found["a", "b"]["accuracy"].estimate.value, found["a", "b"]["accuracy"].p_value
    (0.0, 1.0)

    Efron & Tibshirani 1993, chapter 15; Davison & Hinkley 1997, section 4.2
    """
    index, groups = group_index(groups_N)
    least = MIN_CLASS_GROUPS if groups >= MIN_GROUPS else MIN_GROUPS
    drawn = {name: resample(one, groups_N, metrics, resamples=resamples, seed=seed) for name, one in scores.items()}
    whole = {name: one.under(np.ones((len(one), 1))) for name, one in scores.items()}
    all_N = next(iter(scores.values())).rests_on(None, None)
    value = {name: {metric: float(f(tally)[0]) for metric, f in metrics.items()} for name, tally in whole.items()}

    def made(
        metric: str, number: float, values_R: Floats, kind: Interval = "percentile", share: bool | None = None
    ) -> Estimate:
        rests_on = (among or {}).get(metric, all_N)
        counted = len(np.unique(index[rests_on]))
        needed = MIN_GROUPS if rests_on is all_N else least
        return estimate(
            number,
            values_R,
            n=int(rests_on.sum()),
            groups=counted,
            level=level,
            least_groups=needed,
            interval=kind,
            share=share,
        )

    def of_one(name: str, metric: str) -> Estimate:
        kind: Interval = "basic" if metric in basic else "percentile"
        return made(metric, value[name][metric], drawn[name][metric], kind, is_share(metric))

    values = {name: {metric: of_one(name, metric) for metric in metrics} for name in scores}
    differences: dict[Pair, dict[str, Difference]] = {}
    for a, b in combinations(scores, 2):
        differences[a, b] = {}
        for metric in metrics:
            values_R = drawn[a][metric] - drawn[b][metric]
            found = made(metric, value[a][metric] - value[b][metric], values_R)
            differences[a, b][metric] = Difference(found, None if found.low is None else bootstrap_p(values_R))
    return values, differences


def mean_difference(
    pairs: Sequence[tuple[Weighable[Any], Weighable[Any]]],
    groups_N: Sequence[str] | npt.NDArray[Any],
    metrics: Mapping[str, Callable[[Any], Floats]],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Difference]:
    """One model minus another on the same samples, averaged over several trainings of each: paired over trainings and groups.

    The interval is over groups, for these trainings; how far trainings differ is not in it.

    Args:
        pairs: scores of both, one pair per training, all of the same samples.
        groups_N: the group of each sample.
        metrics: functions of what `scores.under` gives.

    >>> from dermalyze.metrics.classification import Scores, accuracy
    >>> good, bad = (Scores(np.tile([0, 1], 20), np.tile([[0.9, 0.1], [p, 1 - p]], (20, 1))) for p in (0.1, 0.8))
    >>> found = mean_difference([(good, bad), (bad, bad)], range(40), {"accuracy": accuracy}, resamples=100, level=0.95, seed=0)
    >>> found["accuracy"].estimate.value
    0.25
    """
    index, groups = group_index(groups_N)
    n, least = len(index), MIN_CLASS_GROUPS if groups >= MIN_GROUPS else MIN_GROUPS
    ones = np.ones((n, 1))
    value = {m: float(np.mean([f(a.under(ones))[0] - f(b.under(ones))[0] for a, b in pairs])) for m, f in metrics.items()}
    drawn = [[resample(one, groups_N, metrics, resamples=resamples, seed=seed) for one in pair] for pair in pairs]
    found = {}
    for metric in metrics:
        mean_R = np.mean([a[metric] - b[metric] for a, b in drawn], axis=0)
        one = estimate(value[metric], mean_R, n=n, groups=groups, level=level, least_groups=least)
        found[metric] = Difference(one, None if one.low is None else bootstrap_p(mean_R))
    return found


def bootstrap_p(differences_R: Floats) -> float:
    """Two-sided p-value of no difference, by inverting the percentile interval; undefined resamples are left out.

    >>> bootstrap_p(np.arange(1.0, 100.0)), bootstrap_p(np.zeros(99))
    (0.02, 1.0)
    """
    good = differences_R[~np.isnan(differences_R)]
    tail = min(int((good <= 0).sum()), int((good >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(good) + 1))


# -- DeLong ----------------------------------------------------------------------------------------------------------------


def auroc_covariance(positive_N: npt.NDArray[np.bool_], scores_MN: Floats) -> tuple[Floats, Floats]:
    """The AUROC of each model and their covariance (M, M) by DeLong's method, from midranks: N log N, not P times Q.

    Images count as independent: photographs of one group make the covariance too small.

    Args:
        positive_N: at least two of each kind.
        scores_MN: larger for what is taken for positive.

    Raises:
        ValueError: fewer than two positives or negatives.

    >>> auroc_covariance(np.array([True, True, False, False]), np.array([[0.9, 0.4, 0.4, 0.1]]))
    (array([0.875]), array([[0.03125]]))

    DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595; Sun & Xu 2014, doi:10.1109/LSP.2014.2337313
    """
    positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
    if min(positives, negatives) < 2:
        raise ValueError(f"{positives} positives and {negatives} negatives; at least two of each are needed")
    all_MN = np.stack([_midranks(row) for row in scores_MN])
    own_MP = np.stack([_midranks(row[positive_N]) for row in scores_MN])
    own_MQ = np.stack([_midranks(row[~positive_N]) for row in scores_MN])
    above_MP = (all_MN[:, positive_N] - own_MP) / negatives  # share of negatives below each positive
    above_MQ = 1 - (all_MN[:, ~positive_N] - own_MQ) / positives  # share of positives above each negative
    covariance_MM = np.atleast_2d(np.cov(above_MP)) / positives + np.atleast_2d(np.cov(above_MQ)) / negatives
    return above_MP.mean(axis=1), covariance_MM


def delong(positive_N: npt.NDArray[np.bool_], first_N: Floats, second_N: Floats, *, level: float) -> Difference:
    """Difference of two AUROCs on the same images, first minus second, with a normal interval.

    Returns:
        the difference; without value where there are fewer than two positives or negatives, and without interval where the
        variance is 0 but the difference is not (both models rank without a mistake, or all wrongly).

    >>> found = delong(np.array([True, True, False, False]), np.array([4.0, 3, 2, 1]), np.array([4.0, 1, 2, 3]), level=0.95)
    >>> found.estimate.value, round(found.p_value, 3)
    (0.5, 0.317)
    """
    n = int(positive_N.sum())
    if min(n, len(positive_N) - n) < 2:
        return Difference(Estimate(None, None, None, n, n, note=not_estimable(n)), None)
    aurocs_M, covariance_MM = auroc_covariance(positive_N, np.stack([first_N, second_N]))
    difference = float(aurocs_M[0] - aurocs_M[1])
    variance = float(covariance_MM[0, 0] + covariance_MM[1, 1] - 2 * covariance_MM[0, 1])
    if variance <= 1e-15:  # rounding leaves about 1e-18
        if abs(difference) < 1e-12:
            return Difference(Estimate(0.0, 0.0, 0.0, n, n), 1.0)
        note = "interval not estimable: the placement of every image is the same"
        return Difference(Estimate(difference, None, None, n, n, note=note), None)
    error = math.sqrt(variance)
    half = _normal_quantile((1 + level) / 2) * error
    p_value = math.erfc(abs(difference) / error / math.sqrt(2))
    return Difference(Estimate(difference, difference - half, difference + half, n, n), p_value)


def _midranks(values_N: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


# -- McNemar ---------------------------------------------------------------------------------------------------------------


def mcnemar(labels_N: Ints, first_N: Ints, second_N: Ints) -> Discordance:
    """Whether two models differ in how often they are right on the same images; only those count on which one alone is.

    The exact p-value is conservative; the mid-p value counts the observed table by half. Images count as independent.

    Args:
        labels_N: class index of each image.
        first_N, second_N: what each model calls it.

    >>> found = mcnemar(np.zeros(8, int), np.array([0, 1, 1, 1, 1, 1, 1, 1]), np.array([1, 0, 0, 0, 0, 0, 0, 0]))
    >>> found.first, found.second, round(found.exact, 3), round(found.mid_p, 3)
    (1, 7, 0.07, 0.039)

    McNemar 1947, doi:10.1007/BF02295996; mid-p: Fagerland, Lydersen & Laake 2013, doi:10.1186/1471-2288-13-91
    """
    right_a, right_b = first_N == labels_N, second_N == labels_N
    both, first, second = (int((a & b).sum()) for a, b in ((right_a, right_b), (right_a, ~right_b), (~right_a, right_b)))
    smaller, n = min(first, second), first + second
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(smaller + 1)]
    tail, observed = math.fsum(map(math.exp, logs)), math.exp(logs[-1])
    neither = len(labels_N) - both - n
    return Discordance(both, first, second, neither, exact=min(1.0, 2 * tail), mid_p=min(1.0, 2 * tail - observed))


# -- several questions -----------------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for asking several questions at once, by Holm's step-down method; None stays None and is no question.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]

    Holm 1979, Scandinavian Journal of Statistics 6, 65-70
    """
    asked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(asked):
        largest = max(largest, min(1.0, (len(asked) - rank) * p))
        corrected[i] = largest
    return corrected
