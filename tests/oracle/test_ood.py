"""Out-of-distribution scores against scikit-learn, scipy and counting by hand; what must hold whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from dermalyze.calibration.ood import NEIGHBOUR, OOD_SCORES, REMEMBERED, fit, shrunk_covariance
from dermalyze.metrics.ood_separation import auroc, separation
from dermalyze.rng import permutation


def blobs(n=300, width=12, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    centres, mix = 3 * generator.normal(size=(classes, width)), generator.normal(size=(width, width))
    embedding = centres[labels] + generator.normal(size=(n, width)) @ mix
    logits = 4 * np.eye(classes)[labels] + generator.normal(size=(n, classes))
    return logits, embedding, labels


@pytest.mark.parametrize(("n", "width"), [(300, 12), (20, 60), (40, 40)])
def test_shrunk_covariance_is_scikit_learns(n, width):
    x = np.random.default_rng(1).normal(size=(n, width)) @ np.diag(np.linspace(0.1, 3, width))
    x -= x.mean(axis=0)
    expected = LedoitWolf(assume_centered=True).fit(x).covariance_
    np.testing.assert_allclose(shrunk_covariance(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "width"), [(300, 12), (40, 90)])
def test_relative_mahalanobis_is_the_difference_of_scikit_learns_distances(n, width):
    logits, embedding, labels = blobs(n, width)
    means = np.stack([embedding[labels == c].mean(axis=0) for c in range(3)])
    within = LedoitWolf(assume_centered=True).fit(embedding - means[labels])
    whole = LedoitWolf(assume_centered=True).fit(embedding - embedding.mean(axis=0))
    new = np.concatenate([embedding[:20], 5 * np.random.default_rng(2).normal(size=(20, width))])
    near = np.min([within.mahalanobis(new - mean) for mean in means], axis=0)
    expected = near - whole.mahalanobis(new - embedding.mean(axis=0))
    found = fit("relative_mahalanobis", logits, embedding, labels)(np.zeros((40, 3)), new)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3 * np.abs(expected).max())  # arrays are float32


def test_neighbours_are_scikit_learns():
    logits, embedding, labels = blobs(2500, 6)
    chosen = permutation(3, 0, 2500)[:REMEMBERED]
    search = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(normalize(embedding[chosen]))
    new = np.random.default_rng(1).normal(size=(30, 6))
    found = fit("knn", logits, embedding, labels, seed=3)
    assert found.arrays["remembered"].shape == (REMEMBERED, 6)
    np.testing.assert_allclose(found(np.zeros((30, 3)), new), search.kneighbors(normalize(new))[0][:, -1], atol=1e-6)


def test_energy_is_scipys():
    logits, embedding, labels = blobs()
    found = fit("energy", logits, embedding, labels)
    np.testing.assert_allclose(found(logits * 100, embedding), -logsumexp(logits * 100, axis=1), rtol=1e-12)


@pytest.mark.parametrize("kind", OOD_SCORES)
def test_what_is_far_is_more_foreign_and_order_does_not_matter(kind):
    logits, embedding, labels = blobs(width=8)
    found = fit(kind, logits, embedding, labels)
    known = found(logits, embedding)
    away = -20 * normalize(embedding).mean(axis=0, keepdims=True)
    far = found(np.zeros_like(logits), np.repeat(away, len(embedding), axis=0))
    assert auroc(known, far) > 0.95
    close = {"rtol": 1e-6, "atol": 1e-6} if kind == "knn" else {"rtol": 1e-9, "atol": 1e-9}  # its product is in float32
    np.testing.assert_allclose(found(logits[::-1], embedding[::-1]), known[::-1], **close)
    one = np.concatenate([found(logits[i : i + 1], embedding[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one, known[:5], **close)


tied = st.lists(st.integers(-5, 5), min_size=1, max_size=40).map(lambda v: np.array(v, dtype=float))


@given(known=tied, foreign=tied)
def test_auroc_is_scikit_learns_with_ties(known, foreign):
    labels = np.r_[np.zeros(len(known)), np.ones(len(foreign))]
    assert auroc(known, foreign) == pytest.approx(roc_auc_score(labels, np.r_[known, foreign]))
    assert auroc(foreign, known) == pytest.approx(1 - auroc(known, foreign))
    assert auroc(np.exp(known), np.exp(foreign)) == pytest.approx(auroc(known, foreign))


def test_share_that_passes_is_read_off_scikit_learns_curve():
    generator = np.random.default_rng(0)
    known, foreign = generator.normal(size=400), generator.normal(1.5, 1, size=120)
    _, sets = separation(known, {"x": foreign}, range(400), threshold=1.0, resamples=50, level=0.95, seed=0)
    # the known ones are the positives of "FPR at 95 % TPR"
    fpr, tpr, _ = roc_curve(np.r_[np.ones(400), np.zeros(120)], -np.r_[known, foreign], drop_intermediate=False)
    assert sets["x"]["passed"].value == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    assert sets["x"]["refused"].value == pytest.approx((foreign > 1).mean())


def test_intervals_are_those_of_resampling_one_by_one():
    """Lesions of the known images and out-of-distribution images drawn apart, in a loop with scikit-learn."""
    generator = np.random.default_rng(1)
    lesion = np.repeat(np.arange(60), 2)
    known, foreign = np.repeat(generator.normal(size=60), 2) + 0.1 * generator.normal(size=120), generator.normal(1, 1, 50)
    refused, sets = separation(known, {"x": foreign}, lesion, threshold=1.0, resamples=2000, level=0.9, seed=0)
    drawn, shares = [], []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(lesion == g) for g in generator.integers(60, size=60)])
        other = foreign[generator.integers(50, size=50)]
        drawn.append(roc_auc_score(np.r_[np.zeros(len(rows)), np.ones(50)], np.r_[known[rows], other]))
        shares.append((known[rows] > 1).mean())
    found = sets["x"]["auroc"]
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.02)
    assert (refused.low, refused.high) == pytest.approx(np.quantile(shares, [0.05, 0.95]), abs=0.04)
    assert (found.n, found.groups, refused.n, refused.groups) == (50, 50, 120, 60)


def test_few_pictures_have_no_interval_and_none_has_no_value():
    known = np.arange(40.0)
    _, sets = separation(known, {"few": np.array([50.0, 60.0]), "none": np.zeros(0)}, range(40), threshold=38, resamples=50,
                         level=0.95, seed=0)  # fmt: skip
    assert sets["few"]["auroc"].value == 1.0
    assert sets["few"]["auroc"].low is None
    assert sets["none"]["auroc"].value is None
    assert sets["none"]["auroc"].note == "not estimable (n = 0)"
