"""Conformal sets: as many classes as it takes to hold the right one in a given share of cases, whatever the model.

The guarantee is for cases like those of the calibration split, on average over parts drawn anew. Photographs of one group
are not drawn one by one, so each group gives one image to the calibration.
"""

# Shapes: N images, C classes.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ModelError, nearest
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.rng import positions_of

Masks = npt.NDArray[np.bool_]
RAPS_PENALTY, RAPS_FREE = 0.01, 2  # of each class beyond the second, as small as in the paper's tables
MARGINAL = "marginal"


def lac(probs_NC: Floats, luck_N: Floats) -> Floats:
    """Least ambiguous sets: 1 - p. The smallest sets on average; hard cases may be left with none.

    Sadinle, Lei & Wasserman 2019, arXiv:1609.00451
    """
    return 1 - probs_NC


def aps(probs_NC: Floats, luck_N: Floats) -> Floats:
    """Adaptive sets: the probability of all classes at least as likely, this one's own counted whole.

    Romano, Sesia & Candès 2020, arXiv:2006.02544
    """
    return _cumulative(probs_NC)


def aps_randomised(probs_NC: Floats, luck_N: Floats) -> Floats:
    """Adaptive sets with the last class in by luck, which makes the coverage exact. arXiv:2006.02544"""
    return np.asarray(_cumulative(probs_NC) - luck_N[:, None] * probs_NC)


def raps(probs_NC: Floats, luck_N: Floats) -> Floats:
    """Adaptive sets with a penalty on every class beyond the second. Angelopoulos et al. 2021, arXiv:2009.14193"""
    rank_NC = np.argsort(np.argsort(-probs_NC, axis=1, kind="stable"), axis=1)
    return np.asarray(_cumulative(probs_NC) + RAPS_PENALTY * np.maximum(0, rank_NC + 1 - RAPS_FREE))


SCORES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "lac": lac,
    "aps": aps,
    "aps_randomised": aps_randomised,
    "raps": raps,
}
"""Probabilities (N, C) and one number of luck in 0..1 an image to how badly each class would fit, (N, C)."""


SERVED_SCORE = "lac"
"""The score of the sets that answers carry, with a threshold per class: the smallest sets that cover each class."""


@dataclass(frozen=True)
class ConformalSets:
    """A rule that gives a set of classes.

    Attributes:
        score: a key of `SCORES`.
        level: share of cases whose set is to hold the right class.
        thresholds: class name, or "marginal" for all, to the largest score that is let in; None where the calibration split
            has too few groups for the level.
        groups: how many groups each threshold rests on.
    """

    score: str
    level: float
    thresholds: dict[str, float | None]
    groups: dict[str, int]

    def of(self, probs_NC: Floats, classes: Sequence[str], luck_N: Floats | None = None) -> Masks:
        """(N, C) whether each class is in the set; a class whose threshold is not estimable is always in.

        >>> rule = ConformalSets("lac", 0.9, {"marginal": 0.6}, {"marginal": 100})
        >>> rule.of(np.array([[0.5, 0.4, 0.1]]), ["a", "b", "c"]).tolist()
        [[True, True, False]]
        """
        luck = np.zeros(len(probs_NC)) if luck_N is None else luck_N
        limits = [self.thresholds[name if name in self.thresholds else MARGINAL] for name in classes]
        limit_C = np.array([np.inf if limit is None else limit for limit in limits])
        return np.asarray(SCORES[self.score](probs_NC, luck) <= limit_C)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Any, classes: Sequence[str]) -> ConformalSets | None:
        """Read what `as_dict` gave; None for None.

        Raises:
            ModelError: anything else.
        """
        if values is None:
            return None
        if not isinstance(values, dict) or values.keys() != {"score", "level", "thresholds", "groups"}:
            raise ModelError("calibration: its conformal sets are damaged; calibrate again")
        if values["score"] not in SCORES:
            raise ModelError(
                f"calibration: no conformal score {values['score']!r}{nearest(str(values['score']), list(SCORES))}"
            )
        limits = values["thresholds"]
        named = isinstance(limits, dict) and limits.keys() in ({MARGINAL}, set(classes))
        if not named or not all(v is None or (type(v) in (int, float) and np.isfinite(v)) for v in limits.values()):
            raise ModelError("calibration: its conformal thresholds do not fit the classes; calibrate again")
        return cls(**values)


def calibrate_conformal(
    probs_NC: Floats,
    labels_N: Ints,
    groups_N: Sequence[str],
    classes: Sequence[str],
    *,
    score: str,
    level: float,
    by_class: bool,
    seed: int = 0,
) -> ConformalSets:
    """Thresholds from a calibration split.

    Args:
        probs_NC: probabilities of the part.
        labels_N: class index of each.
        groups_N: the group of each.
        classes: names, in order.
        score: a key of `SCORES`.
        level: share of cases that are to be covered, 0..1.
        by_class: a threshold per class, so that each class is covered, or one for all.
        seed: of the luck of randomised scores.
    """
    chosen = one_each(groups_N)
    luck = np.random.default_rng(seed).random(len(labels_N))
    own = SCORES[score](probs_NC, luck)[np.arange(len(labels_N)), labels_N][chosen]
    labels = labels_N[chosen]
    parts = {name: labels == c for c, name in enumerate(classes)} if by_class else {MARGINAL: np.ones(len(own), dtype=bool)}
    thresholds = {name: quantile(own[inside], level) for name, inside in parts.items()}
    return ConformalSets(score, level, thresholds, {name: int(inside.sum()) for name, inside in parts.items()})


def quantile(scores_N: Floats, level: float) -> float | None:
    """The ceil((n + 1) level)-th smallest score; None where n is too small for the level (fewer than 19 for 95 %).

    >>> quantile(np.arange(1.0, 20.0), 0.95), quantile(np.arange(1.0, 19.0), 0.95)
    (19.0, None)
    """
    k = int(np.ceil((len(scores_N) + 1) * level - 1e-9))
    return None if k > len(scores_N) else float(np.sort(scores_N)[k - 1])


def one_each(groups_N: Sequence[str]) -> npt.NDArray[np.int64]:
    """Index of one image of each group, the same for any order of the groups: the first of each.

    >>> one_each(["b", "a", "b"]).tolist()
    [0, 1]
    """
    first: dict[str, int] = {}
    for i, group in enumerate(groups_N):
        first.setdefault(group, i)
    return np.array(sorted(first.values()), dtype=np.int64)


def luck_of(ids: Sequence[str]) -> Floats:
    """(N,) numbers in 0..1 that belong to the images, whatever their order.

    >>> luck_of(["a", "b"]).round(3).tolist() == luck_of(["b", "a"])[::-1].round(3).tolist()
    True
    """
    return positions_of(ids) / 2**56


def _cumulative(probs_NC: Floats) -> Floats:
    """For each class the probability of all that are at least as likely, itself among them (of equals, those before it)."""
    order = np.argsort(-probs_NC, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probs_NC, order, axis=1), axis=1)
    cumulative = np.empty_like(sums)
    np.put_along_axis(cumulative, order, sums, axis=1)
    return cumulative
