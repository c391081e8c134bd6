"""Losses of labels against torch and against the papers' formulas, written out anew in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from dermalyze.errors import ConfigError
from dermalyze.training.losses import Summed
from dermalyze.training.multilabel_losses import asymmetric, bce, focal

torch.set_num_threads(1)
torch.manual_seed(1)
LOGITS = 3 * torch.randn(7, 4, dtype=torch.float64)
HARD = (torch.rand(7, 4) < 0.4).double()
BOTH = torch.stack([HARD, 1 - HARD], 1)  # present, absent
WEIGHT = torch.tensor([1.0, 5.0, 0.5, 2.0], dtype=torch.float64)
KNOWN = (torch.rand(7, 4) < 0.7).double()
P, T = 1 / (1 + np.exp(-LOGITS.numpy())), HARD.numpy()


def mean(summed: Summed) -> torch.Tensor:
    return summed[0] / summed[1]


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_bce_is_torchs(weight: torch.Tensor | None) -> None:
    total, count = bce(LOGITS, BOTH, weight_C=weight, smoothing=0.0)
    theirs = functional.binary_cross_entropy_with_logits(LOGITS, HARD, pos_weight=weight, reduction="sum")
    assert torch.allclose(total, theirs)
    assert count == HARD.numel()


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize(
    "loss",
    [
        partial(bce, smoothing=0.2),
        partial(focal, gamma=2.0, alpha=0.25),
        partial(asymmetric, gamma_positive=1.0, gamma_negative=4.0, margin=0.05),
    ],
    ids=["bce", "focal", "asymmetric"],
)
def test_missing_labels_count_nowhere(loss: Callable[..., Summed], weight: torch.Tensor | None) -> None:
    """As if each known label stood alone, whatever the scores of the others are, and without a gradient to these."""
    logits = torch.where(KNOWN > 0, LOGITS, 50.0).requires_grad_()
    total, count = loss(logits, BOTH * KNOWN[:, None], weight_C=weight)
    entries = [
        loss(LOGITS[b : b + 1, c : c + 1], BOTH[b : b + 1, :, c : c + 1], weight_C=None if weight is None else weight[c])
        for b, c in KNOWN.nonzero().tolist()
    ]
    assert torch.allclose(total, torch.stack([one for one, _ in entries]).sum())
    assert count == len(entries) == KNOWN.sum()
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient[KNOWN == 0].abs().max() == 0


def test_a_mixed_image_costs_what_its_two_targets_cost() -> None:
    """And where one of the two is missing, what the other costs, by its share."""
    other, known = BOTH.flip(0), KNOWN[:, None]
    mixed = torch.lerp(BOTH * known, other * known.flip(0), 0.3)
    total, count = bce(LOGITS, mixed, weight_C=WEIGHT, smoothing=0.1)
    one, ones = bce(LOGITS, BOTH * known, weight_C=WEIGHT, smoothing=0.1)
    two, twos = bce(LOGITS, other * known.flip(0), weight_C=WEIGHT, smoothing=0.1)
    assert torch.allclose(total, 0.7 * one + 0.3 * two)
    assert torch.allclose(count, 0.7 * ones + 0.3 * twos)
    assert torch.allclose(count, KNOWN.sum())


def test_smoothing_moves_the_targets() -> None:
    ours = mean(bce(LOGITS, BOTH, weight_C=None, smoothing=0.2))
    assert torch.allclose(ours, functional.binary_cross_entropy_with_logits(LOGITS, 0.8 * HARD + 0.1))


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_the_papers(alpha: float | None, gamma: float) -> None:
    p_t = np.where(T == 1, P, 1 - P)
    a_t = 1.0 if alpha is None else np.where(T == 1, alpha, 1 - alpha)
    expected = (-a_t * (1 - p_t) ** gamma * np.log(p_t)).mean()
    assert mean(focal(LOGITS, BOTH, weight_C=None, gamma=gamma, alpha=alpha)).item() == pytest.approx(expected, rel=1e-12)


def test_focal_takes_an_alpha_a_label() -> None:
    several, _ = focal(LOGITS, BOTH, weight_C=None, gamma=2.0, alpha=[0.25] * 4)
    assert torch.equal(several, focal(LOGITS, BOTH, weight_C=None, gamma=2.0, alpha=0.25)[0])
    with pytest.raises(ConfigError, match="4 labels"):
        focal(LOGITS, BOTH, weight_C=None, gamma=2.0, alpha=[0.5])
    with pytest.raises(ConfigError, match=r"0\.\.1"):
        focal(LOGITS, BOTH, weight_C=None, gamma=2.0, alpha=1.5)


def test_asymmetric_is_the_papers() -> None:
    q = np.maximum(P - 0.05, 0)
    expected = np.where(T == 1, -((1 - P) ** 1.0) * np.log(P), -(q**4.0) * np.log(1 - q)).mean()
    ours = mean(asymmetric(LOGITS, BOTH, weight_C=None, gamma_positive=1.0, gamma_negative=4.0, margin=0.05))
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_without_focus_and_margin_all_are_one() -> None:
    plain, _ = bce(LOGITS, BOTH, weight_C=WEIGHT, smoothing=0.0)
    assert torch.allclose(plain, focal(LOGITS, BOTH, weight_C=WEIGHT, gamma=0.0, alpha=None)[0])
    same = {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0}
    assert torch.allclose(plain, asymmetric(LOGITS, BOTH, weight_C=WEIGHT, **same)[0], atol=1e-6)
