"""What a task is to numbers: targets from labels, probabilities from logits, one answer from several passes, metrics.

One small object that is passed along; `TASKS` holds those there are.
"""

# Shapes: N images, S passes, C classes or labels.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.recipes import Samples, pool
from dermalyze.errors import ModelError
from dermalyze.metrics.activation import sigmoid, softmax
from dermalyze.metrics.classification import measure
from dermalyze.metrics.multilabel import measure_labels
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.metrics.uncertainty import entropy
from dermalyze.tasks.early_stopping import LABEL_MONITORS, MONITORS

NO_LABEL, SEPARATOR = "(none)", "|"
"""In the manifest: an image without any label, and what stands between the labels of one that has several."""


def joined(labels: Sequence[str]) -> str:
    """Labels of one image as the manifest holds them.

    >>> joined(["edema", "effusion"]), joined([])
    ('edema|effusion', '(none)')
    """
    return SEPARATOR.join(labels) or NO_LABEL


def parted(text: str) -> list[str]:
    """The labels in what `joined` gave.

    >>> parted("edema|effusion"), parted("(none)")
    (['edema', 'effusion'], [])
    """
    return [] if text == NO_LABEL else text.split(SEPARATOR)


def class_indices(texts: Sequence[str], classes: Sequence[str]) -> Ints:
    """(N,) class index of each label.

    Raises:
        ModelError: a label that is none of the classes.
    """
    index = _index(texts, classes)
    return np.array([index[text] for text in texts], dtype=np.int64)


def multi_hot(texts: Sequence[str], classes: Sequence[str]) -> Ints:
    """(N, C) 1 where an image has the label, else 0.

    Raises:
        ModelError: a label that is none of the classes.

    >>> multi_hot(["a|b", "(none)"], ["a", "b"]).tolist()
    [[1, 1], [0, 0]]
    """
    sets = [parted(text) for text in texts]
    index = _index([label for labels in sets for label in labels], classes)
    found_NC = np.zeros((len(texts), len(classes)), dtype=np.int64)
    for row, labels in enumerate(sets):
        found_NC[row, [index[label] for label in labels]] = 1
    return found_NC


def _index(labels: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    index = {name: i for i, name in enumerate(classes)}
    if unknown := sorted(set(labels) - set(index)):
        raise ModelError(f"the model has no class for labels {unknown}; it has {list(classes)}; train on this split")
    return index


def hot(targets: Ints, classes: int) -> NDArray[np.bool_]:
    """(N, C) whether an image is of a class, or has a label, from what `Task.targets` gave."""
    return targets.astype(bool) if targets.ndim == 2 else targets[:, None] == np.arange(classes)


def names_of(there_C: NDArray[np.bool_], classes: Sequence[str]) -> str:
    """The class of one image, or its labels, as the manifest holds them.

    >>> names_of(np.array([True, False, True]), ["bar", "disc", "frame"])
    'bar|frame'
    """
    return joined([name for name, there in zip(classes, there_C, strict=True) if there])


def pool_labels(samples_NSC: Samples) -> Samples:
    """One answer from several passes: the logits of the mean of their probabilities, label by label.

    >>> sigmoid(pool_labels(np.array([[[0.0], [100.0]]], np.float32))).round(3).tolist()
    [[0.75]]
    """
    if samples_NSC.shape[1] == 1:
        return np.asarray(samples_NSC[:, 0], dtype=np.float32)
    z = samples_NSC.astype(np.float64)
    there = np.logaddexp.reduce(-np.logaddexp(0.0, -z), axis=1)
    absent = np.logaddexp.reduce(-np.logaddexp(0.0, z), axis=1)
    return np.asarray(there - absent, dtype=np.float32)


@dataclass(frozen=True)
class Task:
    """A row of `TASKS`.

    Attributes:
        kind: as in the configuration.
        targets: label texts of the manifest and the classes to (N,) indices or (N, C) zeros and ones.
        probabilities: logits (..., C) to probabilities.
        pool: logits (N, S, C) of several passes to (N, C).
        measure: targets and probabilities (N, C) to the metrics of a validation part, None where one is undefined.
        monitors: metrics that may choose the epoch: +1 more is better, -1 less is.
        called: probabilities (N, C) and thresholds (C,) of labels (None: 0.5) to (N, C) whether an image is called so.
        doubt: probabilities (N, C) to their entropy (N,).
    """

    kind: str
    targets: Callable[[Sequence[str], Sequence[str]], Ints]
    probabilities: Callable[[NDArray[np.floating[Any]]], Floats]
    pool: Callable[[Samples], Samples]
    measure: Callable[[Ints, Floats], dict[str, float | None]]
    monitors: Mapping[str, int]
    called: Callable[[Floats, Floats | None], NDArray[np.bool_]]
    doubt: Callable[[Floats], Floats]


TASKS: dict[str, Task] = {
    "multiclass": Task(
        "multiclass",
        class_indices,
        softmax,
        pool,
        measure,
        MONITORS,
        lambda probs_NC, _: hot(probs_NC.argmax(axis=1), probs_NC.shape[1]),
        entropy,
    ),
    "multilabel": Task(
        "multilabel",
        multi_hot,
        sigmoid,
        pool_labels,
        measure_labels,
        LABEL_MONITORS,
        lambda probs_NC, thresholds_C: np.asarray(probs_NC >= (0.5 if thresholds_C is None else thresholds_C)),
        lambda probs_NC: np.asarray(entropy(np.stack([probs_NC, 1 - probs_NC], axis=-1)).sum(axis=-1)),
    ),
}
