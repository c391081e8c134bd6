"""How well a single column predicts the class: AUROCs on held-out groups.

Shapes: N images, V values of a column, C classes, F folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.data.grouping import groups
from dermalyze.errors import ConfigError
from dermalyze.tasks.base import Task

GIVEAWAY_AUROC = 0.95
"""A column that ranks one class above the others this well, on groups it has not seen, gives the label away."""

FOLDS = 5


def binned(values: pd.Series, bins: int = 20) -> pd.Series:
    """Numbers (as text too) with more than `bins` different values in `bins` quantile bins, anything else as it is.

    >>> binned(pd.Series([str(n) for n in range(100)])).nunique()
    20
    """
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.nunique() <= bins or numbers.notna().sum() < 0.9 * values.notna().sum():
        return values
    return pd.qcut(numbers, bins, labels=False, duplicates="drop")


def association(values: pd.Series, labels: pd.Series, group: pd.Series, *, least: int = 5) -> tuple[float, str]:
    """How well a single column separates one class from the rest: the best of `associations`.

    Returns:
        (AUROC, class), AUROC in 0..1; (0.5, "") where no class can be estimated.

    >>> label = pd.Series(["mel", "nv"] * 20)
    >>> association(label.str.upper(), label, pd.Series(range(40)))
    (1.0, 'mel')
    """
    return best_of(associations(values, labels, group, least=least))


def associations(values: pd.Series, labels: pd.Series, group: pd.Series, *, least: int = 5) -> dict[str, float]:
    """How well a single column separates each class from the rest: one-vs-rest AUROC, cross-validated over groups.

    An image's score for a class is the share of that class among the other folds' images with the same value (null
    is a value), shrunk to the class's share in the whole; so ids that each mean one group tell nothing.

    Args:
        values: a column, any type; labels: class of each image; group: group of each image.
        least: classes of fewer images or groups are left out.

    Returns:
        class to AUROC, 0..1; without classes that cannot be estimated.

    >>> label = pd.Series(["mel", "nv"] * 20)
    >>> associations(label.str.upper(), label, pd.Series(range(40)))
    {'mel': 1.0, 'nv': 1.0}
    """
    code_N, _ = pd.factorize(values.astype(object).where(values.notna(), None), use_na_sentinel=False)
    class_N, names = pd.factorize(labels.astype(str), sort=True)
    score_NC = _held_out_shares(code_N, class_N, folds(group), len(names))
    return held_out_aurocs(score_NC, labels, group, least=least)


def refuse_revealing(frame: pd.DataFrame, columns: Sequence[str], classes: Sequence[str], task: Task) -> None:
    """Refuse metadata that is the label in other words.

    Args:
        frame: usable manifest rows.
        columns: model inputs that nobody has accepted by name.
        classes: of the task.

    Raises:
        ConfigError: a column alone predicts a class, or one of several labels, with `GIVEAWAY_AUROC`.
    """
    if not columns:
        return
    group, texts = groups(frame), frame["label"].astype(str)
    if task.has("one_class"):
        answers = [("", texts)]
    else:
        marks_CN = task.targets(texts.tolist(), list(classes)).T
        answers = [
            (name, pd.Series(marks, index=frame.index)[marks >= 0].astype(str))
            for name, marks in zip(classes, marks_CN, strict=True)
        ]
    for column in columns:
        for label, values in answers:
            area, name = association(binned(frame.loc[values.index, column]), values, group[values.index])
            if area >= GIVEAWAY_AUROC:
                raise ConfigError(
                    f"model.metadata.columns: '{column}' alone predicts '{label or name}' nearly perfectly (AUROC {area:.2f} "
                    "on held-out groups); most often such a column was made from the diagnosis: leave it out, or, if it is "
                    f"known before it, accept it by name: --set model.metadata.accept=[{column}]"
                )


def folds(group: pd.Series) -> NDArray[np.int64]:
    """(N,) fold 0..FOLDS-1 of each image: even folds by rank of a hash, which no order of rows and no names can bend.

    >>> folds(pd.Series(["a", "b", "a"])).tolist()
    [1, 0, 1]
    """
    group_N, names = pd.factorize(group.astype(str), sort=True)
    digests = np.array([sha256(str(name).encode()).hexdigest() for name in names])
    found: NDArray[np.int64] = (np.argsort(np.argsort(digests)) % FOLDS)[group_N]
    return found


def held_out_aurocs(score_NC: NDArray[np.float64], labels: pd.Series, group: pd.Series, *, least: int = 5) -> dict[str, float]:
    """How well held-out scores separate each class from the rest.

    Scores of different folds come of different data and cannot be compared, so AUROCs are of one fold each and averaged
    by their number of pairs.

    Forman and Scholz 2010, "Apples-to-apples in cross-validation studies", doi 10.1145/1882471.1882479

    Args:
        score_NC: (N, C), classes in sorted order, from the other `folds`; labels: class of each image; group: of each image.
        least: classes of fewer images or groups are left out.

    Returns:
        class to AUROC, 0..1; without classes that cannot be estimated.
    """
    class_N, names = pd.factorize(labels.astype(str), sort=True)
    fold_N = folds(group)
    ranks = pd.DataFrame(score_NC).groupby(fold_N).rank().to_numpy()
    found = {}
    for c, name in enumerate(names):
        mine = class_N == c
        if mine.sum() < least or (~mine).sum() < least or group[mine].nunique() < least:
            continue
        n_F, rest_F = (np.bincount(fold_N[rows], minlength=FOLDS) for rows in (mine, ~mine))
        above = np.bincount(fold_N[mine], ranks[mine, c], FOLDS) - n_F * (n_F + 1) / 2
        if (n_F * rest_F).sum() > 0:
            found[str(name)] = float(above[rest_F > 0].sum() / (n_F * rest_F).sum())
    return found


def best_of(areas: Mapping[str, float]) -> tuple[float, str]:
    """The largest AUROC and its class, the first of equals; (0.5, "") where there is none.

    >>> best_of({"mel": 0.7, "nv": 0.9}), best_of({})
    ((0.9, 'nv'), (0.5, ''))
    """
    best = max(areas, key=lambda name: areas[name], default="")
    return (areas[best], best) if best else (0.5, "")


def _held_out_shares(
    code_N: NDArray[np.int64], class_N: NDArray[np.int64], fold_N: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """(N, C) share of each class among images of the same value in the other folds, with one prior image's weight."""
    count_FVC = np.zeros((FOLDS, int(code_N.max()) + 1, classes))
    np.add.at(count_FVC, (fold_N, code_N, class_N), 1.0)
    other_FVC = count_FVC.sum(axis=0) - count_FVC
    prior_FC = other_FVC.sum(axis=1) / np.maximum(other_FVC.sum(axis=(1, 2)), 1)[:, None]
    share_FVC = (other_FVC + prior_FC[:, None]) / (other_FVC.sum(axis=2, keepdims=True) + 1)
    shares: NDArray[np.float64] = share_FVC[fold_N, code_N]
    return shares
