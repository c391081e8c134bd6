"""Losses of images with any number of labels each, on soft targets, so that mixup needs no loss of its own.

A target (B, 2, C) holds how much each label is present, t+, and how much it is absent, t-: (1, 0) or (0, 1), something between
after mixup, and (0, 0) where nobody knows. Each loss returns a sum and its weight, the number of known labels:

    sum = sum_bc w_c t+_bc l+_bc + t-_bc l-_bc,    weight = sum_bc t+_bc + t-_bc

with l+ and l- what a label costs where it is present and where it is absent, and w_c the weight of where it is present.
"""

# Shapes: B images, C labels, 2: present and absent.

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dermalyze.errors import ConfigError
from dermalyze.training.losses import Summed


def bce(logits_BC: Tensor, target_B2C: Tensor, *, weight_C: Tensor | None, smoothing: float) -> Summed:
    """Summed binary cross-entropy, of targets t (1 - eps) + eps / 2 where a label is known.

    Args:
        logits_BC: unnormalized scores, float, any range; half precision is computed in float32.
        target_B2C: present and absent, each 0..1; their sum is 1, or 0 where a label is missing (between after mixup).
        weight_C: weight of where a label is present, > 0, or None; torch's `pos_weight`.
        smoothing: eps, 0 <= eps < 1.

    Returns:
        Two scalars, float32 (float64 for float64 logits).

    >>> bce(torch.zeros(1, 3), torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), weight_C=None, smoothing=0.0)
    (tensor(1.3863), tensor(2.))
    """
    log_p_BC, log_q_BC = _log_probabilities(logits_BC)
    soft_B2C = target_B2C * (1 - smoothing) + target_B2C.sum(1, keepdim=True) * (smoothing / 2)
    return _summed(soft_B2C, -log_p_BC, -log_q_BC, weight_C)


def focal(
    logits_BC: Tensor, target_B2C: Tensor, *, weight_C: Tensor | None, gamma: float, alpha: float | list[float] | None
) -> Summed:
    """Summed binary focal loss: cross-entropy that discounts easy examples.

        l+ = -alpha (1 - p)^gamma log p,    l- = -(1 - alpha) p^gamma log (1 - p)

    Args:
        logits_BC, target_B2C, weight_C: as for `bce`.
        gamma: focus, >= 0; 0 is binary cross-entropy.
        alpha: 0..1 for all labels, or one per label; None: 1 for both sides.

    Raises:
        ConfigError: alpha has another length than C, or is outside 0..1.

    >>> focal(torch.zeros(1, 1), torch.tensor([[[1.0], [0.0]]]), weight_C=None, gamma=2.0, alpha=None)
    (tensor(0.1733), tensor(1.))

    Lin et al. 2017, arXiv:1708.02002
    """
    log_p_BC, log_q_BC = _log_probabilities(logits_BC)
    # The clamp keeps the gradient of the power finite for gamma < 1 where a probability rounds to 0.
    positive_BC = -((-torch.expm1(log_p_BC)).clamp_min(1e-30) ** gamma) * log_p_BC
    negative_BC = -((-torch.expm1(log_q_BC)).clamp_min(1e-30) ** gamma) * log_q_BC
    if alpha is not None:
        alphas = alpha if isinstance(alpha, list) else [alpha] * logits_BC.shape[1]
        if len(alphas) != logits_BC.shape[1] or not all(0 <= a <= 1 for a in alphas):
            raise ConfigError(
                f"loss.alpha is {alpha} for {logits_BC.shape[1]} labels; give one number, or one per label, in 0..1"
            )
        alpha_C = positive_BC.new_tensor(alphas)
        positive_BC, negative_BC = alpha_C * positive_BC, (1 - alpha_C) * negative_BC
    return _summed(target_B2C, positive_BC, negative_BC, weight_C)


def asymmetric(
    logits_BC: Tensor,
    target_B2C: Tensor,
    *,
    weight_C: Tensor | None,
    gamma_positive: float,
    gamma_negative: float,
    margin: float,
) -> Summed:
    """Summed asymmetric loss: easy negatives are discounted more than easy positives, the easiest altogether.

        l+ = -(1 - p)^gamma+ log p,    l- = -q^gamma- log (1 - q),    q = max(p - margin, 0)

    Training takes its mean, where the paper sums, so that the learning rate need not follow the number of labels.

    Args:
        logits_BC, target_B2C, weight_C: as for `bce`.
        gamma_positive, gamma_negative: focus, >= 0.
        margin: 0..1, off the probability of negatives.

    >>> at_zero = {"weight_C": None, "gamma_positive": 0.0, "gamma_negative": 1.0, "margin": 0.0}
    >>> asymmetric(torch.zeros(1, 2), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), **at_zero)
    (tensor(1.0397), tensor(2.))

    Ridnik et al. 2021, arXiv:2009.14119
    """
    log_p_BC, _ = _log_probabilities(logits_BC)
    shifted_BC = (log_p_BC.exp() - margin).clamp_min(0)
    positive_BC = -((-torch.expm1(log_p_BC)).clamp_min(1e-30) ** gamma_positive) * log_p_BC
    # log1p(-q) is log (1 - q); q may round to 1 where margin is 0
    negative_BC = -(shifted_BC.clamp_min(1e-30) ** gamma_negative) * torch.log1p(-shifted_BC.clamp_max(1 - 1e-7))
    return _summed(target_B2C, positive_BC, negative_BC, weight_C)


LABEL_LOSSES: dict[str, Callable[..., Summed]] = {"focal": focal, "bce": bce, "asymmetric": asymmetric}


def _log_probabilities(logits_BC: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log (1 - p), exact for large scores."""
    z = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    return functional.logsigmoid(z), functional.logsigmoid(-z)


def _summed(target_B2C: Tensor, positive_BC: Tensor, negative_BC: Tensor, weight_C: Tensor | None) -> Summed:
    if weight_C is not None:
        positive_BC = positive_BC * weight_C.to(positive_BC)
    present_BC, absent_BC = target_B2C.unbind(1)
    return (present_BC * positive_BC + absent_BC * negative_BC).sum(), target_B2C.sum(dtype=positive_BC.dtype)
