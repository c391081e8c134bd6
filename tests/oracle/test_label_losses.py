"""Losses of labels against torch and against the papers' formulas, written out anew in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from dermalyze.errors import ConfigError
from dermalyze.training.multilabel_losses import asymmetric, bce, focal

torch.set_num_threads(1)
torch.manual_seed(1)
LOGITS = 3 * torch.randn(7, 4, dtype=torch.float64)
HARD = (torch.rand(7, 4) < 0.4).double()
WEIGHT = torch.tensor([1.0, 5.0, 0.5, 2.0], dtype=torch.float64)
P, T = 1 / (1 + np.exp(-LOGITS.numpy())), HARD.numpy()


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_bce_is_torchs(weight: torch.Tensor | None) -> None:
    ours = bce(LOGITS, HARD, weight_C=weight, smoothing=0.0)
    assert torch.allclose(ours, functional.binary_cross_entropy_with_logits(LOGITS, HARD, pos_weight=weight))


def test_smoothing_moves_the_targets() -> None:
    ours = bce(LOGITS, HARD, weight_C=None, smoothing=0.2)
    assert torch.allclose(ours, functional.binary_cross_entropy_with_logits(LOGITS, 0.8 * HARD + 0.1))


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_the_papers(alpha: float | None, gamma: float) -> None:
    p_t = np.where(T == 1, P, 1 - P)
    a_t = 1.0 if alpha is None else np.where(T == 1, alpha, 1 - alpha)
    expected = (-a_t * (1 - p_t) ** gamma * np.log(p_t)).mean()
    assert focal(LOGITS, HARD, weight_C=None, gamma=gamma, alpha=alpha).item() == pytest.approx(expected, rel=1e-12)


def test_focal_takes_an_alpha_a_label() -> None:
    several = focal(LOGITS, HARD, weight_C=None, gamma=2.0, alpha=[0.25] * 4)
    assert torch.equal(several, focal(LOGITS, HARD, weight_C=None, gamma=2.0, alpha=0.25))
    with pytest.raises(ConfigError, match="4 labels"):
        focal(LOGITS, HARD, weight_C=None, gamma=2.0, alpha=[0.5])
    with pytest.raises(ConfigError, match=r"0\.\.1"):
        focal(LOGITS, HARD, weight_C=None, gamma=2.0, alpha=1.5)


def test_asymmetric_is_the_papers() -> None:
    q = np.maximum(P - 0.05, 0)
    expected = np.where(T == 1, -((1 - P) ** 1.0) * np.log(P), -(q**4.0) * np.log(1 - q)).mean()
    ours = asymmetric(LOGITS, HARD, weight_C=None, gamma_positive=1.0, gamma_negative=4.0, margin=0.05)
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_without_focus_and_margin_all_are_one() -> None:
    plain = bce(LOGITS, HARD, weight_C=WEIGHT, smoothing=0.0)
    assert torch.allclose(plain, focal(LOGITS, HARD, weight_C=WEIGHT, gamma=0.0, alpha=None))
    same = {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0}
    assert torch.allclose(plain, asymmetric(LOGITS, HARD, weight_C=WEIGHT, **same), atol=1e-6)
