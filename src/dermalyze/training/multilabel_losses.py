"""Losses of images with any number of labels each, on soft targets, so that mixup needs no loss of its own.

Each is the mean over images and labels of

    w_c t_bc l+_bc + (1 - t_bc) l-_bc

with t the target, 0..1, l+ and l- what a label costs where it is and where it is not, and w_c the weight of where it is.
"""

# Shapes: B images, C labels.

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dermalyze.errors import ConfigError


def bce(logits_BC: Tensor, target_BC: Tensor, *, weight_C: Tensor | None, smoothing: float) -> Tensor:
    """Mean binary cross-entropy, of targets t (1 - eps) + eps / 2.

    Args:
        logits_BC: unnormalised scores, float, any range; half precision is computed in float32.
        target_BC: 0..1 for each label (0 or 1, or mixed).
        weight_C: weight of where a label is, > 0, or None; torch's `pos_weight`.
        smoothing: eps, 0 <= eps < 1.

    Returns:
        Scalar, float32 (float64 for float64 logits).

    >>> bce(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), weight_C=None, smoothing=0.0)
    tensor(0.6931)
    """
    there_BC, absent_BC = _log_probabilities(logits_BC)
    return _mean(target_BC * (1 - smoothing) + smoothing / 2, -there_BC, -absent_BC, weight_C)


def focal(
    logits_BC: Tensor, target_BC: Tensor, *, weight_C: Tensor | None, gamma: float, alpha: float | list[float] | None
) -> Tensor:
    """Mean binary focal loss: cross-entropy that discounts easy examples.

        l+ = -alpha (1 - p)^gamma log p,    l- = -(1 - alpha) p^gamma log (1 - p)

    Args:
        logits_BC, target_BC, weight_C: as for `bce`.
        gamma: focus, >= 0; 0 is binary cross-entropy.
        alpha: 0..1 for all labels, or one a label; None: 1 for both sides.

    Raises:
        ConfigError: alpha has another length than C, or is outside 0..1.

    >>> focal(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), weight_C=None, gamma=2.0, alpha=None)
    tensor(0.1733)

    Lin et al. 2017, arXiv:1708.02002
    """
    there_BC, absent_BC = _log_probabilities(logits_BC)
    # The clamp keeps the gradient of the power finite for gamma < 1 where a probability rounds to 0.
    positive_BC = -((-torch.expm1(there_BC)).clamp_min(1e-30) ** gamma) * there_BC
    negative_BC = -((-torch.expm1(absent_BC)).clamp_min(1e-30) ** gamma) * absent_BC
    if alpha is not None:
        alphas = alpha if isinstance(alpha, list) else [alpha] * logits_BC.shape[1]
        if len(alphas) != logits_BC.shape[1] or not all(0 <= a <= 1 for a in alphas):
            raise ConfigError(
                f"loss.alpha is {alpha} for {logits_BC.shape[1]} labels; give one number, or one a label, in 0..1"
            )
        alpha_C = positive_BC.new_tensor(alphas)
        positive_BC, negative_BC = alpha_C * positive_BC, (1 - alpha_C) * negative_BC
    return _mean(target_BC, positive_BC, negative_BC, weight_C)


def asymmetric(
    logits_BC: Tensor,
    target_BC: Tensor,
    *,
    weight_C: Tensor | None,
    gamma_positive: float,
    gamma_negative: float,
    margin: float,
) -> Tensor:
    """Mean asymmetric loss: easy negatives are discounted more than easy positives, the easiest altogether.

        l+ = -(1 - p)^gamma+ log p,    l- = -q^gamma- log (1 - q),    q = max(p - margin, 0)

    The mean, where the paper sums, so that the learning rate need not follow the number of labels.

    Args:
        logits_BC, target_BC, weight_C: as for `bce`.
        gamma_positive, gamma_negative: focus, >= 0.
        margin: 0..1, off the probability of negatives.

    >>> at_zero = {"weight_C": None, "gamma_positive": 0.0, "gamma_negative": 1.0, "margin": 0.0}
    >>> asymmetric(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), **at_zero)
    tensor(0.5199)

    Ridnik et al. 2021, arXiv:2009.14119
    """
    there_BC, _ = _log_probabilities(logits_BC)
    shifted_BC = (there_BC.exp() - margin).clamp_min(0)
    positive_BC = -((-torch.expm1(there_BC)).clamp_min(1e-30) ** gamma_positive) * there_BC
    # log1p(-q) is log (1 - q); q may round to 1 where margin is 0
    negative_BC = -(shifted_BC.clamp_min(1e-30) ** gamma_negative) * torch.log1p(-shifted_BC.clamp_max(1 - 1e-7))
    return _mean(target_BC, positive_BC, negative_BC, weight_C)


LABEL_LOSSES: dict[str, Callable[..., Tensor]] = {"focal": focal, "bce": bce, "asymmetric": asymmetric}


def _log_probabilities(logits_BC: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log (1 - p), exact for large scores."""
    z = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    return functional.logsigmoid(z), functional.logsigmoid(-z)


def _mean(target_BC: Tensor, positive_BC: Tensor, negative_BC: Tensor, weight_C: Tensor | None) -> Tensor:
    if weight_C is not None:
        positive_BC = positive_BC * weight_C.to(positive_BC)
    return (target_BC * positive_BC + (1 - target_BC) * negative_BC).mean()
