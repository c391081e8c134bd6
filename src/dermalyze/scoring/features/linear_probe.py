"""Simple classifiers on features that stay as they are: their settings are chosen on the validation split."""

# Shapes: N images of the training split, M of another, D features, C classes, K neighbours.

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
from dermalyze.metrics.activation import softmax
from dermalyze.metrics.calibration_error import ECE_BINS
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.scoring.features.neighbors import center_scores, class_centers, draw_shots, nearest, unit, vote
from dermalyze.scoring.features.zero_shot import zero_shot
from dermalyze.tasks.base import Task
from dermalyze.tasks.choices import Choice

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularization (scikit-learn's C), tried upwards for as long as the log loss of the validation split falls."""
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
        log_loss: of the validation split, for each value tried.
        classify: features (M, D) to probabilities (M, C), none of them 0.
    """

    setting: str
    value: float
    log_loss: dict[str, float]
    classify: Classify


@dataclass(frozen=True, eq=False)
class Part:
    """Features (N, D) and targets of one part, (N,) or of labels (N, C)."""

    features: NDArray[np.floating]
    labels: Ints


def linear_probe(train: Part, val: Part, task: Task, classes: int) -> Chosen:
    """Multinomial logistic regression on standardized features; of labels a binary one each, of one strength."""
    mean, std = train.features.mean(axis=0, dtype=np.float64), train.features.std(axis=0, dtype=np.float64)
    scale = np.where(std > 0, std, 1.0)

    def standardised(features: NDArray[np.floating]) -> Floats:
        return np.asarray((features - mean) / scale)

    def fitted(strength: float) -> Classify:
        known = standardised(train.features)
        models = [logistic(known, choice, strength) for choice in task.questions(train.labels, classes)]

        def classify(features: NDArray[np.floating]) -> Floats:
            asked = standardised(features)
            return task.joined([smoothed(model(asked), 1e6) for model in models])

        return classify

    return choose("C", STRENGTHS, fitted, val, task, rising=True)


def logistic(features_ND: Floats, choice: Choice, strength: float) -> Classify:
    """Logistic regression on the images whose target is there; an option that none of them has is never called."""
    there_N = choice.targets >= 0
    held = np.unique(choice.targets[there_N])
    if len(held) < 2:
        only = np.full(choice.options, 1 / choice.options) if not len(held) else np.eye(choice.options)[held[0]]
        return lambda features: np.tile(only, (len(features), 1))
    model = LogisticRegression(C=strength, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():  # weak regularization may stop early, which regularizes too
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features_ND[there_N], choice.targets[there_N])

    def classify(features: NDArray[np.floating]) -> Floats:
        probs = np.zeros((len(features), choice.options))
        found = model.predict_proba(features)
        probs[:, model.classes_] = found / found.sum(axis=1, keepdims=True)
        return probs

    return classify


def neighbours(train: Part, val: Part, task: Task, classes: int) -> Chosen:
    """Votes of the nearest training images by cosine distance, weighted by 1 / distance; of labels among those that tell.

    One vote spread as the training classes are is added to the k, so that no probability is 0.
    """
    choices = task.questions(train.labels, classes)
    fewest = min(int((choice.targets >= 0).sum()) for choice in choices)
    most = max((k for k in NEIGHBOURS if k <= fewest), default=1)
    near_val = [near(train.features, choice, val.features, most) for choice in choices]

    def fitted(value: float) -> Classify:
        k = int(value)

        def classify(features: NDArray[np.floating]) -> Floats:
            votes = []
            for choice, found in zip(choices, near_val, strict=True):
                labels, distance = found if features is val.features else near(train.features, choice, features, k)
                known = choice.targets[choice.targets >= 0]
                prior = np.bincount(known, minlength=choice.options) / max(1, len(known))
                votes.append(smoothed(vote(labels[:, :k], distance[:, :k], choice.options), k, prior))
            return task.joined(votes)

        return classify

    return choose("k", [k for k in NEIGHBOURS if k <= most], fitted, val, task)


def near(known_ND: NDArray[np.floating], choice: Choice, asked_MD: NDArray[np.floating], k: int) -> tuple[Ints, Floats]:
    """Targets (M, K) and distances (M, K) of the k nearest images whose target is there.

    Raises:
        DataError: there is none.
    """
    rows = np.flatnonzero(choice.targets >= 0)
    if not len(rows):
        raise DataError("of one label the training split holds no image of which it is known; leave the label out")
    index, distance = nearest(asked_MD, known_ND[rows], k)
    return choice.targets[rows][index], distance


def smoothed(probs_MC: Floats, votes: float, prior_C: Floats | None = None) -> Floats:
    """Probabilities from so many votes with one more that is spread as `prior_C` (evenly without one); rows sum to 1.

    >>> smoothed(np.array([[1.0, 0.0]]), 3).tolist()
    [[0.875, 0.125]]
    """
    classes = probs_MC.shape[1]
    one = np.full(classes, 1 / classes) if prior_C is None else 0.99 * prior_C + 0.01 / classes  # some for absent classes
    return np.asarray((votes * probs_MC + one) / (votes + 1), dtype=np.float64)


def choose(
    setting: str, values: Sequence[float], fitted: Callable[[float], Classify], val: Part, task: Task, *, rising: bool = False
) -> Chosen:
    """The classifier with the lowest log loss on the validation split; with `rising`, no value after the first worse one."""
    tried: dict[str, float] = {}
    best: tuple[float, float, Classify] | None = None
    for value in values:
        classify = fitted(value)
        loss = task.measure(val.labels, classify(val.features))["log_loss"]
        if loss is None:  # the log loss of probabilities above 0 is finite
            raise DataError(f"of no image of the validation split a {task.noun} is known; split the set again")
        tried[f"{value:g}"] = loss
        if best is None or loss < best[0]:
            best = (loss, value, classify)
        elif rising:
            break
    assert best is not None, "there is a value to try"
    return Chosen(setting, best[1], tried, best[2])


CLASSIFIERS: Mapping[str, Callable[[Part, Part, Task, int], Chosen]] = {
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


def few_shot(
    train: Part, groups: Sequence[str], test: Part, task: Task, classes: int, *, shots: int, draws: int, seed: int
) -> dict[str, Floats] | None:
    """Centers of `shots` training images of each class, each of another group, drawn many times.

    A label has two of them: that of images with it, and that of images without.

    Args:
        train: from which images are drawn.
        groups: of its images.
        test: whose images are classified.
        task: what is asked; its `brief` metrics are measured.
        classes: C.
        shots: images a class, 1 or more.
        draws: R.
        seed: the same seed, the same draws.

    Returns:
        (R,) each overall metric and (R, C) that of each class, on the test split, a row a draw; None where a class of either
        part has fewer groups in training than `shots`.
    """
    known, asked, generator = unit(train.features), unit(test.features), np.random.default_rng(seed)
    choices, of_groups = task.questions(train.labels, classes), np.asarray(groups)
    for choice, tested in zip(choices, task.questions(test.labels, classes), strict=True):
        if set(np.unique(tested.targets)) - set(np.unique(choice.targets)) - {-1}:
            return None
    overall, each = task.overall_metrics(ECE_BINS), task.class_metrics(ECE_BINS)
    metrics = {**{name: overall[name] for name in task.brief}, task.brief_of_class: each[task.brief_of_class]}
    once_N1 = np.ones((len(asked), 1))
    found: dict[str, list[Floats]] = {name: [] for name in metrics}
    for _ in range(draws):
        answers = []
        for choice in choices:
            there = np.flatnonzero(choice.targets >= 0)
            drawn = draw_shots(choice.targets[there], of_groups[there].tolist(), shots, generator)
            if drawn is None:
                return None
            answers.append(center_shares(known[there[drawn]], choice.targets[there[drawn]], asked, choice.options))
        tally = task.scores(test.labels, task.joined(answers)).under(once_N1)
        for name, metric in metrics.items():
            found[name].append(metric(tally)[0])
    return {name: np.asarray(values) for name, values in found.items()}


def center_shares(known_ND: Floats, labels_N: Ints, asked_MD: Floats, options: int) -> Floats:
    """(M, K) shares that fall with the distance from each option's center, the largest for the nearest; 0 without one.

    >>> center_shares(np.eye(2), np.array([0, 2]), np.eye(2), 3).argmax(axis=1).tolist()
    [0, 2]
    """
    present, labels = np.unique(labels_N, return_inverse=True)
    shares = np.zeros((len(asked_MD), options))
    shares[:, present] = softmax(center_scores(asked_MD, class_centers(known_ND, labels, len(present))))
    return shares
