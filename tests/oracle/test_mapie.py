"""Conformal sets against MAPIE's, on the same arrays."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin

from dermalyze.calibration.conformal import calibrate_conformal
from dermalyze.metrics.activation import softmax

CLASSES = ["a", "b", "c", "d"]


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    classes_ = np.arange(len(CLASSES))
    n_features_in_ = len(CLASSES)

    def fit(self, x, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, x):
        return np.asarray(x).argmax(axis=1)

    def predict_proba(self, x):
        return np.asarray(x)


def drawn(n, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(len(CLASSES), size=n)
    return softmax(generator.normal(size=(n, len(CLASSES))) + 1.5 * np.eye(len(CLASSES))[labels]), labels


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_sets_are_mapies(level, seed):
    """Of LAC; MAPIE draws luck into its adaptive scores when it calibrates, so those are checked against plain loops alone."""
    known, labels = drawn(400, seed)
    new, _ = drawn(1000, seed + 10)
    rule = calibrate_conformal(known, labels, [str(k) for k in range(400)], CLASSES, score="lac", level=level, by_class=False)
    theirs = SplitConformalClassifier(Given(), confidence_level=level, conformity_score="lac", prefit=True)
    theirs.conformalize(known, labels)
    _, sets = theirs.predict_set(new)
    np.testing.assert_array_equal(rule.of(new, CLASSES), sets[:, :, 0])
