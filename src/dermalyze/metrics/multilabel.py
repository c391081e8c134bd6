"""Metrics of images with any number of labels each, for one weighting of the images or many at once.

As in `dermalyze.metrics.classification` a bootstrap resample is a weight for each image, and what is undefined (a label that
no image has, or every one) is NaN, never 0. A target may be missing: that image then has weight 0 for that label, in every
metric, as if the pair of both had never been.
"""

# Shapes: N images, C labels, R weightings (resamples).

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ModelError
from dermalyze.metrics.calibration_error import ECE_BINS, confidence_bins
from dermalyze.metrics.classification import SMALLEST_PROBABILITY, defined
from dermalyze.metrics.ranking import Floats, Ints, Ranking, auroc_of, average_precision_of, rank_among, ratio

Masks = npt.NDArray[np.bool_]
PLAIN_THRESHOLD = 0.5
MISSING = -1
"""Target of a label that nobody looked for on an image."""
OF_ALL, OF_LACKING, OF_CALLED = ("brier", "ece"), ("specificity",), ("precision",)
"""Metrics of a label that rest on every image, on those without the label, and on those called so; others: on those with it."""


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Targets, probabilities and thresholds, checked once.

    Args:
        targets: (N, C) 1, 0, or -1 where missing.
        probs: (N, C), finite, 0..1.
        thresholds: (C,), from which probability on a label is called.

    Raises:
        ModelError: shapes that do not fit, other targets than 1, 0 and -1, probabilities that are none.
    """

    targets: Ints
    probs: Floats
    thresholds: Floats

    def __post_init__(self) -> None:
        probs, targets = np.asarray(self.probs, dtype=np.float64), np.asarray(self.targets)
        thresholds = np.asarray(self.thresholds, dtype=np.float64)
        if probs.ndim != 2 or targets.shape != probs.shape or thresholds.shape != probs.shape[1:]:
            raise ModelError(
                f"targets {targets.shape}, probabilities {probs.shape} and thresholds {thresholds.shape} must be (N, C), "
                "(N, C) and (C,)"
            )
        bad = ~((probs >= -1e-6) & (probs <= 1 + 1e-6)).all(axis=1)  # NaN is among them
        if bad.any():
            raise ModelError(f"{int(bad.sum())} of {len(probs)} rows have NaN or are outside 0..1; run score on a sound model")
        if not np.isin(targets, (0, 1, MISSING)).all():
            raise ModelError(f"targets must be 1, 0 or {MISSING} (missing)")
        for name, values in (("targets", targets.astype(np.int64)), ("probs", probs), ("thresholds", thresholds)):
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.probs)

    @property
    def ranks_only(self) -> bool:
        """False: they are probabilities."""
        return False

    def under(self, weights: Floats) -> LabelTally:
        """These scores under R weightings (N, R)."""
        return LabelTally(self, weights)

    def rests_on(self, metric: str | None, c: int | None) -> Masks:
        """(N,) the images that a metric rests on, see `OF_ALL`; without a label those of which any target is there."""
        if c is None:
            return np.asarray(self.observed.any(axis=1))
        if metric is None or metric in OF_ALL:
            return self.observed[:, c]
        if metric in OF_CALLED:
            return np.asarray(self.called[:, c] & self.observed[:, c])
        return self.negative[:, c] if metric in OF_LACKING else self.positive[:, c]

    def why_undefined(self, names: Sequence[str]) -> str:
        """Why a mean over labels can be undefined on this set."""
        asked, support = self.observed.sum(axis=0), self.support
        called = (self.called & self.observed).sum(axis=0)
        rows = [*zip(names, asked, support, called, strict=True)]
        told = {
            "no image with": [name for name, _, has, _ in rows if has == 0],
            "no image without": [name for name, n, has, _ in rows if has == n],
            "no image called": [name for name, _, has, k in rows if k == 0 and has],
        }
        return "; ".join(f"{what} {', '.join(these)}" for what, these in told.items() if these) if len(self) else ""

    def select(self, rows: Ints, order_C: Ints | None = None) -> LabelScores:
        """Some of the images, the labels in another order."""
        columns = np.arange(self.classes) if order_C is None else order_C
        return LabelScores(self.targets[rows][:, columns], self.probs[rows][:, columns], self.thresholds[columns])

    def with_values(self, targets: Ints, probs: Floats) -> LabelScores:
        """Other images, called at the same thresholds."""
        return LabelScores(targets, probs, self.thresholds)

    @property
    def classes(self) -> int:
        """C, the number of labels."""
        return int(self.probs.shape[1])

    @cached_property
    def observed(self) -> Masks:
        """(N, C) where the target is there."""
        return np.asarray(self.targets != MISSING)

    @cached_property
    def positive(self) -> Masks:
        """(N, C) where the image has the label."""
        return np.asarray(self.targets == 1)

    @cached_property
    def negative(self) -> Masks:
        """(N, C) where the image lacks the label."""
        return np.asarray(self.targets == 0)

    @cached_property
    def called(self) -> npt.NDArray[np.bool_]:
        """(N, C) whether a label's probability reaches its threshold."""
        return np.asarray(self.probs >= self.thresholds)

    @cached_property
    def support(self) -> npt.NDArray[np.int64]:
        """(C,) images with each label."""
        return np.asarray(self.positive.sum(axis=0), dtype=np.int64)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """One per label, of the images of which its target is there."""
        each = range(self.classes)
        return [rank_among(self.observed[:, c], self.positive[:, c], self.probs[:, c]) for c in each]

    @cached_property
    def ranking(self) -> Ranking:
        """Every pair of an image and a label in one."""
        return rank_among(self.observed.ravel(), self.positive.ravel(), self.probs.ravel())

    @cached_property
    def confidence(self) -> Floats:
        """(N,) how sure the least sure answer of an image is: the probability of its label being there, or not."""
        return np.asarray(np.maximum(self.probs, 1 - self.probs).min(axis=1, initial=1))

    @cached_property
    def hits(self) -> Masks:
        """(N, C) where the target is there and called right."""
        return np.asarray((self.called == self.positive) & self.observed)

    @cached_property
    def right(self) -> Masks:
        """(N,) whether every label whose target is there is called right."""
        return np.asarray((self.hits | ~self.observed).all(axis=1))

    @cached_property
    def log_losses(self) -> Floats:
        """(N,) mean binary cross-entropy of the labels whose target is there; NaN where none is."""
        return ratio(pair_log_losses(self.probs, self.targets).sum(axis=1), self.observed.sum(axis=1).astype(np.float64))

    @cached_property
    def squared_errors(self) -> Floats:
        """(N,) mean of (p - y)^2 of the labels whose target is there; NaN where none is."""
        errors = np.square(self.probs - self.positive) * self.observed
        return ratio(errors.sum(axis=1), self.observed.sum(axis=1).astype(np.float64))

    @cached_property
    def label_ranking(self) -> Floats:
        """(N,) mean over an image's labels of the share of its labels among those ranked as high or higher; 1 where it has
        none, or all. Equal probabilities count as higher; labels whose target is missing do not count.

        Tsoumakas, Katakis & Vlahavas 2010, "Mining multi-label data", doi:10.1007/978-0-387-09823-4_34
        """
        found = np.ones(len(self))
        for n in np.flatnonzero(self.positive.any(axis=1) & self.negative.any(axis=1)):
            own, every = np.sort(self.probs[n, self.positive[n]]), np.sort(self.probs[n, self.observed[n]])
            above = len(own) - np.searchsorted(own, own, side="left")
            found[n] = np.mean(above / (len(every) - np.searchsorted(every, own, side="left")))
        return found


@dataclass(frozen=True, eq=False)
class LabelTally:
    """Scores under R weightings (N, R) at once; what several metrics share is computed once."""

    scores: LabelScores
    weights: Floats

    @cached_property
    def observed(self) -> Floats:
        """(R, C) weight of the images of which each label's target is there."""
        return self.summed(self.scores.observed)

    def mean_of_images(self, values_N: npt.NDArray[np.floating] | Masks) -> Floats:
        """(R,) weighted mean over the images of which any target is there."""
        there_N = self.scores.observed.any(axis=1).astype(np.float64)
        return ratio((values_N * there_N) @ self.weights, there_N @ self.weights)

    def mean_of_pairs(self, values_NC: npt.NDArray[np.floating] | Masks) -> Floats:
        """(R,) weighted mean over all pairs of an image and a label whose target is there."""
        observed_NC = self.scores.observed
        return ratio((values_NC * observed_NC).sum(axis=1) @ self.weights, observed_NC.sum(axis=1) @ self.weights)

    def summed(self, values_NC: npt.NDArray[np.floating] | npt.NDArray[np.bool_]) -> Floats:
        """(R, C) weighted sums."""
        return np.asarray(self.weights.T @ values_NC.astype(np.float64))

    @cached_property
    def counts(self) -> tuple[Floats, Floats, Floats]:
        """(R, C) each: images with a label, images called so, and those that are both; of those whose target is there."""
        s = self.scores
        return self.summed(s.positive), self.summed(s.called & s.observed), self.summed(s.positive & s.called)

    @cached_property
    def spread(self) -> Floats:
        """(N C, R) the image's weight for each of its labels."""
        return np.repeat(self.weights, self.scores.classes, axis=0)

    @cached_property
    def auroc(self) -> Floats:
        """(R, C), see the function of that name."""
        return np.stack([auroc_of(ranking, self.weights) for ranking in self.scores.rankings], axis=1)

    @cached_property
    def average_precision(self) -> Floats:
        """(R, C), see the function of that name."""
        return np.stack([average_precision_of(ranking, self.weights) for ranking in self.scores.rankings], axis=1)


# -- of each label -------------------------------------------------------------------------------------------------


def auroc(t: LabelTally) -> Floats:
    """(R, C) area under the ROC curve, ties by midranks; undefined without images that have the label, or that lack it."""
    return t.auroc


def average_precision(t: LabelTally) -> Floats:
    """(R, C) area under the precision-recall curve as a step function; undefined without images that have the label."""
    return t.average_precision


def recall(t: LabelTally) -> Floats:
    """(R, C) sensitivity: share of the images with a label that are called so."""
    have, _, both = t.counts
    return ratio(both, have)


def specificity(t: LabelTally) -> Floats:
    """(R, C) share of the images without a label that are not called so."""
    have, called, both = t.counts
    lack = t.observed - have
    return ratio(lack - (called - both), lack)


def precision(t: LabelTally) -> Floats:
    """(R, C) share of the images called so that have the label; undefined where none is called so, or none has it."""
    have, called, both = t.counts
    return np.where(have > 0, ratio(both, called), np.nan)


def f1(t: LabelTally) -> Floats:
    """(R, C) 2 TP / (2 TP + FP + FN); 0 for a label that is never called, undefined for one that no image has."""
    have, called, both = t.counts
    return np.where(have > 0, ratio(2 * both, have + called), np.nan)


def brier(t: LabelTally) -> Floats:
    """(R, C) mean of (p - y)^2: 0 is best, 1 is sure and wrong."""
    s = t.scores
    return ratio(t.summed(np.square(s.probs - s.positive) * s.observed), t.observed)


def ece(t: LabelTally, bins: int = ECE_BINS) -> Floats:
    """(R, C) expected calibration error of a label's own probability over equal-width bins.

        ECE = sum over bins of n_b / n * |share that has the label_b - mean probability_b|

    Noise raises it; see `dermalyze.metrics.calibration_error.ece`, which looks at the most probable class alone.
    """
    s, columns = t.scores, []
    for c in range(s.classes):
        rows = np.flatnonzero(s.observed[:, c])
        bin_n = confidence_bins(s.probs[rows, c], bins)
        order = np.argsort(bin_n, kind="stable")
        starts = np.unique(bin_n[order], return_index=True)[1]
        excess_nR = ((s.probs[rows, c] - s.positive[rows, c])[:, None] * t.weights[rows])[order]
        gaps = np.abs(np.add.reduceat(excess_nR, starts, axis=0)).sum(axis=0) if len(starts) else np.zeros(t.weights.shape[1])
        columns.append(ratio(gaps, t.observed[:, c]))
    return np.stack(columns, axis=1)


# -- of all labels -------------------------------------------------------------------------------------------------


def macro(metric: Callable[[LabelTally], Floats], t: LabelTally) -> Floats:
    """(R,) mean over the labels; undefined where the metric of one is."""
    return np.asarray(metric(t).mean(axis=1))


def micro_auroc(t: LabelTally) -> Floats:
    """(R,) area under the ROC curve of all pairs of an image and a label."""
    return auroc_of(t.scores.ranking, t.spread)


def micro_average_precision(t: LabelTally) -> Floats:
    """(R,) average precision of all pairs of an image and a label."""
    return average_precision_of(t.scores.ranking, t.spread)


def micro_f1(t: LabelTally) -> Floats:
    """(R,) F1 of the counts of all labels together."""
    have, called, both = (counts.sum(axis=1) for counts in t.counts)
    return np.where(have > 0, ratio(2 * both, have + called), np.nan)


def subset_accuracy(t: LabelTally) -> Floats:
    """(R,) share of images of which every label whose target is there is called right."""
    return t.mean_of_images(t.scores.right)


def hamming_loss(t: LabelTally) -> Floats:
    """(R,) share of all pairs of an image and a label that are called wrong."""
    return t.mean_of_pairs(~t.scores.hits)


def accuracy(t: LabelTally) -> Floats:
    """(R,) 1 - hamming loss."""
    return 1 - hamming_loss(t)


def ranking_average_precision(t: LabelTally) -> Floats:
    """(R,) mean of `LabelScores.label_ranking`."""
    return t.mean_of_images(t.scores.label_ranking)


def log_loss(t: LabelTally) -> Floats:
    """(R,) mean binary cross-entropy of all pairs of an image and a label, natural logarithm, clipped at 2.2e-16."""
    return t.mean_of_pairs(pair_log_losses(t.scores.probs, t.scores.targets))


def pair_log_losses(probs_NC: Floats, targets_NC: Ints) -> Floats:
    """(N, C) -log of the probability of the right answer, clipped as in `log_loss`; 0 where the target is missing."""
    own_NC = np.where(targets_NC == 1, probs_NC, 1 - probs_NC)
    return np.where(targets_NC == MISSING, 0.0, -np.log(np.maximum(own_NC, SMALLEST_PROBABILITY)))


PER_LABEL_METRICS: Mapping[str, Callable[[LabelTally], Floats]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "f1": f1,
    "recall": recall,
    "specificity": specificity,
    "precision": precision,
    "brier": brier,
    "ece": ece,
}
LABEL_METRICS: Mapping[str, Callable[[LabelTally], Floats]] = {
    **{f"macro_{name}": partial(macro, metric) for name, metric in PER_LABEL_METRICS.items() if name not in ("brier", "ece")},
    "micro_auroc": micro_auroc,
    "micro_average_precision": micro_average_precision,
    "micro_f1": micro_f1,
    "subset_accuracy": subset_accuracy,
    "hamming_loss": hamming_loss,
    "ranking_average_precision": ranking_average_precision,
    "log_loss": log_loss,
    "macro_brier": partial(macro, brier),
}


def measure_labels(
    targets_NC: npt.ArrayLike, probs_NC: npt.ArrayLike, thresholds_C: npt.ArrayLike | None = None
) -> dict[str, float | None]:
    """Every overall metric on one set, None where undefined, and `accuracy`.

    >>> measure_labels([[1, 0], [0, 0]], [[0.9, 0.1], [0.2, 0.3]])["macro_auroc"] is None
    True
    """
    probs = np.asarray(probs_NC, dtype=np.float64)
    thresholds = np.full(probs.shape[1:], PLAIN_THRESHOLD) if thresholds_C is None else np.asarray(thresholds_C)
    t = LabelScores(np.asarray(targets_NC), probs, thresholds).under(np.ones((len(probs), 1)))
    return {name: defined(metric(t)[0]) for name, metric in {**LABEL_METRICS, "accuracy": accuracy}.items()}
