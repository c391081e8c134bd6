"""Schedules against torch's schedulers, and by their shape."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler, OneCycleLR

from dermalyze.config.train import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    OneCycleSchedule,
    ScheduleSpec,
)
from dermalyze.errors import ConfigError
from dermalyze.training.schedules import cycle_start, lr_at

WITH_WARMUP: list[ScheduleSpec] = [
    CosineRestartsSchedule(t_0=5, t_mult=2, warmup=0.1),
    CosineSchedule(warmup=0.1),
    ConstantSchedule(warmup=0.1, eta_min=1e-5),
]


def curve(spec: ScheduleSpec, *, epochs: int, steps_per_epoch: int, lr: float) -> list[float]:
    total = epochs * steps_per_epoch
    return [lr_at(spec, step, steps_per_epoch=steps_per_epoch, total_steps=total, lr=lr) for step in range(total)]


def optimizer(lr: float) -> SGD:
    return SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def torch_curve(scheduler: LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.floats(1e-4, 1.0), st.floats(0, 1e-4))
def test_restarts_are_torchs(t_0: int, t_mult: int, steps: int, lr: float, eta_min: float) -> None:
    spec = CosineRestartsSchedule(t_0=t_0, t_mult=t_mult, warmup=0.0, eta_min=eta_min)
    theirs = CosineAnnealingWarmRestarts(optimizer(lr), T_0=t_0 * steps, T_mult=t_mult, eta_min=eta_min)
    ours = curve(spec, epochs=25, steps_per_epoch=steps, lr=lr)
    assert ours == pytest.approx(torch_curve(theirs, 25 * steps), abs=1e-12, rel=1e-12)


def test_the_documents_restarts_come_at_5_15_35() -> None:
    for warmup in (0.0, 0.05):
        spec = CosineRestartsSchedule(t_0=5, t_mult=2, warmup=warmup)
        rates = curve(spec, epochs=40, steps_per_epoch=7, lr=3e-4)
        jumps = [step / 7 for step in range(1, len(rates)) if rates[step] > 5 * rates[step - 1] and step > 14]
        assert jumps == [5, 15, 35]
        assert all(rates[int(7 * epoch)] == 3e-4 for epoch in jumps)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 200), st.floats(1e-4, 1.0), st.floats(0, 1e-4))
def test_cosine_is_torchs(total: int, lr: float, eta_min: float) -> None:
    ours = curve(CosineSchedule(warmup=0.0, eta_min=eta_min), epochs=1, steps_per_epoch=total, lr=lr)
    theirs = torch_curve(CosineAnnealingLR(optimizer(lr), T_max=total, eta_min=eta_min), total)
    assert ours == pytest.approx(theirs, abs=1e-12, rel=1e-9)  # torch's is a recursion and gathers rounding


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 200), st.floats(1e-4, 10.0), st.floats(0.05, 0.95), st.floats(1.5, 100), st.floats(1.5, 1e5))
def test_one_cycle_is_torchs(total: int, lr: float, pct_start: float, div: float, final: float) -> None:
    assume(pct_start * (total + 1) != 1)  # the peak at step 0: torch divides by the length of the rise
    spec = OneCycleSchedule(pct_start=pct_start, div_factor=div, final_div_factor=final)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch steps once past the end
        theirs = OneCycleLR(
            optimizer(lr),
            max_lr=lr,
            total_steps=total + 1,
            pct_start=pct_start,
            div_factor=div,
            final_div_factor=final,
            cycle_momentum=False,
        )
        expected = torch_curve(theirs, total)
    ours = [lr_at(spec, step, steps_per_epoch=1, total_steps=total + 1, lr=lr) for step in range(total)]
    assert ours == pytest.approx(expected, abs=1e-12, rel=1e-12)


def test_one_cycle_with_its_peak_at_the_first_step_starts_at_the_full_rate() -> None:
    rates = curve(OneCycleSchedule(pct_start=0.05), epochs=1, steps_per_epoch=20, lr=1.0)
    assert rates[0] == 1.0 == max(rates)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("total", [1, 2, 3, 4])
@pytest.mark.parametrize("pct_start", [0.1, 0.25, 0.5, 0.9])
def test_one_cycle_of_a_few_steps_has_rates(total: int, pct_start: float) -> None:
    rates = curve(OneCycleSchedule(pct_start=pct_start), epochs=1, steps_per_epoch=total, lr=1.0)
    assert all(0 < rate <= 1 for rate in rates)
    assert total == 1 or rates[-1] == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("spec", WITH_WARMUP, ids=lambda spec: spec.kind)
def test_warmup_is_linear_from_eta_min_and_ends_at_the_full_rate(spec: ScheduleSpec) -> None:
    rates = curve(spec, epochs=30, steps_per_epoch=10, lr=0.1)
    rise = rates[:31]
    assert rise[30] == 0.1 == max(rates)
    steps = [b - a for a, b in itertools.pairwise(rise)]
    assert steps == pytest.approx([steps[0]] * 30, rel=1e-9)
    assert rise[0] - steps[0] == pytest.approx(1e-5, rel=1e-9)
    assert rates[31] <= 0.1


@pytest.mark.parametrize("spec", WITH_WARMUP, ids=lambda spec: spec.kind)
def test_warmup_in_epochs_takes_precedence(spec: ScheduleSpec) -> None:
    epochs = spec.model_copy(update={"warmup_epochs": 1.5, "warmup": 0.9})
    share = spec.model_copy(update={"warmup": 0.05})
    assert curve(epochs, epochs=30, steps_per_epoch=10, lr=0.1) == curve(share, epochs=30, steps_per_epoch=10, lr=0.1)


def test_warmup_past_the_first_restart_joins_on_at_the_full_rate() -> None:
    rates = curve(CosineRestartsSchedule(t_0=2, warmup_epochs=5, eta_min=0.0), epochs=10, steps_per_epoch=10, lr=1.0)
    assert rates[:51] == sorted(rates[:51])
    assert rates[50] == 1.0
    assert rates[51:60] == sorted(rates[51:60], reverse=True)
    assert rates[59] < 0.05
    assert rates[60] == 1.0


@settings(deadline=None)
@given(
    st.sampled_from([*WITH_WARMUP, OneCycleSchedule()]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(1e-3, 1),
    st.floats(0, 0.99),
)
def test_rates_stay_between_the_lowest_and_the_full(
    spec: ScheduleSpec, epochs: int, steps: int, lr: float, warmup: float
) -> None:
    if not isinstance(spec, OneCycleSchedule):
        spec = spec.model_copy(update={"warmup": warmup})
    low = getattr(spec, "eta_min", lr / 25 / 1e4)
    for rate in curve(spec, epochs=epochs, steps_per_epoch=steps, lr=lr):
        assert math.isfinite(rate)
        assert low * (1 - 1e-12) <= rate <= lr * (1 + 1e-12)


def test_constant_is_constant() -> None:
    assert set(curve(ConstantSchedule(warmup=0.0), epochs=3, steps_per_epoch=4, lr=0.3)) == {0.3}


def test_an_eta_min_above_the_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"eta_min 1e-05 is above optimizer.lr 1e-06"):
        lr_at(CosineSchedule(), 0, steps_per_epoch=1, total_steps=10, lr=1e-6)


@pytest.mark.parametrize(
    ("t_0", "t_mult", "starts"),
    [
        (5, 2, [0] * 5 + [5] * 10 + [15] * 20 + [35] * 5),
        (3, 1, [0, 0, 0, 3, 3, 3, 6, 6, 6]),
        (2.5, 1, [0, 0, 0, 3, 3, 5, 5, 5]),
    ],
)
def test_cycle_start(t_0: float, t_mult: int, starts: list[int]) -> None:
    spec = CosineRestartsSchedule(t_0=t_0, t_mult=t_mult)
    assert [cycle_start(spec, epoch) for epoch in range(len(starts))] == starts


@pytest.mark.parametrize("spec", [CosineSchedule(), OneCycleSchedule(), ConstantSchedule()], ids=lambda spec: spec.kind)
def test_without_restarts_there_is_one_cycle(spec: ScheduleSpec) -> None:
    assert {cycle_start(spec, epoch) for epoch in range(100)} == {0}


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 3))
def test_a_cycle_starts_where_the_rate_jumps(t_0: int, t_mult: int) -> None:
    spec = CosineRestartsSchedule(t_0=t_0, t_mult=t_mult, warmup=0.0, eta_min=0.0)
    rates = curve(spec, epochs=40, steps_per_epoch=3, lr=1.0)
    starts = sorted({cycle_start(spec, epoch) for epoch in range(40)})
    assert starts == [step // 3 for step, rate in enumerate(rates) if rate == 1.0]
