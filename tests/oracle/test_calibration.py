"""ECE and the reliability diagram against torchmetrics, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from dermalyze.ops.calibration import ece, reliability, wilson
from dermalyze.ops.metrics import Scores, tally


def case(n, seed, classes=4):
    generator = np.random.default_rng(seed)
    probs = generator.dirichlet(np.full(classes, 0.6), size=n)
    labels = np.array([generator.choice(classes, p=p) for p in probs])
    return labels, probs


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_ece_equals_torchmetrics(bins):
    torch = pytest.importorskip("torch")
    from dermalyze.core import torch_guard

    torch_guard.install()
    tm = pytest.importorskip("torchmetrics.functional.classification")
    for seed in range(5):
        labels, probs = case(300, seed)
        theirs = tm.multiclass_calibration_error(torch.tensor(probs), torch.tensor(labels), 4, n_bins=bins, norm="l1")
        assert ece(tally(labels, probs), bins)[0] == pytest.approx(float(theirs), abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(0, 10**6), st.integers(2, 20))
def test_weights_are_repetitions(n, seed, bins):
    labels, probs = case(n, seed)
    weights = np.random.default_rng(seed).integers(0, 3, size=(n, 3)).astype(float)
    weights[0] = 1
    found = ece(tally(labels, probs, weights), bins)
    for r in range(3):
        rows = np.repeat(np.arange(n), weights[:, r].astype(int))
        assert found[r] == pytest.approx(ece(tally(labels[rows], probs[rows]), bins)[0], abs=1e-12)


def test_reliability_equals_scikit_learn_and_sums_to_ece():
    labels, probs = case(500, 1)
    rows = reliability(Scores(labels, probs), np.arange(500), bins=10)
    hit = (probs.argmax(1) == labels).astype(int)
    accuracy, confidence = calibration_curve(hit, probs.max(1), n_bins=10)
    filled = [row for row in rows if row.n]
    np.testing.assert_allclose([row.accuracy for row in filled], accuracy)
    np.testing.assert_allclose([row.confidence for row in filled], confidence)
    total = sum(row.n * abs(row.accuracy - row.confidence) for row in filled) / 500
    assert ece(tally(labels, probs), 10)[0] == pytest.approx(total, abs=1e-12)
    empty = next(row for row in rows if not row.n)
    assert (empty.accuracy, empty.low, empty.high) == (None, None, None)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(n, share, level):
    successes = round(share * n)
    theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
    low, high = wilson(successes / n, n, level)
    assert low == pytest.approx(theirs.low, abs=1e-9)
    assert high == pytest.approx(theirs.high, abs=1e-9)


def test_photographs_of_one_lesion_do_not_narrow_the_interval():
    labels, probs = case(200, 2)
    single = reliability(Scores(labels, probs), np.arange(200), bins=5)
    doubled = reliability(Scores(np.repeat(labels, 2), np.repeat(probs, 2, axis=0)), np.repeat(np.arange(200), 2), bins=5)
    for one, two in zip(single, doubled, strict=True):
        assert (one.low, one.high, one.groups) == (two.low, two.high, two.groups)
        assert two.n == 2 * one.n


def test_calibrated_and_overconfident_models_are_told_apart():
    labels, probs = case(4000, 3)
    sharp = probs**4 / (probs**4).sum(axis=1, keepdims=True)
    assert ece(tally(labels, probs))[0] < 0.04
    assert ece(tally(labels, sharp))[0] > 0.15


def test_empty_set():
    assert np.isnan(ece(tally(np.zeros(0, int), np.zeros((0, 3)))))
    assert all(row.accuracy is None for row in reliability(Scores(np.zeros(0, int), np.zeros((0, 3))), np.zeros(0), bins=5))
