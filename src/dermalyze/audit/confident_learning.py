"""Confident learning: which labels are likely errors, from out-of-fold probabilities alone.

An image counts as class j where its probability of j reaches t_j, the mean probability of j over the images labelled j
(where several do, as the most probable of them). The confident joint counts pairs (given label, that class).

Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv:1911.00068.
"""

# Shapes: N images, C classes, M likely errors.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermalyze.metrics.classification import Scores
from dermalyze.metrics.ranking import Floats, Ints, ratio


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """What confident learning says of a set's labels.

    Attributes:
        thresholds: (C,) t_j; NaN for a class without images.
        joint: (C, C) the confident joint: row the given label, column the class that the image counts as.
        counts_as: (N,) class that each image counts as; -1 where no probability reaches its threshold.
        self_confidence: (N,) probability of the given label, 0..1.
        margin: (N,) normalized margin, -1..1: that probability less the largest of the others.
        rows: (M,) likely errors, lowest self-confidence first (equal ones: by row).
    """

    thresholds: Floats
    joint: Ints
    counts_as: Ints
    self_confidence: Floats
    margin: Floats
    rows: Ints


def find_issues(scores: Scores) -> LabelIssues:
    """Likely label errors.

    A likely error stands off the diagonal of the confident joint, and its given label is not the most probable class: in
    a set with a large class, rare classes have low thresholds, and an image that reaches one may still be called rightly.

    Args:
        scores: given labels and out-of-fold probabilities: of a model that has seen neither the image nor its group.

    >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    >>> found = find_issues(Scores(np.array([0, 0, 0, 1, 1]), probs))
    >>> found.rows, found.joint.tolist()
    (array([2]), [[2, 1], [0, 1]])
    """
    labels, probs = scores.labels, scores.probs
    limit_C = thresholds(scores)
    reaches_NC = probs >= limit_C  # False for NaN
    counts_as = np.where(reaches_NC.any(axis=1), np.where(reaches_NC, probs, -1.0).argmax(axis=1), -1)
    counted = counts_as >= 0
    cells = np.bincount(labels[counted] * scores.classes + counts_as[counted], minlength=scores.classes**2)
    own = probs[np.arange(len(labels)), labels]
    others = probs.copy()
    others[np.arange(len(labels)), labels] = -1.0
    margin = own - others.max(axis=1, initial=-1.0)
    rows = np.flatnonzero(counted & (counts_as != labels) & (margin < 0))
    rows = rows[np.argsort(own[rows], kind="stable")]
    return LabelIssues(limit_C, cells.reshape(scores.classes, scores.classes), counts_as, own, margin, rows)


def thresholds(scores: Scores) -> Floats:
    """(C,) mean probability of each class over the images labelled so; NaN for a class without images.

    >>> thresholds(Scores(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]])))
    array([0.8, 0.6])
    """
    own_N = scores.probs[np.arange(len(scores.labels)), scores.labels]
    total_C = np.bincount(scores.labels, weights=own_N, minlength=scores.classes)
    return ratio(np.asarray(total_C, dtype=np.float64), np.asarray(scores.support, dtype=np.float64))


def noise_share(joint_CC: Ints, support_C: Ints) -> float:
    """Estimated share of wrong labels, 0..1: the joint, each row scaled to its label's count, off the diagonal (eq. 3).

    What the model surely takes for another class counts as noise, so a weak model gives too much. NaN where nothing counts.

    >>> round(noise_share(np.array([[8, 2], [0, 5]]), np.array([20, 10])), 4)
    0.1333
    """
    held = joint_CC.sum(axis=1)
    right = ratio(np.diag(joint_CC).astype(np.float64), held.astype(np.float64))
    judged = held > 0
    if not judged.any():
        return float("nan")
    return float(1 - np.average(right[judged], weights=support_C[judged]))
