"""What a training will cost, measured by a few of its own steps before it begins."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dermalyze.calibration.recipes import RECIPES
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run
from dermalyze.core.runtime import StopRequest, applied
from dermalyze.data.loader import balanced_batches
from dermalyze.stages.train import training_specs
from dermalyze.training.autotune import asked_runtime
from dermalyze.training.setup import build_training
from dermalyze.workflows.bench import timed

FORWARDS = 3


@dataclass(frozen=True)
class Cost:
    """What one run costs on this machine.

    Attributes:
        parameters, learning: of the whole network, and how many of them ever learn.
        step_ms: of one optimizer step with loading and augmentation, the dearest epoch's; the median of a few.
        latency_ms: of one image in fp32, alone, in PyTorch; the shortest of a few.
        scored_per_s: images per second in batches of the inference, fp32, by the experiment's recipe.
        training_s: of all epochs, validation included, if no early stop ends it.
        scoring_s: of every image of the run once.
    """

    parameters: int
    learning: int
    step_ms: float
    latency_ms: float
    scored_per_s: float
    training_s: float
    scoring_s: float

    @property
    def total_s(self) -> float:
        """Training and scoring; export and evaluation come to it, some seconds each."""
        return self.training_s + self.scoring_s

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Cost:
        """From `as_dict`."""
        return cls(**values)


def measure_cost(run: Run, spec: ExperimentSpec, *, steps: int = 3) -> Cost:
    """Take a few steps of a training without keeping them; nothing in the run changes but that it gets its image cache.

    Args:
        run: prepared and split.
        spec: its experiment.
        steps: to time, after two that don't count.

    Raises:
        DermalyzeError: whatever a training refuses before its first step.
    """
    runtime = asked_runtime(spec.train)
    with applied(runtime):
        training = build_training(run, training_specs(spec), runtime, StopRequest())
        try:
            _, seconds, _ = timed(training, runtime, steps)
        finally:
            training.loader.close()
        learning = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
        size = (training.preprocessing.height, training.preprocessing.width)
        latency_s = forward_s(training.model, 1, size, runtime.device)
        batch = min(spec.inference.batch_size, len(training.image_ids))
        batch_s = forward_s(training.model, batch, size, runtime.device)
    settings, step_s = spec.train, statistics.median(seconds)
    micro = len(balanced_batches(np.arange(len(training.rows["train"])), settings.batch_size))
    views = len(RECIPES[spec.inference.recipe](np.zeros((1, 8, 8, 3), np.uint8)))
    epoch_s = -(-micro // settings.accumulate) * step_s + len(training.rows["val"]) * batch_s / batch
    return Cost(
        parameters=sum(p.numel() for p in training.model.parameters()),
        learning=learning,
        step_ms=1e3 * step_s,
        latency_ms=1e3 * latency_s,
        scored_per_s=batch / (batch_s * views),
        training_s=settings.epochs * epoch_s,
        scoring_s=len(training.image_ids) * views * batch_s / batch,
    )


def forward_s(model: torch.nn.Module, batch: int, size: tuple[int, int], device: str) -> float:
    """Seconds of one forward pass in evaluation mode and fp32, the shortest of a few after one to warm up.

    Args:
        model: on `device`; is left in evaluation mode.
        batch: images.
        size: (height, width), px.
        device: "cpu", "cuda" or "mps".
    """
    model.eval()
    images = torch.rand(batch, 3, *size, device=device)
    taken = []
    with torch.inference_mode():
        for _ in range(FORWARDS + 1):
            started = time.perf_counter()
            model(images).sum().item()  # .item() waits for the device
            taken.append(time.perf_counter() - started)
    return min(taken[1:])
