"""What a network learns, one row per task: targets, summed loss, and the metrics shown during training.

The loop knows no targets. It asks the objective for the weight of a step before the first pass, then for the summed loss of
each micro-batch, and divides the one by the other; so micro-batches, accumulation and one large batch give the same gradient.
A missing label has weight 0. Nothing here waits for the device. A new task adds a module and a row in `OBJECTIVES`.
"""

# Shapes: N training images, B images of a micro-batch, C classes or labels.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dermalyze.config.train import ImbalanceSpec, LossSpec
from dermalyze.training.losses import Summed
from dermalyze.training.objectives.multiclass import build_multiclass
from dermalyze.training.objectives.multilabel import build_multilabel

Labels = NDArray[np.int64]
"""As the task's `targets` gives them: (N,) class indices, or (N, C) with 1, 0, or -1 where a label is missing."""


class Objective(Protocol):
    """What the training loop asks of a task. Nothing here waits for the device."""

    def weight(self, labels: Labels) -> float:
        """What the summed loss of these images is divided by; the loop adds it up over a step before the first pass."""
        ...

    def target(self, labels: Labels) -> Tensor:
        """Targets (B, ...), each 0..1, on the CPU; mixup blends their rows, which leaves the weight of a batch as it is."""
        ...

    def loss(self, logits_BC: Tensor, target: Tensor) -> Summed:
        """The loss summed over the batch, and its weight: that of the labels."""
        ...

    def figures(self, logits_BC: Tensor, target: Tensor) -> Tensor:
        """(3,) plain loss, right answers, and how many answers both are sums of; against targets that are not mixed."""
        ...


OBJECTIVES: dict[str, Callable[..., Objective]] = {"multiclass": build_multiclass, "multilabel": build_multilabel}
"""By the kind of the task."""


def build_objective(
    kind: str,
    loss: LossSpec,
    imbalance: ImbalanceSpec,
    labels: Labels,
    classes: Sequence[str],
    *,
    sources_N: NDArray[np.int64] | None,
    device: str,
) -> Objective:
    """The objective of a training.

    Args:
        kind: of the task.
        loss, imbalance: `train.loss` and `train.imbalance`.
        labels: of the training images.
        classes: C names.
        sources_N: source of each training image where each source is drawn equally often; None: sources do not matter.
        device: of the loss's weights.

    Raises:
        ConfigError: weights by hand that do not fit the classes.
        DataError: a class without a training image.
    """
    return OBJECTIVES[kind](loss, imbalance, labels, classes, sources_N=sources_N, device=device)
