"""Detectors: what is stored, what is refused, and the threshold."""

from __future__ import annotations

import numpy as np
import pytest

from dermalyze.calibration.ood import OOD_SCORES, Detector, fit, threshold_of
from dermalyze.config.inference import InferenceSpec
from dermalyze.errors import ModelError

GENERATOR = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 10)
LOGITS = 3 * np.eye(3)[LABELS] + GENERATOR.normal(size=(30, 3))
EMBEDDING = GENERATOR.normal(size=(30, 7)) + 2 * LABELS[:, None]


def test_the_table_is_what_the_configuration_offers():
    offered = InferenceSpec.model_fields["ood"].annotation.__args__
    assert set(offered) == {"auto", "none", *OOD_SCORES}


@pytest.mark.parametrize("kind", OOD_SCORES)
def test_bytes_and_shapes_hold_all_of_it(kind):
    detector = fit(kind, LOGITS, EMBEDDING, LABELS)
    data = detector.to_bytes()
    again = Detector.from_bytes(kind, detector.shapes(), data, classes=3, width=7)
    assert again.to_bytes() == data
    assert len(data) == 4 * sum(int(np.prod(shape)) for shape in detector.shapes().values())
    np.testing.assert_array_equal(again(LOGITS, EMBEDDING), detector(LOGITS, EMBEDDING))
    assert np.isfinite(detector(LOGITS, EMBEDDING)).all()
    assert detector(LOGITS[:0], EMBEDDING[:0]).shape == (0,)


@pytest.mark.parametrize("kind", ["relative_mahalanobis", "knn"])
def test_arrays_that_do_not_fit_are_refused(kind):
    detector = fit(kind, LOGITS, EMBEDDING, LABELS)
    shapes, data = detector.shapes(), detector.to_bytes()
    first = next(iter(shapes))
    wrong = [
        (kind, shapes, data[:-4], 3, 7), (kind, shapes, data + b"\0" * 4, 3, 7), (kind, shapes, data, 3, 8),
        (kind, None, data, 3, 7), (kind, {}, data, 3, 7), (kind, {**shapes, "more": [1]}, data, 3, 7),
        (kind, {**shapes, first: [-1, 7]}, data, 3, 7), (kind, {**shapes, first: "7"}, data, 3, 7),
        (kind, {**shapes, first: [10**9, 7]}, data, 3, 7), (kind, {**shapes, first: [True, 7]}, data, 3, 7),
        (kind, shapes, np.full(len(data) // 4, np.nan, "<f4").tobytes(), 3, 7), ("knnn", shapes, data, 3, 7),
    ]  # fmt: skip
    for case in wrong:
        with pytest.raises(ModelError, match="calibration"):
            Detector.from_bytes(*case[:3], classes=case[3], width=case[4])


def test_means_of_more_classes_than_the_model_has_are_refused():
    detector = fit("relative_mahalanobis", LOGITS, EMBEDDING, LABELS)
    with pytest.raises(ModelError):
        Detector.from_bytes("relative_mahalanobis", detector.shapes(), detector.to_bytes(), classes=2, width=7)


def test_energy_of_log_probabilities_is_refused():
    """A recipe that averages probabilities gives their logs, and the energy of those is 0 whatever the image."""
    logs = LOGITS - np.logaddexp.reduce(LOGITS, axis=1, keepdims=True)
    with pytest.raises(ModelError, match="always 0"):
        fit("energy", logs, EMBEDDING, LABELS)


def test_embeddings_that_do_not_vary_are_refused_and_a_class_that_is_absent_is_not():
    with pytest.raises(ModelError, match="do not vary"):
        fit("relative_mahalanobis", LOGITS, np.ones((30, 7)), LABELS)
    with pytest.raises(ModelError, match="no training image"):
        fit("knn", LOGITS[:0], EMBEDDING[:0], LABELS[:0])
    kept = LABELS != 1
    found = fit("relative_mahalanobis", LOGITS[kept], EMBEDDING[kept], LABELS[kept])
    assert found.arrays["means"].shape == (2, 7)
    assert np.isfinite(found(LOGITS, EMBEDDING)).all()


def test_dead_and_zero_embeddings_do_no_harm():
    """A ReLU network has features that never fire, and an image may fire none."""
    dead = np.concatenate([np.maximum(EMBEDDING, 0), np.zeros((30, 5))], axis=1)
    for kind in ("relative_mahalanobis", "knn"):
        found = fit(kind, LOGITS, dead, LABELS)(LOGITS[:2], np.stack([np.zeros(12), 50 * np.ones(12)]))
        assert np.isfinite(found).all()


@pytest.mark.parametrize("n", [1, 7, 20, 333])
def test_the_threshold_keeps_the_share_and_hardly_more(n):
    scores = np.random.default_rng(n).normal(size=n)
    kept = (scores <= threshold_of(scores)).mean()
    assert 0.95 <= kept < 0.95 + 1 / n + 1e-12
