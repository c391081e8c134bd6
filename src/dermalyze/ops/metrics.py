"""Metrics of a classifier as pure functions of labels and probabilities, for one weighting of the images or many at once.

A bootstrap resample is a weight for each image, so every metric is written once, for weights (N, R): R = 1 with ones is
the plain metric, R = 1,000 a whole bootstrap. Undefined values (a class that is absent, a class never predicted) are NaN in
these arrays and None for people; they are never 0.
"""

# Shapes: N images, C classes, R weightings (resamples).

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dermalyze.core.errors import ModelError
from dermalyze.ops.ranking import Floats, Ints, Ranking, auroc_of, average_precision_of, rank, ratio

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)  # log loss clips here, as scikit-learn does for float64


@dataclass(frozen=True, eq=False)
class Scores:
    """Labels and probabilities, checked once.

    Args:
        labels: (N,) class index, 0..C-1.
        probs: (N, C), each row finite, 0..1, summing to 1 (within 0.001).

    Raises:
        ModelError: NaN, outside 0..1, rows that do not sum to 1, labels outside the classes.
    """

    labels: Ints
    probs: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "probs", np.asarray(self.probs, dtype=np.float64))
        labels, probs = self.labels, self.probs
        if probs.ndim != 2 or labels.shape != probs.shape[:1] or probs.shape[1] < 2:
            raise ModelError(f"labels {labels.shape} and probabilities {probs.shape} must be (N,) and (N, C) with C at least 2")
        faults = {
            "have NaN or infinite": ~np.isfinite(probs).all(axis=1),
            "are outside 0..1 in their": (probs < -1e-6).any(axis=1) | (probs > 1 + 1e-6).any(axis=1),
            "do not sum to 1 in their": ~(np.abs(probs.sum(axis=1) - 1) <= 1e-3),
        }
        for fault, rows in faults.items():
            if rows.any():
                raise ModelError(
                    f"{int(rows.sum())} of {len(labels)} rows {fault} probabilities; run probe again on a sound model"
                )
        if len(labels) and not (labels.min() >= 0 and labels.max() < self.classes):
            raise ModelError(f"labels reach from {labels.min()} to {labels.max()}, must be 0..{self.classes - 1}")

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return int(self.probs.shape[1])

    @cached_property
    def predicted(self) -> Ints:
        """(N,) the class with the largest probability; the first of equals."""
        return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)

    @cached_property
    def support(self) -> Ints:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=self.classes)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """One a class; the only sort that a whole bootstrap needs."""
        return [rank(self.labels == c, self.probs[:, c]) for c in range(self.classes)]

    @cached_property
    def cells(self) -> tuple[Ints, Ints, Ints]:
        """Order that gathers each (label, predicted) cell of the confusion matrix, where each begins, and which it is."""
        cell = self.labels * self.classes + self.predicted
        order = np.argsort(cell, kind="stable")
        present, starts = np.unique(cell[order], return_index=True)
        return order, starts.astype(np.int64), present


@dataclass(frozen=True, eq=False)
class Tally:
    """Scores under R weightings at once; what several metrics share is computed once.

    Args:
        scores: labels and probabilities.
        weights: (N, R), at least 0; R weightings.
    """

    scores: Scores
    weights: Floats

    @cached_property
    def total(self) -> Floats:
        """(R,) sum of the weights."""
        return np.asarray(self.weights.sum(axis=0), dtype=np.float64)

    @cached_property
    def confusion(self) -> Floats:
        """(R, C, C) weighted counts; row the label, column the prediction."""
        order, starts, present = self.scores.cells
        classes, resamples = self.scores.classes, self.weights.shape[1]
        counts = np.zeros((classes * classes, resamples))
        if len(present):
            counts[present] = np.add.reduceat(self.weights[order], starts, axis=0)
        return counts.T.reshape(resamples, classes, classes)

    @cached_property
    def support(self) -> Floats:
        """(R, C) weight of each class's images."""
        return np.asarray(self.confusion.sum(axis=2), dtype=np.float64)

    @cached_property
    def auroc(self) -> Floats:
        """(R, C), see the function of that name."""
        return np.stack([auroc_of(ranking, self.weights) for ranking in self.scores.rankings], axis=1)

    @cached_property
    def average_precision(self) -> Floats:
        """(R, C), see the function of that name."""
        return np.stack([average_precision_of(ranking, self.weights) for ranking in self.scores.rankings], axis=1)


def tally(labels_N: npt.ArrayLike, probs_NC: npt.ArrayLike, weights_NR: npt.ArrayLike | None = None) -> Tally:
    """Scores under one weighting of ones, or under the given ones.

    >>> accuracy(tally([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])).round(3)
    array([0.667])
    """
    scores = Scores(np.asarray(labels_N), np.asarray(probs_NC))
    weights = np.ones((len(scores.labels), 1)) if weights_NR is None else np.asarray(weights_NR, dtype=np.float64)
    if weights.ndim != 2 or len(weights) != len(scores.labels) or (weights < 0).any():
        raise ValueError(f"weights {weights.shape} must be ({len(scores.labels)}, R), none below 0")
    return Tally(scores, weights)


# -- metrics of counts -------------------------------------------------------------------------------------------


def accuracy(t: Tally) -> Floats:
    """(R,) share of images whose largest probability is their label's."""
    return ratio(np.trace(t.confusion, axis1=1, axis2=2), t.total)


def recall(t: Tally) -> Floats:
    """(R, C) sensitivity: share of a class's images that are called so; undefined for an absent class."""
    return ratio(_hits(t), t.support)


def precision(t: Tally) -> Floats:
    """(R, C) share of the images called a class that are of it; undefined for a class never predicted, or absent."""
    return np.where(t.support > 0, ratio(_hits(t), t.confusion.sum(axis=1)), np.nan)


def specificity(t: Tally) -> Floats:
    """(R, C) share of the other classes' images that are not called so; undefined where there are no others."""
    others = t.total[:, None] - t.support
    return ratio(others - (t.confusion.sum(axis=1) - _hits(t)), others)


def f1(t: Tally) -> Floats:
    """(R, C) 2 TP / (2 TP + FP + FN); 0 for a class never predicted, undefined for an absent class."""
    return np.where(t.support > 0, ratio(2 * _hits(t), t.support + t.confusion.sum(axis=1)), np.nan)


def balanced_accuracy(t: Tally) -> Floats:
    """(R,) mean sensitivity of the classes; undefined where one is absent.

    >>> balanced_accuracy(tally([0, 1, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.2, 0.8], [0.6, 0.4]])).round(3)
    array([0.833])
    """
    return np.asarray(recall(t).mean(axis=1))


def _macro(metric: Callable[[Tally], Floats], t: Tally) -> Floats:
    return np.asarray(metric(t).mean(axis=1))


def _weighted(metric: Callable[[Tally], Floats], t: Tally) -> Floats:
    present = t.scores.support > 0  # a class with no image in the set has no weight; one that a resample lost has weight 0
    share = ratio(t.support, t.total[:, None])[:, present]
    values = metric(t)[:, present]
    return np.asarray(np.where(share > 0, share * values, 0.0).sum(axis=1) + np.where(t.total > 0, 0.0, np.nan))


def macro_precision(t: Tally) -> Floats:
    """(R,) mean precision of the classes; undefined where a class is absent or never predicted."""
    return _macro(precision, t)


def macro_recall(t: Tally) -> Floats:
    """(R,) mean sensitivity; equals balanced accuracy."""
    return _macro(recall, t)


def macro_f1(t: Tally) -> Floats:
    """(R,) mean F1 of the classes; undefined where one is absent."""
    return _macro(f1, t)


def weighted_precision(t: Tally) -> Floats:
    """(R,) precision averaged by support; undefined where a present class is never predicted."""
    return _weighted(precision, t)


def weighted_recall(t: Tally) -> Floats:
    """(R,) sensitivity averaged by support; equals accuracy."""
    return _weighted(recall, t)


def weighted_f1(t: Tally) -> Floats:
    """(R,) F1 averaged by support."""
    return _weighted(f1, t)


# -- metrics of ranks --------------------------------------------------------------------------------------------


def auroc(t: Tally) -> Floats:
    """(R, C) one-vs-rest area under the ROC curve, ties by midranks; undefined without positives or without negatives.

        AUROC_c = P(p_c of a positive > p_c of a negative) + P(equal) / 2

    >>> auroc(tally([0, 0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]))
    array([[0.875, 0.875]])

    Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747
    """
    return t.auroc


def macro_auroc(t: Tally) -> Floats:
    """(R,) mean one-vs-rest AUROC of the classes; undefined where one is absent."""
    return _macro(auroc, t)


def average_precision(t: Tally) -> Floats:
    """(R, C) area under the precision-recall curve as a step function, one-vs-rest: sum of (R_k - R_k-1) P_k.

    No interpolation (it flatters); equal scores are one step. Undefined without positives.

    >>> average_precision(tally([1, 0, 1], [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]))[:, 1].round(3)
    array([0.833])
    """
    return t.average_precision


def macro_average_precision(t: Tally) -> Floats:
    """(R,) mean average precision of the classes; undefined where one is absent."""
    return _macro(average_precision, t)


# -- proper scores -----------------------------------------------------------------------------------------------


def log_loss(t: Tally) -> Floats:
    """(R,) mean of -log p(label), natural logarithm, p clipped at 2.2e-16; 0 is best, log C is a uniform guess."""
    own = t.scores.probs[np.arange(len(t.scores.labels)), t.scores.labels]
    return ratio(-np.log(np.maximum(own, SMALLEST_PROBABILITY)) @ t.weights, t.total)


def brier(t: Tally) -> Floats:
    """(R,) mean over images of the sum over classes of (p - y)^2: 0 is best, 2 is sure and wrong (Brier's own form).

    Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    error = t.scores.probs.copy()
    error[np.arange(len(error)), t.scores.labels] -= 1
    return ratio(np.square(error).sum(axis=1) @ t.weights, t.total)


METRICS: Mapping[str, Callable[[Tally], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_precision": macro_precision,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
    "weighted_precision": weighted_precision,
    "weighted_recall": weighted_recall,
    "weighted_f1": weighted_f1,
    "macro_auroc": macro_auroc,
    "macro_average_precision": macro_average_precision,
    "log_loss": log_loss,
    "brier": brier,
}
PER_CLASS_METRICS: Mapping[str, Callable[[Tally], Floats]] = {
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "f1": f1,
    "auroc": auroc,
    "average_precision": average_precision,
}


def roc_curve(labels_N: Ints, probs_NC: Floats, c: int) -> tuple[Floats, Floats]:
    """False- and true-positive rates of class `c` against the rest, from (0, 0) to (1, 1), one point a different score.

    Raises:
        ValueError: the class, or its rest, is absent.

    >>> roc_curve(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]]), 1)
    (array([0., 0., 1.]), array([0., 1., 1.]))
    """
    positive = labels_N == c
    if positive.all() or not positive.any():
        raise ValueError(f"class {c} has {int(positive.sum())} of {len(positive)} images; a curve needs both sides")
    order = np.argsort(-probs_NC[:, c], kind="stable")
    score = probs_NC[order, c]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    true = np.cumsum(positive[order])[last]
    false = last + 1 - true
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def measure(labels_N: npt.ArrayLike, probs_NC: npt.ArrayLike) -> dict[str, float | None]:
    """Every metric of METRICS on one set, None where undefined.

    >>> measure([0, 0], [[0.9, 0.1], [0.8, 0.2]])["macro_auroc"] is None
    True
    """
    t = tally(labels_N, probs_NC)
    return {name: defined(metric(t)[0]) for name, metric in METRICS.items()}


def defined(value: float) -> float | None:
    """A finite number as a float, anything else as None.

    >>> defined(float("nan")) is None, defined(np.float64(0.5))
    (True, 0.5)
    """
    return float(value) if np.isfinite(value) else None


# -- parts -------------------------------------------------------------------------------------------------------


def _hits(t: Tally) -> Floats:
    return np.asarray(np.diagonal(t.confusion, axis1=1, axis2=2))
