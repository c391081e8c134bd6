"""Where the time of a training continues this machine: loading, forward, backward, the whole step; and what would be faster."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.core.runtime import Runtime, StopRequest, applied
from dermalyze.data.loader import balanced_batches
from dermalyze.errors import UsageError
from dermalyze.stages.train import training_specs
from dermalyze.training.autotune import StepTime, asked_runtime, best_of, combinations, step_times
from dermalyze.training.imbalance import draw_order
from dermalyze.training.setup import Training, build_training
from dermalyze.training.step import step
from dermalyze.workflows.pipeline import duration

WARM_UP = 2  # steps that don't count


@dataclass(frozen=True)
class BenchResult:
    """One measurement: medians of the training's own steps, the shortest where combinations are compared.

    Attributes:
        device, threads, precision, channels_last: what the training step was timed under: the experiment's own choice.
        batch: images an optimizer step.
        batches: steps that were timed.
        loading_images_per_s: from the image cache or the decoding workers, alone.
        forward_ms, backward_ms: of one micro-batch of random images.
        step_ms: the training's own step, with loading, augmentation and optimizer.
        images_per_s: of whole steps.
        peak_mib: largest memory, of the GPU where there is one, else of the process; None where the system does not tell.
        epoch_s, training_s: estimates; the whole training, if no early stop ends it.
        combinations: each precision and memory format, timed in turns.
        best: the name of the one to take.
    """

    device: str
    threads: int
    precision: str
    channels_last: bool
    batch: int
    batches: int
    loading_images_per_s: float
    forward_ms: float
    backward_ms: float
    step_ms: float
    images_per_s: float
    peak_mib: float | None
    epoch_s: float
    training_s: float
    combinations: tuple[StepTime, ...]
    best: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Lines for a person."""
        form = "channels-last" if self.channels_last else "contiguous"
        slowest = max(t.step_ms for t in self.combinations)
        rows = [
            f"  {t.name:<22} forward {t.forward_ms:8.1f} ms  backward {t.backward_ms:8.1f} ms  "
            f"step {t.step_ms:8.1f} ms  {slowest / t.step_ms:5.2f}x" + ("  best" if t.name == self.best else "")
            for t in self.combinations
        ]
        return [
            f"on {self.device}, {self.threads} threads, {self.precision}, {form}, {self.batch} images a step",
            f"loading   {self.loading_images_per_s:8.0f} images/s",
            f"forward   {self.forward_ms:8.1f} ms",
            f"backward  {self.backward_ms:8.1f} ms",
            f"step      {self.step_ms:8.1f} ms, {self.images_per_s:.0f} images/s (median of {self.batches})",
            f"memory    {self.peak_mib:8.0f} MiB at most" if self.peak_mib is not None else "memory    not told by this system",
            f"an epoch takes about {duration(self.epoch_s)}, the whole training at most {duration(self.training_s)}",
            "precision and memory format, one batch of random images, in turns:",
            *rows,
        ]


def bench(run: Run, spec: ExperimentSpec, *, num_batches: int = 10) -> BenchResult:
    """Time the run's own network on its own images; nothing in the run changes (the image cache is made if it is not there).

    Args:
        run: prepared and split.
        spec: its experiment. In fast mode, what is left at `auto` is timed under the best combination.
        num_batches: batches to load and steps to time, 1 or more.

    Raises:
        UsageError: not split yet, or fewer than 1 batch.
        DermalyzeError: whatever a training refuses before its first step.
    """
    if num_batches < 1:
        raise UsageError(f"--num-batches is {num_batches}, must be 1 or more")
    specs, settings = training_specs(spec), spec.train
    runtime = asked_runtime(settings)
    run.certificate()
    with applied(runtime):
        training = build_training(run, specs, runtime, StopRequest())
        size, classes = (training.preprocessing.height, training.preprocessing.width), len(training.classes)
        which = combinations(runtime)
        say(f"bench: {len(which)} combinations of precision and memory format, then {num_batches} batches and steps")
        times = step_times(spec.model, settings, runtime, classes=classes, size=size, which=which)
        best = best_of(times)
        if settings.mode == "fast" and "auto" in (settings.amp, settings.channels_last):
            free = (settings.amp == "auto", settings.channels_last == "auto")
            fitting = [
                t
                for t in times
                if (free[0] or t.precision == runtime.precision) and (free[1] or t.channels_last == runtime.channels_last)
            ]
            chosen = best_of(fitting)
            runtime = next(r for r in which if (r.precision, r.channels_last) == (chosen.precision, chosen.channels_last))
            training = build_training(run, specs, runtime, StopRequest())
        own = next(t for t in times if (t.precision, t.channels_last) == (runtime.precision, runtime.channels_last))
        loading, seconds, peak = timed(training, runtime, num_batches)
    step_s = statistics.median(seconds)
    images = len(training.rows["train"])
    micro = len(balanced_batches(np.arange(images), settings.batch_size))
    batch = images / micro * settings.accumulate
    validation = len(training.rows["val"]) / settings.batch_size * own.forward_ms / 1e3
    epoch = -(-micro // settings.accumulate) * step_s + validation
    return BenchResult(
        runtime.device, runtime.threads, runtime.precision, runtime.channels_last, round(batch), num_batches, loading,
        own.forward_ms, own.backward_ms, step_s * 1e3, batch / step_s, peak, epoch, epoch * settings.epochs,
        tuple(times), best.name,
    )  # fmt: skip


def timed(training: Training, runtime: Runtime, count: int) -> tuple[float, list[float], float | None]:
    """Images loaded a second, seconds of each step (of the last epoch, the dearest), and the largest memory in MiB."""
    settings, rows = training.specs.train, training.rows["train"]
    order = draw_order(
        settings.imbalance, training.labels["train"], seed=training.specs.seed, epoch=0, classes=training.classes
    )  # fmt: skip
    once = balanced_batches(np.arange(len(order)), settings.batch_size)
    needed = (WARM_UP + count) * settings.accumulate
    positions = [once[i % len(once)] for i in range(needed)]
    wanted = [rows[order[batch]] for batch in positions]
    started = time.perf_counter()
    loaded = sum(len(batch) for batch in training.loader.batches(wanted[:count]))
    loading = loaded / (time.perf_counter() - started)
    if runtime.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    images = training.loader.batches(wanted)
    training.model.train()
    seconds = []
    with progress("bench", WARM_UP + count, "steps") as advance:
        for at in range(0, needed, settings.accumulate):
            started = time.perf_counter()
            step(training, settings.epochs - 1, positions[at : at + settings.accumulate], order, images)
            if runtime.device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            advance(1)
    return loading, seconds[WARM_UP:], peak_mib(runtime)


def peak_mib(runtime: Runtime) -> float | None:
    """The largest memory so far: of the GPU, or of this process."""
    if runtime.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
