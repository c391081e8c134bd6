"""Calibrators against scikit-learn and scipy, and on scores whose right calibration is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from dermalyze.calibration.calibrators import (
    CALIBRATORS,
    SAME_ANSWERS,
    VECTOR_RIDGE,
    Calibrator,
    cross_validate,
    fit,
    isotonic_curve,
    reprior,
    simplest,
)
from dermalyze.errors import ModelError
from dermalyze.metrics.activation import softmax

NO_SHIFT = np.zeros(4)


def case(n=600, seed=0, temperature=1.0, bias=(0.0, 0.0, 0.0, 0.0)):
    """Labels drawn from softmax(logits), and the logits that a badly calibrated model would give for them."""
    generator = np.random.default_rng(seed)
    true = generator.normal(size=(n, 4)) * 2
    labels = (softmax(true).cumsum(1) < generator.random((n, 1))).sum(1)
    return (true - np.asarray(bias)) * temperature, labels


def test_temperature_equals_scipy():
    logits, labels = case(temperature=2.5)
    theirs = minimize_scalar(lambda t: log_loss(labels, softmax(logits / t)), bounds=(0.05, 20), method="bounded")
    ours = fit("temperature", logits, labels, NO_SHIFT).parameters["temperature"]
    assert ours == pytest.approx(theirs.x, rel=1e-3)
    assert ours == pytest.approx(2.5, rel=0.15)


def test_vector_equals_scipy():
    logits, labels = case(temperature=0.5, bias=(1, -1, 0, 0.5))

    def loss(theta):
        prior = VECTOR_RIDGE / 2 * (np.square(theta[:4] - 1).sum() + np.square(theta[4:]).sum())
        return log_loss(labels, softmax(logits * theta[:4] + theta[4:])) * len(labels) + prior

    theirs = minimize(loss, np.repeat([1.0, 0.0], 4), method="BFGS", options={"gtol": 1e-6}).x
    ours = fit("vector", logits, labels, NO_SHIFT).parameters
    np.testing.assert_allclose([*ours["scale"], *ours["bias"]], theirs, atol=2e-3)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60))
def test_isotonic_equals_scikit_learn(pairs):
    scores, hits = np.array([p / 12 for p, _ in pairs]), np.array([h for _, h in pairs])
    x, y = isotonic_curve(scores, hits)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(scores, hits)
    grid = np.linspace(-0.1, 1.1, 97)
    np.testing.assert_allclose(np.interp(grid, x, y), theirs.predict(grid), atol=1e-9)


def test_prior_temperature_undoes_weights():
    """A model that believes in even classes, where they are not: the shift is known, and the right probabilities come out."""
    generator = np.random.default_rng(1)
    shares = np.array([0.7, 0.2, 0.07, 0.03])
    labels = generator.choice(4, size=6000, p=shares)
    seen = generator.normal(size=(6000, 4)) + 1.5 * np.eye(4)[labels]
    likelihood = 1.5 * seen  # log density of `seen` under each class, up to a constant
    even, right = likelihood, softmax(likelihood + np.log(shares))
    shift = np.log(shares / 0.25)
    found = fit("prior_temperature", even, labels, shift)
    assert found.parameters["temperature"] == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(found(even), right, atol=0.03)
    assert log_loss(labels, found(even)) < log_loss(labels, fit("temperature", even, labels, shift)(even)) - 0.05


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_every_row_gives_probabilities_and_reads_back(kind):
    logits, labels = case(200)
    made = fit(kind, logits, labels, np.log([2.0, 1.0, 0.5, 0.5]))
    read = Calibrator.from_dict(json.loads(json.dumps(made.as_dict())), 4)
    odd = np.concatenate([logits, [[60.0, 0, 0, 0], [-60.0, 0, 0, 0], [0, 0, 0, 0]]])
    probs = read(odd)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert (probs >= 0).all()
    np.testing.assert_array_equal(probs, made(odd))
    assert read(odd[:0]).shape == (0, 4)
    np.testing.assert_allclose(read(odd.astype(np.float32)), probs, atol=1e-4)


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_never_worse_than_before_where_it_was_fitted(kind):
    logits, labels = case(400, temperature=3.0)
    assert log_loss(labels, fit(kind, logits, labels, NO_SHIFT)(logits)) <= log_loss(labels, softmax(logits)) + 1e-9


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.2, 5), st.sampled_from(SAME_ANSWERS))
def test_same_answers_means_the_same_order_of_classes(seed, temperature, kind):
    logits, labels = case(60, seed, temperature)
    probs = fit(kind, logits, labels, NO_SHIFT)(logits)
    np.testing.assert_array_equal(probs.argmax(1), logits.argmax(1))


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_a_class_of_no_image_and_a_perfect_model_give_finite_numbers(kind):
    logits = np.eye(4)[[0, 1, 2] * 5] * 30
    probs = fit(kind, logits, np.array([0, 1, 2] * 5), NO_SHIFT)(logits)
    assert np.isfinite(probs).all()
    assert (probs.argmax(1) == [0, 1, 2] * 5).all()


def test_choice_keeps_the_simplest_that_is_not_clearly_beaten():
    groups = [str(i) for i in range(900)]
    sound = cross_validate(*case(900), groups, NO_SHIFT)
    assert simplest(sound, tuple(CALIBRATORS)) == "none"
    hot = cross_validate(*case(900, temperature=3.0), groups, NO_SHIFT)
    assert simplest(hot, SAME_ANSWERS) == simplest(hot, tuple(CALIBRATORS)) == "temperature"
    biased = cross_validate(*case(900, bias=(2, -2, 0, 0)), groups, NO_SHIFT)
    assert simplest(biased, SAME_ANSWERS) in SAME_ANSWERS
    assert simplest(biased, tuple(CALIBRATORS)) == "vector"


def test_cross_validation_is_the_plain_loop_over_groups():
    from hashlib import sha256

    logits, labels = case(120, temperature=2)
    groups = [f"L{i // 3}" for i in range(120)]
    names = sorted(set(groups), key=lambda name: sha256(name.encode()).digest())
    losses = []
    for fold in range(5):
        held = np.array([names.index(g) % 5 == fold for g in groups])
        probs = fit("temperature", logits[~held], labels[~held], NO_SHIFT)(logits[held])
        losses += [-np.log(probs[i, y]) for i, y in enumerate(labels[held])]
    trial = next(t for t in cross_validate(logits, labels, groups, NO_SHIFT) if t.kind == "temperature")
    assert trial.log_loss == pytest.approx(np.mean(losses), abs=1e-12)
    turned = np.random.default_rng(0).permutation(120)
    again = cross_validate(logits[turned], labels[turned], [groups[i] for i in turned], NO_SHIFT)
    assert [t.log_loss for t in again] == pytest.approx([t.log_loss for t in cross_validate(logits, labels, groups, NO_SHIFT)])


def test_reprior_is_bayes():
    """Two normal densities: the posterior under other shares, from the posterior under these."""
    x = np.linspace(-3, 3, 50)
    density = np.stack([np.exp(-((x - m) ** 2) / 2) for m in (-1, 1)], axis=1)

    def posterior(shares):
        joint = density * shares
        return joint / joint.sum(axis=1, keepdims=True)

    known, wanted = np.array([0.5, 0.5]), np.array([0.97, 0.03])
    np.testing.assert_allclose(reprior(posterior(known), known, wanted), posterior(wanted))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "temprature", "parameters": {}}, "did you mean 'temperature'"),
        ({"kind": "temperature", "parameters": {}}, "must be"),
        ({"kind": "temperature", "parameters": {"temperature": 0.0}}, "above 0"),
        ({"kind": "temperature", "parameters": {"temperature": float("nan")}}, "does not fit"),
        ({"kind": "temperature", "parameters": {"temperature": True}}, "does not fit"),
        ({"kind": "vector", "parameters": {"scale": [1.0] * 3, "bias": [0.0] * 4}}, "does not fit 4 classes"),
        ({"kind": "isotonic", "parameters": {"x": [[0.0, 1.0]] * 4, "y": [[0.1, 0.9]] * 3}}, "does not fit 4 classes"),
        ({"kind": "isotonic", "parameters": {"x": [[1.0, 0.0]] * 4, "y": [[0.1, 0.9]] * 4}}, "do not rise"),
        ({"kind": "isotonic", "parameters": {"x": [[0.0, 1.0]] * 4, "y": [[0.1]] * 4}}, "do not rise"),
        ({"kind": "none", "parameters": {"a": 1}}, "must be"),
        ({"kind": "none"}, "must be"),
        ({}, "kind None"),
    ],
    ids=["typo", "empty", "zero", "nan", "bool", "short", "curves", "falling", "ragged", "extra", "absent", "nothing"],
)
def test_damaged_calibrations_are_refused(values, words):
    with pytest.raises(ModelError, match=words):
        Calibrator.from_dict(values, 4)
