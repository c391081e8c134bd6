"""Confident learning against a loop over images that follows the paper's words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.audit.confident_learning import LabelIssues, find_issues, noise_share
from dermalyze.metrics.classification import Scores


def case(n: int, seed: int, classes: int = 4) -> Scores:
    """Labels drawn from the probabilities, a fifth of them then drawn anew."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.4), size=n)
    labels = np.array([rng.choice(classes, p=p) for p in probs], dtype=np.int64)
    wrong = rng.random(n) < 0.2
    labels[wrong] = rng.integers(0, classes, wrong.sum())
    return Scores(labels, probs)


def by_loops(scores: Scores) -> tuple[list[float], list[list[int]], list[int]]:
    """Thresholds, confident joint and likely errors, image by image (arXiv:1911.00068, eq. 1 and 2)."""
    labels, probs, classes = scores.labels.tolist(), scores.probs.tolist(), scores.classes
    limits = []
    for j in range(classes):
        own = [p[j] for p, label in zip(probs, labels, strict=True) if label == j]
        limits.append(math.fsum(own) / len(own) if own else math.nan)
    joint = [[0] * classes for _ in range(classes)]
    flagged = []
    for i, (p, label) in enumerate(zip(probs, labels, strict=True)):
        sure = [j for j in range(classes) if p[j] >= limits[j] - 1e-15]
        if not sure:
            continue
        j = max(sure, key=lambda k: p[k])
        joint[label][j] += 1
        if j != label and p[label] < max(p[:label] + p[label + 1 :]):
            flagged.append(i)
    return limits, joint, sorted(flagged, key=lambda i: (p_given(probs, labels, i), i))


def p_given(probs: list[list[float]], labels: list[int], i: int) -> float:
    return probs[i][labels[i]]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equals_the_loops(classes: int) -> None:
    for seed in range(10):
        scores = case(200, seed, classes)
        limits, joint, flagged = by_loops(scores)
        found = find_issues(scores)
        np.testing.assert_allclose(found.thresholds, limits, rtol=1e-12)
        assert found.joint.tolist() == joint
        assert found.rows.tolist() == flagged
        assert len(flagged) > 5


def test_noise_share_is_the_calibrated_joint_off_its_diagonal() -> None:
    scores = case(500, 3)
    joint, support = find_issues(scores).joint, scores.support
    scaled = joint / joint.sum(axis=1, keepdims=True) * support[:, None]
    assert noise_share(joint, support) == pytest.approx(1 - np.trace(scaled) / scaled.sum(), rel=1e-12)


def test_a_perfect_model_finds_exactly_what_was_swapped() -> None:
    truth = np.repeat(np.arange(3), 50)
    labels = truth.copy()
    labels[[4, 60, 149]] = [2, 0, 1]
    found = find_issues(Scores(labels, np.eye(3)[truth] * 0.94 + 0.02))
    assert sorted(found.rows.tolist()) == [4, 60, 149]
    assert found.counts_as[[4, 60, 149]].tolist() == [0, 1, 2]
    assert noise_share(found.joint, np.bincount(labels)) == pytest.approx(3 / 150)


def test_an_absent_class_and_a_set_without_images_have_no_errors() -> None:
    probs = np.array([[0.6, 0.3, 0.1]] * 3)
    found = find_issues(Scores(np.array([0, 0, 1]), probs))
    assert np.isnan(found.thresholds[2])
    assert found.joint[:, 2].sum() == 0
    nothing = find_issues(Scores(np.zeros(0, dtype=np.int64), np.zeros((0, 3))))
    assert len(nothing.rows) == 0
    assert math.isnan(noise_share(nothing.joint, np.zeros(3, dtype=np.int64)))


sets = st.builds(case, st.integers(2, 80), st.integers(0, 2**32 - 1), st.integers(2, 5))


def same(a: LabelIssues, b: LabelIssues) -> None:
    assert a.rows.tolist() == b.rows.tolist()
    np.testing.assert_allclose(a.self_confidence, b.self_confidence, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(sets, st.randoms(use_true_random=False))
def test_names_of_the_classes_do_not_matter(scores: Scores, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(scores.classes)  # type: ignore[attr-defined]
    place = np.argsort(order)
    same(find_issues(scores), find_issues(Scores(place[scores.labels], scores.probs[:, order])))


@settings(max_examples=60, deadline=None)
@given(sets, st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_does_not_matter(scores: Scores, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(scores.labels))
    found = find_issues(Scores(scores.labels[order], scores.probs[order]))
    assert sorted(order[found.rows].tolist()) == sorted(find_issues(scores).rows.tolist())


@settings(max_examples=60, deadline=None)
@given(sets)
def test_every_likely_error_is_doubted_by_the_model(scores: Scores) -> None:
    found = find_issues(scores)
    assert (np.diff(found.self_confidence[found.rows]) >= 0).all()
    assert (scores.predicted[found.rows] != scores.labels[found.rows]).all()
    assert (found.counts_as[found.rows] != scores.labels[found.rows]).all()
    assert found.joint.sum() == (found.counts_as >= 0).sum()
    assert len(found.rows) <= found.joint.sum() - np.trace(found.joint)
