"""Neighbours, votes, class centers and principal components against scikit-learn on the same arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from dermalyze.scoring.features.linear_probe import Part, linear_probe, neighbours, smoothed
from dermalyze.scoring.features.neighbors import class_centers, nearest, nearest_center, unit, vote
from dermalyze.scoring.features.pca import kept_neighbours, pca
from dermalyze.tasks.base import TASKS


def blobs(n: int = 150, d: int = 12, classes: int = 4, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    middles = generator.normal(size=(classes, d))
    return (middles[labels] + generator.normal(size=(n, d))).astype(np.float32), labels


def test_nearest_is_scikit_learns():
    known, _ = blobs()
    asked, _ = blobs(40, seed=1)
    index, distance = nearest(asked, known, 7)
    theirs, indices = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(known).kneighbors(asked)
    np.testing.assert_array_equal(index, indices)
    np.testing.assert_allclose(distance, theirs, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_votes_are_scikit_learns(k):
    known, labels = blobs()
    asked = np.concatenate([blobs(30, seed=2)[0], known[:3]])  # some at distance 0
    index, distance = nearest(asked.astype(np.float64), known, k)
    theirs = KNeighborsClassifier(k, weights="distance", metric="cosine", algorithm="brute").fit(known.astype(float), labels)
    distance[distance < 1e-12] = 0  # theirs leaves rounding in; so that both see the same
    ours = vote(labels[index], distance, 4)
    np.testing.assert_allclose(ours[:30], theirs.predict_proba(asked[:30].astype(float)), atol=1e-6)
    np.testing.assert_array_equal(ours[30:].argmax(axis=1), labels[:3])


def test_class_centres_are_scikit_learns():
    known, labels = blobs()
    asked, _ = blobs(200, seed=3)
    theirs = NearestCentroid().fit(unit(known), labels)
    ours = class_centers(unit(known), labels, 4)
    np.testing.assert_allclose(ours, theirs.centroids_, atol=1e-12)
    np.testing.assert_array_equal(nearest_center(unit(asked), ours), theirs.predict(unit(asked)))


@pytest.mark.parametrize("shape", [(60, 9), (9, 60)])
def test_principal_components_are_scikit_learns(shape):
    values = np.random.default_rng(4).normal(size=shape) * np.linspace(1, 3, shape[1])
    ours, shares = pca(values, 3)
    model = PCA(3, svd_solver="full").fit(values)
    theirs = model.transform(values)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8)
    np.testing.assert_allclose(shares, model.explained_variance_ratio_, atol=1e-10)


def test_the_linear_probe_is_scikit_learns_at_the_strength_of_the_lowest_log_loss():
    train, val, test = (Part(*blobs(n, seed=seed)) for n, seed in ((150, 0), (80, 5), (60, 6)))
    chosen = linear_probe(train, val, TASKS["multiclass"], 4)
    scaler = StandardScaler().fit(train.features.astype(np.float64))

    def theirs(strength, features):
        model = LogisticRegression(C=strength, tol=1e-3, max_iter=300).fit(scaler.transform(train.features), train.labels)
        return model.predict_proba(scaler.transform(features))

    np.testing.assert_allclose(chosen.classify(test.features), theirs(chosen.value, test.features), atol=1e-3)
    for strength, loss in chosen.log_loss.items():
        assert loss == pytest.approx(log_loss(val.labels, theirs(float(strength), val.features)), abs=2e-3)
    assert chosen.log_loss[f"{chosen.value:g}"] == min(chosen.log_loss.values())


def test_the_neighbours_are_scikit_learns_with_one_more_vote():
    train, val, test = (Part(*blobs(n, seed=seed)) for n, seed in ((150, 0), (80, 5), (60, 6)))
    chosen = neighbours(train, val, TASKS["multiclass"], 4)
    k = int(chosen.value)
    model = KNeighborsClassifier(k, weights="distance", metric="cosine", algorithm="brute").fit(train.features, train.labels)
    prior = np.bincount(train.labels) / len(train.labels)
    np.testing.assert_allclose(
        chosen.classify(test.features), smoothed(model.predict_proba(test.features), k, prior), atol=1e-4
    )
    assert chosen.log_loss[f"{k}"] == min(chosen.log_loss.values())
    assert len(chosen.log_loss) == 7


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 50))
def test_a_scaled_query_has_the_same_neighbours(seed, factor):
    generator = np.random.default_rng(seed)
    known, asked = generator.normal(size=(30, 4)), generator.normal(size=(5, 4))
    np.testing.assert_array_equal(nearest(asked, known, 5)[0], nearest(asked * factor, known, 5)[0])


def test_neighbours_are_kept_by_a_turn_and_lost_by_chance():
    generator = np.random.default_rng(7)
    around = generator.uniform(0, 2 * np.pi, 200)
    ring = np.stack([np.cos(around), np.sin(around)], axis=1)
    turned = ring @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert kept_neighbours(ring, turned, 10) == 1.0
    lost = kept_neighbours(ring, generator.normal(size=(200, 2)), 10)
    assert lost < 3 * 10 / 199
