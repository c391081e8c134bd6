"""Reference images: synthetic, made by counting, so that a model carries its own answers to them and no image of anybody.

Whoever opens an artifact, on whatever machine, can see whether it still gives the answers it was published with.
"""

# Shapes: N images, H height, W width, K channels, C classes.

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.recipes import Forward, apply_recipe
from dermalyze.imaging.samples import Input
from dermalyze.rng import words
from dermalyze.tasks.answering import Answering

SEED, IMAGES = 20, 4
TOLERANCE = 1e-4
"""Largest difference of a probability from the one that was recorded."""
COARSE = (5, 7)  # cells of the smooth images
_REFERENCE = 64  # a stream of its own, after those of `dermalyze.rng`


def reference_images(seed: int, count: int, image: Input) -> NDArray[Any]:
    """Images (N, H, W, K), the same on every machine: whole-number arithmetic only.

    The last is noise; the others are smooth colors between random cells.

    >>> reference_images(20, 2, Input("image", "uint8", (3, 4, 3)))[:, 0, 0].tolist()
    [[247, 67, 165], [4, 245, 189]]
    """
    height, width, channels = image.shape
    rows, columns = COARSE
    cells = words(seed, 0, np.arange(count), rows * columns * channels, stream=_REFERENCE) >> np.uint64(56)
    coarse_NhwK = cells.astype(np.int64).reshape(count, rows, columns, channels)
    (top, down), (left, right) = (_between(n, cells_n) for n, cells_n in ((height, rows), (width, columns)))
    mixed = np.zeros((count, height, width, channels), np.int64)
    for y, weight_y in ((top, 256 - down), (top + 1, down)):
        for x, weight_x in ((left, 256 - right), (left + 1, right)):
            weight = (weight_y[:, None] * weight_x[None, :])[None, :, :, None]
            mixed += weight * coarse_NhwK[:, np.minimum(y, rows - 1)][:, :, np.minimum(x, columns - 1)]
    images = (mixed >> 16).astype(image.dtype)
    noise = words(seed, 1, np.arange(height), width * channels, stream=_REFERENCE) >> np.uint64(56)
    images[-1] = noise.astype(image.dtype).reshape(height, width, channels)
    return images * (np.iinfo(image.dtype).max // 255)  # the whole range of the type


def _between(pixels: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each pixel the cell before it and how far it is on the way to the next, in 256ths."""
    place = np.arange(pixels, dtype=np.int64) * (cells - 1) * 256 // max(1, pixels - 1)
    return place >> 8, place & 255


def answers(forward: Forward, answering: Answering, image: Input) -> dict[str, Any]:
    """What `artifact.json` keeps: how the images are made, their hash, and the model's answers to them.

    Args:
        forward: a batch of images alone to logits and embedding, as `dermalyze.calibration.recipes` takes it.
        answering: as the artifact has it.
        image: the network's input of that name.
    """
    images = reference_images(SEED, IMAGES, image)
    logits_NC = apply_recipe(answering.recipe, forward, images, answering.task.pool)[0]
    kept = {"seed": SEED, "images": IMAGES, "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
    return with_probabilities({**kept, "logits": _short(logits_NC)}, answering)


def with_probabilities(reference: Mapping[str, Any], answering: Answering) -> dict[str, Any]:
    """The same with the probabilities that its calibrator makes of the logits."""
    logits_NC = np.asarray(reference["logits"], dtype=np.float64)
    return {**reference, "probabilities": _short(answering.probabilities(logits_NC))}


def difference(reference: Mapping[str, Any], forward: Forward, answering: Answering, image: Input) -> float:
    """Largest difference of a probability between now and the record; infinity where the images are no longer the same.

    Args:
        reference: what `answers` gave.
        forward: of the artifact.
        answering: as the artifact has it.
        image: the network's input of that name.
    """
    images = reference_images(int(reference["seed"]), int(reference["images"]), image)
    if hashlib.sha256(images.tobytes()).hexdigest() != reference["sha256"]:
        return float("inf")
    probs_NC = answering(forward, images)
    recorded_NC = np.asarray(reference["probabilities"], dtype=np.float64)
    if probs_NC.shape != recorded_NC.shape:
        return float("inf")
    return float(np.abs(probs_NC - recorded_NC).max())


def _short(values: NDArray[Any]) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in np.asarray(values, dtype=np.float64)]
