"""Distances between sets against scipy and plain loops; and what they say of one and the same distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance

from dermalyze.metrics.shift import distances, embedding_shift, energy, frechet, mean_difference_in_sd, total_variation


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_frechet_is_that_of_matrix_roots(rng):
    x, y = rng.normal(0, 1, (60, 5)) @ rng.normal(size=(5, 5)), rng.normal(1, 2, (40, 5))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(y, x) == pytest.approx(frechet(x, y))


def test_frechet_of_more_dimensions_than_rows_is_finite(rng):
    assert frechet(rng.normal(size=(10, 50)), rng.normal(3, 1, (12, 50))) > 400


def test_distances_are_scipys(rng):
    x = rng.normal(size=(30, 7))
    assert distances(x) == pytest.approx(cdist(x, x), abs=1e-6)


def test_energy_is_the_definition_over_pairs(rng):
    x, y = rng.normal(0, 1, (12, 3)), rng.normal(1, 1, (9, 3))
    both = cdist(np.concatenate([x, y]), np.concatenate([x, y]))
    side = np.arange(21) < 12
    xx, yy = cdist(x, x).sum() / (12 * 11), cdist(y, y).sum() / (9 * 8)
    expected = 2 * cdist(x, y).mean() - xx - yy
    assert energy(both, side[None].astype(float), (~side)[None].astype(float))[0] == pytest.approx(expected)


def test_energy_of_large_samples_is_scipys(rng):
    """In one dimension; scipy gives the root, without the correction for small samples."""
    x, y = rng.normal(0, 1, 1500), rng.normal(1, 1.5, 1500)
    side = np.arange(3000) < 1500
    found = energy(distances(np.concatenate([x, y])[:, None]), side[None].astype(float), (~side)[None].astype(float))[0]
    assert found == pytest.approx(energy_distance(x, y) ** 2, rel=0.02)


def test_standardised_difference_and_total_variation_by_weights_are_those_of_repeated_rows(rng):
    x, reference = rng.normal(size=40), rng.normal(1, 2, 70)
    codes, weights = rng.integers(3, size=40), rng.integers(0, 4, (40, 5))
    shares = np.array([0.5, 0.3, 0.2])
    for r in range(5):
        rows = np.repeat(np.arange(40), weights[:, r])
        expected = (x[rows].mean() - reference.mean()) / np.sqrt((x[rows].var() + reference.var()) / 2)
        assert mean_difference_in_sd(x, weights.astype(float), reference)[r] == pytest.approx(expected)
        own = np.bincount(codes[rows], minlength=3) / len(rows)
        assert total_variation(codes, weights.astype(float), shares)[r] == pytest.approx(np.abs(own - shares).sum() / 2)


def test_what_cannot_be_compared_is_undefined():
    one = np.ones((3, 1))
    assert np.isnan(mean_difference_in_sd(np.ones(3), one, np.ones(4)))[0]
    assert np.isnan(mean_difference_in_sd(np.ones(3), one, np.zeros(0)))[0]
    assert np.isnan(total_variation(np.zeros(3, int), 0 * one, np.array([1.0])))[0]
    assert embedding_shift(np.zeros((5, 2)), np.zeros((90, 2)), resamples=100, level=0.95, seed=0) is None


def test_one_distribution_is_no_shift_and_another_is():
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(40, 6)), rng.normal(size=(60, 6))
        found.append(embedding_shift(a, b, resamples=100, level=0.95, seed=seed).p_value)
    assert np.mean(np.array(found) < 0.1) < 0.3  # 10 % expected; 30 % of 30 has probability 0.003
    assert 0.3 < np.mean(found) < 0.7
    rng = np.random.default_rng(0)
    apart = embedding_shift(rng.normal(1, 1, (40, 6)), rng.normal(size=(60, 6)), resamples=200, level=0.95, seed=0)
    assert apart.p_value < 0.01
    assert apart.halves < apart.halves_high < apart.low < apart.energy < apart.high
    assert apart.frechet > 2 * apart.frechet_halves
    assert abs(apart.halves) < 0.05
