"""Exactly one class per image."""

# Shapes: N training images, B images of a micro-batch, C classes.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dermalyze.config.train import ImbalanceSpec, LossSpec
from dermalyze.training.imbalance import class_weights, source_counts
from dermalyze.training.losses import Loss, build_loss, cross_entropy


@dataclass(frozen=True)
class Multiclass:
    """Labels (B,) are class indices, targets (B, C) one-hot.

    Attributes:
        weight_C: of each class in the loss.
        loss: bound to its spec and the weights.
    """

    weight_C: NDArray[np.float32]
    loss: Loss

    def weight(self, labels_B: NDArray[np.int64]) -> float:
        """The class weights of the images, added up."""
        return float(self.weight_C[labels_B].sum(dtype=np.float64))

    def target(self, labels_B: NDArray[np.int64]) -> Tensor:
        """One-hot (B, C)."""
        return functional.one_hot(torch.from_numpy(labels_B), len(self.weight_C)).float()

    def figures(self, logits_BC: Tensor, target_BC: Tensor) -> Tensor:
        """Cross-entropy, right answers, images."""
        loss, images = cross_entropy(logits_BC, target_BC, weight_C=None)
        right = (logits_BC.argmax(1) == target_BC.argmax(1)).sum()
        return torch.stack([loss, right.to(loss), images])


def build_multiclass(
    loss: LossSpec,
    imbalance: ImbalanceSpec,
    labels_N: NDArray[np.int64],
    classes: Sequence[str],
    *,
    sources_N: NDArray[np.int64] | None,
    device: str,
) -> Multiclass:
    """See `build_objective`."""
    counts: NDArray[Any] = np.bincount(labels_N, minlength=len(classes))
    if sources_N is not None:
        counts = source_counts(labels_N, sources_N, len(classes))
    weights = class_weights(imbalance, counts, classes)
    weight_C = np.ones(len(classes), np.float32) if weights is None else weights.astype(np.float32)
    return Multiclass(weight_C, build_loss(loss, None if weights is None else torch.from_numpy(weight_C).to(device)))
