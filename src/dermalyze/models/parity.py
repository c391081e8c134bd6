"""Whether a graph gives PyTorch's numbers."""

# Shapes: B images, H height, W width, C classes, h x w map.

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dermalyze.artifact.graph import Graph
from dermalyze.calibration.recipes import RECIPES, apply_recipe
from dermalyze.errors import ModelError
from dermalyze.imaging.cases import packed, unpacked
from dermalyze.models.deployed import OPSET
from dermalyze.tasks.base import TASKS, Task

TOLERANCE = 1e-4  # largest difference of a probability between PyTorch and the graph
PARITY_BATCHES = (1, 3)


def measure_parity(
    network: nn.Module, graph: Graph, height: int, width: int, task: Task = TASKS["multiclass"]
) -> dict[str, Any]:
    """Largest differences between PyTorch and the graph, over noise and smooth pictures, batch sizes and recipes; metadata,
    where they are taken, are noise.

    Raises:
        ModelError: a probability differs by more than `TOLERANCE`, or is not finite.
    """

    metadata_BM = np.random.default_rng(1).standard_normal((max(PARITY_BATCHES), graph.metadata_width)).astype(np.float32)

    def known(images_BHW3: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [metadata_BM[: len(images_BHW3)]] if graph.metadata_width else []

    def forward(images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, embedding, *_ = whole(images_BHW3)
        return logits, embedding

    def whole(images_BHW3: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            pixels = unpacked(images_BHW3) if graph.second else (images_BHW3,)
            outputs = network(*map(torch.from_numpy, (*pixels, *known(images_BHW3))))
        return [output.numpy() for output in outputs]

    def exported(images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return graph.run(images_BHW3, *known(images_BHW3))

    worst_probability = worst_embedding = worst_cam = 0.0
    for images in parity_images(max(PARITY_BATCHES), height, width, second=graph.second):
        for batch in PARITY_BATCHES:
            for recipe in RECIPES:
                ours, theirs = (apply_recipe(recipe, run, images[:batch], task.pool) for run in (forward, exported))
                probability = float(np.abs(task.probabilities(ours[0]) - task.probabilities(theirs[0])).max())
                scale = 1.0 + float(np.abs(ours[1]).max())
                embedding = float(np.abs(ours[1] - theirs[1]).max()) / scale
                if not (probability <= TOLERANCE and embedding <= 10 * TOLERANCE):
                    raise ModelError(
                        f"export: the graph's numbers are not PyTorch's: probabilities differ by {probability:.2g} (allowed "
                        f"{TOLERANCE:g}; recipe {recipe}, batch {batch}), embedding by {embedding:.2g}; nothing was exported"
                    )
                worst_probability, worst_embedding = max(worst_probability, probability), max(worst_embedding, embedding)
        if graph.cam_shape is not None:
            ours_BChw, (theirs_BChw,) = whole(images)[2], graph.fetch(("cam",), images, *known(images))
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


def parity_images(count: int, height: int, width: int, *, second: bool = False) -> list[NDArray[np.uint8]]:
    """Two batches (count, height, width, 3) of pictures, always the same: noise, and smooth colours with a dark disc.

    With `second`, cases whose second picture is of the other batch; of one it is missing, in the second batch of the first.
    """
    noise = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    skin = np.stack([200 + 40 * x, 150 + 30 * y, 130 + 20 * x * y], axis=-1)
    smooth = np.stack([skin * np.where(x**2 + y**2 < (0.2 + 0.2 * i) ** 2, 0.4, 1.0)[..., None] for i in range(count)])
    pictures = [noise, smooth.clip(0, 255).astype(np.uint8)]
    if not second:
        return pictures
    there = np.arange(count)
    return [packed(pictures[0], pictures[1], there != 1), packed(pictures[1], pictures[0], there != 0)]
