"""One answer a lesion and a patient: against pandas, and what is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermalyze.metrics.aggregation import any_of, pool, worst_of
from dermalyze.metrics.classification import METRICS, Scores, measure


def images(seed=0, n=80, units=30, classes=3):
    generator = np.random.default_rng(seed)
    unit = generator.integers(units, size=n)
    labels = generator.integers(classes, size=units)[unit]
    probs = generator.dirichlet(np.ones(classes), size=n)
    return Scores(labels, probs), [f"u{i}" for i in unit]


@given(st.integers(0, 500))
def test_probabilities_are_the_mean_of_each_unit(seed):
    scores, units = images(seed)
    found = pool(scores, units, units)
    frame = pd.DataFrame(scores.probs).assign(unit=units, label=scores.labels).groupby("unit", sort=False)
    np.testing.assert_allclose(found.scores.probs, frame[[0, 1, 2]].mean().to_numpy())
    assert found.scores.labels.tolist() == frame["label"].first().tolist()
    assert found.units == found.groups == list(frame.groups)
    assert found.several == int((frame.size() > 1).sum())
    assert found.images == len(units)


@given(st.integers(0, 500))
def test_log_loss_and_brier_are_never_above_the_images_own(seed):
    """Jensen, with each unit weighted by its images."""
    scores, units = images(seed)
    found = pool(scores, units, units)
    rows = [found.units.index(unit) for unit in units]
    spread = measure(scores.labels, found.scores.probs[rows])
    own = measure(scores.labels, scores.probs)
    for name in ("log_loss", "brier"):
        assert spread[name] <= own[name] + 1e-12


def test_units_of_one_image_change_nothing():
    scores, _ = images()
    names = [str(i) for i in range(len(scores.labels))]
    found = pool(scores, names, names)
    np.testing.assert_allclose(found.scores.probs, scores.probs)
    assert (found.several, found.disagreeing) == (0, [])
    assert measure(found.scores.labels, found.scores.probs).keys() == METRICS.keys()


def test_a_unit_under_two_labels_is_left_out_and_named():
    scores = Scores(np.array([0, 1, 1, 1, 0]), np.full((5, 2), 0.5))
    found = pool(scores, ["torn", "torn", "one", "one", "two"], ["g", "g", "g", "g", "h"])
    assert found.disagreeing == ["torn"]
    assert (found.units, found.groups) == (["one", "two"], ["g", "h"])
    assert (found.images, found.several) == (3, 1)


def test_equal_photographs_give_equal_probabilities():
    """Ties stay ties, so that AUROC counts them by half."""
    scores = Scores(np.array([0, 0, 1, 1, 1]), np.tile([[0.3, 0.7]], (5, 1)))
    found = pool(scores, ["a", "a", "b", "b", "b"], list("aabbb"))
    assert measure(found.scores.labels, found.scores.probs)["macro_auroc"] == pytest.approx(0.5)


def test_nothing_is_pooled_to_nothing():
    empty = Scores(np.zeros(0, int), np.zeros((0, 3)))
    assert pool(empty, [], []).units == []
    assert worst_of(any_of(empty, [1]), [], []).units == []


@given(st.integers(0, 500))
def test_a_patient_is_as_suspicious_as_the_worst_lesion(seed):
    scores, owners = images(seed, classes=2)
    found = worst_of(scores, owners, owners)
    frame = pd.DataFrame({"p": scores.probs[:, 1], "y": scores.labels, "owner": owners}).groupby("owner", sort=False)
    np.testing.assert_array_equal(found.scores.probs[:, 1], frame["p"].max())
    np.testing.assert_array_equal(found.scores.labels, frame["y"].max())


def test_any_of_adds_what_the_classes_have():
    scores, _ = images(classes=3)
    found = any_of(scores, [0, 2])
    np.testing.assert_allclose(found.probs[:, 1], 1 - scores.probs[:, 1])
    assert found.labels.tolist() == (scores.labels != 1).astype(int).tolist()
