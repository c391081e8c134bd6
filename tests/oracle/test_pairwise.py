"""Paired comparison against brute force, SciPy, and published worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from dermalyze.metrics.bootstrap import group_index, group_weights
from dermalyze.metrics.classification import METRICS, PER_CLASS_METRICS, Scores, measure
from dermalyze.metrics.paired_tests import auroc_covariance, bootstrap_p, delong, holm, mcnemar, mean_difference, paired

# Albumin, total protein, K-G score and success of surgery for ovarian cancer with obstruction: DeLong et al. 1988, as printed
# in the SAS/STAT user's guide, "Comparing Receiver Operating Characteristic Curves".
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def placements(positive, scores):
    """DeLong's covariance as he wrote it: every positive against every negative."""
    v10, v01 = [], []
    for row in scores:
        x, y = row[positive], row[~positive]
        kernel = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
    v10, v01 = np.array(v10), np.array(v01)

    def s(v):
        centred = v - v.mean(axis=1, keepdims=True)
        return centred @ centred.T / (v.shape[1] - 1)

    return v10.mean(axis=1), s(v10) / v10.shape[1] + s(v01) / v01.shape[1]


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30), st.integers(1, 4), st.sampled_from([0, 1, 6]))
def test_delong_equals_placement_values(seed, positives, negatives, models, decimals):
    generator = np.random.default_rng(seed)
    positive = generator.permutation(np.arange(positives + negatives) < positives)
    scores = (generator.random((models, len(positive))) + 0.3 * positive).round(decimals)  # 0 decimals: ties nearly everywhere
    aurocs, covariance = auroc_covariance(positive, scores)
    expected, expected_covariance = placements(positive, scores)
    np.testing.assert_allclose(aurocs, expected, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-12)


def test_delong_of_the_ovarian_cancer_example():
    """Areas, standard errors and contrasts to the digits printed there."""
    rows = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    positive = rows[:, 3] == 1
    albumin, protein, kg = rows[:, 0], rows[:, 1], 10 - rows[:, 2]
    aurocs, covariance = auroc_covariance(positive, np.stack([kg, albumin, protein]))
    np.testing.assert_allclose(aurocs, [0.7258, 0.7366, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.1028, 0.0927, 0.1000], atol=5e-5)
    contrast = np.array([[-1, 1, 0], [-1, 0, 1]]) @ aurocs
    spread = np.array([[-1, 1, 0], [-1, 0, 1]]) @ covariance @ np.array([[-1, 1, 0], [-1, 0, 1]]).T
    assert contrast @ np.linalg.solve(spread, contrast) == pytest.approx(2.5340, abs=5e-5)
    for first, difference, error in ((albumin, 0.0108, 0.0953), (protein, -0.0780, 0.1046)):
        found = delong(positive, first, kg, level=0.95)
        assert found.estimate.value == pytest.approx(difference, abs=5e-5)
        assert (found.estimate.high - found.estimate.low) / (2 * norm.ppf(0.975)) == pytest.approx(error, abs=5e-5)
        assert found.p_value == pytest.approx(2 * norm.sf(abs(difference / error)), abs=5e-4)


def test_delong_without_spread():
    positive = np.array([True] * 3 + [False] * 3)
    perfect, score = np.arange(6.0)[::-1], np.array([0.9, 0.2, 0.5, 0.4, 0.1, 0.3])
    same = delong(positive, score, score * 2, level=0.95)
    assert (same.estimate.value, same.estimate.low, same.p_value) == (0.0, 0.0, 1.0)
    opposite = delong(positive, perfect, -perfect, level=0.95)
    assert (opposite.estimate.value, opposite.estimate.low, opposite.p_value) == (1.0, None, None)
    assert "not estimable" in opposite.estimate.note
    lone = delong(np.arange(6) == 0, score, perfect, level=0.95)
    assert (lone.estimate.value, lone.estimate.note, lone.p_value) == (None, "not estimable (n = 1)", None)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20), st.integers(0, 20))
def test_mcnemar_equals_the_binomial_test(only_a, only_b, both, neither):
    labels = np.zeros(only_a + only_b + both + neither, dtype=np.int64)
    a = np.repeat([0, 1, 0, 1], [only_a, only_b, both, neither])
    b = np.repeat([1, 0, 0, 1], [only_a, only_b, both, neither])
    found = mcnemar(labels, a, b)
    assert (found.first, found.second, found.both, found.neither) == (only_a, only_b, both, neither)
    n = only_a + only_b
    expected = binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert found.exact == pytest.approx(expected, rel=1e-9)
    half = binomtest(min(only_a, only_b), n, 0.5, alternative="less").pvalue if n else 1.0
    below = binomtest(min(only_a, only_b) - 1, n, 0.5, alternative="less").pvalue if n and min(only_a, only_b) else 0.0
    assert found.mid_p == pytest.approx(min(1.0, half + below), rel=1e-9)  # P(X < k) + P(X <= k), twice the mid tail
    assert 0 < found.mid_p <= found.exact <= 1


def test_mcnemar_of_many_images_does_not_underflow_to_nothing():
    labels = np.zeros(60_000, dtype=np.int64)
    a = np.repeat([0, 1], [30_300, 29_700])
    assert mcnemar(labels, a, 1 - a).exact == pytest.approx(binomtest(30_300, 60_000, 0.5).pvalue, rel=1e-6)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_equals_its_definition(p_values):
    """The corrected value of a hypothesis is the largest (m - j + 1) p_(j) up to its own place, at most 1."""
    order = np.argsort(p_values, kind="stable")
    expected = [0.0] * len(p_values)
    for place, i in enumerate(order):
        expected[i] = max(min(1.0, (len(order) - j) * p_values[order[j]]) for j in range(place + 1))
    assert holm(p_values) == pytest.approx(expected)


def test_holm_by_hand_and_with_gaps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert holm([]) == []


def models(n=150, seed=0, skills=(1.5, 0.8)):
    """Two models of other skill that share part of their luck, on lesions of one to three images."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), generator.integers(1, 4, size=n))
    labels = generator.integers(3, size=n)[groups]
    luck = generator.normal(size=(n, 3))[groups]
    found = {}
    for name, skill in zip("ab", skills, strict=True):
        logits = luck + 0.5 * generator.normal(size=luck.shape) + skill * np.eye(3)[labels]
        found[name] = Scores(labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return found, groups


def test_differences_equal_a_loop_over_the_rows_drawn():
    scores, groups = models()
    names = {name: METRICS[name] for name in ("accuracy", "macro_auroc", "log_loss", "macro_f1")}
    values, differences = paired(scores, groups, names, resamples=80, level=0.9, seed=3)
    index, number = group_index(groups)
    weights = np.concatenate(list(group_weights(index, number, 80, 3)), axis=1)
    loop = {name: [] for name in names}
    for r in range(80):
        rows = np.repeat(np.arange(len(groups)), weights[:, r].astype(int))
        a, b = (measure(scores[name].labels[rows], scores[name].probs[rows]) for name in "ab")
        for name in names:
            loop[name].append(a[name] - b[name])
    for name in names:
        found = differences["a", "b"][name]
        assert found.estimate.value == pytest.approx(values["a"][name].value - values["b"][name].value)
        assert (found.estimate.low, found.estimate.high) == pytest.approx(tuple(np.quantile(loop[name], [0.05, 0.95])))
        assert found.p_value == bootstrap_p(np.array(loop[name]))


def test_a_better_model_is_found_and_an_equal_one_is_not():
    scores, groups = models()
    better = paired(scores, groups, METRICS, resamples=400, level=0.95, seed=0)[1]["a", "b"]
    assert better["accuracy"].p_value < 0.02
    assert better["accuracy"].estimate.low > 0 > better["log_loss"].estimate.high
    scores, groups = models(skills=(1.0, 1.0))
    equal = paired(scores, groups, METRICS, resamples=400, level=0.95, seed=0)[1]["a", "b"]
    assert equal["accuracy"].estimate.low < 0 < equal["accuracy"].estimate.high
    assert equal["accuracy"].p_value > 0.05


def test_pairing_makes_the_interval_narrower_than_two_independent_sets():
    scores, groups = models()
    values, differences = paired(scores, groups, {"accuracy": METRICS["accuracy"]}, resamples=600, level=0.95, seed=0)
    widths = [values[name]["accuracy"].high - values[name]["accuracy"].low for name in "ab"]
    found = differences["a", "b"]["accuracy"].estimate
    assert found.high - found.low < 0.8 * np.hypot(*widths)


def test_a_class_of_few_groups_has_no_interval_and_no_p_value():
    scores, groups = models()
    rare = np.isin(groups, np.unique(groups[scores["a"].labels == 2])[:3])
    keep = (scores["a"].labels != 2) | rare
    small = {name: Scores(one.labels[keep], one.probs[keep]) for name, one in scores.items()}
    among = {"recall 2": small["a"].labels == 2}
    found = paired(
        small, groups[keep], {"recall 2": lambda t: PER_CLASS_METRICS["recall"](t)[:, 2]},
        resamples=100, level=0.95, seed=0, among=among,
    )[1]["a", "b"]["recall 2"]  # fmt: skip
    assert (found.estimate.groups, found.estimate.low, found.p_value) == (3, None, None)


def test_p_value_of_the_bootstrap_agrees_with_its_interval():
    """At level 1 - p the interval just touches 0."""
    drawn = np.random.default_rng(0).normal(0.4, 0.2, 1999)
    p = bootstrap_p(drawn)
    low = np.quantile(drawn, p / 2)
    assert abs(low) < 0.02
    assert bootstrap_p(-drawn) == p
    assert bootstrap_p(np.append(drawn, np.nan)) == p


def test_three_models_give_three_pairs():
    scores, groups = models()
    found = paired({**scores, "c": scores["a"]}, groups, {"a": METRICS["accuracy"]}, resamples=50, level=0.95, seed=0)
    assert list(found[1]) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[1]["a", "c"]["a"].estimate.value == 0


def test_a_difference_averaged_over_trainings_is_the_plain_loop() -> None:
    """Two trainings of each model on the same groups: every resample draws groups once, for all four."""
    generator = np.random.default_rng(0)
    labels, groups = generator.integers(0, 3, 90), np.repeat(np.arange(30), 3)
    one, two, three, four = (Scores(labels, generator.dirichlet(np.ones(3), 90)) for _ in range(4))
    metrics = {name: METRICS[name] for name in ("accuracy", "macro_auroc")}
    found = mean_difference([(one, two), (three, four)], groups, metrics, resamples=80, level=0.9, seed=3)
    index, number = group_index(groups)
    weights = np.concatenate(list(group_weights(index, number, 80, 3)), axis=1)
    for name, metric in metrics.items():
        values = [np.mean([metric(a.under(w))[0] - metric(b.under(w))[0] for a, b in ((one, two), (three, four))])
                  for w in weights.T[:, :, None]]  # fmt: skip
        expected = np.quantile(values, [0.05, 0.95])
        assert (found[name].estimate.low, found[name].estimate.high) == pytest.approx(expected)
        assert found[name].p_value == bootstrap_p(np.array(values))
        single = paired({"a": one, "b": two}, groups, metrics, resamples=80, level=0.9, seed=3)[1]["a", "b"][name]
        alone = mean_difference([(one, two)], groups, metrics, resamples=80, level=0.9, seed=3)[name]
        assert alone.estimate.low == pytest.approx(single.estimate.low)
