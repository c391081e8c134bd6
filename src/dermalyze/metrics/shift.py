"""How far one set of images lies from another: single columns by standardized difference and total variation, embeddings
by energy and Fréchet distance, each beside what two halves of one and the same set show."""

# Shapes: N, M images or units of each set, D width of the embedding, L levels, R weightings (resamples), U units of both.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dermalyze.metrics.ranking import Floats, Ints, ratio

LARGEST_SIDE = 400
"""Units of each set that the distances of embeddings are taken on; more would cost memory and tell little."""
DRAWS = 10
"""Pairs of samples that the Fréchet distances are means of."""
LEAST_UNITS = 20
"""Fewer units in a set: no distance."""


def mean_difference_in_sd(values_N: Floats, weights_NR: Floats, reference_M: Floats) -> Floats:
    """(R,) difference of means over the root of the mean of both variances; NaN where both are constant or one is empty.

    Args:
        values_N: of the new set, finite.
        weights_NR: how often each counts.
        reference_M: what it is compared with, taken as it is.

    >>> mean_difference_in_sd(np.array([1.0, 3.0]), np.ones((2, 1)), np.array([0.0, 2.0]))
    array([1.])

    Austin 2009, doi:10.1002/sim.3697
    """
    if not len(reference_M) or not len(values_N):
        return np.full(weights_NR.shape[1], np.nan)
    mean_R = ratio(values_N @ weights_NR, weights_NR.sum(axis=0))
    variance_R = ratio(np.square(values_N) @ weights_NR, weights_NR.sum(axis=0)) - np.square(mean_R)
    return ratio(mean_R - reference_M.mean(), np.sqrt(np.maximum((variance_R + reference_M.var()) / 2, 0)))


def total_variation(codes_N: Ints, weights_NR: Floats, shares_L: Floats) -> Floats:
    """(R,) half the summed differences of the shares of each level: 0 alike, 1 nothing in common; noise raises it.

    Args:
        codes_N: level of each image of the new set, 0..L-1.
        weights_NR: how often each counts.
        shares_L: of the levels in the set that it is compared with.

    >>> total_variation(np.array([0, 0, 1, 1]), np.ones((4, 1)), np.array([0.75, 0.25]))
    array([0.25])
    """
    counts_LR = np.eye(len(shares_L))[codes_N].T @ weights_NR
    own_LR = ratio(counts_LR, weights_NR.sum(axis=0))
    return np.asarray(np.abs(own_LR - shares_L[:, None]).sum(axis=0) / 2)


def frechet(x_ND: Floats, y_MD: Floats) -> float:
    """Squared Fréchet distance of two normal distributions with the samples' means and covariances; small sets raise it.

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2)

    The last trace is the sum of the singular values of A B', with A and B the centered samples over the root of their size
    less one: no matrix of D by D is needed.

    >>> round(frechet(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]])), 6)
    1.0

    Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv:1706.08500
    """
    a, b = ((z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x_ND, y_MD))
    means = np.square(x_ND.mean(axis=0) - y_MD.mean(axis=0)).sum()
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(max(0.0, means + np.square(a).sum() + np.square(b).sum() - 2 * shared))


def distances(x_UD: Floats) -> Floats:
    """(U, U) Euclidean distances."""
    squares = np.square(x_UD).sum(axis=1)
    found = np.sqrt(np.maximum(squares[:, None] + squares - 2 * x_UD @ x_UD.T, 0))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)


def energy(distance_UU: Floats, x_RU: Floats, y_RU: Floats) -> Floats:
    """(R,) energy distance without bias, from distances and how often each unit counts on either side.

        2 E|X - Y| - E|X - X'| - E|Y - Y'|, with X' and Y' other units than X and Y

    0 on average where both sides come of one distribution, and then as often below.

    >>> d = distances(np.array([[0.0], [1.0], [10.0], [11.0]]))
    >>> energy(d, np.array([[1.0, 1, 0, 0]]), np.array([[0.0, 0, 1, 1]]))
    array([18.])

    Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018
    """

    def within(w_RU: Floats) -> Floats:
        return ratio(np.einsum("ru,ru->r", w_RU @ distance_UU, w_RU), w_RU.sum(axis=1) ** 2 - np.square(w_RU).sum(axis=1))

    between = ratio(np.einsum("ru,ru->r", x_RU @ distance_UU, y_RU), x_RU.sum(axis=1) * y_RU.sum(axis=1))
    return np.asarray(2 * between - within(x_RU) - within(y_RU))


@dataclass(frozen=True)
class EmbeddingShift:
    """How far two sets of embeddings lie apart.

    Attributes:
        units: of the new and of the known set, one embedding a group.
        energy: distance over the mean distance within the known set; low, high: its interval (bootstrap of the units).
        p_value: how often a random division of both sets together is as far apart.
        halves: the same distance between two random halves of the known set: mean; halves_high: exceeded once in twenty.
        frechet, frechet_halves: mean over pairs of samples of one size, of the two sets and of two halves of the known one.
        sample: that size.
    """

    units: tuple[int, int]
    energy: float
    low: float
    high: float
    p_value: float
    halves: float
    halves_high: float
    frechet: float
    frechet_halves: float
    sample: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**vars(self), "units": list(self.units)}


def embedding_shift(new_ND: Floats, known_MD: Floats, *, resamples: int, level: float, seed: int) -> EmbeddingShift | None:
    """Distances of two sets of embeddings, one per group; None where a set has fewer than `LEAST_UNITS`.

    At most `LARGEST_SIDE` of each are taken, at random; `resamples` is of the bootstrap, the permutations and the halves.

    >>> rng = np.random.default_rng(0)
    >>> found = embedding_shift(rng.normal(2, 1, (60, 4)), rng.normal(0, 1, (60, 4)), resamples=200, level=0.95, seed=0)
    >>> found.p_value < 0.01, found.low > found.halves_high
    (True, True)
    """
    if min(len(new_ND), len(known_MD)) < LEAST_UNITS:
        return None
    rng = np.random.default_rng(seed)
    units = (len(new_ND), len(known_MD))
    new, known = (rng.permutation(z)[:LARGEST_SIDE].astype(np.float64) for z in (new_ND, known_MD))
    n, m = len(new), len(known)
    matrix = distances(np.concatenate([new, known]))
    scale = float(matrix[n:, n:].sum() / (m * (m - 1))) or 1.0
    ones, side = np.ones((1, n + m)), np.arange(n + m) < n
    value = float(energy(matrix, ones * side, ones * ~side)[0])
    draws_x, draws_y = rng.multinomial(n, np.full(n, 1 / n), resamples), rng.multinomial(m, np.full(m, 1 / m), resamples)
    boot = energy(matrix, np.pad(draws_x, ((0, 0), (0, m))).astype(float), np.pad(draws_y, ((0, 0), (n, 0))).astype(float))
    shuffled = rng.permuted(np.tile(side, (resamples, 1)), axis=1)
    chance = energy(matrix, shuffled.astype(float), (~shuffled).astype(float))
    half = rng.permuted(np.tile(np.arange(m) < m // 2, (resamples, 1)), axis=1)
    halves = energy(matrix[n:, n:], half.astype(float), (~half).astype(float)) / scale
    low, high = np.quantile(boot, [(1 - level) / 2, (1 + level) / 2]) / scale
    sample = min(n, m // 2)
    apart, own = [], []
    for _ in range(DRAWS):
        x, y = rng.permutation(new)[:sample], rng.permutation(known)
        apart.append(frechet(x, y[:sample]))
        own.append(frechet(y[:sample], y[sample : 2 * sample]))
    return EmbeddingShift(
        units, value / scale, float(low), float(high), float((1 + (chance >= value - 1e-12).sum()) / (1 + resamples)),
        float(halves.mean()), float(np.quantile(halves, 0.95)), float(np.mean(apart)), float(np.mean(own)), sample,
    )  # fmt: skip
