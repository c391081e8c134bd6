"""What stands near in a space of features: neighbours, their votes, and class centers of a few examples."""

# Shapes: Q queries, N known images, D features, K neighbours, C classes.

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.ranking import Floats, Ints

CHUNK_NUMBERS = 1 << 22  # similarities held at once, 32 MiB


def unit(features_ND: NDArray[np.floating]) -> Floats:
    """Rows scaled to length 1, in float64; a row of zeros stays.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    rows = np.asarray(features_ND, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0), dtype=np.float64)


def cosine_distances(query_QD: NDArray[np.floating], known_ND: NDArray[np.floating]) -> Iterator[tuple[slice, Floats]]:
    """Yield rows and their cosine distances (q, N), 0 (same direction) to 2; memory is bounded.

    >>> [(rows, far.round(3).tolist()) for rows, far in cosine_distances(np.eye(2), np.array([[1.0, 0.0]]))]
    [(slice(0, 2, None), [[0.0], [1.0]])]
    """
    query, known = unit(query_QD), unit(known_ND)
    size = max(1, CHUNK_NUMBERS // max(1, len(known)))
    for start in range(0, len(query), size):
        rows = slice(start, min(start + size, len(query)))
        yield rows, np.clip(1 - query[rows] @ known.T, 0, 2)


def nearest(query_QD: NDArray[np.floating], known_ND: NDArray[np.floating], k: int) -> tuple[Ints, Floats]:
    """The k nearest known images by cosine distance, the nearest first; of equals, the first.

    Args:
        query_QD: features of the queries.
        known_ND: features of the known images.
        k: 1..N.

    Returns:
        indices (Q, K) and distances (Q, K).

    >>> nearest(np.array([[1.0, 0.1]]), np.eye(2), 2)[0].tolist()
    [[0, 1]]
    """
    index, distance = np.zeros((len(query_QD), k), np.int64), np.zeros((len(query_QD), k))
    for rows, far in cosine_distances(query_QD, known_ND):
        # the k-th smallest decides who may come; a stable sort of the few puts them in order
        kth = np.partition(far, k - 1, axis=1)[:, k - 1 : k]
        for row, among in zip(range(rows.start, rows.stop), far <= kth, strict=True):
            inside = np.flatnonzero(among)
            values = far[row - rows.start, inside]
            order = np.argsort(values, kind="stable")[:k]
            index[row], distance[row] = inside[order], values[order]
    return index, distance


def nearest_groups(distance_N: Floats, groups_N: Sequence[str], k: int) -> list[int]:
    """Indices of the nearest image of each of the k nearest groups, the nearest first; fewer where there are fewer groups.

    >>> nearest_groups(np.array([0.1, 0.2, 0.3]), ["a", "a", "b"], 2)
    [0, 2]
    """
    chosen: dict[str, int] = {}
    for row in np.argsort(distance_N, kind="stable"):
        chosen.setdefault(groups_N[row], int(row))
        if len(chosen) == k:
            break
    return list(chosen.values())


def vote(labels_QK: Ints, distance_QK: Floats, classes: int) -> Floats:
    """(Q, C) share of each class among neighbours, each weighted by 1 / distance; where some are at distance 0, of these alone.

    >>> vote(np.array([[0, 1]]), np.array([[0.1, 0.3]]), 2).round(3).tolist()
    [[0.75, 0.25]]

    Dudani 1976, doi:10.1109/TSMC.1976.5408784
    """
    same = distance_QK == 0
    weight = np.divide(1.0, distance_QK, out=np.zeros_like(distance_QK), where=~same)
    weight = np.where(same.any(axis=1, keepdims=True), same.astype(np.float64), weight)
    votes = np.stack([np.where(labels_QK == c, weight, 0.0).sum(axis=1) for c in range(classes)], axis=1)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True), dtype=np.float64)


def class_centers(features_ND: NDArray[np.floating], labels_N: Ints, classes: int) -> Floats:
    """(C, D) mean of each class's rows; every class has some.

    >>> class_centers(np.array([[0.0], [2.0], [5.0]]), np.array([0, 0, 1]), 2).tolist()
    [[1.0], [5.0]]
    """
    return np.stack([np.asarray(features_ND, np.float64)[labels_N == c].mean(axis=0) for c in range(classes)])


def nearest_center(features_QD: NDArray[np.floating], centres_CD: Floats) -> Ints:
    """(Q,) class whose center is nearest by Euclidean distance; the first of equals.

    >>> nearest_center(np.array([[0.0], [4.0]]), np.array([[1.0], [5.0]])).tolist()
    [0, 1]

    Snell et al. 2017, arXiv:1703.05175, with given features in place of learnt ones
    """
    return np.asarray(center_scores(features_QD, centres_CD).argmax(axis=1), dtype=np.int64)


def center_scores(features_QD: NDArray[np.floating], centres_CD: Floats) -> Floats:
    """(Q, C) how near each center is: half of what is left of -|x - c|^2 without |x|^2, which is the same for every class.

    >>> center_scores(np.array([[4.0]]), np.array([[1.0], [5.0]])).tolist()
    [[3.5, 7.5]]
    """
    return np.asarray(np.asarray(features_QD, np.float64) @ centres_CD.T - 0.5 * (centres_CD**2).sum(axis=1))


def draw_shots(labels_N: Ints, groups_N: Sequence[str], shots: int, generator: np.random.Generator) -> Ints | None:
    """Rows of `shots` images of each class that occurs, each of another group; None where a class has fewer groups.

    >>> rows = draw_shots(np.array([0, 0, 1, 1]), ["a", "a", "b", "c"], 1, np.random.default_rng(0))
    >>> sorted(np.array([0, 0, 1, 1])[rows].tolist())
    [0, 1]
    """
    groups, chosen = np.asarray(groups_N), []
    for c in np.unique(labels_N):
        rows = generator.permutation(np.flatnonzero(labels_N == c))
        first = rows[np.sort(np.unique(groups[rows], return_index=True)[1])]  # one image a group, in random order
        if len(first) < shots:
            return None
        chosen.append(generator.permutation(first)[:shots])
    return np.concatenate(chosen)
