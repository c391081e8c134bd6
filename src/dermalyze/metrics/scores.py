"""Labels and probabilities, checked once, under one weighting of the images or many at once: what every metric is made from.

A bootstrap resample is a weight for each image, so what several metrics share is computed for all resamples together.
"""

# Shapes: N images, C classes, R weightings (resamples).

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ModelError
from dermalyze.metrics.ranking import Floats, Ints, Ranking, auroc_of, average_precision_of, rank


@dataclass(frozen=True, eq=False)
class Scores:
    """Labels and probabilities, checked once.

    Args:
        labels: (N,) class index, 0..C-1.
        probs: (N, C), each row finite, 0..1, summing to 1 (within 0.001).
        ranks_only: each class has a score of its own, such as a sigmoid output; rows need not sum to 1, images are ranked by
            the scores as they are, and metrics of probabilities are undefined.

    Raises:
        ModelError: NaN, outside 0..1, rows that do not sum to 1, labels outside the classes.
    """

    labels: Ints
    probs: Floats
    ranks_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "probs", np.asarray(self.probs, dtype=np.float64))
        labels, probs = self.labels, self.probs
        if probs.ndim != 2 or labels.shape != probs.shape[:1] or probs.shape[1] < 2:
            raise ModelError(f"labels {labels.shape} and probabilities {probs.shape} must be (N,) and (N, C) with C at least 2")
        faults = {
            "have NaN or infinite": ~np.isfinite(probs).all(axis=1),
            "are outside 0..1 in their": (probs < -1e-6).any(axis=1) | (probs > 1 + 1e-6).any(axis=1),
            "do not sum to 1 in their": ~(np.abs(probs.sum(axis=1) - 1) <= 1e-3) & (not self.ranks_only),
        }
        for fault, rows in faults.items():
            if rows.any():
                raise ModelError(
                    f"{int(rows.sum())} of {len(labels)} rows {fault} probabilities; run score again on a sound model"
                )
        if len(labels) and not (labels.min() >= 0 and labels.max() < self.classes):
            raise ModelError(f"labels reach from {labels.min()} to {labels.max()}, must be 0..{self.classes - 1}")

    def __len__(self) -> int:
        return len(self.labels)

    def under(self, weights: Floats) -> Tally:
        """These scores under R weightings (N, R)."""
        return Tally(self, weights)

    def rests_on(self, metric: str | None, c: int | None) -> npt.NDArray[np.bool_]:
        """(N,) the images that a metric rests on: of a class its own images, of its specificity the others, of its precision
        those called so, of its negative predictive value the rest; every image without a class."""
        if metric is None or c is None:
            return np.ones(len(self), dtype=bool)
        if metric in ("precision", "npv"):
            return np.asarray((self.predicted == c) == (metric == "precision"))
        return np.asarray((self.labels == c) != (metric in ("specificity", "false_positive_rate")))

    def why_undefined(self, names: Sequence[str]) -> str:
        """Why a mean over classes can be undefined on this set."""
        called = np.bincount(self.predicted, minlength=self.classes)
        absent = [name for name, n in zip(names, self.support, strict=True) if n == 0]
        never = [name for name, n in zip(names, called, strict=True) if n == 0 and name not in absent]
        parts = [f"no image of {', '.join(absent)}"] if absent else []
        parts += [f"no image called {', '.join(never)}"] if never else []
        parts += ["the scores are no probabilities"] if self.ranks_only else []
        return "; ".join(parts) if len(self) else ""

    @property
    def targets(self) -> Ints:
        """(N,) the labels, by the name that they have in every task."""
        return self.labels

    def select(self, rows: Ints, order_C: Ints | None = None) -> Scores:
        """Some of the images, the classes in another order."""
        if order_C is None:
            return Scores(self.labels[rows], self.probs[rows], self.ranks_only)
        return Scores(np.argsort(order_C)[self.labels[rows]], self.probs[rows][:, order_C], self.ranks_only)

    def with_values(self, targets: Ints, probs: Floats) -> Scores:
        """Other images, evaluated in the same way."""
        return Scores(targets, probs, self.ranks_only)

    def any_of(self, yes_C: npt.NDArray[np.bool_]) -> Floats:
        """(N,) the probability of some of the classes together: their sum, or, of scores of single classes, that of at least
        one if they were independent."""
        if self.ranks_only:
            return np.asarray(1 - (1 - self.probs[:, yes_C]).prod(axis=1))
        return np.asarray(self.probs[:, yes_C].sum(axis=1))

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return int(self.probs.shape[1])

    @cached_property
    def predicted(self) -> Ints:
        """(N,) the class with the largest probability; the first of equals."""
        return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)

    @cached_property
    def called(self) -> npt.NDArray[np.bool_]:
        """(N, C) the class that is called."""
        return np.asarray(self.predicted[:, None] == np.arange(self.classes))

    @cached_property
    def confidence(self) -> Floats:
        """(N,) the largest probability."""
        return np.asarray(self.probs.max(axis=1, initial=0))

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the class that is called is the label."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def log_losses(self) -> Floats:
        """(N,) -log of the probability of the label, natural logarithm, clipped at 2.2e-16; NaN for `ranks_only`."""
        if self.ranks_only:
            return np.full(len(self), np.nan)
        own = self.probs[np.arange(len(self)), self.labels]
        return np.asarray(-np.log(np.maximum(own, np.finfo(np.float64).eps)))

    @cached_property
    def squared_errors(self) -> Floats:
        """(N,) sum over classes of (p - y)^2, 0..2; NaN for `ranks_only`."""
        if self.ranks_only:
            return np.full(len(self), np.nan)
        return np.asarray(np.square(self.probs - np.eye(self.classes)[self.labels]).sum(axis=1))

    @cached_property
    def support(self) -> Ints:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=self.classes)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """One per class; the only sort that a whole bootstrap needs."""
        return [rank(self.labels == c, self.probs[:, c]) for c in range(self.classes)]

    @cached_property
    def duels(self) -> list[Ranking]:
        """Two a pair of classes: its images alone, ranked by the probability of either."""
        found = []
        for one, other in permutations(range(self.classes), 2):
            rows = np.flatnonzero((self.labels == one) | (self.labels == other))
            # the rarer of the two as positives: the same area for less work
            rarer, sign = (one, 1) if self.support[one] <= self.support[other] else (other, -1)
            ranking = rank(self.labels[rows] == rarer, sign * self.probs[rows, one])
            found.append(replace(ranking, order=rows[ranking.order]))
        return found

    @cached_property
    def better(self) -> Ints:
        """(N,) how many classes stand before the label's by probability; of equals, those before it."""
        own = np.take_along_axis(self.probs, self.labels[:, None], axis=1)
        before = (self.probs == own) & (np.arange(self.classes) < self.labels[:, None])
        return np.asarray(((self.probs > own) | before).sum(axis=1), dtype=np.int64)

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

    >>> tally([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]).confusion[0]
    array([[1., 0.],
           [1., 1.]])
    """
    scores = Scores(np.asarray(labels_N), np.asarray(probs_NC))
    weights = np.ones((len(scores.labels), 1)) if weights_NR is None else np.asarray(weights_NR, dtype=np.float64)
    if weights.ndim != 2 or len(weights) != len(scores.labels) or (weights < 0).any():
        raise ValueError(f"weights {weights.shape} must be ({len(scores.labels)}, R), none below 0")
    return Tally(scores, weights)
