"""Uncertainty of several passes against loops, scipy, the published identities and worked examples."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from dermalyze.metrics.uncertainty import (
    SOURCES,
    disagreement,
    entropy,
    expected_entropy,
    mean,
    mutual_information,
    predictive_entropy,
    variance,
    variation_ratio,
)

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(2, 8), st.integers(0, 999), st.sampled_from([0.05, 1, 20]))


def draw(n, s, c, seed, concentration):
    """Passes that name one class, some, or all about equally."""
    return np.random.default_rng(seed).dirichlet(np.full(c, concentration), size=(n, s))


def by_hand(passes):
    """Every source of one image, by loops over its (S, C) probabilities."""
    s, c = len(passes), len(passes[0])
    average = [sum(p[k] for p in passes) / s for k in range(c)]
    h = [-sum(x * log(x) for x in p if x > 0) for p in passes]
    total = -sum(x * log(x) for x in average if x > 0)
    named = [int(np.argmax(p)) for p in passes]
    pairs = [a != b for a, b in combinations(named, 2)]
    return {
        "predictive_entropy": total,
        "expected_entropy": sum(h) / s,
        "mutual_information": total - sum(h) / s,
        "variance": sum((p[k] - average[k]) ** 2 for p in passes for k in range(c)) / s,
        "variation_ratio": 1 - max(named.count(k) for k in range(c)) / s,
        "disagreement": sum(pairs) / len(pairs) if pairs else 0.0,
    }


@settings(deadline=None, max_examples=60)
@given(SHAPES)
def test_every_source_equals_a_loop(shape):
    probs = draw(*shape)
    for i, passes in enumerate(probs):
        expected = by_hand(passes)
        assert expected.keys() == SOURCES.keys()
        for name, source in SOURCES.items():
            assert source(probs)[i] == pytest.approx(expected[name], abs=1e-12), name


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_entropies_equal_scipy(shape):
    probs = draw(*shape)
    np.testing.assert_allclose(predictive_entropy(probs), scipy_entropy(mean(probs), axis=1), atol=1e-12)
    np.testing.assert_allclose(expected_entropy(probs), scipy_entropy(probs, axis=2).mean(axis=1), atol=1e-12)
    kl = scipy_entropy(probs, mean(probs)[:, None], axis=2).mean(axis=1)
    np.testing.assert_allclose(mutual_information(probs), kl, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(SHAPES)
def test_total_is_aleatoric_and_epistemic_and_within_its_bounds(shape):
    probs = draw(*shape)
    _, s, c = probs.shape
    total, aleatoric, epistemic = predictive_entropy(probs), expected_entropy(probs), mutual_information(probs)
    np.testing.assert_allclose(total, aleatoric + epistemic, atol=1e-12)
    assert (epistemic >= 0).all()
    assert (epistemic <= log(min(s, c)) + 1e-12).all()
    assert (total <= log(c) + 1e-12).all()
    assert (variance(probs) <= 1 - 1 / s + 1e-12).all()
    assert (variation_ratio(probs) <= 1 - 1 / min(s, c) + 1e-12).all()
    assert ((disagreement(probs) >= -1e-12) & (disagreement(probs) <= 1 + 1e-12)).all()


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(2, 5))
def test_equal_passes_know_nothing_of_each_other(shape, copies):
    probs = np.repeat(draw(*shape)[:, :1], copies, axis=1)
    for name in ("mutual_information", "variation_ratio", "disagreement"):
        assert (SOURCES[name](probs) == 0).all(), name
    np.testing.assert_allclose(variance(probs), 0, atol=1e-15)
    np.testing.assert_allclose(predictive_entropy(probs), entropy(probs[:, 0]), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_the_order_of_passes_and_classes_and_repeated_passes_change_nothing(shape):
    probs = draw(*shape)
    generator = np.random.default_rng(0)
    passes, classes = generator.permutation(probs.shape[1]), generator.permutation(probs.shape[2])
    for name, source in SOURCES.items():
        np.testing.assert_allclose(source(probs[:, passes]), source(probs), atol=1e-12, err_msg=name)
        np.testing.assert_allclose(source(probs[:, :, classes]), source(probs), atol=1e-12, err_msg=name)
        if name != "disagreement":  # which counts pairs, and a pass and its copy are one
            np.testing.assert_allclose(source(np.repeat(probs, 3, axis=1)), source(probs), atol=1e-12, err_msg=name)


def test_sure_and_opposed_is_all_epistemic_and_unsure_alike_all_aleatoric():
    """The two ends of Gal 2016, section 3.3.1 (his figure of softmax samples): the same mean, the opposite reason."""
    opposed = np.tile([[1.0, 0.0], [0.0, 1.0]], (1, 5, 1))
    alike = np.full((1, 10, 2), 0.5)
    assert predictive_entropy(opposed)[0] == predictive_entropy(alike)[0] == pytest.approx(log(2))
    assert mutual_information(opposed)[0] == pytest.approx(log(2))
    assert mutual_information(alike)[0] == 0
    assert expected_entropy(opposed)[0] == 0
    assert variation_ratio(opposed)[0] == 0.5
    assert disagreement(opposed)[0] == pytest.approx(5 * 5 / 45)


def test_an_entropy_of_certainty_is_nought_and_no_images_give_no_numbers():
    assert entropy(np.eye(3)).tolist() == [0, 0, 0]
    assert all(source(np.zeros((0, 4, 3))).shape == (0,) for source in SOURCES.values())
