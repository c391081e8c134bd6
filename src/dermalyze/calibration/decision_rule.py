"""One rule for every case: answer, answer with a set, or refer to a person, and the reason in words."""

# Shapes: N images, C classes.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.calibration.conformal import ConformalSets
from dermalyze.calibration.ood import OOD_SCORES
from dermalyze.errors import ModelError
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.metrics.selective import CONFIDENCES, Masks, Referral

OUTCOMES = ("answer", "set", "foreign", "unsure", "no_class")
"""What can come of a case; the last three are reasons to refer it, the first of them that holds."""
ANSWER, SET, OOD, UNCERTAIN, NO_CLASS = range(5)
DECISIONS = ("answer", "set", "refer", "refer", "refer")
"""The decision that each outcome is."""


@dataclass(frozen=True)
class Limit:
    """From which out-of-distribution score on an image is refused.

    Attributes:
        kind: a key of `OOD_SCORES`.
        threshold: the largest score that passes.
        kept: share of the calibration split that passes.
    """

    kind: str
    threshold: float
    kept: float

    @classmethod
    def from_dict(cls, values: Any) -> Limit | None:
        """Read it from what `calibrate` wrote; None for None.

        Raises:
            ModelError: anything else.
        """
        if values is None:
            return None
        sound = isinstance(values, dict) and values.get("kind") in OOD_SCORES
        if not sound or not all(
            type(values.get(key)) in (int, float) and np.isfinite(values[key]) for key in ("threshold", "kept")
        ):
            raise ModelError("calibration: its out-of-distribution threshold is damaged; calibrate again")
        return cls(values["kind"], float(values["threshold"]), float(values["kept"]))


@dataclass(frozen=True)
class Rule:
    """Refer what is out-of-distribution or uncertain, answer with a set where one class does not stand alone, else answer.

    Attributes:
        limit: of the out-of-distribution score; None: nothing is refused by it.
        referral: of the confidence; None: nothing is uncertain.
        sets: which classes stay in question; None: the most probable alone.
    """

    limit: Limit | None = None
    referral: Referral | None = None
    sets: ConformalSets | None = None

    @classmethod
    def from_dict(cls, calibration: Mapping[str, Any] | None, classes: Sequence[str]) -> Rule:
        """The rule of a calibration, as `calibrate` writes it; without one everything is answered.

        Raises:
            ModelError: a part of it is damaged or does not fit the classes.
        """
        known = calibration or {}
        return cls(
            Limit.from_dict(known.get("ood")),
            Referral.from_dict(known.get("referral")),
            ConformalSets.from_dict(known.get("sets"), classes),
        )

    def inside(self, probs_NC: Floats, classes: Sequence[str]) -> Masks | None:
        """(N, C) the classes in each case's set; None where the rule gives none."""
        return None if self.sets is None else self.sets.of(probs_NC, classes)

    def outcomes(self, probs_NC: Floats, classes: Sequence[str], ood_N: Floats | None = None) -> Ints:
        """(N,) index into `OUTCOMES` of each case.

        Args:
            probs_NC: calibrated probabilities.
            classes: names, in order.
            ood_N: out-of-distribution scores; needed where the rule has a limit of them.

        >>> rule = Rule(Limit("energy", 0.0, 0.95), Referral("max_probability", 0.8, 0.5))
        >>> probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.4]])
        >>> [DECISIONS[i] for i in rule.outcomes(probs, ["a", "b"], np.array([-1.0, 2.0, -1.0]))]
        ['answer', 'refer', 'refer']
        """
        found = np.full(len(probs_NC), ANSWER, dtype=np.int64)
        inside_NC = self.inside(probs_NC, classes)
        if inside_NC is not None:
            alone_N = (inside_NC.sum(axis=1) == 1) & inside_NC[np.arange(len(probs_NC)), probs_NC.argmax(axis=1)]
            found[~alone_N] = SET
            found[~inside_NC.any(axis=1)] = NO_CLASS
        if self.referral is not None:
            found[CONFIDENCES[self.referral.confidence](probs_NC) < self.referral.threshold] = UNCERTAIN
        if self.limit is not None:
            if ood_N is None:
                raise ModelError(
                    "the rule refuses out-of-distribution images, and there is no out-of-distribution score of this image"
                )
            found[ood_N > self.limit.threshold] = OOD
        return found

    def reason(self, outcome: int, probs_C: Floats, classes: Sequence[str], ood: float | None = None) -> str | None:
        """Why one case is not simply answered, in words; None where it is.

        >>> Rule(Limit("knn", 0.5, 0.95)).reason(OOD, np.array([0.9, 0.1]), ["a", "b"], 0.75)
        'unlike the training images: score 0.75 is above 0.5, which 95 % of the calibration images do not exceed'
        """
        if outcome == OOD and self.limit is not None:
            return (
                f"unlike the training images: score {ood:.4g} is above {self.limit.threshold:.4g}, which "
                f"{100 * self.limit.kept:g} % of the calibration images do not exceed"
            )
        if outcome == UNCERTAIN and self.referral is not None:
            return self.referral.reason(probs_C)
        if outcome == NO_CLASS:
            return "no class fits: the image is unlike those of every class in the calibration split"
        if outcome == SET and self.sets is not None:
            inside_C = self.sets.of(probs_C[None], classes)[0]
            names = [classes[c] for c in np.argsort(-probs_C, kind="stable") if inside_C[c]]
            return f"more than one class, or another than the most probable, stays in question: {', '.join(names)}"
        return None


def decision_shares(outcome_N: Ints, hit_N: Masks, covered_N: Masks | None) -> dict[str, tuple[Floats, Masks | None]]:
    """What comes of a rule, for `bootstrap.share_estimates`.

    Args:
        outcome_N: of each case.
        hit_N: whether the most probable class is right.
        covered_N: whether the set holds the right class; None: no sets.

    Returns:
        share of each outcome and of `refer`; `error`: wrong among the answered; `set_error`: sets without the right class;
        `error_all`: wrong if everything were answered; `wrong_answered`: answered and wrong, of all.

    >>> shares = decision_shares(np.array([0, 0, 3]), np.array([True, False, False]), None)
    >>> shares["error"][0].tolist(), shares["error"][1].tolist()
    ([0.0, 1.0, 1.0], [True, True, False])
    """
    wrong_N: Floats = (~hit_N).astype(np.float64)
    answered_N: npt.NDArray[np.bool_] = outcome_N == ANSWER
    found: dict[str, tuple[Floats, Masks | None]] = {
        name: ((outcome_N == i).astype(np.float64), None) for i, name in enumerate(OUTCOMES)
    }
    found["refer"] = ((outcome_N >= OOD).astype(np.float64), None)
    found["error"] = (wrong_N, answered_N)
    found["wrong_answered"] = (wrong_N * answered_N, None)
    found["error_all"] = (wrong_N, None)
    if covered_N is not None:
        found["set_error"] = ((~covered_N).astype(np.float64), outcome_N == SET)
    return found


def threshold_band(known: int, tested: int, passed: float, level: float = 0.95) -> tuple[float, float]:
    """Between which shares of a set stand above a threshold that the share `passed` of another set did not exceed, by chance.

    Both are of the same population, and each group counts once. With the k-th smallest of n known scores as threshold, the
    number above it among m others follows the beta-binomial law with parameters n - k + 1 and k.

    Args:
        known: n, groups from which the threshold comes, 1 or more.
        tested: m, groups that are held against it, 1 or more.
        passed: share that does not exceed the threshold, above 0 and at most 1.
        level: of the band.

    >>> tuple(round(share, 3) for share in threshold_band(746, 1120, 0.95))
    (0.032, 0.072)

    Vovk 2012, arXiv:1209.2673 (there for conformal sets, whose coverage is the same question)
    """
    k = max(1, math.ceil(passed * known - 1e-9))
    a, b = known - k + 1, k
    x = np.arange(tested + 1)
    log_choose = math.lgamma(tested + 1) - np.array([math.lgamma(i + 1) + math.lgamma(tested - i + 1) for i in x])
    log_beta = np.array([math.lgamma(i + a) + math.lgamma(tested - i + b) for i in x]) - math.lgamma(tested + a + b)
    below = np.cumsum(np.exp(log_choose + log_beta - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))))
    low, high = (int(np.searchsorted(below, q)) for q in ((1 - level) / 2, (1 + level) / 2))
    return low / tested, min(high, tested) / tested
