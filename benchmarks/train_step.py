"""A training step of the project against a plain PyTorch loop, at equal precision, memory format and augmentation.

    .venv/bin/python benchmarks/train_step.py [--steps 12]

Both loops take turns in one process; what counts is the ratio. The plain loop has its images in memory already, so a
ratio near 1 also says that the loader is hidden behind the step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

os.environ.setdefault("DERMALYZE_CACHE", tempfile.mkdtemp())

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.core.runtime import StopRequest, applied, choose_runtime
from dermalyze.data.synthetic.synth import synthesize
from dermalyze.models.classifier import build_classifier
from dermalyze.rng import permutation
from dermalyze.stages.prepare import prepare
from dermalyze.stages.split import split
from dermalyze.stages.train import training_specs
from dermalyze.training.augment import augment
from dermalyze.training.setup import Training, build_training
from dermalyze.training.step import step as optimizer_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--backbone", default="mobilenetv2_035")
    steps = parser.parse_args().steps
    folder = Path(tempfile.mkdtemp())
    synthesize(folder / "set", lesions=64 * steps * 2, seed=7, size_px=(64, 80), balance="even", images_per_lesion=1.0)
    spec = build_experiment(
        {
            "data": {"path": str(folder / "set")},
            "preprocess": {"size": [144, 192]},
            "model": {"backbone": parser.parse_args().backbone, "head": {"kind": "linear"}},
            "train": {"epochs": 1, "batch_size": 64, "imbalance": {"kind": "none"}, "schedule": {"kind": "constant"}},
        }
    )
    run = Run.create(folder / "run", spec)
    prepare(run, spec)
    split(run, spec)
    runtime = choose_runtime(device="cpu", threads=None, amp=False, channels_last=True, deterministic=True)
    with applied(runtime):
        training = build_training(run, training_specs(spec), runtime, StopRequest())
        ours, plain = Ours(training), Plain(training)
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for step in range(steps):
            for name, loop in (("ours", ours), ("plain", plain)):
                started = time.perf_counter()
                loop.step()
                if step >= 2:  # warm
                    times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:6s} {seconds * 1e3:8.1f} ms a step of 64, {64 / seconds:6.1f} images/s (median of {len(times[name])})")
    print(f"ratio ours / plain: {medians['ours'] / medians['plain']:.3f}")


class Ours:
    """The project's own step, loader included."""

    def __init__(self, training: Training) -> None:
        self.training = training
        count = len(training.rows["train"])
        self.order = permutation(0, 0, count)
        self.positions = [np.arange(i, i + 64) for i in range(0, count - 63, 64)]
        self.images = training.loader.batches([training.rows["train"][self.order[p]] for p in self.positions])
        self.at = 0
        training.model.train()

    def step(self) -> None:
        optimizer_step(self.training, 0, [self.positions[self.at]], self.order, self.images)
        self.at += 1


class Plain:
    """The loop a tutorial would show: images in memory, augment, forward, backward, clip, step."""

    def __init__(self, training: Training) -> None:
        self.settings, self.mean, self.std = training.specs.train, training.mean, training.std
        rows = training.rows["train"]
        self.images = torch.from_numpy(training.loader.images[rows])  # type: ignore[attr-defined]
        self.labels = torch.from_numpy(training.labels["train"])
        self.model = build_classifier(training.specs.model, 7, load_weights=False).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, weight_decay=0.02)
        self.at = 0

    def step(self) -> None:
        chosen = torch.arange(self.at * 64, self.at * 64 + 64)
        self.at += 1
        pixels = augment(self.images[chosen], self.settings.augment, seed=0, epoch=0, positions_B=chosen.numpy())
        inputs = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(self.model(inputs), self.labels[chosen])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


if __name__ == "__main__":
    main()
