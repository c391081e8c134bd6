"""Losses against torch's own, against plain numpy in float64, and against finite differences."""

# Shapes: B images, C classes.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dermalyze.config.train import CrossEntropyLoss, FocalLoss, LabelSmoothingLoss, LossSpec
from dermalyze.errors import ConfigError
from dermalyze.training import losses
from dermalyze.training.losses import LOSSES, Summed

torch.set_num_threads(1)
SPECS: list[LossSpec] = [
    CrossEntropyLoss(),
    FocalLoss(),
    FocalLoss(gamma=0.5, alpha=0.25),
    FocalLoss(gamma=3.0, alpha=[0.2, 0.5, 1.0, 2.0]),
    LabelSmoothingLoss(),
    LabelSmoothingLoss(smoothing=0.1, convention="all"),
]
BATCHES = st.tuples(st.integers(0, 2**31), st.integers(1, 9), st.sampled_from([0.1, 1.0, 10.0]))


def mean_of(function: Callable[..., Summed]) -> Callable[..., Tensor]:
    """The mean: the sum over its weight."""

    def mean(*arguments: Any, **fields: Any) -> Tensor:
        total, weight = function(*arguments, **fields)
        return total / weight

    return mean


cross_entropy, focal, label_smoothing = map(mean_of, (losses.cross_entropy, losses.focal, losses.label_smoothing))


def build_loss(spec: LossSpec, weight_C: Tensor | None) -> Callable[..., Tensor]:
    return mean_of(losses.build_loss(spec, weight_C))


def batch(seed: int, rows: int, scale: float, *, soft: bool, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logits_BC, labels_B, target_BC, weight_C in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (rows,), generator=generator)
    target = F.one_hot(labels, classes).double()
    if soft:
        share = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
        target = share * target + (1 - share) * target.roll(1, 0)
    return logits, labels, target, 0.1 + 5 * torch.rand(classes, generator=generator, dtype=torch.float64)


@settings(deadline=None)
@given(BATCHES)
def test_cross_entropy_is_torchs(case: tuple[int, int, float]) -> None:
    logits, labels, target, weight = batch(*case, soft=False)
    torch.testing.assert_close(cross_entropy(logits, target, weight_C=None), F.cross_entropy(logits, labels))
    torch.testing.assert_close(cross_entropy(logits, target, weight_C=weight), F.cross_entropy(logits, labels, weight=weight))
    logits, _, target, _ = batch(*case, soft=True)
    torch.testing.assert_close(cross_entropy(logits, target, weight_C=None), F.cross_entropy(logits, target))


@settings(deadline=None)
@given(BATCHES, st.floats(0, 0.9))
def test_sum_and_weight_are_torchs(case: tuple[int, int, float], eps: float) -> None:
    """Smoothing leaves the weight as it is; a mixed batch weighs as much as the one it was mixed from."""
    logits, labels, target, weight = batch(*case, soft=False)
    for w in (None, weight):
        total, divisor = losses.label_smoothing(logits, target, weight_C=w, smoothing=eps, convention="all")
        theirs = F.cross_entropy(logits, labels, weight=w, label_smoothing=eps, reduction="sum")
        torch.testing.assert_close(total, theirs)
        torch.testing.assert_close(divisor, target.sum() if w is None else w[labels].sum())
        mixed = torch.lerp(target, target.flip(0), 0.3)
        torch.testing.assert_close(losses.cross_entropy(logits, mixed, weight_C=w)[1], divisor)


@settings(deadline=None)
@given(BATCHES, st.floats(0, 0.9))
def test_label_smoothing_over_all_is_torchs(case: tuple[int, int, float], eps: float) -> None:
    logits, labels, target, weight = batch(*case, soft=False)
    for w in (None, weight):
        ours = label_smoothing(logits, target, weight_C=w, smoothing=eps, convention="all")
        torch.testing.assert_close(ours, F.cross_entropy(logits, labels, weight=w, label_smoothing=eps))


@settings(deadline=None)
@given(BATCHES, st.floats(0, 0.9))
def test_label_smoothing_over_others_by_hand(case: tuple[int, int, float], eps: float) -> None:
    logits, labels, target, weight = batch(*case, soft=False)
    ours = label_smoothing(logits, target, weight_C=weight, smoothing=eps, convention="others")
    q = np.full(logits.shape, eps / (logits.shape[1] - 1))
    q[np.arange(len(q)), labels] = 1 - eps
    np.testing.assert_allclose(q.sum(1), 1)
    w = weight.numpy()
    expected = -(w * q * log_softmax(logits.numpy())).sum() / w[labels.numpy()].sum()
    np.testing.assert_allclose(ours.item(), expected, rtol=1e-10)


def test_the_two_conventions_are_the_same_up_to_eps() -> None:
    """eps/C on every class leaves 1 - eps (C-1)/C on the true one, which is `others` with that much less smoothing."""
    logits, _, target, _ = batch(3, 8, 2.0, soft=True)
    spread = label_smoothing(logits, target, weight_C=None, smoothing=0.2, convention="all")
    torch.testing.assert_close(spread, label_smoothing(logits, target, weight_C=None, smoothing=0.15, convention="others"))
    assert spread != label_smoothing(logits, target, weight_C=None, smoothing=0.2, convention="others")


@settings(deadline=None)
@given(BATCHES, st.floats(0, 5), st.booleans())
def test_focal_by_hand(case: tuple[int, int, float], gamma: float, soft: bool) -> None:
    logits, _, target, weight = batch(*case, soft=soft)
    alpha = [0.25, 1.0, 0.5, 3.0]
    w, t, log_p = weight.numpy(), target.numpy(), log_softmax(logits.numpy())
    for a in (None, 0.25, alpha):
        numerator, denominator = 0.0, 0.0
        for b in range(len(t)):
            for c in range(t.shape[1]):
                factor = 1.0 if a is None else a if isinstance(a, float) else a[c]
                numerator += w[c] * t[b, c] * factor * (1 - np.exp(log_p[b, c])) ** gamma * -log_p[b, c]
                denominator += w[c] * t[b, c]
        ours = focal(logits, target, weight_C=weight, gamma=gamma, alpha=a)
        np.testing.assert_allclose(ours.item(), numerator / denominator, rtol=1e-7, atol=1e-12)


@settings(deadline=None)
@given(BATCHES)
def test_focal_of_two_classes_is_torchvisions_sigmoid_focal(case: tuple[int, int, float]) -> None:
    """Two logits are one logit, their difference; alpha there is alpha of the second class, 1 - alpha of the first."""
    from dermalyze.models import torch_guard

    torch_guard.install()
    from torchvision.ops import sigmoid_focal_loss

    logits, labels, target, _ = batch(*case, soft=False, classes=2)
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.double(), alpha=0.3, gamma=2.0, reduction="mean")
    torch.testing.assert_close(focal(logits, target, weight_C=None, gamma=2.0, alpha=[0.7, 0.3]), theirs)


def test_focal_does_not_take_its_probability_from_the_weighted_loss() -> None:
    """exp(-weighted cross-entropy) is no probability: with equal weights of 7 the loss must not change."""
    logits, _, target, _ = batch(1, 6, 1.0, soft=False)
    plain = focal(logits, target, weight_C=None, gamma=2.0, alpha=None)
    torch.testing.assert_close(focal(logits, target, weight_C=torch.full((4,), 7.0), gamma=2.0, alpha=None), plain)


def test_alpha_must_fit_the_classes() -> None:
    logits, _, target, _ = batch(1, 6, 1.0, soft=False)
    with pytest.raises(ConfigError, match="2 numbers for 4 classes"):
        focal(logits, target, weight_C=None, gamma=2.0, alpha=[0.25, 0.75])


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_finite_differences(spec: LossSpec, soft: bool, weighted: bool) -> None:
    logits, _, target, weight = batch(11, 5, 2.0, soft=soft)
    loss = build_loss(spec, weight if weighted else None)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision_is_at_least_float32(spec: LossSpec, dtype: torch.dtype) -> None:
    logits, _, target, weight = batch(5, 8, 3.0, soft=True)
    logits = logits.to(dtype)
    loss = build_loss(spec, weight.float())
    exact = build_loss(spec, weight.float().double())(logits.double(), target.float().double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, divisor = losses.build_loss(spec, weight.float())(logits, target.float())
        value = loss(logits, target.float())
    assert total.dtype == divisor.dtype == value.dtype
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("spec", [*SPECS, FocalLoss(gamma=0.0), FocalLoss(gamma=0.01)], ids=str)
@pytest.mark.parametrize("size", [0.0, 50.0, 1e4])
@pytest.mark.parametrize("right", [True, False])
def test_stable_for_any_logits(spec: LossSpec, size: float, right: bool) -> None:
    logits = torch.tensor([[size, -size, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0, 0, 0] if right else [0.0, 1, 0, 0]])
    loss = build_loss(spec, None)(logits, target)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert loss >= 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(deadline=None, max_examples=20)
@given(case=BATCHES, shift=st.floats(-50, 50), factor=st.floats(0.01, 100))
def test_invariants(spec: LossSpec, case: tuple[int, int, float], shift: float, factor: float) -> None:
    """A constant on all logits, the order of the rows and the scale of the weights change nothing."""
    logits, _, target, weight = batch(*case, soft=True)
    value = build_loss(spec, weight)(logits, target)
    torch.testing.assert_close(build_loss(spec, weight)(logits + shift, target), value)
    torch.testing.assert_close(build_loss(spec, weight)(logits.flip(0), target.flip(0)), value)
    torch.testing.assert_close(build_loss(spec, weight * factor)(logits, target), value)


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_a_step_down_the_gradient_helps(kind: str) -> None:
    spec = next(spec for spec in SPECS if spec.kind == kind)
    logits, _, target, weight = batch(2, 6, 1.0, soft=False)
    loss = build_loss(spec, weight)
    (gradient,) = torch.autograd.grad(loss(logits.requires_grad_(), target), logits)
    assert loss(logits - 0.1 * gradient, target) < loss(logits, target)


def log_softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))
