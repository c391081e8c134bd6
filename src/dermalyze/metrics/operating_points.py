"""Operating points of a yes-or-no question, such as malignant or not: a threshold from one split, its metrics on another.

The score of a question is the summed probability of the classes that mean yes; yes is said where it reaches the threshold.
"""

# Shapes: N images, C classes, P positives, R resamples.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ConfigError
from dermalyze.metrics.bootstrap import MIN_GROUPS, Estimate, estimates, not_estimable
from dermalyze.metrics.classification import npv, precision, recall, specificity
from dermalyze.metrics.ranking import Floats, ratio
from dermalyze.metrics.scores import Scores, Tally

Masks = npt.NDArray[np.bool_]


# -- questions ---------------------------------------------------------------------------------------------------

MALIGNANT = "malignant"
"""The question whether a case is malignant; every other question is named as its class."""


def questions(classes: Sequence[str], malignant: Sequence[str], focus: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The yes-or-no questions that can be asked of a model, each with the classes that mean yes.

    Args:
        classes: of the model.
        malignant: the classes that are malignant, none: no such question.
        focus: classes of which each is a question of its own, by its name; one that is the only malignant class is none.

    Raises:
        ConfigError: a class of `focus` is called malignant and is not the only malignant one.

    >>> questions(["bkl", "bcc", "mel", "nv"], ["bcc", "mel"], ["mel"])
    {'malignant': ('bcc', 'mel'), 'mel': ('mel',)}
    """
    found = {MALIGNANT: tuple(malignant)} if 0 < len(malignant) < len(classes) else {}
    for name in focus:
        if (name,) in found.values() or len(classes) < 2:
            continue
        if name in found:
            raise ConfigError(
                f"evaluate.focus: class '{name}' has the name of the question of evaluate.malignant, {list(malignant)}; rename "
                "the class with data.label_map"
            )
        found[name] = (name,)
    return found


def two_classes(scores: Scores, classes: Sequence[str], yes: Sequence[str]) -> Scores:
    """The same images as answers to one question: label and second probability are those of yes.

    >>> whole = Scores(np.array([0, 2]), np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]))
    >>> asked = two_classes(whole, ["bcc", "mel", "nv"], ["bcc", "mel"])
    >>> asked.labels.tolist(), asked.probs[:, 1].round(3).tolist()
    ([1, 0], [0.8, 0.3])
    """
    meant = np.isin(np.asarray(classes), list(yes))
    score = np.clip(scores.any_of(meant), 0, 1)
    return Scores(meant[scores.labels].astype(np.int64), np.stack([1 - score, score], axis=1), scores.ranks_only)


# -- thresholds --------------------------------------------------------------------------------------------------


def reach_sensitivity(positive_N: Masks, score_N: Floats, target: float) -> float:
    """The highest threshold at which at least this share of the positives is found.

    >>> reach_sensitivity(np.array([True, True, False, True]), np.array([0.9, 0.7, 0.5, 0.3]), 0.6)
    0.7
    """
    scores = np.sort(score_N[positive_N])[::-1]
    return float(scores[max(1, int(np.ceil(target * len(scores) - 1e-9))) - 1])


def youden(positive_N: Masks, score_N: Floats, target: float) -> float:
    """The threshold of the largest sensitivity + specificity - 1; of equals the lowest, which misses least.

    Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3
    """
    threshold_T, missed_T, alarms_T = _errors(positive_N, score_N)
    positives = int(positive_N.sum())
    lost = missed_T * (len(positive_N) - positives) + alarms_T * positives  # whole numbers: ties are ties
    return float(threshold_T[np.flatnonzero(lost == lost.min())[-1]])


def cheapest(positive_N: Masks, score_N: Floats, target: float) -> float:
    """The threshold of the least cost, where a miss costs `target` false alarms; of equals the lowest.

    At the class mix of the images it is given.
    """
    threshold_T, missed_T, alarms_T = _errors(positive_N, score_N)
    cost = target * missed_T + alarms_T
    return float(threshold_T[np.flatnonzero(cost <= cost.min() * (1 + 1e-12))[-1]])


CRITERIA: Mapping[str, Callable[[Masks, Floats, float], float]] = {
    "sensitivity": reach_sensitivity,
    "youden": youden,
    "cost": cheapest,
}
"""Positives (N,), scores (N,) and what is asked for, to the threshold; both sides must be there."""


@dataclass(frozen=True)
class Point:
    """A threshold and what it was chosen on.

    Attributes:
        target: sensitivity asked for, or false alarms that a miss weighs; None where nothing is asked.
        threshold: the least score that is called; None: not estimable, and `note` says why.
        positives, negatives: images it was chosen on; positive_groups: groups of the positives.
    """

    target: float | None
    threshold: float | None
    positives: int
    negatives: int
    positive_groups: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(vars(self))


def point_name(sensitivity: float) -> str:
    """The name of the operating point of a sensitivity.

    >>> point_name(0.95)
    'sensitivity_95'
    """
    return f"sensitivity_{100 * sensitivity:g}"


def choose(asked: Scores, groups_N: Sequence[str], *, sensitivity: Sequence[float], miss_cost: float) -> dict[str, Point]:
    """The threshold by each criterion, from a calibration split: for each sensitivity, by Youden and by cost.

    Fewer than `MIN_GROUPS` groups of either side choose nothing, and for a sensitivity s neither do fewer than 1 / (1 - s)
    positive ones: the threshold would hang on the lowest of them.

    Args:
        asked: of one question, as `two_classes` gives it.
        groups_N: the group of each image.
        sensitivity: of the points that are to miss few; see `point_name`.
        miss_cost: false alarms that a miss weighs.
    """
    positive, names = asked.labels == 1, np.asarray(groups_N)
    found = [len(np.unique(names[side])) for side in (positive, ~positive)]
    points = {}
    rows = [(point_name(target), "sensitivity", target) for target in sensitivity]
    for name, criterion, target in (*rows, ("youden", "youden", None), ("cost", "cost", miss_cost)):
        least = MIN_GROUPS
        if target is not None and criterion == "sensitivity":
            least = max(least, int(np.ceil(1 / (1 - target) - 1e-9)))
        note = ""
        if found[0] < least or found[1] < MIN_GROUPS:
            short = f"{found[0]} positive groups, at least {least} needed"
            note = not_estimable(
                int(positive.sum()), short if found[0] < least else f"{found[1]} negative groups, at least {MIN_GROUPS} needed"
            )
        threshold = None if note else CRITERIA[criterion](positive, asked.probs[:, 1], target or 0.0)
        points[name] = Point(target, threshold, int(positive.sum()), int((~positive).sum()), found[0], note)
    return points


def operating_points(
    scores: Scores,
    groups_N: Sequence[str],
    classes: Sequence[str],
    asked: Mapping[str, Sequence[str]],
    *,
    sensitivity: Sequence[float],
    miss_cost: float,
) -> dict[str, Any]:
    """What `calibrate` stores and `evaluate` reports: of each question its classes and its points, JSON-ready."""
    return {
        name: {
            "classes": list(yes),
            "points": {
                criterion: point.as_dict()
                for criterion, point in choose(
                    two_classes(scores, classes, yes), groups_N, sensitivity=sensitivity, miss_cost=miss_cost
                ).items()
            },
        }
        for name, yes in asked.items()
    }


# -- figures at a threshold --------------------------------------------------------------------------------------


def at_threshold(
    asked: Scores,
    groups_N: Sequence[str],
    threshold: float,
    *,
    prevalence: float | None,
    resamples: int,
    level: float,
    seed: int,
    names: tuple[str, str] = ("no", "yes"),
) -> dict[str, Estimate]:
    """Sensitivity, specificity, predictive values and number needed (1 / PPV), with intervals.

    `number_needed` is 1 / PPV: cases that are acted on for each that is positive. With a prevalence, `ppv_at`, `npv_at` and
    `number_needed_at` are what Bayes makes of sensitivity and specificity there.

    Args:
        asked: of one question.
        groups_N: the group of each image.
        threshold: the least score that is called.
        prevalence: share of positives where the model is to work, 0..1.
        names: of the two answers, for the reasons.
    """
    called = asked.probs[:, 1] >= threshold
    decided = Scores(asked.labels, np.stack([~called, called], axis=1).astype(np.float64))
    each = {"sensitivity": recall, "specificity": specificity, "precision": precision, "npv": npv}
    table: dict[str, Callable[[Tally], Floats]] = {**each}
    if prevalence is not None:
        table |= {"ppv_at": lambda t: _bayes(t, prevalence)[0], "npv_at": lambda t: _bayes(t, prevalence)[1]}
    raw = estimates(decided, groups_N, table, resamples=resamples, level=level, seed=seed, names=names)
    found = {name: one if isinstance(one, Estimate) else one[1] for name, one in raw.items()}
    found["ppv"] = found.pop("precision")
    found["number_needed"] = inverted(found["ppv"])
    if prevalence is not None:
        found["number_needed_at"] = inverted(found["ppv_at"])
    return found


def inverted(share: Estimate) -> Estimate:
    """1 / a share, with its interval turned over; none where the share, or an end of its interval, is 0.

    >>> inverted(Estimate(0.25, 0.2, 0.5, 40, 30)).high
    5.0
    """
    if not share.value:
        return replace(share, value=None, low=None, high=None, note=share.note or not_estimable(share.n, "the share is 0"))
    if not share.low or share.high is None:
        return replace(
            share, value=1 / share.value, low=None, high=None, note=share.note or "no upper limit: the share may be 0"
        )
    return replace(share, value=1 / share.value, low=1 / share.high, high=1 / share.low)


def _bayes(t: Tally, prevalence: float) -> tuple[Floats, Floats]:
    """(R,) positive and negative predictive value at another prevalence."""
    found, spared = recall(t)[:, 1], specificity(t)[:, 1]
    true, false = found * prevalence, (1 - spared) * (1 - prevalence)
    right, missed = spared * (1 - prevalence), (1 - found) * prevalence
    return ratio(true, true + false), ratio(right, right + missed)


def _errors(positive_N: Masks, score_N: Floats) -> tuple[Floats, Floats, Floats]:
    """Each different score as threshold, highest first, with the positives missed and the others called."""
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    found = np.cumsum(positive_N[order])[last]
    return score_N[order][last], (found[-1] - found).astype(np.float64), (last + 1 - found).astype(np.float64)
