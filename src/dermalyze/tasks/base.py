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
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.tasks.baseline import Baseline
from dermalyze.tasks.choices import Choice
from dermalyze.tasks.multiclass import Multiclass
from dermalyze.tasks.multilabel import Multilabel


class Task(Protocol):
    """A row of `TASKS`.

    Attributes:
        kind: as in the configuration.
        capabilities: what `require` grants.
        answer: what an image has, in words: a class, or a label set.
        noun, nouns: what it tells apart, in words: class and classes, or label and labels.
        activation: from logits to plain probabilities, in words.
        agreeing: what `agreement` is of, in words.
        compared: overall metrics by which trainings are compared, by what compares them.
        monitors: metrics that may choose the epoch: +1 more is better, -1 less is.
        ood_scores: keys of `OOD_SCORES` that fit it.
        basic: names of metrics that take the basic interval, since noise biases them upwards.
        headline: names of overall metrics that come first.
        brief: names of overall metrics for a short table; they need no thresholds.
        brief_of_class: the same of each class, one.
    """

    kind: str
    capabilities: frozenset[str]
    answer: str
    noun: str
    nouns: str
    activation: str
    agreeing: str
    compared: Mapping[str, tuple[str, ...]]
    monitors: dict[str, int]
    ood_scores: tuple[str, ...]
    basic: frozenset[str]
    headline: tuple[str, ...]
    brief: tuple[str, ...]
    brief_of_class: str

    def has(self, *capabilities: str) -> bool:
        """Whether it has all of them."""

    def require(self, *capabilities: str, what: str) -> None:
        """Refuse `what` in one line where a capability is missing; UsageError."""

    # -- targets

    def names(self, texts: Sequence[str]) -> list[str]:
        """The classes that label texts of the manifest name, sorted."""

    def targets(self, texts: Sequence[str], classes: Sequence[str]) -> Ints:
        """Label texts of the manifest to targets; ModelError for a label that is none of the classes."""

    def label_texts(self, columns: Mapping[str, Sequence[str | None]], classes: Sequence[str]) -> list[str]:
        """The manifest's label text of each row of somebody's table; DataError where it has none, or one that is no class.

        Args:
            columns: name to its cells, None where empty.
            classes: those there are predictions of.
        """

    def texts(self, targets: Ints, classes: Sequence[str]) -> list[str]:
        """Targets to label texts, as the manifest holds them."""

    def unlabelled(self, images: int, classes: int) -> Ints:
        """Targets of images of which none is known, where a file needs some."""

    def check_targets(self, targets: Ints, images: int, classes: int) -> None:
        """ModelError where they are no targets of that many images and classes."""

    def membership(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        """(N, C) whether an image has a class; what is counted and stratified by."""

    def observed(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        """(N, C) where a target is there."""

    def shares(self, targets: Ints, classes: int) -> Floats:
        """(C,) share of the images that have each class, of those whose target is there."""

    def questions(self, targets: Ints, classes: int) -> tuple[Choice, ...]:
        """What is asked, as questions that have one answer each."""

    def joined_targets(self, targets: Sequence[Ints]) -> Ints:
        """Targets from those (N,) of each of `questions`."""

    def baseline(self, targets: Ints, classes: int) -> Baseline:
        """What answers without skill reach on these targets."""

    def imbalance(self, targets: Ints, classes: int) -> tuple[float, str]:
        """How many times as frequent the commonest is as the rarest, and the sentence that reports it."""

    # -- answers

    def joined(self, probs: Sequence[Floats]) -> Floats:
        """(N, C) probabilities from those of the options (N, K) of each of `questions`."""

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Floats:
        """Logits (N, C) to uncalibrated probabilities, float64."""

    def logits(self, probs_NC: Floats) -> Floats:
        """What `probabilities` makes these of, (N, C); a 0 counts as 2.2e-16, as in the log loss."""

    def are_probabilities(self, values_NC: Floats, tolerance: float) -> NDArray[np.bool_]:
        """(N,) which rows of values in 0..1 can be probabilities: whether they sum to 1, where an image has one class."""

    def pool(self, samples_NSC: Samples) -> Samples:
        """Logits of several passes to those of their one answer (N, C)."""

    def called(self, probs_NC: Floats, thresholds_C: Floats | None) -> NDArray[np.bool_]:
        """(N, C) what is called."""

    def agreement(self, called_NC: NDArray[np.bool_], other_NC: NDArray[np.bool_]) -> float:
        """Share of images that two models answer alike; of labels that of the label for which it is least."""

    def choices(self, probs: Floats) -> Floats:
        """Probabilities (..., C) as the Q answers that they are, each a choice among K: (..., Q, K), summing to 1."""

    def right(self, targets: Ints, called_NC: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) whether all that is called of an image is right; a missing target is never wrong."""

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
        """The metrics of a validation split, None where one is undefined."""

    def scores(self, targets: Ints, probs_NC: Floats, thresholds_C: Floats | None = None) -> TargetScores:
        """What the metrics below are measured and resampled on; ModelError where the probabilities are none."""

    def overall_metrics(self, ece_bins: int) -> dict[str, Any]:
        """Name to a function of what `scores(...).under` gives, (R,)."""

    def class_metrics(self, ece_bins: int) -> dict[str, Any]:
        """The same of each class, (R, C)."""

    def robust_metrics(self, ece_bins: int) -> dict[str, Any]:
        """The few that corrupted copies are measured by; the first is drawn."""

    def same_twice(self) -> frozenset[str]:
        """Overall metrics that are equal to another one; a comparison asks each question once."""

    def rankings(self, classes: Sequence[str], malignant: Sequence[str]) -> dict[str, Masks]:
        """What can be ranked: a name to the classes (C,) that mean yes; each class, and the malignant ones together."""

    def binary(self, scores: TargetScores, yes_C: Masks) -> tuple[Masks, Floats]:
        """One of these questions: whether the answer is yes and its probability, of images whose target is there."""

    def calls(self, scores: TargetScores, classes: Sequence[str]) -> dict[str, tuple[Masks, Masks]]:
        """Where one answer has several calls: each (N,) whether it is right, and whether its target is there; else empty."""

    def methods(self, ece_bins: int) -> str:
        """How these are made, in sentences."""


TASKS: dict[str, Task] = {"multiclass": Multiclass(), "multilabel": Multilabel()}
