"""Several photographs, one answer: images pooled to subjects, subjects to patients.

The probabilities of a subject are the plain mean of its photographs' calibrated probabilities. The mean of their logarithms
(scaled to sum to 1) is the other candidate: it treats the photographs as independent evidence, which they are not, and lets one
blurred photograph that gives a class almost nothing overrule all others. The plain mean has no such veto, leaves probabilities
that all photographs share as they are, is what the recipe `flips` does with the views of one image, and its log loss and Brier
score are never above the mean of the photographs' own (both are convex). It errs on the side of doubt: a mean of calibrated
probabilities is a little less sure than it could be (Ranjan & Gneiting 2010, doi:10.1111/j.1467-9868.2009.00726.x).
"""

# Shapes: N images, L subjects (or patients), C classes.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.bootstrap import TargetScores, group_index
from dermalyze.metrics.classification import Scores
from dermalyze.metrics.ranking import Floats, Ints


@dataclass(frozen=True, eq=False)
class Pooled:
    """One row a unit.

    Attributes:
        scores: label and probabilities of each unit, in order of first appearance.
        units: its name.
        groups: what it is resampled with.
        disagreeing: units left out because their images have different labels.
        images: images of the units that stayed.
        several: how many of the units that stayed have more than one image.
    """

    scores: Any
    units: list[str]
    groups: list[str]
    disagreeing: list[str]
    images: int
    several: int


def pool(scores: TargetScores, units_N: Sequence[str], groups_N: Sequence[str]) -> Pooled:
    """One answer per subject: the mean of its images' probabilities. A subject under two labels is left out and named.

    Args:
        scores: labels and calibrated probabilities of the images.
        units_N: the subject of each; an image of its own subject has a name of its own.
        groups_N: what is resampled together, at least as coarse as the units.

    >>> scores = Scores(np.array([1, 1, 0]), np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]))
    >>> found = pool(scores, ["a", "a", "b"], ["a", "a", "b"])
    >>> found.scores.probs.round(2).tolist(), found.scores.labels.tolist()
    ([[0.6, 0.4], [0.9, 0.1]], [1, 0])
    """
    unit_N, count = group_index(units_N)
    first_L = np.unique(unit_N, return_index=True)[1]
    images_L = np.bincount(unit_N, minlength=count)
    start_LC, beyond_LC = scores.probs[first_L], np.zeros((count, scores.classes))
    np.add.at(
        beyond_LC, unit_N, scores.probs - start_LC[unit_N]
    )  # so that equal photographs give exactly what each of them has
    probs_LC = start_LC + beyond_LC / images_L[:, None]
    targets_L = scores.targets[first_L]
    torn_L = np.zeros(count, dtype=bool)
    torn_L[unit_N[differing(scores.targets, targets_L[unit_N])]] = True
    kept = np.flatnonzero(~torn_L)
    return Pooled(
        scores.with_values(targets_L[kept], probs_LC[kept]),
        [str(units_N[i]) for i in first_L[kept]],
        [str(groups_N[i]) for i in first_L[kept]],
        [str(units_N[i]) for i in first_L[torn_L]],
        int(images_L[kept].sum()),
        int((images_L[kept] > 1).sum()),
    )


def differing(a: Ints, b: Ints) -> npt.NDArray[np.bool_]:
    """(N,) whether the targets of an image differ, of one class each, (N,), or of several labels, (N, C).

    >>> differing(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 0]])).tolist()
    [False, True]
    """
    return np.asarray((a != b).any(axis=tuple(range(1, a.ndim))))


def any_of(scores: Scores, classes: Sequence[int]) -> Scores:
    """Two classes of many: 1 for the given ones, 0 for the others.

    >>> any_of(Scores(np.array([0, 2]), np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])), [1, 2]).probs.round(2).tolist()
    [[0.5, 0.5], [0.1, 0.9]]
    """
    inside_N = scores.any_of(np.isin(np.arange(scores.classes), list(classes))).clip(0, 1)
    labels = np.isin(scores.labels, list(classes)).astype(np.int64)
    return Scores(labels, np.stack([1 - inside_N, inside_N], axis=1), scores.ranks_only)


def worst_of(scores: Scores, owners_L: Sequence[str], groups_L: Sequence[str]) -> Pooled:
    """One answer a patient: positive where any of their subjects is, as suspicious as the most suspicious of these.

    Of one negative and one positive subject the patient is positive, so their labels need not agree. The highest of several
    probabilities is no calibrated probability of "any": it may rank patients, and be compared with a threshold.

    Args:
        scores: two classes, 1 positive, one row per subject.
        owners_L: the patient of each subject.
        groups_L: what is resampled together.

    >>> found = worst_of(Scores(np.array([0, 1, 0]), np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])), "ppq", "ppq")
    >>> found.scores.labels.tolist(), found.scores.probs[:, 1].tolist()
    ([1, 0], [0.7, 0.6])
    """
    owner_L, count = group_index(owners_L)
    first = np.unique(owner_L, return_index=True)[1]
    units = np.bincount(owner_L, minlength=count)
    highest, labels = np.zeros(count), np.zeros(count, dtype=np.int64)
    np.maximum.at(highest, owner_L, scores.probs[:, 1])
    np.maximum.at(labels, owner_L, scores.labels)
    probs: Floats = np.stack([1 - highest, highest], axis=1)
    names, groups = [str(owners_L[i]) for i in first], [str(groups_L[i]) for i in first]
    return Pooled(Scores(labels, probs, scores.ranks_only), names, groups, [], int(units.sum()), int((units > 1).sum()))
