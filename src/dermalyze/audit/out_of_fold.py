"""Probabilities of each label by a linear model that has seen neither the image nor its group."""

# Shapes: N images, D features, C classes.

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dermalyze.data.splitting import apportion
from dermalyze.metrics.classification import Scores, measure
from dermalyze.metrics.ranking import Floats

FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularization (scikit-learn's C), tried upwards for as long as the held-out log loss falls."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Held-out probabilities.

    Attributes:
        scores: labels (N,) and probabilities (N, C).
        classes: C names, sorted.
        strength: the inverse regularization that was chosen.
    """

    scores: Scores
    classes: tuple[str, ...]
    strength: float


def enough_groups(frame: pd.DataFrame) -> pd.Series:
    """Which rows can be evaluated: those of classes that are in at least `FOLDS` groups; none where that leaves one class.

    >>> few = pd.DataFrame({"label": ["mel"] * 5 + ["nv"] * 5 + ["df"], "group": [*"abcdefghijk"]})
    >>> int(enough_groups(few).sum())
    10
    """
    held = frame.groupby("label")["group"].nunique()
    kept = set(held.index[held >= FOLDS])
    return frame["label"].isin(kept if len(kept) > 1 else set())


def out_of_fold(
    frame: pd.DataFrame,
    features_ND: NDArray[np.float32],
    *,
    advance: Callable[[int], None] = lambda fits: None,
    strengths: Sequence[float] = STRENGTHS,
) -> OutOfFold:
    """Multinomial logistic regression on standardized features, cross-validated over stratified folds of whole groups.

    The regularization with the lowest held-out log loss is kept: one number, chosen on all images, so that what the
    choice itself flatters is far below the width of the intervals.

    Args:
        frame: N rows with `label` and `group`; every class in at least `FOLDS` groups (see `enough_groups`).
        features_ND: finite numbers.
        advance: is told of each fit.
        strengths: inverse regularisations, rising.
    """
    labels = frame["label"].astype(str)
    classes = tuple(sorted(set(labels)))
    class_N = np.array([classes.index(label) for label in labels], dtype=np.int64)
    fold_N = folds(frame)
    best: OutOfFold | None = None
    lowest = np.inf
    for strength in strengths:
        scores = Scores(class_N, _held_out(features_ND, class_N, fold_N, len(classes), strength, advance))
        loss = measure(scores.labels, scores.probs)["log_loss"]
        if loss is None or loss >= lowest:
            break
        best, lowest = OutOfFold(scores, classes, strength), loss
    assert best is not None, "the log loss of clipped probabilities is finite"
    return best


def folds(frame: pd.DataFrame) -> NDArray[np.int64]:
    """(N,) fold of each row, 0..FOLDS-1: groups whole, classes shared out evenly, the same for any order of rows."""
    counts = pd.crosstab(frame["group"].astype(str), frame["label"].astype(str)).sort_index()
    chosen = apportion(
        counts.to_numpy(dtype=np.int64), [str(name) for name in counts.index], np.full(FOLDS, 1 / FOLDS), "audit"
    )
    fold_of = dict(zip(counts.index, chosen, strict=True))
    return np.array([fold_of[name] for name in frame["group"].astype(str)], dtype=np.int64)


def _held_out(
    features_ND: NDArray[np.float32],
    class_N: NDArray[np.int64],
    fold_N: NDArray[np.int64],
    classes: int,
    strength: float,
    advance: Callable[[int], None],
) -> Floats:
    probs_NC = np.zeros((len(class_N), classes))
    for fold in range(FOLDS):
        test = fold_N == fold
        if len(held := np.unique(class_N[~test])) == 1:
            probs_NC[test, held[0]] = 1.0
            advance(1)
            continue
        scaler = StandardScaler().fit(features_ND[~test])
        model = LogisticRegression(C=strength, tol=1e-3, max_iter=300)
        with warnings.catch_warnings():  # weak regularization may stop early, which regularizes too
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaler.transform(features_ND[~test]), class_N[~test])
        if test.any():
            found = model.predict_proba(scaler.transform(features_ND[test])).astype(np.float64)
            # a fold that holds all of a class (its groups carry several labels) leaves a column of zeros
            probs_NC[np.ix_(test, model.classes_)] = found / found.sum(axis=1, keepdims=True)
        advance(1)
    return probs_NC
