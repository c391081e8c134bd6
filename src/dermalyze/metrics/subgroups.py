"""Subgroups: the metrics of every subgroup of every column, and its gap to the rest, under one set of resamples.

A metric that rests on fewer groups than `bootstrap` asks for is suppressed, value and all: three detected
cases of three in a subgroup say next to nothing, and look like a perfect result.
"""

# Shapes: N images, L levels of a division, R resamples, K sums, C classes.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.bootstrap import (
    MIN_CLASS_GROUPS,
    MIN_GROUPS,
    Estimate,
    estimate,
    group_index,
    group_weights,
    is_share,
    not_estimable,
)
from dermalyze.metrics.paired_tests import holm
from dermalyze.metrics.ranking import Floats, Ints, Ranking, auroc_of, rank, rank_among, ratio

UNKNOWN = "unknown"
SHARES = ("accuracy", "sensitivity", "referred")
"""Measures that are shares of images."""


@dataclass(frozen=True, eq=False)
class Division:
    """One column by which a set is divided; every image is in exactly one level.

    Attributes:
        name: of the column.
        levels: their names, in order.
        codes: (N,) index of each image's level.
        note: how the levels came about.
        bounds: of the numbers that they are bands of.
    """

    name: str
    levels: tuple[str, ...]
    codes: Ints
    note: str = ""
    bounds: tuple[float, ...] = ()


def divide(name: str, values_N: Sequence[str | None], levels: Sequence[str] | None = None, note: str = "") -> Division:
    """A division by text; a missing value is its own level, the last.

    Args:
        name: of the column.
        values_N: None where missing.
        levels: in order; default: those there are, sorted. One that no image has is left out.
        note: how they came about.

    >>> found = divide("sex", ["male", None, "female"])
    >>> found.levels, found.codes
    (('female', 'male', 'unknown'), array([1, 2, 0]))
    """
    named = [UNKNOWN if value is None else value for value in values_N]
    there = set(named)
    known = [level for level in (sorted(there) if levels is None else levels) if level in there and level != UNKNOWN]
    order = [*known, *([UNKNOWN] if UNKNOWN in there else [])]
    index = {level: i for i, level in enumerate(order)}
    return Division(name, tuple(order), np.array([index[value] for value in named], dtype=np.int64), note)


@dataclass(frozen=True)
class Subgroup:
    """One level of one column.

    Attributes:
        column, level: which.
        n, groups: images and groups in it.
        values: each measure in it.
        gaps: that measure in it minus the same in all other images.
        p_values: of each gap with an interval, two-sided, from the bootstrap's standard error and the normal distribution.
        adjusted: these after Holm's correction over all gaps of all columns.
    """

    column: str
    level: str
    n: int
    groups: int
    values: dict[str, Estimate]
    gaps: dict[str, Estimate]
    p_values: dict[str, float]
    adjusted: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            **vars(self),
            "values": {name: one.as_dict() for name, one in self.values.items()},
            "gaps": {name: one.as_dict() for name, one in self.gaps.items()},
        }


def subgroups(
    scores: Any,
    groups_N: Sequence[str],
    divisions: Sequence[Division],
    *,
    resamples: int,
    level: float,
    seed: int,
    focus: int | None = None,
    malignant: Sequence[int] = (),
    answered_N: npt.NDArray[np.bool_] | None = None,
) -> list[Subgroup]:
    """Every level of every division, in order.

    Measures: accuracy; balanced_accuracy; sensitivity (of `focus`); macro_auroc (value only: its gap would rest on seven
    rankings of nearly the whole set for each level); malignant_auroc (summed probability of `malignant`); overconfidence
    (mean confidence minus accuracy: calibration in the large); log_loss; referred (share not answered).

    Args:
        scores: labels and calibrated probabilities.
        groups_N: the group of each image, which is resampled.
        divisions: of the same images.
        resamples, level, seed: of the intervals.
        focus: a class whose sensitivity is given.
        malignant: classes that are one side of `malignant_auroc`.
        answered_N: whether each image is answered; None: no case is referred.
    """
    table = _Table.of(scores, groups_N, focus, malignant, answered_N)
    levels = [(d, name, np.flatnonzero(d.codes == i)) for d in divisions for i, name in enumerate(d.levels)]
    everything = np.arange(len(scores))
    sides = [(_Side(table, rows), _Side(table, np.setdiff1d(everything, rows), gap=True)) for _, _, rows in levels]
    for own, rest in sides:
        if not own.rankings:
            rest.rankings = {}  # no gap to be had: spare the time
    drawn: list[tuple[list[Measured], list[Measured]]] = [([], []) for _ in sides]
    for weights in group_weights(table.index, table.groups, resamples, seed):
        totals = table.features @ weights
        for (own, rest), (of_own, of_rest) in zip(sides, drawn, strict=True):
            mine = weights[own.rows]
            sums = table.features[:, own.rows] @ mine
            of_own.append(own.measure(sums, mine))
            others = weights[rest.rows] if rest.rankings else mine  # ranks alone ask for them
            of_rest.append(rest.measure(totals - sums, others))
    found = []
    for (d, name, rows), (own, rest), (of_own, of_rest) in zip(levels, sides, drawn, strict=True):
        values, gaps = {}, {}
        p_values: dict[str, float] = {}
        for key, point in own.whole().items():
            resampled = np.concatenate([part[key] for part in of_own])
            values[key] = _value(key, point, resampled, own.basis[key], level)
            if key in rest.measures:
                other = np.concatenate([part[key] for part in of_rest])
                ends = (point, rest.whole()[key])
                gaps[key], p = _gap(key, ends, resampled - other, (own.basis[key], rest.basis[key]), level)
                p_values |= {key: p} if p is not None else {}
        found.append(Subgroup(d.name, name, len(rows), len(np.unique(table.index[rows])), values, gaps, p_values, {}))
    return _adjust(found, {d.name: len(d.levels) for d in divisions})


# -- parts ---------------------------------------------------------------------------------------------------------

Measured = dict[str, Floats]


@dataclass(frozen=True)
class Basis:
    """What a measure rests on: images and groups (of the rarest kind, where it needs several), and whether that is enough."""

    n: int
    groups: int
    enough: bool


@dataclass(frozen=True, eq=False)
class _Table:
    """What each image adds to the sums that the measures are ratios of; `over` and `under` name rows of `features`."""

    scores: Any
    index: Ints
    groups: int
    features: Floats
    ratios: Mapping[str, tuple[int, int]]
    recalls: tuple[tuple[int, int], ...]
    positive: npt.NDArray[np.bool_] | None
    risk: Floats

    @classmethod
    def of(
        cls,
        scores: Any,
        groups_N: Sequence[str],
        focus: int | None,
        malignant: Sequence[int],
        answered_N: npt.NDArray[np.bool_] | None,
    ) -> _Table:
        asked = scores.rests_on(None, None).astype(np.float64)  # without any target an image counts nowhere
        pairs = {"accuracy": (scores.right * asked, asked)}
        if focus is not None:
            own = scores.rests_on("recall", focus).astype(np.float64)
            pairs["sensitivity"] = (scores.right * own, own)
        if not scores.ranks_only:
            pairs["overconfidence"] = ((scores.confidence - scores.right) * asked, asked)
            pairs["log_loss"] = (np.where(asked > 0, scores.log_losses, 0.0), asked)
        if answered_N is not None:
            pairs["referred"] = (1.0 - answered_N, np.ones(len(scores)))
        each = [scores.rests_on("recall", c).astype(np.float64) for c in range(scores.classes)]
        hits = [own * called for own, called in zip(each, scores.called.T, strict=True)]
        rows = [row for pair in pairs.values() for row in pair] + [row for pair in zip(hits, each, strict=True) for row in pair]
        index, groups = group_index(groups_N)
        positive = np.isin(scores.labels, list(malignant)) if malignant else None
        return cls(
            scores, index, groups, np.stack(rows),
            {name: (2 * i, 2 * i + 1) for i, name in enumerate(pairs)},
            tuple((k, k + 1) for k in range(2 * len(pairs), len(rows), 2)),
            positive, scores.probs[:, list(malignant)].sum(axis=1),
        )  # fmt: skip


class _Side:
    """Some of the images: what is measured on them, and on how many groups each measure rests."""

    def __init__(self, table: _Table, rows: Ints, *, gap: bool = False) -> None:
        self.table, self.rows = table, rows
        ranked = ["malignant_auroc"] if table.positive is not None else []
        self.measures = [*table.ratios, "balanced_accuracy", *ranked, *([] if gap else ["macro_auroc"])]
        self.basis = {name: self._basis(name) for name in self.measures}
        scores = table.scores
        self.rankings: dict[str, list[Ranking]] = {}
        if table.positive is not None and self.basis["malignant_auroc"].enough:
            self.rankings["malignant_auroc"] = [rank(table.positive[rows], table.risk[rows])]
        if not gap and self.basis["macro_auroc"].enough:
            self.rankings["macro_auroc"] = [
                rank_among(scores.rests_on(None, c)[rows], scores.rests_on("recall", c)[rows], scores.probs[rows, c])
                for c in range(scores.classes)
            ]

    def measure(self, sums: Floats, weights: Floats) -> Measured:
        """Each measure under R weightings: from sums (K, R), and for ranks from the weights (n, R)."""
        found = {name: ratio(sums[over], sums[under]) for name, (over, under) in self.table.ratios.items()}
        recalls = [ratio(sums[over], sums[under]) for over, under in self.table.recalls]
        found["balanced_accuracy"] = np.asarray(np.mean(recalls, axis=0))
        for name in self.measures[len(found) :]:
            ranks = self.rankings.get(name)
            nothing = np.full(sums.shape[1], np.nan)
            found[name] = np.mean([auroc_of(one, weights) for one in ranks], axis=0) if ranks else nothing
        return found

    def whole(self) -> dict[str, float]:
        """Each measure as it is."""
        ones = np.ones((len(self.rows), 1))
        return {name: float(v[0]) for name, v in self.measure(self.table.features[:, self.rows] @ ones, ones).items()}

    def _rests_on(self, name: str) -> list[npt.NDArray[np.bool_]]:
        """(n,) the images that it rests on; several, where it needs each of several kinds."""
        if name in ("balanced_accuracy", "macro_auroc"):
            return [self.table.scores.rests_on("recall", c)[self.rows] for c in range(self.table.scores.classes)]
        if name == "malignant_auroc" and self.table.positive is not None:
            positive = self.table.positive[self.rows]
            return [positive, ~positive]
        return [self.table.features[self.table.ratios[name][1]][self.rows] > 0]

    def _basis(self, name: str) -> Basis:
        among, index = self._rests_on(name), self.table.index[self.rows]
        groups = min(len(np.unique(index[rows])) for rows in among)
        least = MIN_CLASS_GROUPS if len(among) > 1 or name == "sensitivity" else MIN_GROUPS
        return Basis(min(int(rows.sum()) for rows in among), groups, groups >= least and len(np.unique(index)) >= MIN_GROUPS)


def _value(name: str, point: float, resampled_R: Floats, basis: Basis, level: float) -> Estimate:
    """Suppressed where it rests on too few groups."""
    if not basis.enough:
        return Estimate(None, None, None, basis.n, basis.groups, 0, not_estimable(basis.n))
    share = None if name == "overconfidence" else is_share(name)
    return estimate(point, resampled_R, n=basis.n, groups=basis.groups, level=level, least_groups=1, share=share)


def _gap(
    name: str, ends: tuple[float, float], gap_R: Floats, bases: tuple[Basis, Basis], level: float
) -> tuple[Estimate, float | None]:
    """The difference, no better founded than the weaker side, and its p-value where it has an interval."""
    n, groups = min(basis.n for basis in bases), min(basis.groups for basis in bases)
    if not all(basis.enough for basis in bases):
        return Estimate(None, None, None, n, groups, 0, not_estimable(n)), None
    found = estimate(ends[0] - ends[1], gap_R, n=n, groups=groups, level=level, least_groups=1)
    if name in SHARES and any(value in (0.0, 1.0) for value in ends):
        return replace(found, low=None, high=None, note="interval not estimable: all of one side alike"), None
    spread = float(np.nanstd(gap_R, ddof=1)) if found.low is not None else 0.0
    if found.value is None or not spread > 0:
        return found, None
    return found, 2 * NormalDist().cdf(-abs(found.value) / spread)


def _adjust(found: Sequence[Subgroup], levels: Mapping[str, int]) -> list[Subgroup]:
    """Holm over all gaps; the two levels of a column that has two are one comparison."""
    family: dict[tuple[str, ...], float] = {}

    def key(one: Subgroup, name: str) -> tuple[str, ...]:
        return (one.column, name) if levels[one.column] == 2 else (one.column, name, one.level)

    for one in found:
        family |= {key(one, name): p for name, p in one.p_values.items()}
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    return [
        replace(one, adjusted={name: p for name in one.p_values if (p := adjusted[key(one, name)]) is not None})
        for one in found
    ]


def comparisons(found: Sequence[Subgroup]) -> int:
    """How many gaps were tested, as Holm's correction counts them."""
    levels = {one.column: 0 for one in found}
    for one in found:
        levels[one.column] += 1
    return len({(one.column, n, one.level if levels[one.column] != 2 else "") for one in found for n in one.p_values})
