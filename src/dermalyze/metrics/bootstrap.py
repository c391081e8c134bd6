"""Cluster bootstrap over groups of images: every metric under all resamples at once, without a loop over resamples.

Photographs of one group resemble each other, so groups are drawn with replacement, never single images. A resample is then
a whole number for each image (how often its group was drawn), and metrics.py takes such weights for many resamples at once.
"""

# Shapes: N images, G groups, R resamples, C classes.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ModelError
from dermalyze.metrics.classification import defined
from dermalyze.metrics.ranking import Floats, Ints, ratio

MIN_GROUPS = 10  # fewer groups than this in the set: no interval
MIN_CLASS_GROUPS = 5  # fewer groups of a class: no interval for that class's metrics
MAX_UNDEFINED = 0.05  # more undefined resamples than this share: no interval
SAME = 1e-12  # an interval less wide is none
RANKINGS = ("auroc", "partial_auroc", "average_precision")
ALL_ALIKE = "all alike: exact interval"
CHUNK_NUMBERS = 1 << 17  # weights held at once (1 MiB): what stays in a core's cache is also the fastest

Interval = Literal["percentile", "basic"]
Masks = npt.NDArray[np.bool_]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Weighted(Protocol):
    """What every metric can read, whatever the task: the weight of each sample, (N, R)."""

    @property
    def weights(self) -> Floats: ...


class Weighable(Protocol[T_co]):
    """What is resampled: N samples, each with counts or ranks that can be weighted; `Scores`, `LabelScores`, or pixels."""

    def __len__(self) -> int: ...

    @property
    def classes(self) -> int:
        """C, the length of a metric of classes."""
        ...

    def under(self, weights: Floats) -> T_co:
        """What metrics are functions of: these scores under R weightings (N, R)."""
        ...

    def rests_on(self, metric: str | None, c: int | None) -> Masks:
        """(N,) the samples that a metric of a class, or of the whole set (`c` None), rests on.

        `metric` None: all on which that class was looked for, whatever the answer.
        """
        ...

    def why_undefined(self, names: Sequence[str]) -> str:
        """Why a mean over the classes can be undefined on this set; "" where nothing is to be said."""
        ...


class TargetScores(Weighable[Any], Protocol):
    """Targets and probabilities of any task: `Scores` or `LabelScores`."""

    @property
    def targets(self) -> Ints:
        """(N,) or (N, C)."""
        ...

    @property
    def probs(self) -> Floats:
        """(N, C)."""
        ...

    @property
    def ranks_only(self) -> bool:
        """Whether the probabilities are none, but scores that rank."""
        ...

    @property
    def right(self) -> Masks:
        """(N,) whether the whole answer is right."""
        ...

    def select(self, rows: Ints, order_C: Ints | None = None) -> TargetScores:
        """Some of the images, the classes in another order."""
        ...

    def with_values(self, targets: Ints, probs: Floats) -> TargetScores:
        """Other images, evaluated in the same way."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    `n`: images it rests on; `groups`: groups it rests on; `undefined`: resamples in which it was undefined;
    `note`: "" or why value or interval are None.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    undefined: int = 0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(vars(self))


def not_estimable(n: int, why: str = "") -> str:
    """The words that stand where a number cannot.

    >>> not_estimable(0)
    'not estimable (n = 0)'
    """
    return f"not estimable (n = {n})" + (f": {why}" if why else "")


def group_index(groups_N: Sequence[str] | npt.NDArray[Any]) -> tuple[Ints, int]:
    """Each image's group as 0..G-1 in order of first appearance, and G.

    >>> group_index(["b", "a", "b"])
    (array([0, 1, 0]), 2)
    """
    numbers: dict[Any, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups_N], dtype=np.int64)
    return index, len(numbers)


def group_weights(group_N: Ints, groups: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield (N, r) weights, `resamples` columns in all: how often each image's group was drawn, G draws a resample.

    The columns do not depend on how many come at a time, and memory is bounded by CHUNK_NUMBERS (or one column).
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_NUMBERS // max(1, len(group_N)))
    for start in range(0, resamples, chunk):
        r = min(chunk, resamples - start)
        drawn = generator.integers(groups, size=(r, groups), dtype=np.int64) if groups else np.zeros((r, 0), np.int64)
        counts = np.bincount((drawn * r + np.arange(r)[:, None]).ravel(), minlength=groups * r).reshape(groups, r)
        yield counts.astype(np.float64)[group_N]


def resample(
    scores: Weighable[T_co],
    groups_N: Sequence[str] | npt.NDArray[Any],
    metrics: Mapping[str, Callable[[T_co], Floats]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Floats]:
    """Each metric under each resample: (R,), or (R, C) for a metric of classes; NaN where undefined.

    Args:
        scores: labels and probabilities.
        groups_N: the group of each image.
        metrics: rows of METRICS or PER_CLASS_METRICS, or any function of a Tally.
        resamples: R, at least 1.
        seed: the same seed, the same resamples.

    Raises:
        ModelError: not one group an image.
    """
    if len(groups_N) != len(scores):
        raise ModelError(f"{len(groups_N)} groups for {len(scores)} images; each image needs its group")
    index, groups = group_index(groups_N)
    parts: dict[str, list[Floats]] = {name: [] for name in metrics}
    for weights in group_weights(index, groups, resamples, seed):
        t = scores.under(weights)
        for name, metric in metrics.items():
            parts[name].append(metric(t))
    return {name: np.concatenate(values) for name, values in parts.items()}


def estimate(
    value: float,
    resampled_R: Floats,
    *,
    n: int,
    groups: int,
    level: float,
    least_groups: int = MIN_GROUPS,
    interval: Interval = "percentile",
    share: bool | None = None,
    share_groups: Sequence[int] = (),
) -> Estimate:
    """Value and interval, or the reason why not.

    `percentile` takes the quantiles of the resamples; `basic` reflects them about the value, 2 v - q, not below 0: right for
    a metric such as ECE that is biased upwards by noise and so is higher in resamples than in the sample.

    Where all answers are alike, a share of 0 or 1, every resample gives that value again, and the bootstrap sees no
    uncertainty: a share then has its exact interval (Clopper and Pearson), groups counting as independent; other metrics have
    none.

    Args:
        value: the metric on the whole set, NaN where undefined.
        resampled_R: the metric under each resample.
        n: images it rests on.
        groups: groups it rests on.
        level: of the interval, such as 0.95.
        least_groups: with fewer there is no interval.
        interval: percentile or basic.
        share: whether it is a share or an area, 0..1, with 1 (or 0) if all answers are right (or wrong); None: a difference or
            another number that resampling may leave as it is.
        share_groups: the groups that a share's exact interval counts, where they are fewer than `groups`; of a mean over
            classes those of each class.

    >>> found = estimate(0.5, np.linspace(0, 1, 101), n=40, groups=30, level=0.9)
    >>> round(found.low, 3), round(found.high, 3)
    (0.05, 0.95)
    >>> found = estimate(1.0, np.ones(100), n=20, groups=12, level=0.95, share=True)
    >>> round(found.low, 3), found.high
    (0.735, 1.0)

    Efron & Tibshirani 1993, chapter 13; Davison & Hinkley 1997, section 5.2; Clopper & Pearson 1934,
    doi:10.1093/biomet/26.4.404
    """
    good = resampled_R[~np.isnan(resampled_R)]
    undefined = len(resampled_R) - len(good)
    number = defined(value)
    if number is None:
        return Estimate(None, None, None, n, groups, undefined, not_estimable(n))
    if groups < least_groups:
        return Estimate(
            number, None, None, n, groups, undefined, f"interval not estimable: {groups} groups, at least {least_groups} needed"
        )
    if undefined > MAX_UNDEFINED * len(resampled_R):
        why = f"interval not estimable: undefined in {undefined} of {len(resampled_R)} resamples"
        return Estimate(number, None, None, n, groups, undefined, why)
    low, high = (float(q) for q in np.quantile(good, [(1 - level) / 2, (1 + level) / 2]))
    if interval == "basic":
        low, high = max(0.0, 2 * number - high), max(0.0, 2 * number - low)
    if share is not None and high - low < SAME and min(abs(number), abs(1 - number)) < SAME:
        if not share:
            why = f"interval not estimable: every resample gives {number:.0f}"
            return Estimate(number, None, None, n, groups, undefined, why)
        low, high = exact_interval(number, share_groups or (groups,), level)
        return Estimate(number, low, high, n, groups, undefined, ALL_ALIKE)
    return Estimate(number, low, high, n, groups, undefined)


def exact_interval(share: float, groups_C: Sequence[int], level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of 0 or 1 among independent groups; of several such shares, that of their mean.

    The open end of a mean is the lowest mean of shares p that still gives what was seen, prod p^n, with a probability of
    (1 - level) / 2. Where they are lowest together, each p is proportional to its n, and none above 1.

    Args:
        share: 0 or 1.
        groups_C: independent groups of each share, at least 1.

    >>> [round(x, 3) for x in exact_interval(0.0, [12], 0.95)], round(exact_interval(1.0, [12, 12], 0.95)[0], 3)
    ([0.0, 0.265], 0.858)
    """
    n_C, target = np.asarray(groups_C, dtype=np.float64), np.log((1 - level) / 2)
    low, high = 0.0, 1 / n_C.min()
    for _ in range(100):  # bisection: the probability grows with the factor
        factor = (low + high) / 2
        below = (n_C * np.log(np.minimum(1, factor * n_C))).sum() < target
        low, high = (factor, high) if below else (low, factor)
    open_end = float(np.minimum(1, high * n_C).mean())
    return (open_end, 1.0) if share > 0.5 else (0.0, 1 - open_end)


def is_share(metric: str) -> bool:
    """Whether a metric, by its name, is a share or an area: 1 for answers that are all right, 0 for all wrong.

    >>> is_share("macro_recall"), is_share("auroc"), is_share("class_kappa"), is_share("log_loss")
    (True, True, False, False)
    """
    return not metric.endswith(("kappa", "mcc", "log_loss", "brier", "ece"))


def estimates(
    scores: Weighable[T],
    groups_N: Sequence[str] | npt.NDArray[Any],
    metrics: Mapping[str, Callable[[T], Floats]],
    *,
    resamples: int,
    level: float,
    seed: int,
    names: Sequence[str] | None = None,
    basic: frozenset[str] = frozenset(),
    among: Mapping[str, Masks] | None = None,
) -> dict[str, Estimate | list[Estimate]]:
    """Each metric on the set with its interval; a list in class order for a metric of classes.

    Which images a metric rests on, and so of how many groups, is what `Weighable.rests_on` says.

    Args:
        scores: of any task.
        groups_N: the group of each image.
        metrics: functions of what `scores.under` gives.
        names: of the classes, for the reasons; default: their numbers.
        basic: names of metrics that take the basic interval instead of the percentile interval.
        among: (N,) the images that a metric of the whole set rests on, by its name, where those are not all.

    >>> from dermalyze.metrics.classification import Scores, accuracy
    >>> scores = Scores(np.tile([0, 1], 20), np.tile([[0.9, 0.1], [0.2, 0.8]], (20, 1)))
    >>> estimates(scores, range(40), {"accuracy": accuracy}, resamples=100, level=0.95, seed=0)["accuracy"].high
    1.0
    """
    index, _ = group_index(groups_N)
    whole = scores.under(np.ones((len(scores), 1)))
    resampled = resample(scores, groups_N, metrics, resamples=resamples, seed=seed)
    why = scores.why_undefined([str(c) for c in range(scores.classes)] if names is None else names)

    def counted(mask_N: Masks) -> int:
        return len(np.unique(index[mask_N]))

    own = [counted(scores.rests_on("recall", c)) for c in range(scores.classes)]
    present = [n for n in own if n] or [1]

    def one(name: str, value: float, values_R: Floats, rests_on_N: Masks, all_N: Masks) -> Estimate:
        groups, of_all = counted(rests_on_N), counted(all_N)
        least = MIN_GROUPS if rests_on_N is all_N or of_all < MIN_GROUPS else MIN_CLASS_GROUPS
        kind: Interval = "basic" if name in basic else "percentile"
        n = int(rests_on_N.sum())
        # a ranking is no better founded than its rarer side
        weak = max(1, min(groups, counted(all_N & ~rests_on_N))) if name in RANKINGS else groups
        return estimate(
            value, values_R, n=n, groups=groups, level=level, least_groups=least, interval=kind, share=is_share(name),
            share_groups=present if name.startswith(("macro", "balanced")) else (weak,),
        )  # fmt: skip

    found: dict[str, Estimate | list[Estimate]] = {}
    for name, metric in metrics.items():
        value, values = metric(whole)[0], resampled[name]
        if values.ndim == 2:
            found[name] = [
                one(name, float(value[c]), values[:, c], scores.rests_on(name, c), scores.rests_on(None, c))
                for c in range(scores.classes)
            ]
        elif among is not None and name in among:
            found[name] = one(name, float(value), values, among[name], scores.rests_on(None, None))
        else:
            all_N = scores.rests_on(name, None)
            of_all = one(name, float(value), values, all_N, all_N)
            found[name] = of_all if of_all.value is not None else replace(of_all, note=not_estimable(of_all.n, why))
    return found


def share_estimates(
    scores: Weighable[Any],
    groups_N: Sequence[str] | npt.NDArray[Any],
    shares: Mapping[str, tuple[Floats, Masks | None]],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Estimate]:
    """The mean of a value an image has, among some images or all (None), with its interval.

    Args:
        scores: of the images; only their number counts.
        groups_N: the group of each image.
        shares: name to value (N,) and the images (N,) that it rests on.

    >>> from dermalyze.metrics.classification import Scores
    >>> scores = Scores(np.zeros(40, dtype=int), np.tile([[0.9, 0.1]], (40, 1)))
    >>> found = share_estimates(scores, range(40), {"odd": (np.arange(40.0) % 2, None)}, resamples=100, level=0.95, seed=0)
    >>> found["odd"].value
    0.5
    """
    means = {name: mean_of(*share) for name, share in shares.items()}
    found = estimates(
        scores, groups_N, means, resamples=resamples, level=level, seed=seed,
        among={name: among_N for name, (_, among_N) in shares.items() if among_N is not None},
    )  # fmt: skip
    return {name: one for name, one in found.items() if isinstance(one, Estimate)}


def mean_of(value_N: Floats, among_N: Masks | None = None) -> Callable[[Weighted], Floats]:
    """A metric: the weighted mean of a value that each image has, among some images or all; NaN among none."""
    rests_on = np.ones(len(value_N)) if among_N is None else among_N.astype(np.float64)
    return lambda t: ratio((value_N * rests_on) @ t.weights, rests_on @ t.weights)
