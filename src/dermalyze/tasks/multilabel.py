"""Each image has any number of labels, or none; of some labels nobody may know whether it has them."""

# Shapes: N images, S passes, C labels.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration import calibrators
from dermalyze.calibration.calibrators import Calibrator, Trial
from dermalyze.calibration.multilabel import LABEL_CALIBRATORS, LABEL_CHOICES, best_thresholds, read_thresholds
from dermalyze.calibration.recipes import Samples
from dermalyze.config.task import MultilabelTask, TaskSpec
from dermalyze.core.tables import cell_number
from dermalyze.errors import DataError, ModelError
from dermalyze.metrics import multilabel as metrics
from dermalyze.metrics.activation import sigmoid
from dermalyze.metrics.bootstrap import Masks, TargetScores
from dermalyze.metrics.classification import SMALLEST_PROBABILITY
from dermalyze.metrics.multilabel import MISSING, PLAIN_THRESHOLD, LabelScores
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.tasks.baseline import Baseline
from dermalyze.tasks.capabilities import Capable
from dermalyze.tasks.choices import Choice
from dermalyze.tasks.early_stopping import LABEL_MONITORS
from dermalyze.tasks.multiclass import WHERE_LABELS, index_of, require_classes

NO_LABEL, SEPARATOR, UNKNOWN = "(none)", "|", "?"
"""In the manifest: an image without any label, what stands between the labels of one that has several, and what stands before
a label of which nobody knows whether the image has it."""


def joined(labels: Sequence[str]) -> str:
    """Labels of one image as the manifest holds them.

    >>> joined(["edema", "effusion"]), joined(["edema", "?mass"]), joined([])
    ('edema|effusion', 'edema|?mass', '(none)')
    """
    return SEPARATOR.join(labels) or NO_LABEL


def parted(text: str) -> list[str]:
    """The labels in what `joined` gave.

    >>> parted("edema|effusion"), parted("edema|?mass"), parted("(none)")
    (['edema', 'effusion'], ['edema', '?mass'], [])
    """
    return [] if text == NO_LABEL else text.split(SEPARATOR)


def names_of(present_C: NDArray[np.bool_], classes: Sequence[str]) -> str:
    """The class of one image, or its labels, as the manifest holds them.

    >>> names_of(np.array([True, False, True]), ["bar", "disc", "frame"])
    'bar|frame'
    """
    return joined([name for name, present in zip(classes, present_C, strict=True) if present])


def multi_hot(texts: Sequence[str], classes: Sequence[str]) -> Ints:
    """(N, C) 1 where an image has the label, -1 where nobody knows, else 0.

    Raises:
        ModelError: a label that is none of the classes.

    >>> multi_hot(["a|b", "(none)", "?b"], ["a", "b"]).tolist()
    [[1, 1], [0, 0], [0, -1]]
    """
    sets = [parted(text) for text in texts]
    index = index_of([label.removeprefix(UNKNOWN) for labels in sets for label in labels], classes)
    targets_NC = np.zeros((len(texts), len(classes)), dtype=np.int64)
    for row, labels in enumerate(sets):
        for label in labels:
            targets_NC[row, index[label.removeprefix(UNKNOWN)]] = MISSING if label.startswith(UNKNOWN) else 1
    return targets_NC


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


def log_losses(probs_NC: Floats, targets_NC: Ints) -> Floats:
    """(N,) log loss of each image, averaged over all labels; one whose target is missing counts as 0."""
    return np.asarray(metrics.pair_log_losses(probs_NC, targets_NC).mean(axis=1))


def _marked(name: str, cells: Sequence[str | None]) -> list[str]:
    """A label's column of a table, as `joined` takes it: empty where an image lacks the label."""
    words = {None: UNKNOWN + name, 1.0: name, 0.0: ""}
    numbers = [cell_number(cell or "") for cell in cells]
    strange = next((cell for cell, number in zip(cells, numbers, strict=True) if number not in words), None)
    if strange is not None:
        raise DataError(f"column {name} holds {strange!r}; must be 1, 0, or empty where nobody knows")
    return [words[number] for number in numbers]


class Multilabel(Capable):
    """See `dermalyze.tasks.base.Task`. Targets are (N, C) 1, 0, or -1 where missing."""

    kind = "multilabel"
    capabilities: frozenset[str] = frozenset({"missing_labels", "thresholds"})
    answer = "label set"
    noun, nouns = "label", "labels"
    activation = "sigmoid"
    agreeing = "the least stable label"
    compared: Mapping[str, tuple[str, ...]] = {
        "ensemble": ("macro_auroc", "macro_f1", "log_loss", "macro_brier"),
        "study": ("macro_auroc", "macro_average_precision", "log_loss"),
        "table": ("macro_auroc", "macro_average_precision", "macro_f1", "log_loss", "macro_ece"),
        "controls": ("macro_auroc", "macro_f1", "subset_accuracy"),
        "leakage": ("macro_auroc", "macro_average_precision", "macro_f1", "log_loss"),
    }
    monitors = LABEL_MONITORS
    ood_scores: tuple[str, ...] = ("knn",)  # the others look at classes
    basic: frozenset[str] = frozenset({"ece", "macro_ece"})
    headline: tuple[str, ...] = (
        "macro_auroc",
        "macro_average_precision",
        "macro_f1",
        "micro_f1",
        "subset_accuracy",
        "macro_ece",
    )
    brief: tuple[str, ...] = ("macro_auroc", "macro_average_precision", "micro_average_precision")
    brief_of_class = "auroc"

    def names(self, texts: Sequence[str]) -> list[str]:
        return sorted({label.removeprefix(UNKNOWN) for text in texts for label in parted(text)})

    def targets(self, texts: Sequence[str], classes: Sequence[str]) -> Ints:
        return multi_hot(texts, classes)

    def label_texts(self, columns: Mapping[str, Sequence[str | None]], classes: Sequence[str]) -> list[str]:
        if all(name in columns for name in classes):
            rows = zip(*(_marked(name, columns[name]) for name in classes), strict=True)
            return [joined([label for label in row if label]) for row in rows]
        if "label" not in columns:
            raise DataError(
                f"has neither a column label nor one of 1 and 0 for each of {list(classes)} beside its predictions in p_NAME; "
                + WHERE_LABELS
            )
        texts = [NO_LABEL if text is None else text for text in columns["label"]]
        require_classes([label.removeprefix(UNKNOWN) for text in texts for label in parted(text)], classes, self.nouns)
        return texts

    def texts(self, targets: Ints, classes: Sequence[str]) -> list[str]:
        marks = {0: None, 1: "", MISSING: UNKNOWN}
        kept = ([(marks[int(value)], name) for value, name in zip(row, classes, strict=True)] for row in targets)
        return [joined([mark + name for mark, name in row if mark is not None]) for row in kept]

    def unlabelled(self, images: int, classes: int) -> Ints:
        return np.full((images, classes), MISSING, dtype=np.int64)

    def check_targets(self, targets: Ints, images: int, classes: int) -> None:
        if targets.shape != (images, classes):
            raise ModelError(f"labels have shape {targets.shape}, must be ({images}, {classes}): one row for each image")
        if targets.size and not MISSING <= targets.min() <= targets.max() <= 1:
            raise ModelError(f"labels reach from {targets.min()} to {targets.max()}, must be 0..1, or {MISSING} where missing")

    def membership(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        return np.asarray(targets == 1)

    def observed(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        return np.asarray(targets != MISSING)

    def shares(self, targets: Ints, classes: int) -> Floats:
        asked_C = (targets != MISSING).sum(axis=0)
        return np.asarray((targets == 1).sum(axis=0) / np.maximum(asked_C, 1), dtype=np.float64)

    def questions(self, targets: Ints, classes: int) -> tuple[Choice, ...]:
        return tuple(Choice(c, targets[:, c], 2) for c in range(classes))

    def joined_targets(self, targets: Sequence[Ints]) -> Ints:
        return np.stack(targets, axis=1)

    def joined(self, probs: Sequence[Floats]) -> Floats:
        return np.stack([options_N2[:, 1] for options_N2 in probs], axis=1)

    def baseline(self, targets: Ints, classes: int) -> Baseline:
        has_C, lacks_C = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
        asked = int((has_C + lacks_C).sum())
        most = int(np.maximum(has_C, lacks_C).sum()) / asked if asked else math.nan
        answer = "always giving the more frequent answer for each label"
        return Baseline(most, answer, "macro_auroc", "macro AUROC", 0.5, math.log(2))

    def imbalance(self, targets: Ints, classes: int) -> tuple[float, str]:
        has_C, lacks_C = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
        times = float((lacks_C / np.maximum(has_C, 1)).max())
        return times, f"the rarest label is absent from {times:.0f} training images for each that has it"

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Floats:
        return sigmoid(logits)

    def logits(self, probs_NC: Floats) -> Floats:
        there_NC, absent_NC = (np.maximum(values_NC, SMALLEST_PROBABILITY) for values_NC in (probs_NC, 1 - probs_NC))
        return np.asarray(np.log(there_NC) - np.log(absent_NC))

    def are_probabilities(self, values_NC: Floats, tolerance: float) -> NDArray[np.bool_]:
        return np.ones(len(values_NC), dtype=np.bool_)

    def pool(self, samples_NSC: Samples) -> Samples:
        return pool_labels(samples_NSC)

    def measure(self, targets: Ints, probs_NC: Floats) -> dict[str, float | None]:
        return metrics.measure_labels(targets, probs_NC)

    def calibrator(self, calibration: Mapping[str, Any] | None, classes: int) -> Calibrator:
        if calibration is None:
            return Calibrator("none", {}, LABEL_CALIBRATORS)
        return Calibrator.from_dict(calibration, classes, LABEL_CALIBRATORS)

    def cross_validate(self, logits_NC: Floats, targets: Ints, groups_N: Sequence[str], shift_C: Floats) -> tuple[Trial, ...]:
        return calibrators.cross_validate(logits_NC, targets, groups_N, shift_C, LABEL_CALIBRATORS, log_losses)

    def choose_calibrator(self, asked: str, trials: Sequence[Trial]) -> str:
        return calibrators.asked_for(asked, trials, LABEL_CHOICES)

    def fit_calibrator(self, kind: str, logits_NC: Floats, targets: Ints, shift_C: Floats) -> Calibrator:
        return calibrators.fit(kind, logits_NC, targets, shift_C, LABEL_CALIBRATORS)

    def fit_decision(self, probs_NC: Floats, targets: Ints, classes: Sequence[str], spec: TaskSpec) -> dict[str, Any]:
        assert isinstance(spec, MultilabelTask)
        return {"thresholds": best_thresholds(probs_NC, targets, classes, spec.threshold), "threshold_rule": spec.threshold}

    def thresholds(self, calibration: Mapping[str, Any] | None, classes: Sequence[str]) -> Floats | None:
        return read_thresholds(calibration, classes)

    def called(self, probs_NC: Floats, thresholds_C: Floats | None) -> NDArray[np.bool_]:
        return np.asarray(probs_NC >= (PLAIN_THRESHOLD if thresholds_C is None else thresholds_C))

    def agreement(self, called_NC: NDArray[np.bool_], other_NC: NDArray[np.bool_]) -> float:
        return float((called_NC == other_NC).mean(axis=0).min())

    def choices(self, probs: Floats) -> Floats:
        return np.stack([1 - probs, probs], axis=-1)

    def right(self, targets: Ints, called_NC: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(((called_NC == (targets == 1)) | (targets == MISSING)).all(axis=1))

    def scores(self, targets: Ints, probs_NC: Floats, thresholds_C: Floats | None = None) -> LabelScores:
        plain_C = np.full(probs_NC.shape[1], PLAIN_THRESHOLD)
        return LabelScores(targets, probs_NC, plain_C if thresholds_C is None else thresholds_C)

    def overall_metrics(self, ece_bins: int) -> dict[str, Any]:
        return {**metrics.LABEL_METRICS, "macro_ece": partial(metrics.macro, partial(metrics.ece, bins=ece_bins))}

    def class_metrics(self, ece_bins: int) -> dict[str, Any]:
        return {**metrics.PER_LABEL_METRICS, "ece": partial(metrics.ece, bins=ece_bins)}

    def robust_metrics(self, ece_bins: int) -> dict[str, Any]:
        overall = self.overall_metrics(ece_bins)
        return {"accuracy": metrics.accuracy, **{name: overall[name] for name in ("macro_f1", "macro_ece")}}

    def same_twice(self) -> frozenset[str]:
        return frozenset()

    def rankings(self, classes: Sequence[str], malignant: Sequence[str]) -> dict[str, Masks]:
        return {name: np.arange(len(classes)) == c for c, name in enumerate(classes)}

    def binary(self, scores: TargetScores, yes_C: Masks) -> tuple[Masks, Floats]:
        c = int(yes_C.argmax())
        observed_N = scores.targets[:, c] != MISSING
        return scores.targets[observed_N, c] == 1, scores.probs[observed_N, c]

    def calls(self, scores: TargetScores, classes: Sequence[str]) -> dict[str, tuple[Masks, Masks]]:
        assert isinstance(scores, LabelScores)
        return {name: (scores.hits[:, c], scores.observed[:, c]) for c, name in enumerate(classes)}

    def methods(self, ece_bins: int) -> str:
        return (
            "A macro mean is over the labels, and not estimable where the figure of one is not; a micro figure takes all pairs "
            "of an image and a label together. A label whose target is missing on an image is left out there. AUROC by "
            f"midranks. ECE of a label's own probability over {ece_bins} equal-width bins; Brier score of a label from 0 to 1."
        )
