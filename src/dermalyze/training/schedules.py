"""The learning rate as a pure function of the step: nothing to save, nothing to restore.

Warm-up, where a schedule has one, rises linearly from `eta_min` and reaches the full rate at its end, inside the first cycle:
it never moves a restart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from dermalyze.config.train import CosineRestartsSchedule, ScheduleSpec
from dermalyze.errors import ConfigError


def cosine_restarts(
    step: int,
    *,
    steps_per_epoch: int,
    total_steps: int,
    lr: float,
    t_0: float,
    t_mult: int,
    warmup: float,
    warmup_epochs: float | None,
    eta_min: float,
) -> float:
    """Cosine annealing that jumps back up at epochs t_0, t_0 + t_0 t_mult, t_0 + t_0 t_mult + t_0 t_mult^2, ...

    The cycle in which the warm-up ends is shorter by it, and the restart after it stays where it was.

    Args:
        step: 0-based optimizer step.
        t_0: epochs of the first cycle.
        t_mult: growth of the cycles.

    >>> [round(cosine_restarts(epoch, steps_per_epoch=1, total_steps=40, lr=1.0, t_0=5, t_mult=2,
    ...     warmup=0.0, warmup_epochs=None, eta_min=0.0), 2) for epoch in (0, 4, 5, 14, 15, 34, 35)]
    [1.0, 0.1, 1.0, 0.02, 1.0, 0.01, 1.0]

    Loshchilov & Hutter 2017, arXiv:1608.03983
    """
    rise = _warmup_steps(steps_per_epoch, total_steps, warmup, warmup_epochs)
    if step < rise:
        return _rise(step, rise, eta_min, lr)
    start, length = _cycle(step, t_0 * steps_per_epoch, t_mult)
    first = max(start, rise)
    return _cosine((step - first) / (start + length - first), lr, eta_min)


def cosine(
    step: int,
    *,
    steps_per_epoch: int,
    total_steps: int,
    lr: float,
    warmup: float,
    warmup_epochs: float | None,
    eta_min: float,
) -> float:
    """One cosine from lr towards eta_min, which it would reach at `total_steps`, the step after the last.

    >>> cosine(50, steps_per_epoch=10, total_steps=100, lr=1.0, warmup=0.0, warmup_epochs=None, eta_min=0.0)
    0.5
    """
    rise = _warmup_steps(steps_per_epoch, total_steps, warmup, warmup_epochs)
    if step < rise:
        return _rise(step, rise, eta_min, lr)
    return _cosine((step - rise) / max(total_steps - rise, 1), lr, eta_min)


def one_cycle(
    step: int,
    *,
    steps_per_epoch: int,
    total_steps: int,
    lr: float,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
) -> float:
    """Up from lr / div_factor to lr and down to lr / div_factor / final_div_factor at the last step, both by cosine.

    The same numbers as torch's OneCycleLR.

    >>> one_cycle(29, steps_per_epoch=10, total_steps=100, lr=1.0, pct_start=0.3, div_factor=25.0, final_div_factor=1e4)
    1.0

    Smith & Topin 2018, arXiv:1708.07120
    """
    first = lr / div_factor
    peak, last = pct_start * total_steps - 1, total_steps - 1
    if step <= peak:
        return _cosine(step / peak if peak > 0 else 1.0, first, lr)
    return _cosine((step - peak) / (last - peak), lr, first / final_div_factor)


def constant(
    step: int,
    *,
    steps_per_epoch: int,
    total_steps: int,
    lr: float,
    warmup: float,
    warmup_epochs: float | None,
    eta_min: float,
) -> float:
    """lr, after the warm-up.

    >>> constant(99, steps_per_epoch=10, total_steps=100, lr=0.5, warmup=0.1, warmup_epochs=None, eta_min=0.0)
    0.5
    """
    rise = _warmup_steps(steps_per_epoch, total_steps, warmup, warmup_epochs)
    return _rise(step, rise, eta_min, lr) if step < rise else lr


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine_restarts": cosine_restarts,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "constant": constant,
}


def lr_at(spec: ScheduleSpec, step: int, *, steps_per_epoch: int, total_steps: int, lr: float) -> float:
    """The learning rate of a step.

    Args:
        spec: `train.schedule`.
        step: 0-based optimizer step, 0..total_steps-1.
        steps_per_epoch: optimizer steps per epoch, >= 1.
        total_steps: optimizer steps of the whole training.
        lr: the full learning rate.

    Raises:
        ConfigError: the schedule's eta_min is above lr.

    >>> from dermalyze.config.train import ConstantSchedule
    >>> lr_at(ConstantSchedule(warmup_epochs=0), 7, steps_per_epoch=10, total_steps=100, lr=0.1)
    0.1
    """
    if getattr(spec, "eta_min", 0.0) > lr:
        raise ConfigError(f"schedule.eta_min {spec.eta_min} is above optimizer.lr {lr}; the rate would rise: lower eta_min")  # type: ignore[union-attr]
    return SCHEDULES[spec.kind](
        step, steps_per_epoch=steps_per_epoch, total_steps=total_steps, lr=lr, **spec.model_dump(exclude={"kind"})
    )


def cycle_start(spec: ScheduleSpec, epoch: int) -> int:
    """First epoch of the restart cycle that `epoch` belongs to; 0 for schedules without restarts.

    Args:
        spec: `train.schedule`.
        epoch: 0-based. An epoch belongs to the cycle in which it starts.

    >>> [cycle_start(CosineRestartsSchedule(t_0=5, t_mult=2), epoch) for epoch in (4, 5, 14, 15, 34, 35)]
    [0, 5, 5, 15, 15, 35]
    """
    if not isinstance(spec, CosineRestartsSchedule):
        return 0
    return math.ceil(_cycle(epoch, spec.t_0, spec.t_mult)[0])


def _cycle(time: float, t_0: float, t_mult: int) -> tuple[float, float]:
    """Start and length of the restart cycle that holds `time`, all in one unit."""
    if t_mult == 1:
        return time // t_0 * t_0, t_0
    start, length = 0.0, t_0
    while time >= start + length:
        start, length = start + length, length * t_mult
    return start, length


def _warmup_steps(steps_per_epoch: int, total_steps: int, warmup: float, warmup_epochs: float | None) -> int:
    return round(warmup * total_steps if warmup_epochs is None else warmup_epochs * steps_per_epoch)


def _rise(step: int, rise: int, low: float, high: float) -> float:
    """Linear from just above `low` at step 0 to `high` at step `rise`: no step is wasted at a rate of 0."""
    return low + (high - low) * (step + 1) / (rise + 1)


def _cosine(share: float, start: float, end: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
