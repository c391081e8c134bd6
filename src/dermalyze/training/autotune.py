"""Time of a training step by precision and memory format, measured on this machine, and the choice of the fastest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from dermalyze.config.model import ModelSpec
from dermalyze.config.train import TrainSpec
from dermalyze.core.atomic import write_json
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.core.runtime import Runtime, applied, choose_runtime
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.training.optim import build_optimizer
from dermalyze.training.transfer import Plan

ROUNDS = (3, 20)  # least and most that count
ENOUGH_S, LONG_S = 2.0, 60.0  # after the first, the least number of rounds is enough; after the second, one is
GAIN = 1.05  # a lower precision must be this much faster to be worth its rounding
RECORD = "fast_mode"


@dataclass(frozen=True)
class StepTime:
    """The shortest of several steps, in milliseconds for one batch; `step_ms` is both passes and the optimizer.

    The shortest, since whatever else the machine does only adds (Chen & Revels 2016, arXiv:1608.04295).
    """

    precision: Literal["fp32", "fp16", "bf16"]
    channels_last: bool
    forward_ms: float
    backward_ms: float
    step_ms: float

    @property
    def name(self) -> str:
        """As "bf16, channels-last"."""
        return f"{self.precision}, {'channels-last' if self.channels_last else 'contiguous'}"


def step_times(
    spec: ModelSpec,
    settings: TrainSpec,
    base: Runtime,
    *,
    classes: int,
    size: tuple[int, int],
    which: Sequence[Runtime],
) -> list[StepTime]:
    """Time steps of a network (random weights and images) under each runtime, in turns, after one to warm up.

    Args:
        spec: of the network; metadata and a second image are left out, which make no other combination faster.
        settings: `strategy`, `optimizer` and `batch_size` are used; `compile` is not.
        base: the runtime whose device and threads hold.
        classes: of the head.
        size: (height, width) of the input, px.
        which: runtimes that differ from `base` in precision and memory format; see `combinations`.
    """
    with applied(base):
        alone = spec.model_copy(update={"metadata": None, "image_2": None})
        model = build_classifier(alone, classes, load_weights=False).to(base.device)
        plan = Plan(model, settings.strategy, epochs=settings.epochs)
        optimizer = build_optimizer(model, settings.optimizer, plan.paces)
        images = torch.rand(settings.batch_size, 3, *size, device=base.device)
        target = torch.arange(settings.batch_size, device=base.device) % classes
        taken: dict[Runtime, list[tuple[float, float, float]]] = {runtime: [] for runtime in which}
        started = time.perf_counter()
        for round_ in range(ROUNDS[1] + 1):
            for runtime in which:
                seconds = _step(model, optimizer, images, target, runtime)
                if round_:
                    taken[runtime].append(seconds)
            spent = time.perf_counter() - started
            if round_ and (spent > LONG_S or (round_ >= ROUNDS[0] and spent > ENOUGH_S)):
                break
    shortest = {runtime: [1e3 * min(part) for part in zip(*times, strict=True)] for runtime, times in taken.items()}
    return [StepTime(runtime.precision, runtime.channels_last, *parts) for runtime, parts in shortest.items()]


def _step(
    model: Classifier, optimizer: torch.optim.Optimizer, images: Tensor, target: Tensor, runtime: Runtime
) -> tuple[float, float, float]:
    """Seconds of the forward pass, the backward pass, and all of it with the optimizer."""
    model.to(memory_format=runtime.memory_format)  # type: ignore[call-overload]
    inputs = images.contiguous(memory_format=runtime.memory_format)
    optimizer.zero_grad(set_to_none=True)
    begin = _now(runtime)
    with runtime.autocast():
        logits = model(inputs)
    loss = functional.cross_entropy(logits.float(), target)
    loss.item()
    forward = _now(runtime)
    loss.backward()  # type: ignore[no-untyped-call]
    backward = _now(runtime)
    optimizer.step()
    end = _now(runtime)
    return forward - begin, backward - forward, end - begin


def _now(runtime: Runtime) -> float:
    if runtime.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def asked_runtime(settings: TrainSpec) -> Runtime:
    """The runtime that is asked for, `auto` taken as fp32 and channels-last; nothing is measured.

    Raises:
        ResourceError: no such device.
    """
    return choose_runtime(
        device=settings.device,
        threads=settings.threads,
        amp=settings.amp is True,
        channels_last=settings.channels_last is not False,
        deterministic=settings.mode == "deterministic",
    )


def combinations(base: Runtime, *, amp: bool | None = None, channels_last: bool | None = None) -> list[Runtime]:
    """Every precision that the device has with every memory format; one that is given stays.

    >>> from dermalyze.core.runtime import choose_runtime
    >>> base = choose_runtime(device="cpu", threads=1, amp=False, channels_last=True, deterministic=False)
    >>> [(r.precision, r.channels_last) for r in combinations(base, channels_last=True)]
    [('fp32', True), ('bf16', True)]
    """
    found = []
    for lower in (False, True) if amp is None else (amp,):
        for last in (True, False) if channels_last is None else (channels_last,):
            precision = choose_runtime(
                device=base.device, threads=base.threads, amp=lower, channels_last=last, deterministic=base.deterministic
            ).precision
            found.append(replace(base, precision=precision, channels_last=last))
    return list(dict.fromkeys(found))


def best_of(times: Sequence[StepTime]) -> StepTime:
    """The fastest; a lower precision only where it is at least 5 % faster than the fastest fp32.

    >>> slow, fast = StepTime("fp32", True, 1, 1, 100.0), StepTime("bf16", True, 1, 1, 97.0)
    >>> best_of([slow, fast]).precision, best_of([slow, StepTime("bf16", False, 1, 1, 80.0)]).precision
    ('fp32', 'bf16')
    """
    full = [t for t in times if t.precision == "fp32"]
    fastest = min(times, key=lambda t: t.step_ms)
    if not full or min(t.step_ms for t in full) > GAIN * fastest.step_ms:
        return fastest
    return min(full, key=lambda t: t.step_ms)


def fastest_runtime(
    run: Run, spec: ModelSpec, settings: TrainSpec, base: Runtime, *, classes: int, size: tuple[int, int]
) -> Runtime:
    """Fast mode: settle what is left at `auto`, by measuring, once; the choice is recorded in environment.json.

    A resume on the same device with as many threads reads the record. Nothing is measured in deterministic mode, or where
    nothing is left open.

    Args:
        run: gets the record.
        spec: of the network.
        settings: its `mode`, `amp` and `channels_last` decide what is open.
        base: the runtime that was asked for, `auto` taken as fp32 and channels-last.
        classes, size: as for `step_times`.
    """
    amp = None if settings.amp == "auto" else settings.amp
    channels_last = None if settings.channels_last == "auto" else settings.channels_last
    if base.deterministic or None not in (amp, channels_last):
        return base
    environment = read_json(run.environment_path) if run.environment_path.exists() else {}
    known: dict[str, Any] = environment.get(RECORD, {})
    which = combinations(base, amp=amp, channels_last=channels_last)
    if (known.get("device"), known.get("threads")) == (base.device, base.threads):
        for runtime in which:
            if (known.get("precision"), known.get("channels_last")) == (runtime.precision, runtime.channels_last):
                return runtime
    say(f"fast mode: timing {len(which)} combinations of precision and memory format, a few steps each")
    times = step_times(spec, settings, base, classes=classes, size=size, which=which)
    best = best_of(times)
    say(f"fast mode: {best.name} ({', '.join(f'{t.name} {t.step_ms:.0f} ms' for t in times)} a step); recorded")
    record = {
        "device": base.device, "threads": base.threads, "precision": best.precision, "channels_last": best.channels_last,
        "measured": [asdict(t) for t in times],
    }  # fmt: skip
    write_json(run.environment_path, {**environment, RECORD: record})
    return replace(base, precision=best.precision, channels_last=best.channels_last)
