"""Simple classifiers on features that stay as they are: their settings are chosen on the validation part."""

# Shapes: N images of the training part, M of another, D features, C classes, K neighbours.

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from dermalyze.errors import DataError
from dermalyze.metrics.classification import measure
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.scoring.features.neighbors import centres, draw_shots, nearest, nearest_centre, unit, vote
from dermalyze.scoring.features.zero_shot import zero_shot

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation (scikit-learn's C), tried upwards for as long as the log loss of the validation part falls."""
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
SHOTS = (1, 5, 10, 20)
DRAWS = 100

Classify = Callable[[NDArray[np.floating]], Floats]


@dataclass(frozen=True, eq=False)
class Chosen:
    """A classifier and how it came to be.

    Attributes:
        setting: its name, `C`, `k` or `scale`.
        value: what was chosen; the scale comes with the model.
        log_loss: of the validation part, for each value tried.
        classify: features (M, D) to probabilities (M, C), none of them 0.
    """

    setting: str
    value: float
    log_loss: dict[str, float]
    classify: Classify


@dataclass(frozen=True, eq=False)
class Part:
    """Features (N, D) and labels (N,) of one part."""

    features: NDArray[np.floating]
    labels: Ints


def linear_probe(train: Part, val: Part, classes: int) -> Chosen:
    """Multinomial logistic regression on standardised features."""
    mean, std = train.features.mean(axis=0, dtype=np.float64), train.features.std(axis=0, dtype=np.float64)
    scale = np.where(std > 0, std, 1.0)

    def standardised(features: NDArray[np.floating]) -> Floats:
        return np.asarray((features - mean) / scale)

    def fitted(strength: float) -> Classify:
        model = LogisticRegression(C=strength, tol=1e-3, max_iter=300)
        with warnings.catch_warnings():  # weak regularisation may stop early, which regularises too
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(standardised(train.features), train.labels)
        held = model.classes_  # a class of which the training part has no image is never called

        def classify(features: NDArray[np.floating]) -> Floats:
            probs = np.zeros((len(features), classes))
            found = model.predict_proba(standardised(features))
            probs[:, held] = found / found.sum(axis=1, keepdims=True)
            return smoothed(probs, 1e6)

        return classify

    return choose("C", STRENGTHS, fitted, val, rising=True)


def neighbours(train: Part, val: Part, classes: int) -> Chosen:
    """Votes of the nearest training images by cosine distance, weighted by 1 / distance.

    One vote spread as the training classes are is added to the k, so that no probability is 0.
    """
    prior = np.bincount(train.labels, minlength=classes) / len(train.labels)
    most = max((k for k in NEIGHBOURS if k <= len(train.labels)), default=1)
    near_val = nearest(val.features, train.features, most)

    def fitted(value: float) -> Classify:
        k = int(value)

        def classify(features: NDArray[np.floating]) -> Floats:
            index, distance = near_val if features is val.features else nearest(features, train.features, k)
            return smoothed(vote(train.labels[index[:, :k]], distance[:, :k], classes), k, prior)

        return classify

    return choose("k", [k for k in NEIGHBOURS if k <= most], fitted, val)


def smoothed(probs_MC: Floats, votes: float, prior_C: Floats | None = None) -> Floats:
    """Probabilities from so many votes with one more that is spread as `prior_C` (evenly without one); rows sum to 1.

    >>> smoothed(np.array([[1.0, 0.0]]), 3).tolist()
    [[0.875, 0.125]]
    """
    classes = probs_MC.shape[1]
    one = np.full(classes, 1 / classes) if prior_C is None else 0.99 * prior_C + 0.01 / classes  # some for absent classes
    return np.asarray((votes * probs_MC + one) / (votes + 1), dtype=np.float64)


def choose(
    setting: str, values: Sequence[float], fitted: Callable[[float], Classify], val: Part, *, rising: bool = False
) -> Chosen:
    """The classifier with the lowest log loss on the validation part; with `rising`, no value after the first that is worse."""
    tried: dict[str, float] = {}
    best: tuple[float, float, Classify] | None = None
    for value in values:
        classify = fitted(value)
        loss = measure(val.labels, classify(val.features))["log_loss"]
        assert loss is not None, "the log loss of probabilities above 0 is finite"
        tried[f"{value:g}"] = loss
        if best is None or loss < best[0]:
            best = (loss, value, classify)
        elif rising:
            break
    assert best is not None, "there is a value to try"
    return Chosen(setting, best[1], tried, best[2])


CLASSIFIERS: Mapping[str, Callable[[Part, Part, int], Chosen]] = {
    "linear-probe": linear_probe,
    "nearest-neighbours": neighbours,
}
CLASSIFIER_NAMES = {
    "linear-probe": "linear probe",
    "nearest-neighbours": "nearest neighbours",
    "zero-shot": "zero-shot by prompts",
}


def by_words(meta: Mapping[str, Any], classes: Sequence[str]) -> Chosen | None:
    """Zero-shot with the prompts whose directions `embed --clip` stored beside the features; None where there are none.

    Raises:
        DataError: they are of other classes.
    """
    words = meta.get("zero_shot")
    if words is None:
        return None
    if words["classes"] != list(classes):
        raise DataError(f"the prompts are of the classes {', '.join(words['classes'])}; run embed again with --clip")
    known, scale = np.asarray(words["directions"], np.float64), float(words["scale"])
    return Chosen("scale", scale, {}, lambda features: zero_shot(features, known, scale))


@dataclass(frozen=True, eq=False)
class FewShot:
    """What the nearest class centre reaches on the test part, a row a draw.

    Attributes:
        accuracy: (R,).
        recall: (R, C) sensitivity of each class; NaN where the test part has no image of it.
    """

    accuracy: Floats
    recall: Floats


def few_shot(
    train: Part, groups: Sequence[str], test: Part, classes: int, *, shots: int, draws: int, seed: int
) -> FewShot | None:
    """Centres of `shots` training images of each class, each of another group, drawn many times.

    Args:
        train: from which images are drawn.
        groups: of its images.
        test: whose images are classified.
        classes: C.
        shots: images a class, 1 or more.
        draws: R.
        seed: the same seed, the same draws.

    Returns:
        None where a class of either part has fewer groups in training than `shots`.
    """
    known, asked, generator = unit(train.features), unit(test.features), np.random.default_rng(seed)
    if set(np.unique(test.labels)) - set(np.unique(train.labels)):
        return None
    support = np.bincount(test.labels, minlength=classes)
    hits = np.zeros((draws, classes))
    for draw in range(draws):
        rows = draw_shots(train.labels, groups, shots, generator)
        if rows is None:
            return None
        present, labels = np.unique(train.labels[rows], return_inverse=True)
        called = present[nearest_centre(asked, centres(known[rows], labels, len(present)))]
        hits[draw] = np.bincount(test.labels[called == test.labels], minlength=classes)
    recall = np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0)
    return FewShot(hits.sum(axis=1) / len(test.labels), recall)
