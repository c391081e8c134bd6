"""Stratified splits of groups whose images have any number of labels each."""

# Shapes: G groups, C labels, P splits.

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

SIZES = 0.5
"""How much the size of a split counts beside the label in turn."""


def iterative(
    counts_GC: NDArray[np.int64],
    images_G: NDArray[np.int64],
    names: Sequence[str],
    shares_P: NDArray[np.float64],
    seed: str,
    *,
    shuffled: bool = False,
) -> NDArray[np.int64]:
    """The split of each group by iterative stratification, each group taken whole.

    The label that the fewest images still to be divided have comes first: its groups go, largest first, to the split that
    lacks the largest share of what it is to have of that label and, at half the weight, of images. Groups without any label
    come last and even out the sizes. (The paper takes what is lacking in images, and looks at the sizes in ties alone: with
    groups of several images the splits then miss the sizes that were asked for.)

    Args:
        counts_GC: images with each label in each group.
        images_G: images of each group.
        names: the groups' names; with `seed` they decide ties, whatever their order.
        shares_P: share of each split, above 0; scaled to sum to 1.
        shuffled: take the groups in the order of the hash alone: less even, but another chance where the other order fails.

    Returns:
        (G,) index of a split. A label may be missing from a split where its groups are few or hold several labels.

    >>> iterative(np.ones((4, 1), dtype=np.int64), np.ones(4, dtype=np.int64), list("abcd"), np.array([0.5, 0.5]), "0").sum()
    np.int64(2)

    Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data", doi:10.1007/978-3-642-23808-6_10
    """
    shares = shares_P / shares_P.sum()
    want_PC, want_P = shares[:, None] * counts_GC.sum(axis=0), shares * images_G.sum()
    goal_PC, goal_P = want_PC.clip(min=1e-9), want_P.copy()
    left_C, groups_C = counts_GC.sum(axis=0), (counts_GC > 0).sum(axis=0)
    have_PC = np.zeros(want_PC.shape, dtype=np.int64)
    ties = [sha256(f"{seed}:{name}".encode()).digest() for name in names]
    chosen = np.full(len(names), -1, dtype=np.int64)

    def queue(size_G: NDArray[np.int64]) -> list[int]:
        """Groups to take, the next one last."""
        rows = np.flatnonzero(size_G).tolist()
        return sorted(rows, key=lambda g: ties[g] if shuffled else (-size_G[g], ties[g]), reverse=True)

    def place(g: int, cost: NDArray[np.float64]) -> None:
        """Put a group where it is wanted most; a split that can only get a label from the groups left has the first claim."""
        for c in sorted(np.flatnonzero(counts_GC[g]), key=lambda c: int(groups_C[c]), reverse=True):
            lacking = have_PC[:, c] == 0
            if 0 < lacking.sum() >= groups_C[c]:
                cost = np.where(lacking, cost - 1e9, cost)
        best = np.flatnonzero(cost == cost.min())
        p = int(best[np.argmax(want_P[best])])
        chosen[g] = p
        want_PC[p] -= counts_GC[g]
        want_P[p] -= images_G[g]
        have_PC[p] += counts_GC[g]
        left_C[:] -= counts_GC[g]
        groups_C[:] -= counts_GC[g] > 0

    queues = [queue(counts_GC[:, c]) for c in range(counts_GC.shape[1])]
    while left_C.any():
        c = int(np.where(left_C > 0, left_C, np.iinfo(np.int64).max).argmin())
        g = queues[c].pop()
        if chosen[g] < 0:
            place(g, -want_PC[:, c] / goal_PC[:, c] - SIZES * want_P / goal_P)
    for g in reversed(queue(np.where(chosen < 0, images_G, 0))):
        place(g, -want_P / goal_P)
    return chosen
