"""Each image has exactly one class."""

# Shapes: N images, S passes, C classes.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration import calibrators
from dermalyze.calibration.calibrators import CALIBRATORS, Calibrator, Trial
from dermalyze.calibration.ood import OOD_SCORES
from dermalyze.calibration.recipes import Samples, pool
from dermalyze.config.task import TaskSpec
from dermalyze.errors import DataError, ModelError, nearest
from dermalyze.metrics import calibration_error
from dermalyze.metrics import classification as metrics
from dermalyze.metrics.activation import softmax
from dermalyze.metrics.bootstrap import Masks, TargetScores
from dermalyze.metrics.operating_points import MALIGNANT
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.metrics.scores import Scores
from dermalyze.tasks.baseline import Baseline
from dermalyze.tasks.capabilities import Capable
from dermalyze.tasks.choices import Choice
from dermalyze.tasks.early_stopping import MONITORS

WHERE_LABELS = "add it (and lesion_id or patient_id), or name the run whose test split it is of"


def class_indices(texts: Sequence[str], classes: Sequence[str]) -> Ints:
    """(N,) class index of each label.

    Raises:
        ModelError: a label that is none of the classes.
    """
    index = index_of(texts, classes)
    return np.array([index[text] for text in texts], dtype=np.int64)


def index_of(labels: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """Class to its index, for labels that are all among them.

    Raises:
        ModelError: one is not.
    """
    index = {name: i for i, name in enumerate(classes)}
    if unknown := sorted(set(labels) - set(index)):
        raise ModelError(f"the model has no class for labels {unknown}; it has {list(classes)}; train on this split")
    return index


def require_classes(labels: Sequence[str | None], classes: Sequence[str], nouns: str) -> None:
    """Refuse labels of somebody's table of which it has no predictions.

    Raises:
        DataError: with these.
    """
    counts = Counter(labels)
    unknown = [label for label in counts if label not in classes]
    if unknown:
        said = ", ".join(f"{label!r} ({counts[label]} rows{nearest(str(label), list(classes))})" for label in unknown[:5])
        raise DataError(f"labels {said} have no column; the {nouns} are {list(classes)}")


class Multiclass(Capable):
    """See `dermalyze.tasks.base.Task`. A target is the index of a class, (N,)."""

    kind = "multiclass"
    capabilities: frozenset[str] = frozenset({
        "class_prior", "conformal_sets", "one_class", "operating_points", "zero_shot",
    })  # fmt: skip
    answer = "class"
    noun, nouns = "class", "classes"
    activation = "softmax"
    agreeing = "the class"
    compared: Mapping[str, tuple[str, ...]] = {
        "ensemble": ("accuracy", "balanced_accuracy", "log_loss", "brier"),
        "study": ("balanced_accuracy", "macro_auroc", "log_loss"),
        "table": ("balanced_accuracy", "accuracy", "macro_auroc", "log_loss", "ece"),
        "controls": ("macro_auroc", "balanced_accuracy", "accuracy"),
        "leakage": ("accuracy", "balanced_accuracy", "macro_auroc", "log_loss"),
    }
    monitors = MONITORS
    ood_scores: tuple[str, ...] = tuple(OOD_SCORES)
    basic: frozenset[str] = frozenset({"ece"})
    headline: tuple[str, ...] = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")
    brief: tuple[str, ...] = ("accuracy", "balanced_accuracy", "macro_auroc")
    brief_of_class = "recall"

    def names(self, texts: Sequence[str]) -> list[str]:
        return sorted(set(texts))

    def targets(self, texts: Sequence[str], classes: Sequence[str]) -> Ints:
        return class_indices(texts, classes)

    def label_texts(self, columns: Mapping[str, Sequence[str | None]], classes: Sequence[str]) -> list[str]:
        if "label" not in columns:
            raise DataError("has no column label; " + WHERE_LABELS)
        require_classes(columns["label"], classes, self.nouns)
        return [str(label) for label in columns["label"]]

    def texts(self, targets: Ints, classes: Sequence[str]) -> list[str]:
        return [classes[target] for target in targets]

    def unlabelled(self, images: int, classes: int) -> Ints:
        return np.zeros(images, dtype=np.int64)

    def check_targets(self, targets: Ints, images: int, classes: int) -> None:
        if targets.shape != (images,):
            raise ModelError(f"labels have shape {targets.shape}, must be ({images},): one class for each image")
        if images and not 0 <= targets.min() <= targets.max() < classes:
            raise ModelError(f"labels reach from {targets.min()} to {targets.max()}, must be 0..{classes - 1}")

    def membership(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        return np.asarray(targets[:, None] == np.arange(classes))

    def observed(self, targets: Ints, classes: int) -> NDArray[np.bool_]:
        return np.ones((len(targets), classes), dtype=bool)

    def shares(self, targets: Ints, classes: int) -> Floats:
        return np.asarray(np.bincount(targets, minlength=classes) / len(targets), dtype=np.float64)

    def questions(self, targets: Ints, classes: int) -> tuple[Choice, ...]:
        return (Choice(None, targets, classes),)

    def joined_targets(self, targets: Sequence[Ints]) -> Ints:
        return targets[0]

    def joined(self, probs: Sequence[Floats]) -> Floats:
        return probs[0]

    def baseline(self, targets: Ints, classes: int) -> Baseline:
        most = float(self.shares(targets, classes).max()) if len(targets) else math.nan
        answer = "always saying the commonest class"
        return Baseline(most, answer, "balanced_accuracy", "balanced", 1 / classes, math.log(classes))

    def imbalance(self, targets: Ints, classes: int) -> tuple[float, str]:
        counts = self.membership(targets, classes).sum(axis=0)
        times = int(counts.max()) / max(1, int(counts.min()))
        return times, f"the commonest class has {times:.0f} training images for one of the rarest"

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Floats:
        return softmax(logits)

    def logits(self, probs_NC: Floats) -> Floats:
        return np.log(np.maximum(probs_NC, metrics.SMALLEST_PROBABILITY))

    def are_probabilities(self, values_NC: Floats, tolerance: float) -> NDArray[np.bool_]:
        return np.asarray(np.abs(values_NC.sum(axis=1) - 1) <= tolerance)

    def pool(self, samples_NSC: Samples) -> Samples:
        return pool(samples_NSC)

    def measure(self, targets: Ints, probs_NC: Floats) -> dict[str, float | None]:
        return metrics.measure(targets, probs_NC)

    def calibrator(self, calibration: Mapping[str, Any] | None, classes: int) -> Calibrator:
        return Calibrator("none", {}) if calibration is None else Calibrator.from_dict(calibration, classes)

    def cross_validate(self, logits_NC: Floats, targets: Ints, groups_N: Sequence[str], shift_C: Floats) -> tuple[Trial, ...]:
        return calibrators.cross_validate(logits_NC, targets, groups_N, shift_C)

    def choose_calibrator(self, asked: str, trials: Sequence[Trial]) -> str:
        return calibrators.asked_for(asked, trials)

    def fit_calibrator(self, kind: str, logits_NC: Floats, targets: Ints, shift_C: Floats) -> Calibrator:
        return calibrators.fit(kind, logits_NC, targets, shift_C, CALIBRATORS)

    def fit_decision(self, probs_NC: Floats, targets: Ints, classes: Sequence[str], spec: TaskSpec) -> dict[str, Any]:
        return {}

    def thresholds(self, calibration: Mapping[str, Any] | None, classes: Sequence[str]) -> Floats | None:
        return None

    def called(self, probs_NC: Floats, thresholds_C: Floats | None) -> NDArray[np.bool_]:
        return self.membership(probs_NC.argmax(axis=1), probs_NC.shape[1])

    def agreement(self, called_NC: NDArray[np.bool_], other_NC: NDArray[np.bool_]) -> float:
        return float((called_NC == other_NC).all(axis=1).mean())

    def choices(self, probs: Floats) -> Floats:
        return np.asarray(probs[..., None, :], dtype=np.float64)

    def right(self, targets: Ints, called_NC: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(called_NC[np.arange(len(targets)), targets])

    def scores(self, targets: Ints, probs_NC: Floats, thresholds_C: Floats | None = None) -> Scores:
        return Scores(targets, probs_NC)

    def overall_metrics(self, ece_bins: int) -> dict[str, Any]:
        return {**metrics.METRICS, "ece": partial(calibration_error.ece, bins=ece_bins)}

    def class_metrics(self, ece_bins: int) -> dict[str, Any]:
        return {**metrics.PER_CLASS_METRICS}

    def robust_metrics(self, ece_bins: int) -> dict[str, Any]:
        overall = self.overall_metrics(ece_bins)
        return {name: overall[name] for name in ("accuracy", "balanced_accuracy", "ece")}

    def same_twice(self) -> frozenset[str]:
        return frozenset({"macro_recall", "weighted_recall"})  # balanced accuracy and accuracy

    def rankings(self, classes: Sequence[str], malignant: Sequence[str]) -> dict[str, Masks]:
        found = {name: np.arange(len(classes)) == c for c, name in enumerate(classes)}
        if len(malignant) > 1:  # of one class it is that class
            found[f"{MALIGNANT} ({', '.join(malignant)})"] = np.isin(classes, malignant)
        return found

    def binary(self, scores: TargetScores, yes_C: Masks) -> tuple[Masks, Floats]:
        assert isinstance(scores, Scores)
        return yes_C[scores.targets], scores.any_of(yes_C)

    def calls(self, scores: TargetScores, classes: Sequence[str]) -> dict[str, tuple[Masks, Masks]]:
        return {}

    def methods(self, ece_bins: int) -> str:
        return (
            "A mean over classes is not estimable where a class is absent; precision is undefined for a class that is never "
            f"called. AUROC by midranks, one class against the rest. ECE over {ece_bins} equal-width bins of the predicted "
            "class's probability. Brier in its multi-class sum form (0 to 2)."
        )
