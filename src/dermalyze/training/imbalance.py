"""Class imbalance: no correction, weights in the loss, or weighted sampling."""

# Shapes: N training images, C classes, S sources, M draws an epoch.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.config.train import ImbalanceSpec
from dermalyze.errors import ConfigError, DataError, nearest
from dermalyze.rng import ORDER, Floats, Ints, permutation, uniforms

_MEMBER = 16 + ORDER  # stream of the draw within a class


def no_weights(counts_C: Floats, classes: Sequence[str]) -> None:
    """All classes weigh the same."""


def power_weights(counts_C: Floats, classes: Sequence[str], *, power: float) -> Floats:
    """Weights against class frequency.

        w_c = (N / (C n_c)) ^ power

    Args:
        counts_C: training images per class, all > 0.
        classes: their names, for the message.
        power: 1 balances the classes in full, 0.5 gives square-root weights.

    Raises:
        DataError: a class has no training image.

    >>> power_weights(np.array([90, 10]), ["nv", "mel"], power=1.0).round(3)
    array([0.556, 5.   ])
    """
    _refuse_empty(counts_C, classes)
    return np.asarray((counts_C.sum() / (len(counts_C) * counts_C)) ** power)


def chosen_weights(counts_C: Floats, classes: Sequence[str], *, power: float, values: Mapping[str, float] | None) -> Floats:
    """Weights given by hand in `values` (class name to weight), else `power_weights`.

    Raises:
        ConfigError: a class without a weight, a name that is no class, or a weight that is not above 0.
        DataError: a class has no training image (weights from counts only).

    >>> chosen_weights(np.array([90, 10]), ["nv", "mel"], power=1.0, values={"mel": 3.0, "nv": 1.0})
    array([1., 3.])
    """
    if values is None:
        return power_weights(counts_C, classes, power=power)
    for name, value in values.items():
        if name not in classes:
            hint = nearest(name, list(classes))
            raise ConfigError(f"imbalance.values: '{name}' is not a class; allowed: {', '.join(classes)}{hint}")
        if not value > 0:
            raise ConfigError(f"imbalance.values: the weight of '{name}' is {value}; it must be above 0")
    if missing := [name for name in classes if name not in values]:
        raise ConfigError(f"imbalance.values: no weight for {', '.join(missing)}; set one for each class")
    return np.array([values[name] for name in classes], dtype=np.float64)


@dataclass(frozen=True)
class Correction:
    """A row of `IMBALANCE`."""

    weights: Callable[..., Floats | None]
    """(counts_C, classes, **fields of the spec) -> weights in the loss"""
    balanced_draws: bool
    """draw each class equally often, with replacement"""


IMBALANCE: dict[str, Correction] = {
    "none": Correction(no_weights, balanced_draws=False),
    "weights": Correction(chosen_weights, balanced_draws=False),
    "sampling": Correction(no_weights, balanced_draws=True),
    "sampling_and_weights": Correction(power_weights, balanced_draws=True),
}


def class_weights(spec: ImbalanceSpec, counts_C: npt.ArrayLike, classes: Sequence[str]) -> Floats | None:
    """Weights for the loss, or None where all classes weigh the same.

    Args:
        spec: `train.imbalance`.
        counts_C: training images per class (or `source_counts`), in class order.
        classes: class names, in class order.

    Raises:
        DataError: a class has no training image, and its weight would be infinite.
        ConfigError: weights by hand that do not fit the classes.
    """
    fields: dict[str, Any] = spec.model_dump(exclude={"kind"})
    return IMBALANCE[spec.kind].weights(np.asarray(counts_C, dtype=np.float64), classes, **fields)


def positive_weights(
    spec: ImbalanceSpec, present_C: npt.ArrayLike, absent_C: npt.ArrayLike, classes: Sequence[str]
) -> Floats | None:
    """Weights of where a label is present, against where it is absent, for losses of images with several labels.

        w_c = (absent_c / present_c) ^ power

    Args:
        spec: `train.imbalance`; kind weights, or none.
        present_C, absent_C: training images with each label and without it; those where it is missing are in neither.
        classes: names of the labels.

    Returns:
        (C,) weights, or None without weights.

    Raises:
        DataError: a label that no training image has, or every one whose label is known.
        ConfigError: weights by hand that do not fit the labels.

    >>> from dermalyze.config.train import WeightsImbalance
    >>> positive_weights(WeightsImbalance(), [10, 50], [90, 50], ["mass", "edema"])
    array([9., 1.])
    """
    fields: dict[str, Any] = spec.model_dump(exclude={"kind"})
    if spec.kind != "weights":
        return None
    present, absent = np.asarray(present_C, dtype=np.float64), np.asarray(absent_C, dtype=np.float64)
    if fields["values"] is not None:
        return chosen_weights(present, classes, **fields)
    _refuse_empty(present, classes)
    if always := [name for name, count in zip(classes, absent, strict=True) if count == 0]:
        raise DataError(f"every training image has the label {', '.join(always)}; leave it out, or set train.imbalance to none")
    return np.asarray((absent / present) ** fields["power"])


def source_counts(labels_N: npt.ArrayLike, sources_N: npt.ArrayLike, classes: int) -> Floats:
    """How often each class is expected in an epoch that draws each source equally often.

        n_c = sum over s of N / S * n_sc / n_s

    Args:
        labels_N: class index of each row, 0..C-1.
        sources_N: source index of each row, 0..S-1, every source with at least one row.
        classes: C.

    Returns:
        (C,) expected draws, which sum to N; in place of the counts of `class_weights`.

    >>> source_counts([0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1], 2)
    array([4.5, 1.5])
    """
    labels, sources = np.asarray(labels_N, dtype=np.int64), np.asarray(sources_N, dtype=np.int64)
    rows_S = np.bincount(sources)
    weight_N = len(labels) / (len(rows_S) * rows_S[sources])
    return np.asarray(np.bincount(labels, weights=weight_N, minlength=classes), dtype=np.float64)


def effective_shares(spec: ImbalanceSpec, counts_C: npt.ArrayLike, classes: Sequence[str]) -> Floats:
    """(C,) shares of the classes as training weighs them: what its probabilities believe of the population.

    >>> from dermalyze.config.train import WeightsImbalance
    >>> effective_shares(WeightsImbalance(power=0.5), [90, 10], ["nv", "mel"])
    array([0.75, 0.25])
    """
    counts = np.asarray(counts_C, dtype=np.float64)
    seen = np.ones(len(counts)) if IMBALANCE[spec.kind].balanced_draws else counts
    weights = class_weights(spec, np.asarray(counts_C), classes)
    shares = seen * (1.0 if weights is None else weights)
    return np.asarray(shares / shares.sum())


def draw_order(
    spec: ImbalanceSpec,
    labels_N: npt.ArrayLike,
    *,
    seed: int,
    epoch: int,
    classes: Sequence[str] | None = None,
    sources_N: npt.ArrayLike | None = None,
) -> Ints:
    """Which row each draw of the epoch takes.

    Without sampling: every row once, in random order. With it: as many draws as there are rows, with replacement, each class
    equally often (to within one draw; which class gets the odd one changes with the epoch), in random order. With sources: as
    many draws as there are rows, with replacement, each source equally often, and within a source each of its classes equally
    often where the classes are sampled, else each of its rows.

    Args:
        spec: `train.imbalance`.
        labels_N: class index of each row, 0..C-1.
        seed, epoch: the address of the random numbers.
        classes: class names in class order, so that one without any row is noticed; default: as many as the largest label says.
        sources_N: source index of each row, 0..S-1, to draw each source equally often; None: sources do not matter.

    Returns:
        (M,) int64 row indices, M = N.

    Raises:
        DataError: sampling, and a class has no row.

    >>> from dermalyze.config.train import SamplingImbalance
    >>> labels = np.array([0] * 8 + [1] * 2)
    >>> np.bincount(labels[draw_order(SamplingImbalance(), labels, seed=42, epoch=0)])
    array([5, 5])
    >>> sources = np.array([0] * 9 + [1])
    >>> np.bincount(sources[draw_order(SamplingImbalance(), labels, seed=42, epoch=0, sources_N=sources)])
    array([5, 5])
    """
    labels = np.asarray(labels_N, dtype=np.int64)
    order = permutation(seed, epoch, len(labels))
    balanced = IMBALANCE[spec.kind].balanced_draws
    if balanced:
        counts = np.bincount(labels, minlength=len(classes or ()))
        _refuse_empty(counts, classes or [f"number {index}" for index in range(len(counts))])
    if sources_N is None:
        return _members(labels, (order + epoch) % len(counts), seed, epoch) if balanced else order
    sources = np.asarray(sources_N, dtype=np.int64)
    held = [np.unique(labels[sources == source]) for source in range(int(sources.max()) + 1)] if len(sources) else []
    source, turn = (order + epoch) % max(1, len(held)), order // max(1, len(held))
    if not balanced:
        return _members(sources, source, seed, epoch)
    width = int(labels.max()) + 1  # a stratum is a class within a source
    drawn = [held[s][(t + epoch) % len(held[s])] + s * width for s, t in zip(source.tolist(), turn.tolist(), strict=True)]
    return _members(sources * width + labels, np.array(drawn, dtype=np.int64), seed, epoch)


def _members(strata_N: Ints, drawn_M: Ints, seed: int, epoch: int) -> Ints:
    """A row of each drawn stratum, with replacement."""
    counts = np.bincount(strata_N)
    by_stratum, first = np.argsort(strata_N, kind="stable"), np.cumsum(counts) - counts
    share = uniforms(seed, epoch, np.arange(len(drawn_M)), 1, stream=_MEMBER)[:, 0]
    member = (share * counts[drawn_M]).astype(np.int64)  # below the count: share <= 1 - 2**-53 and counts are far below 2**53
    rows: Ints = by_stratum[first[drawn_M] + member]
    return rows


def _refuse_empty(counts_C: Floats | Ints, classes: Sequence[str]) -> None:
    if len(counts_C) and counts_C.min() > 0:
        return
    empty = [name for name, count in zip(classes, counts_C, strict=True) if count <= 0]
    raise DataError(
        f"the training split has no image of class {', '.join(empty) or '(no classes at all)'}; each class needs at least one: "
        "split again, drop the class, or set train.imbalance to none"
    )
