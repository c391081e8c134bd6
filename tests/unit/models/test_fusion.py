"""The late fusion's fit: a product of experts on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dermalyze.imaging.tabular import fit_encoder
from dermalyze.metrics.activation import softmax
from dermalyze.models.fusion import WEIGHTS, choose_strength, fit_expert


def drawn(seed: int, n: int, *, classes: int = 3) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Labels, a word and logits that both depend on the label, and on nothing else."""
    rng = np.random.default_rng(seed)
    prior = np.array([0.6, 0.3, 0.1])[:classes] / sum([0.6, 0.3, 0.1][:classes])
    labels = rng.choice(classes, n, p=prior)
    words = [str(word) for word in np.where(rng.random(n) < 0.6, labels, rng.integers(0, classes, n))]
    features = np.eye(classes)[labels] + rng.standard_normal((n, classes))  # of unit variance, so the posterior is known
    return labels, words, features + np.log(prior)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_posterior_of_independent_evidence_is_found(classes: int) -> None:
    """Where image and word are independent given the class, the product of experts is Bayes' rule, and the weight is 1."""
    labels, words, _ = drawn(0, 20_000, classes=classes)
    encoder = fit_encoder({"word": [f"w{word}" for word in words]})
    expert = fit_expert(encoder, encoder({"word": [f"w{word}" for word in words]}), labels, classes)
    values, words, logits = drawn(1, 8_000, classes=classes)
    rows = encoder({"word": [f"w{word}" for word in words]})
    found = choose_strength(expert, rows, logits, values)
    assert abs(found.strength - 1) <= 0.15
    assert found.log_loss is not None
    assert found.log_loss_alone is not None
    assert found.log_loss < found.log_loss_alone - 0.02
    likelihood = np.array([[0.6 * (w == c) + 0.4 / classes for c in range(classes)] for w in range(classes)])
    evidence = expert.evidence(encoder({"word": [f"w{w}" for w in range(classes)]}))
    expected = np.log(likelihood)
    centred = [x - x.mean(axis=1, keepdims=True) for x in (evidence, expected)]
    np.testing.assert_allclose(centred[0], centred[1], atol=0.1)


def test_what_is_missing_says_nothing() -> None:
    """Although no training row lacks the word, a missing one moves no class's share by much."""
    labels, words, _ = drawn(0, 5_000)
    encoder = fit_encoder(
        {"word": [f"w{word}" for word in words], "age": np.random.default_rng(2).integers(20, 80, 5_000).tolist()}
    )
    rows = encoder({"word": [f"w{word}" for word in words], "age": [50] * len(words)})
    expert = fit_expert(encoder, rows, labels, 3)
    prior = np.bincount(labels) / len(labels)
    posterior = softmax(expert.evidence(encoder.blank[None]) + np.log(prior))[0]
    np.testing.assert_allclose(posterior, prior, atol=0.02)
    known = softmax(expert.evidence(rows[:50]) + np.log(prior))
    assert np.abs(known - prior).max() > 0.2


def test_metadata_that_say_nothing_get_hardly_any_weight() -> None:
    labels, _, _ = drawn(0, 5_000)
    rng = np.random.default_rng(3)
    encoder = fit_encoder({"noise": rng.integers(0, 100, 5_000).tolist()})
    expert = fit_expert(encoder, encoder({"noise": rng.integers(0, 100, 5_000).tolist()}), labels, 3)
    values, _, logits = drawn(1, 2_000)
    found = choose_strength(expert, encoder({"noise": rng.integers(0, 100, 2_000).tolist()}), logits, values)
    assert found.log_loss is not None
    assert found.log_loss_alone is not None
    assert found.log_loss_alone - found.log_loss < 0.002


def test_misleading_metadata_get_no_weight() -> None:
    """A column that points to the wrong class on the validation split."""
    labels, words, _ = drawn(0, 3_000)
    encoder = fit_encoder({"word": [f"w{word}" for word in words]})
    expert = fit_expert(encoder, encoder({"word": [f"w{word}" for word in words]}), labels, 3)
    values, words, logits = drawn(1, 1_000)
    turned = encoder({"word": [f"w{(int(word) + 1) % 3}" for word in words]})
    assert choose_strength(expert, turned, logits, values).strength == WEIGHTS[0] == 0


def test_it_is_the_same_each_time() -> None:
    labels, words, _ = drawn(0, 500)
    encoder = fit_encoder({"word": [f"w{word}" for word in words]})
    rows = encoder({"word": [f"w{word}" for word in words]})
    first, second = (fit_expert(encoder, rows, labels, 3) for _ in range(2))
    np.testing.assert_array_equal(first.weight_CM, second.weight_CM)
    np.testing.assert_array_equal(first.bias_C, second.bias_C)
