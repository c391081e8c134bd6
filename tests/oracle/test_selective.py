"""Risk and coverage against plain loops over every order of equal confidences, and scikit-learn."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, rankdata, spearmanr
from sklearn.metrics import roc_auc_score

from dermalyze.errors import ConfigError, ModelError
from dermalyze.metrics.classification import Scores, Tally
from dermalyze.metrics.ranking import midranks, spearman, spearman_p
from dermalyze.metrics.selective import (
    CONFIDENCES,
    Referral,
    augrc,
    aurc,
    aurc_metric,
    e_aurc,
    error_auroc,
    quality,
    risk_coverage,
    spearman_of,
    threshold_for,
)

CASES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=6)


def by_hand(confidence, wrong):
    """Mean cumulative errors over every order that confidence allows."""
    found = []
    for order in permutations(range(len(wrong))):
        if all(confidence[a] >= confidence[b] for a, b in pairwise(order)):
            found.append(np.cumsum([wrong[i] for i in order]))
    return np.mean(found, axis=0)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_equals_the_mean_over_all_orders_of_ties(pairs):
    confidence, wrong = np.array([c for c, _ in pairs], float), np.array([w for _, w in pairs], float)
    errors, k = by_hand(confidence, wrong), np.arange(1, len(wrong) + 1)
    coverage, risk = risk_coverage(confidence, wrong)
    np.testing.assert_allclose(risk, errors / k)
    np.testing.assert_allclose(coverage, k / len(k))
    assert aurc(confidence, wrong) == pytest.approx(np.mean(errors / k))
    assert augrc(confidence, wrong) == pytest.approx(np.mean(errors / len(k)))
    best = np.cumsum(np.sort(wrong)) / k
    assert e_aurc(confidence, wrong) == pytest.approx(np.mean(errors / k) - np.mean(best))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=2, max_size=40))
def test_error_auroc_equals_scikit_learn(pairs):
    confidence, wrong = np.array([c for c, _ in pairs], float), np.array([w for _, w in pairs])
    if len(set(wrong)) < 2:
        assert error_auroc(confidence, wrong) is None
    else:
        assert error_auroc(confidence, wrong) == pytest.approx(roc_auc_score(wrong == 0, confidence))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=25))
def test_aurc_under_weights_is_that_of_the_images_so_often(rows):
    """A weight is a number of copies; copies of one image have one confidence, and so does whoever shares it."""
    confidence, wrong, copies = (np.array(column, float) for column in zip(*rows, strict=True))
    weights = np.stack([copies, np.ones(len(rows))], axis=1)
    scores = Scores(np.zeros(len(rows), int), np.tile([0.5, 0.5], (len(rows), 1)))
    drawn, plain = aurc_metric(confidence, wrong)(Tally(scores, weights))
    repeated = [np.repeat(values, copies.astype(int)) for values in (confidence, wrong)]
    assert plain == pytest.approx(aurc(confidence, wrong))
    assert np.isnan(drawn) if not copies.any() else drawn == pytest.approx(aurc(*repeated))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-3, 3)), min_size=2, max_size=30))
def test_rank_correlation_equals_scipy(pairs):
    a, b = (np.array(column, float) for column in zip(*pairs, strict=True))
    np.testing.assert_allclose(midranks(a), rankdata(a))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert spearman(a, b) is None
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
        assert spearman_of(a, b) == pytest.approx(-spearman(a, b))


def test_any_rising_change_of_the_confidence_changes_nothing():
    generator = np.random.default_rng(0)
    confidence, wrong = generator.random(200).round(2), generator.integers(0, 2, 200)
    assert quality(confidence, wrong) == pytest.approx(quality(np.exp(3 * confidence), wrong))


def test_the_best_and_the_worst_order():
    wrong = np.array([0.0] * 70 + [1.0] * 30)
    assert e_aurc(-wrong, wrong) == pytest.approx(0)
    assert error_auroc(-wrong, wrong) == 1
    assert error_auroc(wrong, wrong) == 0
    assert aurc(np.zeros(100), wrong) == pytest.approx(0.3)
    assert augrc(np.zeros(100), wrong) == pytest.approx(0.3 * 101 / 200)


def test_confidences():
    probs = np.random.default_rng(1).dirichlet(np.ones(5), 50)
    ordered = np.sort(probs, axis=1)
    np.testing.assert_allclose(CONFIDENCES["max_probability"](probs), ordered[:, -1])
    np.testing.assert_allclose(CONFIDENCES["margin"](probs), ordered[:, -1] - ordered[:, -2])
    np.testing.assert_allclose(CONFIDENCES["neg_entropy"](probs), -entropy(probs, axis=1))
    assert CONFIDENCES["neg_entropy"](np.eye(2)).tolist() == [0, 0]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.floats(0.01, 1))
def test_threshold_is_reached_by_at_least_the_share_and_no_higher_one_is(values, coverage):
    confidence = np.array(values, float)
    threshold = threshold_for(confidence, coverage)
    assert np.mean(confidence >= threshold) >= coverage - 1e-9
    higher = confidence[confidence > threshold]
    if len(higher):
        assert np.mean(confidence >= higher.min()) < coverage


def test_nothing_to_take_a_threshold_from():
    with pytest.raises(ConfigError, match="leave coverage out"):
        threshold_for(np.zeros(0), 0.5)
    assert set(quality(np.zeros(0), np.zeros(0)).values()) == {None}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"confidence": "x", "coverage": 1, "threshold": 0},
        {"confidence": "margin", "coverage": 1, "threshold": float("nan")},
        3,
    ],
    ids=["empty", "unknown", "nan", "number"],
)
def test_damaged_referrals_are_refused(values):
    with pytest.raises(ModelError, match="calibrate again"):
        Referral.from_dict(values)


@pytest.mark.parametrize(("n", "tied"), [(5, False), (60, True), (400, False)])
def test_the_p_value_of_a_rank_correlation_is_scipys(n: int, tied: bool) -> None:
    generator = np.random.default_rng(n)
    a = generator.normal(size=n)
    b = a + 3 * generator.normal(size=n)
    a = a.round(0) if tied else a
    theirs = spearmanr(a, b)
    rho = spearman(a, b)
    assert rho == pytest.approx(theirs.statistic, abs=1e-12)
    assert spearman_p(rho, n) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (spearman_p(1.0, n), spearman_p(None, n), spearman_p(rho, 2)) == (0.0, None, None)
