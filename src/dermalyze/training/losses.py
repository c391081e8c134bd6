"""Losses of single-label classification, on soft targets, so that mixup needs no loss of its own.

Each returns a sum and its weight; the mean over any number of micro-batches is the sum of the one over the sum of the other:

    sum = sum_b sum_c w_c q_bc l_bc,    weight = sum_b sum_c w_c t_bc

with t the target, q the target that the loss really uses (smoothed, or t itself), and l_bc = -log p_bc (times what focal adds).
The mean is that of torch's cross_entropy with class weights, generalized from a class to a distribution: for one-hot targets
the weight is the sum of the weights of the true classes; without class weights it is the number of rows.
"""

# Shapes: B images, C classes.

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from dermalyze.config.train import LossSpec
from dermalyze.errors import ConfigError

Summed = tuple[Tensor, Tensor]
"""A loss summed over a batch, and what to divide it by for the mean: two scalars."""
Loss = Callable[[Tensor, Tensor], Summed]
"""Logits and targets of a batch to their `Summed` loss."""


def cross_entropy(logits_BC: Tensor, target_BC: Tensor, *, weight_C: Tensor | None) -> Summed:
    """Summed cross-entropy.

    Args:
        logits_BC: unnormalized scores, float, any range; half precision is computed in float32.
        target_BC: probabilities, rows sum to 1 (one-hot, or mixed).
        weight_C: weight of each class, > 0, or None.

    Returns:
        Two scalars, float32 (float64 for float64 logits).

    >>> cross_entropy(torch.zeros(2, 2), torch.eye(2), weight_C=torch.tensor([1.0, 3.0]))
    (tensor(2.7726), tensor(4.))
    """
    return _summed(target_BC * -_log_softmax(logits_BC), target_BC, weight_C)


def focal(
    logits_BC: Tensor, target_BC: Tensor, *, weight_C: Tensor | None, gamma: float, alpha: float | list[float] | None
) -> Summed:
    """Summed focal loss: cross-entropy that discounts easy examples.

        FL = -alpha_t (1 - p_t)^gamma log p_t

    p_t comes from the unweighted, unsmoothed log-softmax. A soft target takes the mean of FL over its classes.

    Args:
        logits_BC: unnormalized scores, float, any range; half precision is computed in float32.
        target_BC: probabilities, rows sum to 1.
        weight_C: weight of each class, or None; it also counts in the returned weight, which alpha does not.
        gamma: focus, >= 0; 0 is cross-entropy.
        alpha: a factor for all classes, or one per class, or None for 1.

    Raises:
        ConfigError: alpha has another length than C.

    >>> focal(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), weight_C=None, gamma=2.0, alpha=None)
    (tensor(0.1733), tensor(1.))

    Lin et al. 2017, arXiv:1708.02002
    """
    log_p_BC = _log_softmax(logits_BC)
    # The clamp keeps the gradient of the power finite for gamma < 1 where p rounds to 1.
    miss_BC = (-torch.expm1(log_p_BC)).clamp_min(1e-30)
    loss_BC = -(miss_BC**gamma) * log_p_BC
    if isinstance(alpha, list):
        if len(alpha) != logits_BC.shape[1]:
            raise ConfigError(
                f"loss.alpha has {len(alpha)} numbers for {logits_BC.shape[1]} classes; give one per class, or one number"
            )
        loss_BC = loss_BC * loss_BC.new_tensor(alpha)
    elif alpha is not None:
        loss_BC = loss_BC * alpha
    return _summed(target_BC * loss_BC, target_BC, weight_C)


def label_smoothing(
    logits_BC: Tensor,
    target_BC: Tensor,
    *,
    weight_C: Tensor | None,
    smoothing: float,
    convention: Literal["others", "all"],
) -> Summed:
    """Summed cross-entropy against softened targets.

        all:     q = (1 - eps) t + eps / C
        others:  q = (1 - eps) t + eps (1 - t) / (C - 1)

    Class weights multiply q class by class and the returned weight keeps the unsmoothed target, both as torch does.

    Args:
        logits_BC: unnormalized scores, float, any range; half precision is computed in float32.
        target_BC: probabilities, rows sum to 1.
        weight_C: weight of each class, or None.
        smoothing: eps, 0 <= eps < 1.
        convention: `all` spreads eps over every class (torch's), `others` over the classes that are not the target.

    >>> label_smoothing(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]), weight_C=None, smoothing=0.1, convention="all")
    (tensor(0.2269), tensor(1.))

    Szegedy et al. 2016, arXiv:1512.00567
    """
    classes = logits_BC.shape[1]
    if convention == "all":
        soft_BC = (1 - smoothing) * target_BC + smoothing / classes
    else:
        soft_BC = (1 - smoothing) * target_BC + smoothing * (1 - target_BC) / max(classes - 1, 1)
    return _summed(soft_BC * -_log_softmax(logits_BC), target_BC, weight_C)


LOSSES: dict[str, Callable[..., Summed]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "label_smoothing": label_smoothing,
}


def build_loss(spec: LossSpec, weight_C: Tensor | None, table: Mapping[str, Callable[..., Summed]] = LOSSES) -> Loss:
    """Bind a spec and class weights: (logits, target) to a summed loss and its weight. `table` is the task's.

    >>> from dermalyze.config.train import FocalLoss
    >>> build_loss(FocalLoss(), None)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    (tensor(0.1733), tensor(1.))
    """
    function, fields = table[spec.kind], dict[str, Any](spec.model_dump(exclude={"kind"}))

    def loss(logits: Tensor, target: Tensor) -> Summed:
        return function(logits, target, weight_C=weight_C, **fields)

    return loss


def _log_softmax(logits_BC: Tensor) -> Tensor:
    return torch.log_softmax(logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float(), dim=1)


def _summed(loss_BC: Tensor, target_BC: Tensor, weight_C: Tensor | None) -> Summed:
    # Element-wise products, no matmul: autocast would take that to half precision.
    if weight_C is None:
        return loss_BC.sum(), target_BC.sum(dtype=loss_BC.dtype)
    weight_C = weight_C.to(loss_BC)
    return (loss_BC * weight_C).sum(), (target_BC * weight_C).sum()
