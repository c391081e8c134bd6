"""Whether a graph gives PyTorch's numbers."""

# Shapes: B samples, H height, W width, C classes, h x w map.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dermalyze.artifact.graph import Graph
from dermalyze.calibration.recipes import RECIPES, apply_recipe
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import IMAGE, PRESENT, Array, Batch, Input, take
from dermalyze.models.deployed import OPSET
from dermalyze.tasks.base import TASKS, Task

TOLERANCE = 1e-4  # largest difference of a probability between PyTorch and the graph
PARITY_BATCHES = (1, 3)


def measure_parity(network: nn.Module, graph: Graph, task: Task = TASKS["multiclass"]) -> dict[str, Any]:
    """Largest differences between PyTorch and the graph, over noise and smooth images, batch sizes and recipes; metadata,
    where they are taken, are noise.

    Raises:
        ModelError: a probability differs by more than `TOLERANCE`, or is not finite.
    """

    def whole(batch: Batch) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = network({name: torch.from_numpy(values) for name, values in batch.items()})
        return [output.numpy() for output in outputs]

    def forward(batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, embedding, *_ = whole(batch)
        return logits, embedding

    worst_probability = worst_embedding = worst_cam = 0.0
    for samples in parity_batches(graph.inputs, max(PARITY_BATCHES)):
        for count in PARITY_BATCHES:
            for recipe in RECIPES:
                batch = take(samples, slice(count))
                ours, theirs = (apply_recipe(recipe, run, batch, task.pool) for run in (forward, graph.run))
                probability = float(np.abs(task.probabilities(ours[0]) - task.probabilities(theirs[0])).max())
                scale = 1.0 + float(np.abs(ours[1]).max())
                embedding = float(np.abs(ours[1] - theirs[1]).max()) / scale
                if not (probability <= TOLERANCE and embedding <= 10 * TOLERANCE):
                    raise ModelError(
                        f"export: the graph's numbers are not PyTorch's: probabilities differ by {probability:.2g} (allowed "
                        f"{TOLERANCE:g}; recipe {recipe}, batch {count}), embedding by {embedding:.2g}; nothing was exported"
                    )
                worst_probability, worst_embedding = max(worst_probability, probability), max(worst_embedding, embedding)
        if graph.cam_shape is not None:
            ours_BChw, (theirs_BChw,) = whole(samples)[2], graph.fetch(("cam",), samples)
            cam = float(np.abs(ours_BChw - theirs_BChw).max()) / (1.0 + float(np.abs(ours_BChw).max()))
            if not cam <= 10 * TOLERANCE:
                raise ModelError(f"export: the graph's class-activation map is not PyTorch's: differs by {cam:.2g} (relative)")
            worst_cam = max(worst_cam, cam)
    return {
        "max_probability_difference": worst_probability,
        "max_relative_embedding_difference": worst_embedding,
        **({"max_relative_cam_difference": worst_cam} if graph.cam_shape is not None else {}),
        "tolerance": TOLERANCE,
        "batches": list(PARITY_BATCHES),
        "recipes": list(RECIPES),
        "opset": OPSET,
        "torch": torch.__version__,
    }


def parity_batches(inputs: Sequence[Input], count: int) -> list[dict[str, Array]]:
    """Two batches, always the same: noise, and smooth colors with a dark disc. Optional images are those of the other batch,
    and of one sample they are missing: the second in the first batch, the first in the second."""
    image = next(one for one in inputs if one.name == IMAGE)
    height, width, channels = image.shape
    largest = np.iinfo(image.dtype).max
    noise = np.random.default_rng(0).integers(0, largest + 1, (count, *image.shape), dtype=image.dtype)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    smooth = np.stack([(200, 150, 130)[c % 3] + 40 * x + 30 * y * (c % 2) for c in range(channels)], axis=-1) * largest / 255
    discs = np.stack([smooth * np.where(x**2 + y**2 < (0.2 + 0.2 * i) ** 2, 0.4, 1.0)[..., None] for i in range(count)])
    images = [noise, discs.clip(0, largest).astype(image.dtype)]
    random = np.random.default_rng(1)
    batches = []
    for number in (0, 1):
        batch: dict[str, Array] = {}
        for one in inputs:
            if one.is_image:
                batch[one.name] = images[number if one.name == IMAGE else 1 - number]
            elif one.name == PRESENT:
                batch[PRESENT] = np.repeat((np.arange(count) != 1 - number)[:, None], one.shape[0], axis=1)
            else:
                batch[one.name] = random.standard_normal((count, *one.shape)).astype(one.dtype)
        batches.append(batch)
    return batches
