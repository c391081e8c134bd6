"""Metrics of a classifier as pure functions of labels and probabilities, for one weighting of the images or many at once.

A bootstrap resample is a weight for each image, so every metric is written once, for weights (N, R): R = 1 with ones is
the plain metric, R = 1,000 a whole bootstrap. Undefined values (a class that is absent, a class never predicted) are NaN in
these arrays and None for people; they are never 0.
"""

# Shapes: N images, C classes, R weightings (resamples).

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.agreement import kappa_of, mcc_of, one_against_rest
from dermalyze.metrics.ranking import Floats, Ints, auroc_of, partial_auroc_of, ratio
from dermalyze.metrics.scores import Scores, Tally, tally

__all__ = ["METRICS", "PER_CLASS_METRICS", "Scores", "Tally", "measure", "tally"]

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)  # log loss clips here, as scikit-learn does for float64


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


def npv(t: Tally) -> Floats:
    """(R, C) negative predictive value: share of the images not called a class that are not of it; undefined where precision is
    for want of the class, or where every image is called so."""
    rest = t.total[:, None] - t.confusion.sum(axis=1)
    return np.where(t.support > 0, ratio(rest - (t.support - _hits(t)), rest), np.nan)


def false_positive_rate(t: Tally) -> Floats:
    """(R, C) 1 - specificity: share of the other classes' images that are called so."""
    return 1 - specificity(t)


def false_negative_rate(t: Tally) -> Floats:
    """(R, C) 1 - sensitivity: share of a class's images that are called something else."""
    return 1 - recall(t)


def f1(t: Tally) -> Floats:
    """(R, C) 2 TP / (2 TP + FP + FN); 0 for a class never predicted, undefined for an absent class."""
    return np.where(t.support > 0, ratio(2 * _hits(t), t.support + t.confusion.sum(axis=1)), np.nan)


def balanced_accuracy(t: Tally) -> Floats:
    """(R,) mean sensitivity of the classes; undefined where one is absent. ISIC 2018 and 2019 rank by it, as "balanced
    multiclass accuracy".

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


def top_k_accuracy(t: Tally, *, k: int) -> Floats:
    """(R,) share of images whose class is among the k most probable, of equals the first; 1 where k is the number of classes.

    >>> top_k_accuracy(tally([2, 0], [[0.5, 0.3, 0.2], [0.4, 0.5, 0.1]]), k=2)
    array([0.5])
    """
    return ratio((t.scores.better < k).astype(np.float64) @ t.weights, t.total)


def top_2_accuracy(t: Tally) -> Floats:
    """(R,) share of images whose class is among the two most probable."""
    return top_k_accuracy(t, k=2)


def top_3_accuracy(t: Tally) -> Floats:
    """(R,) share of images whose class is among the three most probable."""
    return top_k_accuracy(t, k=3)


def kappa(t: Tally) -> Floats:
    """(R,) Cohen's kappa of labels and calls; undefined where the labels are of one class."""
    return kappa_of(t.confusion)


def mcc(t: Tally) -> Floats:
    """(R,) Matthews' correlation of labels and calls; undefined where either is of one class."""
    return mcc_of(t.confusion)


def class_kappa(t: Tally) -> Floats:
    """(R, C) Cohen's kappa of each class against the rest."""
    return kappa_of(one_against_rest(t.confusion))


def class_mcc(t: Tally) -> Floats:
    """(R, C) Matthews' correlation of each class against the rest; undefined for one absent or never predicted."""
    return mcc_of(one_against_rest(t.confusion))


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


def macro_auroc_ovo(t: Tally) -> Floats:
    """(R,) mean over all pairs of classes of the AUROC between the two, each by its own probability; undefined where a class
    is absent. Unlike one-vs-rest it does not depend on how common the classes are.

        M = 2 / (C (C - 1)) * sum over i < j of (A(i|j) + A(j|i)) / 2

    >>> macro_auroc_ovo(tally([0, 0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]))
    array([0.875])

    Hand & Till 2001, doi:10.1023/A:1010920819831
    """
    duels = np.stack([auroc_of(duel, t.weights) for duel in t.scores.duels])
    return np.asarray(duels.mean(axis=0))


def partial_auroc(t: Tally, *, floor: float = 0.8) -> Floats:
    """(R, C) one-vs-rest area under the ROC curve and above a sensitivity, 0..1 - floor; see `partial_auroc_of`."""
    return np.stack([partial_auroc_of(ranking, t.weights, floor) for ranking in t.scores.rankings], axis=1)


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
    return ratio(t.scores.log_losses @ t.weights, t.total)


def brier(t: Tally) -> Floats:
    """(R,) mean over images of the sum over classes of (p - y)^2: 0 is best, 2 is sure and wrong (Brier's own form).

    Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    return ratio(t.scores.squared_errors @ t.weights, t.total)


METRICS: Mapping[str, Callable[[Tally], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_precision": macro_precision,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
    "weighted_precision": weighted_precision,
    "weighted_recall": weighted_recall,
    "weighted_f1": weighted_f1,
    "kappa": kappa,
    "mcc": mcc,
    "top_2_accuracy": top_2_accuracy,
    "top_3_accuracy": top_3_accuracy,
    "macro_auroc": macro_auroc,
    "macro_auroc_ovo": macro_auroc_ovo,
    "macro_average_precision": macro_average_precision,
    "log_loss": log_loss,
    "brier": brier,
}
PER_CLASS_METRICS: Mapping[str, Callable[[Tally], Floats]] = {
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "npv": npv,
    "false_positive_rate": false_positive_rate,
    "false_negative_rate": false_negative_rate,
    "f1": f1,
    "class_kappa": class_kappa,
    "class_mcc": class_mcc,
    "auroc": auroc,
    "partial_auroc": partial_auroc,
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
    called, true = _steps(positive, probs_NC[:, c])
    false = called - true
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def pr_curve(labels_N: Ints, probs_NC: Floats, c: int) -> tuple[Floats, Floats]:
    """Sensitivity and precision of class `c` against the rest, one point a different score, highest first; without the
    customary point (0, 1), which nothing measured.

    Raises:
        ValueError: the class is absent.

    >>> pr_curve(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]]), 1)
    (array([1., 1.]), array([1. , 0.5]))
    """
    positive = labels_N == c
    if not positive.any():
        raise ValueError(f"class {c} has no image; a curve needs some")
    called, true = _steps(positive, probs_NC[:, c])
    return true / true[-1], true / called


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


def _steps(positive_N: npt.NDArray[np.bool_], score_N: Floats) -> tuple[Ints, Ints]:
    """Images called, and positives among them, at each different score, highest first."""
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    return last + 1, np.cumsum(positive_N[order])[last]


def log_losses(probs_NC: Floats, labels_N: Ints) -> Floats:
    """(N,) -log of the probability of the right class, natural logarithm, clipped as `measure` does."""
    return np.asarray(-np.log(np.maximum(probs_NC[np.arange(len(labels_N)), labels_N], SMALLEST_PROBABILITY)))
