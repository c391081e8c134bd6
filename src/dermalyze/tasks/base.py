"""What a task is to numbers: targets from labels, probabilities from logits, one answer from several passes, metrics.

One small object that is passed along; `TASKS` holds those there are.
"""

# Shapes: N images, S passes, C classes or labels.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import Calibrator, Trial
from dermalyze.calibration.recipes import Samples
from dermalyze.config.task import TaskSpec
from dermalyze.metrics.bootstrap import Masks, TargetScores
from dermalyze.metrics.operating_points import Malignant
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.tasks.baseline import Baseline
from dermalyze.tasks.multiclass import Multiclass
from dermalyze.tasks.multilabel import Multilabel


class Task(Protocol):
    """A row of `TASKS`.

    Attributes:
        kind: as in the configuration.
        capabilities: what `require` grants.
        noun, nouns: what it tells apart, in words: class and classes, or label and labels.
        activation: from logits to plain probabilities, in words.
        compared: overall metrics by which trainings are compared, by what compares them.
        monitors: metrics that may choose the epoch: +1 more is better, -1 less is.
        ood_scores: keys of `OOD_SCORES` that fit it.
        basic: names of metrics that take the basic interval, since noise biases them upwards.
        headline: names of overall metrics that come first.
    """

    kind: str
    capabilities: frozenset[str]
    noun: str
    nouns: str
    activation: str
    compared: Mapping[str, tuple[str, ...]]
    monitors: dict[str, int]
    ood_scores: tuple[str, ...]
    basic: frozenset[str]
    headline: tuple[str, ...]

    def has(self, *capabilities: str) -> bool:
        """Whether it has all of them."""

    def require(self, *capabilities: str, what: str) -> None:
        """Refuse `what` in one line where a capability is missing; UsageError."""

    # -- targets

    def names(self, texts: Sequence[str]) -> list[str]:
        """The classes that label texts of the manifest name, sorted."""

    def targets(self, texts: Sequence[str], classes: Sequence[str]) -> Ints:
        """Label texts of the manifest to targets; ModelError for a label that is none of the classes."""

    def unlabelled(self, images: int, classes: int) -> Ints:
        """Targets of images of which none is known, where a file needs some."""

    def check_targets(self, targets: Ints, images: int, classes: int) -> None:
        """ModelError where they are no targets of that many images and classes."""

    def membership(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        """(N, C) whether an image has a class; what is counted and stratified by."""

    def shares(self, targets: Ints, classes: int) -> Floats:
        """(C,) share of the images that have each class, of those whose target is there."""

    def baseline(self, targets: Ints, classes: int) -> Baseline:
        """What answers without skill reach on these targets."""

    def imbalance(self, targets: Ints, classes: int) -> tuple[float, str]:
        """How many times as frequent the commonest is as the rarest, and the sentence that reports it."""

    # -- answers

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Floats:
        """Logits (N, C) to uncalibrated probabilities, float64."""

    def pool(self, samples_NSC: Samples) -> Samples:
        """Logits of several passes to those of their one answer (N, C)."""

    def called(self, probs_NC: Floats, thresholds_C: Floats | None) -> NDArray[np.bool_]:
        """(N, C) what is called."""

    def doubt(self, probs_NC: Floats) -> Floats:
        """(N,) entropy of the probabilities, in nats; summed over labels."""

    # -- calibration

    def calibrator(self, calibration: Mapping[str, Any] | None, classes: int) -> Calibrator:
        """What a record says, checked (ModelError); None: plain probabilities."""

    def cross_validate(self, logits_NC: Floats, targets: Ints, groups_N: Sequence[str], shift_C: Floats) -> tuple[Trial, ...]:
        """Each calibrator on images that its fit has not seen; see `dermalyze.calibration.calibrators.cross_validate`."""

    def choose_calibrator(self, asked: str, trials: Sequence[Trial]) -> str:
        """The one that `inference.calibration` names, or that the trials choose."""

    def fit_calibrator(self, kind: str, logits_NC: Floats, targets: Ints, shift_C: Floats) -> Calibrator:
        """Fit one."""

    def fit_decision(self, probs_NC: Floats, targets: Ints, classes: Sequence[str], spec: TaskSpec) -> dict[str, Any]:
        """What a calibration's record holds so that answers can be called; DataError where it cannot be found."""

    def thresholds(self, calibration: Mapping[str, Any] | None, classes: Sequence[str]) -> Floats | None:
        """(C,) from which probability on each is called, checked (ModelError); None where the most probable class is."""

    # -- metrics

    def measure(self, targets: Ints, probs_NC: Floats) -> dict[str, float | None]:
        """The metrics of a validation part, None where one is undefined."""

    def scores(self, targets: Ints, probs_NC: Floats, thresholds_C: Floats | None = None) -> TargetScores:
        """What the metrics below are measured and resampled on; ModelError where the probabilities are none."""

    def overall_metrics(self, ece_bins: int) -> dict[str, Any]:
        """Name to a function of what `scores(...).under` gives, (R,)."""

    def class_metrics(self, ece_bins: int) -> dict[str, Any]:
        """The same of each class, (R, C)."""

    def same_twice(self) -> frozenset[str]:
        """Overall metrics that are equal to another one; a comparison asks each question once."""

    def questions(self, classes: Sequence[str], malignant: Malignant) -> dict[str, Masks]:
        """What can be ranked: a name to the classes (C,) that mean yes; each class, and what `evaluate.malignant` joins."""

    def binary(self, scores: TargetScores, yes_C: Masks) -> tuple[Masks, Floats]:
        """One of these questions: whether the answer is yes and its probability, of images whose target is there."""

    def calls(self, scores: TargetScores, classes: Sequence[str]) -> dict[str, tuple[Masks, Masks]]:
        """Where one answer has several calls: each (N,) whether it is right, and whether its target is there; else empty."""

    def methods(self, ece_bins: int) -> str:
        """How these are made, in sentences."""


TASKS: dict[str, Task] = {"multiclass": Multiclass(), "multilabel": Multilabel()}
