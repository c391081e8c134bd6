"""Selective prediction: how well a confidence separates right from wrong predictions, and what referring cases gains.

Shapes: N images, R weightings, B blocks of equal confidence. Equals are taken together: an order among them would be luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ConfigError, ModelError
from dermalyze.metrics.classification import Tally, defined
from dermalyze.metrics.ranking import Floats, auroc_of, rank, ratio, spearman

Masks = npt.NDArray[np.bool_]

CONFIDENCES: Mapping[str, Callable[[Floats], Floats]] = {
    "max_probability": lambda probs_NC: np.asarray(probs_NC.max(axis=1)),
    "margin": lambda probs_NC: np.asarray(np.diff(np.sort(probs_NC, axis=1)[:, -2:], axis=1)[:, 0]),
    "neg_entropy": lambda probs_NC: np.asarray((probs_NC * np.log(np.maximum(probs_NC, 1e-300))).sum(axis=1)),
}
"""Probabilities (N, C) to a confidence (N,), higher is more confident: the largest, its lead, minus the entropy."""

COVERAGES = (0.95, 0.9, 0.8, 0.5)


def risk_coverage(confidence_N: Floats, wrong_N: Floats) -> tuple[Floats, Floats]:
    """Share of wrong answers among the k most confident, for k = 1..N.

    Args:
        confidence_N: higher is more confident.
        wrong_N: 1 where the answer is wrong, else 0 (or any loss).

    Returns:
        coverage k / N, and the risk there; within equal confidences the mean over all their orders.

    >>> coverage, risk = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0]))
    >>> risk.round(2).tolist()
    [0.0, 0.0, 0.33, 0.25]

    El-Yaniv & Wiener 2010, JMLR 11; Geifman & El-Yaniv 2017, arXiv:1705.08500
    """
    k = np.arange(1, len(confidence_N) + 1)
    return k / max(1, len(k)), _summed(confidence_N, wrong_N) / k


def aurc(confidence_N: Floats, wrong_N: Floats) -> float | None:
    """Mean risk over all coverages, 0 is best; None for an empty set. Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206"""
    return defined(float(risk_coverage(confidence_N, wrong_N)[1].mean())) if len(wrong_N) else None


def aurc_metric(confidence_N: Floats, wrong_N: Floats) -> Callable[[Tally], Floats]:
    """AURC under many weightings at once, for `bootstrap.estimates`: each image stands as often as it weighs.

    Within a block of equal confidences the errors grow evenly, from E at k = K to E + m n at K + n, and the sum of
    (E + m (k - K)) / k over them is m n + (E - m K) (H(K + n) - H(K)) with the harmonic numbers H.

    Args:
        confidence_N: higher is more confident.
        wrong_N: 1 where the answer is wrong, else 0 (or any loss).

    Returns:
        whole weights (N, R) to (R,); NaN where all are 0.

    >>> from dermalyze.metrics.classification import Scores
    >>> t = Tally(Scores(np.zeros(4, int), np.tile([0.5, 0.5], (4, 1))), np.ones((4, 1)))
    >>> confidence, wrong = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.0, 0.0, 1.0, 0.0])
    >>> bool(np.isclose(aurc_metric(confidence, wrong)(t)[0], aurc(confidence, wrong)))
    True
    """
    order = np.argsort(-np.asarray(confidence_N, dtype=np.float64), kind="stable")
    wrong_N1 = np.asarray(wrong_N, dtype=np.float64)[order, None]
    begins = np.flatnonzero(np.append(True, np.diff(np.asarray(confidence_N)[order]) != 0)[: len(order)])
    tied = len(begins) < len(order)

    def metric(t: Tally) -> Floats:
        if not len(order):
            return np.full(t.weights.shape[1], np.nan)
        images_BR = t.weights[order]
        errors_BR = images_BR * wrong_N1
        mean_BR = wrong_N1  # of a block of one image; where that weighs nothing, its step is 0
        if tied:
            images_BR, errors_BR = (np.add.reduceat(values, begins, axis=0) for values in (images_BR, errors_BR))
            mean_BR = np.divide(errors_BR, images_BR, out=np.zeros_like(errors_BR), where=images_BR > 0)
        until_BR, errors_until_BR = np.cumsum(images_BR, axis=0), np.cumsum(errors_BR, axis=0)
        harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, until_BR[-1].max() + 1)))
        at_BR = harmonic.take(until_BR.astype(np.int32))
        at_BR[1:] -= at_BR[:-1].copy()
        errors_sum_R = errors_until_BR[-1].copy()
        errors_until_BR -= mean_BR * until_BR  # E - m K is the same at both ends of a block
        return ratio(errors_sum_R + np.einsum("br,br->r", errors_until_BR, at_BR), until_BR[-1])

    return metric


def e_aurc(confidence_N: Floats, wrong_N: Floats) -> float | None:
    """AURC above that of the best order of the same answers: 0 is best, whatever the accuracy. arXiv:1805.08206"""
    if not len(wrong_N):
        return None
    best = risk_coverage(-np.asarray(wrong_N, dtype=np.float64), wrong_N)[1].mean()
    return float(risk_coverage(confidence_N, wrong_N)[1].mean() - best)


def augrc(confidence_N: Floats, wrong_N: Floats) -> float | None:
    """Mean over all coverages of the share of all images that are answered and wrong. Traub et al. 2024, arXiv:2407.01032"""
    return float(_summed(confidence_N, wrong_N).mean() / len(wrong_N)) if len(wrong_N) else None


def error_auroc(confidence_N: Floats, wrong_N: Floats) -> float | None:
    """How often a right prediction has the higher confidence, ties count half; None where all are right or all are wrong."""
    right = np.asarray(wrong_N) == 0
    if right.all() or not right.any():
        return None
    return defined(float(auroc_of(rank(right, confidence_N), np.ones((len(right), 1)))[0]))


def spearman_of(confidence_N: Floats, loss_N: Floats) -> float | None:
    """Rank correlation of minus the confidence with errors or any loss, 1 is best; None where one is constant."""
    return spearman(-np.asarray(confidence_N, dtype=np.float64), np.asarray(loss_N, dtype=np.float64))


CONFIDENCE = "max_probability"
"""The confidence that decides whether an answer is given; the others are measured beside it."""


def quality(confidence_N: Floats, wrong_N: Floats) -> dict[str, float | None]:
    """Every figure of one confidence; `spearman` is that of its opposite, the uncertainty, with the errors."""
    measures = {"aurc": aurc, "e_aurc": e_aurc, "augrc": augrc, "error_auroc": error_auroc, "spearman": spearman_of}
    return {name: measure(confidence_N, wrong_N) for name, measure in measures.items()}


def threshold_for(confidence_N: Floats, coverage: float) -> float:
    """The confidence that the stated share of a split reaches.

    Raises:
        ConfigError: no image to take it from.

    >>> threshold_for(np.array([0.2, 0.4, 0.6, 0.8]), 0.5)
    0.6
    """
    if not len(confidence_N):
        raise ConfigError("inference.coverage: the split has no image to take a threshold from; leave coverage out")
    keep = max(1, int(np.ceil(coverage * len(confidence_N) - 1e-9)))
    return float(np.sort(confidence_N)[::-1][keep - 1])


@dataclass(frozen=True)
class Referral:
    """The rule by which an answer is given or a case is referred.

    Attributes:
        confidence: a key of `CONFIDENCES`.
        coverage: share of the calibration split that reached the threshold.
        threshold: the least confidence at which the model answers.
    """

    confidence: str
    coverage: float
    threshold: float

    def reason(self, probs_C: Floats) -> str | None:
        """Why a case is referred; None where it is answered.

        >>> Referral("max_probability", 0.8, 0.5).reason(np.array([0.4, 0.3, 0.3]))
        'not confident enough: below the threshold that 80 % of the calibration images reached'
        """
        found = float(CONFIDENCES[self.confidence](probs_C[None])[0])
        if found >= self.threshold:
            return None
        return f"not confident enough: below the threshold that {100 * self.coverage:g} % of the calibration images reached"

    @classmethod
    def from_dict(cls, values: Any) -> Referral | None:
        """Read what `calibrate` wrote; None for None.

        Raises:
            ModelError: anything else.
        """
        if values is None:
            return None
        keys = {"confidence", "coverage", "threshold"}
        sound = isinstance(values, dict) and values.keys() == keys and values["confidence"] in CONFIDENCES
        if not sound or not all(
            type(values[key]) in (int, float) and np.isfinite(values[key]) for key in ("coverage", "threshold")
        ):
            raise ModelError("calibration: its referral is damaged; calibrate again")
        return cls(values["confidence"], float(values["coverage"]), float(values["threshold"]))


def confidence_of(name: str, choices_NQK: Floats) -> Floats:
    """(N,) how sure the least sure of an image's Q answers is, each a choice among K.

    Args:
        name: a key of `CONFIDENCES`.
        choices_NQK: probabilities, each choice summing to 1; see `Task.choices`.

    >>> confidence_of("max_probability", np.array([[[0.9, 0.1], [0.4, 0.6]]])).tolist()
    [0.6]
    """
    n, q, k = choices_NQK.shape
    return np.asarray(CONFIDENCES[name](choices_NQK.reshape(n * q, k)).reshape(n, q).min(axis=1))


def answered_shares(answered_N: Masks, scores: Any, focus: int | None) -> dict[str, tuple[Floats, Masks | None]]:
    """What comes of answering some cases and referring the others, for `bootstrap.share_estimates`.

    Args:
        answered_N: whether an answer is given.
        scores: of all images, of any task; right is what `scores.right` says.
        focus: a class to watch, or None.

    Returns:
        coverage (share answered), accuracy (of the answered), and for the class: sensitivity (found, of those of its images
        that are answered) and missed (answered as something else, of all its images).
    """
    hit_N = scores.right
    found: dict[str, tuple[Floats, Masks | None]] = {
        "coverage": (answered_N.astype(np.float64), None),
        "accuracy": (hit_N.astype(np.float64), answered_N),
    }
    if focus is not None:
        own_N = scores.labels == focus
        found["sensitivity"] = (hit_N.astype(np.float64), answered_N & own_N)
        found["missed"] = ((answered_N & ~hit_N).astype(np.float64), own_N)
    return found


def _summed(confidence_N: Floats, wrong_N: Floats) -> Floats:
    """Wrong answers among the k most confident, k = 1..N, spread evenly over equal confidences."""
    order = np.argsort(-np.asarray(confidence_N, dtype=np.float64), kind="stable")
    value, wrong = np.asarray(confidence_N)[order], np.asarray(wrong_N, dtype=np.float64)[order]
    if not len(value):
        return np.zeros(0)
    block = np.cumsum(np.append(0, np.diff(value) != 0))
    return np.asarray(np.cumsum((np.bincount(block, wrong) / np.bincount(block))[block]))
