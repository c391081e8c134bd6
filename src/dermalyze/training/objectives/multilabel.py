"""Any number of labels per image."""

# Shapes: N training images, B images of a micro-batch, C labels, 2: present and absent.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermalyze.config.train import ImbalanceSpec, LossSpec
from dermalyze.training.imbalance import positive_weights
from dermalyze.training.losses import Loss, build_loss
from dermalyze.training.multilabel_losses import LABEL_LOSSES, bce


@dataclass(frozen=True)
class Multilabel:
    """Labels (B, C) are 1, 0, or -1 where one is missing: it then counts nowhere. Targets are those of `multilabel_losses`.

    Attributes:
        loss: bound to its spec and the weights of present labels.
    """

    loss: Loss

    def weight(self, labels_BC: NDArray[np.int64]) -> float:
        """How many labels are known."""
        return float((labels_BC >= 0).sum())

    def target(self, labels_BC: NDArray[np.int64]) -> Tensor:
        """(B, 2, C): whether a label is present, and whether it is absent."""
        return torch.from_numpy(np.stack([labels_BC == 1, labels_BC == 0], axis=1)).float()

    def figures(self, logits_BC: Tensor, target_B2C: Tensor) -> Tensor:
        """Binary cross-entropy, right calls at a probability of 0.5, known labels."""
        loss, known = bce(logits_BC, target_B2C, weight_C=None, smoothing=0.0)
        right = torch.where(logits_BC >= 0, target_B2C[:, 0], target_B2C[:, 1]).sum()
        return torch.stack([loss, right, known])


def build_multilabel(
    loss: LossSpec,
    imbalance: ImbalanceSpec,
    labels_NC: NDArray[np.int64],
    classes: Sequence[str],
    *,
    sources_N: NDArray[np.int64] | None,
    device: str,
) -> Multilabel:
    """See `build_objective`; sources do not enter the weights, which compare a label with itself."""
    weights = positive_weights(imbalance, (labels_NC == 1).sum(axis=0), (labels_NC == 0).sum(axis=0), classes)
    weight_C = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
    return Multilabel(build_loss(loss, weight_C, LABEL_LOSSES))
