"""What a training learns and is told: a task's targets, loss, running figures and metrics, as one object."""

# Shapes: N rows, B images, C classes or labels.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dermalyze.config.train import TrainSpec
from dermalyze.tasks.base import Task
from dermalyze.training.imbalance import class_weights, positive_weights, source_counts
from dermalyze.training.losses import build_loss
from dermalyze.training.multilabel_losses import LABEL_LOSSES


class Objective(Protocol):
    """What the training loop asks of a task."""

    @property
    def task(self) -> Task:
        """Its row of `TASKS`."""
        ...

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Logits and targets (B, C) to the mean loss, a scalar."""
        ...

    def share(self, label: Tensor) -> float:
        """By how much some images count in the mean of a batch."""
        ...

    def target(self, label: Tensor) -> Tensor:
        """Labels of B images to (B, C), each 0..1."""
        ...

    def figures(self, logits_BC: Tensor, label: Tensor) -> tuple[float, float]:
        """Summed over B images: the plain loss, and the share of right answers."""
        ...

    def measure(self, labels_N: NDArray[np.int64], logits_NC: Tensor) -> dict[str, float | None]:
        """Metrics of the validation part."""
        ...


@dataclass(frozen=True)
class OneClass:
    """Exactly one class an image; labels (B,) are class indices."""

    task: Task
    weight_C: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]

    def share(self, label: Tensor) -> float:
        """The class weights of its images, which stand in the loss's denominator."""
        return float(self.weight_C[label].sum())

    def target(self, label: Tensor) -> Tensor:
        """One-hot."""
        return functional.one_hot(label, len(self.weight_C)).float()

    def figures(self, logits_BC: Tensor, label: Tensor) -> tuple[float, float]:
        """Cross-entropy and right answers."""
        loss = functional.cross_entropy(logits_BC, label, reduction="sum").item()
        return loss, (logits_BC.argmax(1) == label).sum().item()

    def measure(self, labels_N: NDArray[np.int64], logits_NC: Tensor) -> dict[str, float | None]:
        """`dermalyze.metrics.classification.measure` of the softmax."""
        return self.task.measure(labels_N, logits_NC.softmax(1).numpy())


@dataclass(frozen=True)
class ManyLabels:
    """Any number of labels an image; labels (B, C) are 0 and 1."""

    task: Task
    loss: Callable[[Tensor, Tensor], Tensor]

    def share(self, label: Tensor) -> float:
        """The number of its images."""
        return float(len(label))

    def target(self, label: Tensor) -> Tensor:
        """Zeros and ones."""
        return label.float()

    def figures(self, logits_BC: Tensor, label: Tensor) -> tuple[float, float]:
        """Binary cross-entropy and right calls at a probability of 0.5, means over the labels."""
        loss_BC = functional.binary_cross_entropy_with_logits(logits_BC, label.float(), reduction="none")
        return loss_BC.mean(1).sum().item(), ((logits_BC >= 0) == label.bool()).float().mean(1).sum().item()

    def measure(self, labels_N: NDArray[np.int64], logits_NC: Tensor) -> dict[str, float | None]:
        """`dermalyze.metrics.multilabel.measure_labels` of the sigmoid."""
        return self.task.measure(labels_N, logits_NC.sigmoid().numpy())


def build_objective(
    task: Task,
    settings: TrainSpec,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    sources: NDArray[np.int64] | None,
    device: str,
) -> Objective:
    """The objective of a training.

    Args:
        task: of the run.
        settings: its loss and imbalance.
        labels: targets of the training part, as `task.targets` gives them.
        classes: C names.
        sources: source of each training image where each source is drawn equally often.
        device: of the loss's weights.

    Raises:
        ConfigError: weights by hand that do not fit the classes.
        DataError: a class without a training image.
    """
    if task.kind == "multilabel":
        weights = positive_weights(settings.imbalance, labels.sum(axis=0), len(labels), classes)
        weight_C = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        return ManyLabels(task, build_loss(settings.loss, None if weight_C is None else weight_C.to(device), LABEL_LOSSES))
    counts: NDArray[Any] = np.bincount(labels, minlength=len(classes))
    if sources is not None:
        counts = source_counts(labels, sources, len(classes))
    weights = class_weights(settings.imbalance, counts, classes)
    weight_C = torch.ones(len(classes)) if weights is None else torch.tensor(weights, dtype=torch.float32)
    return OneClass(task, weight_C, build_loss(settings.loss, None if weights is None else weight_C.to(device)))
