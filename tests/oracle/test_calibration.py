"""ECE and the reliability diagram against torchmetrics, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from dermalyze.metrics.calibration_error import (
    brier_decomposition,
    calibration_errors,
    classwise_ece,
    confidence_bins,
    ece,
    mass_bins,
    reliability,
    wilson,
)
from dermalyze.metrics.classification import Scores, tally


def case(n, seed, classes=4):
    generator = np.random.default_rng(seed)
    probs = generator.dirichlet(np.full(classes, 0.6), size=n)
    labels = np.array([generator.choice(classes, p=p) for p in probs])
    return labels, probs


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_ece_equals_torchmetrics(bins):
    torch = pytest.importorskip("torch")
    from dermalyze.models import torch_guard

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
    nothing = Scores(np.zeros(0, int), np.zeros((0, 3)))
    assert classwise_ece(nothing) is brier_decomposition(nothing) is None
    assert {error.value for error in calibration_errors(nothing, np.zeros(0))} == {None}
    assert all(row.accuracy is None for row in reliability(Scores(np.zeros(0, int), np.zeros((0, 3))), np.zeros(0), bins=5))


def test_equal_mass_bins_are_pandas_quantiles_without_ties():
    import pandas as pd

    confidence = np.random.default_rng(0).random(400)
    np.testing.assert_array_equal(mass_bins(confidence, 8), pd.qcut(confidence, 8, labels=False))
    assert set(mass_bins(np.full(50, 0.7), 10)) == {0}


def test_calibration_errors_are_the_plain_loop():
    labels, probs = case(300, 4)
    group = np.arange(300) // 2
    confidence, hit = probs.max(1), probs.argmax(1) == labels
    for found in calibration_errors(Scores(labels, probs), group, simulations=50):
        bins = (confidence_bins if found.binning == "equal width" else mass_bins)(confidence, found.bins)
        gaps = [(abs(confidence[bins == b].mean() - hit[bins == b].mean()), (bins == b).mean()) for b in np.unique(bins)]
        assert found.value == pytest.approx(sum(gap * share for gap, share in gaps), abs=1e-12)
        assert found.largest == pytest.approx(max(gap for gap, _ in gaps), abs=1e-12)


def test_a_perfect_model_has_even_p_values_and_an_overconfident_one_does_not():
    p_values, errors = [], []
    for seed in range(60):
        labels, probs = case(400, seed)
        found = calibration_errors(Scores(labels, probs), np.arange(400), counts=(10,), simulations=200)[0]
        p_values.append(found.p_value)
        errors.append((found.value, found.perfect))
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean([p <= 0.2 for p in p_values]) == pytest.approx(0.2, abs=0.16)
    value, perfect = np.mean(errors, axis=0)
    assert value == pytest.approx(perfect, rel=0.1)
    labels, probs = case(400, 1)
    sharp = probs**4 / (probs**4).sum(axis=1, keepdims=True)
    assert calibration_errors(Scores(labels, sharp), np.arange(400), simulations=200)[0].p_value < 0.01


def test_photographs_of_one_lesion_do_not_pass_for_many_lesions():
    labels, probs = case(200, 2)
    twins = Scores(np.repeat(labels, 4), np.repeat(probs, 4, axis=0))
    apart = calibration_errors(twins, np.arange(800), counts=(10,))[0]
    together = calibration_errors(twins, np.repeat(np.arange(200), 4), counts=(10,))[0]
    single = calibration_errors(Scores(labels, probs), np.arange(200), counts=(10,))[0]
    assert together.perfect == pytest.approx(single.perfect, rel=0.05)
    assert apart.perfect < 0.7 * together.perfect


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 80), st.integers(0, 10**6), st.integers(1, 20))
def test_brier_parts_add_up_to_scikit_learns_brier(n, seed, bins):
    labels, probs = case(n, seed)
    parts = brier_decomposition(Scores(labels, probs), bins)
    whole = sum(brier_score_loss(labels == c, probs[:, c]) for c in range(4))
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"] == pytest.approx(
        whole, abs=1e-12
    )
    assert parts["reliability"] >= 0
    assert 0 <= parts["resolution"] <= parts["uncertainty"] + 1e-12


def test_brier_parts_where_each_bin_holds_one_value():
    """Murphy's own case: nothing is hidden within a bin."""
    p = np.repeat([0.1, 0.5, 0.9], 20)
    labels = np.concatenate([np.arange(20) < k for k in (2, 10, 18)]).astype(int)
    parts = brier_decomposition(Scores(labels, np.stack([1 - p, p], axis=1)), 3)
    assert parts["reliability"] == pytest.approx(0, abs=1e-12)
    assert parts["within"] == pytest.approx(0, abs=1e-12)


def test_classwise_ece_is_the_mean_of_binary_ones():
    labels, probs = case(300, 5)
    errors = []
    for c in range(4):
        bins = confidence_bins(probs[:, c], 15)
        errors.append(
            sum((bins == b).mean() * abs(probs[bins == b, c].mean() - (labels[bins == b] == c).mean()) for b in np.unique(bins))
        )
    assert classwise_ece(Scores(labels, probs)) == pytest.approx(np.mean(errors), abs=1e-12)
