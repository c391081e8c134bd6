"""Reference pictures: synthetic, made by counting, so that a model carries its own answers to them and no picture of anybody.

Whoever opens an artifact, on whatever machine, can see whether it still gives the answers it was published with.
"""

# Shapes: N pictures, H height, W width, C classes.

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.recipes import Forward, apply_recipe
from dermalyze.rng import words
from dermalyze.tasks.answering import Answering

SEED, PICTURES = 20, 4
TOLERANCE = 1e-4
"""Largest difference of a probability from the one that was recorded."""
COARSE = (5, 7)  # cells of the smooth pictures
_REFERENCE = 64  # a stream of its own, after those of `dermalyze.rng`


def reference_pictures(seed: int, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3), the same on every machine: whole-number arithmetic only.

    The last is noise; the others are smooth colours between random cells, as what photographs show is smooth.

    >>> reference_pictures(20, 2, 3, 4)[:, 0, 0].tolist()
    [[247, 67, 165], [4, 245, 189]]
    """
    rows, columns = COARSE
    cells = words(seed, 0, np.arange(count), rows * columns * 3, stream=_REFERENCE) >> np.uint64(56)
    coarse_Nhw3 = cells.astype(np.int64).reshape(count, rows, columns, 3)
    (top, down), (left, right) = (_between(n, cells_n) for n, cells_n in ((height, rows), (width, columns)))
    mixed = np.zeros((count, height, width, 3), np.int64)
    for y, weight_y in ((top, 256 - down), (top + 1, down)):
        for x, weight_x in ((left, 256 - right), (left + 1, right)):
            weight = (weight_y[:, None] * weight_x[None, :])[None, :, :, None]
            mixed += weight * coarse_Nhw3[:, np.minimum(y, rows - 1)][:, :, np.minimum(x, columns - 1)]
    pictures = (mixed >> 16).astype(np.uint8)
    noise = words(seed, 1, np.arange(height), width * 3, stream=_REFERENCE) >> np.uint64(56)
    pictures[-1] = noise.astype(np.uint8).reshape(height, width, 3)
    return pictures


def _between(pixels: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each pixel the cell before it and how far it is on the way to the next, in 256ths."""
    place = np.arange(pixels, dtype=np.int64) * (cells - 1) * 256 // max(1, pixels - 1)
    return place >> 8, place & 255


def answers(forward: Forward, answering: Answering, *, height: int, width: int) -> dict[str, Any]:
    """What `artifact.json` keeps: how the pictures are made, their hash, and the model's answers to them.

    Args:
        forward: images (B, H, W, 3) uint8 to logits and embedding, as `dermalyze.calibration.recipes` takes it.
        answering: as the artifact has it.
        height, width: of the network's input, px.
    """
    pictures = reference_pictures(SEED, PICTURES, height, width)
    logits_NC = apply_recipe(answering.recipe, forward, pictures, answering.task.pool)[0]
    kept = {"seed": SEED, "pictures": PICTURES, "sha256": hashlib.sha256(pictures.tobytes()).hexdigest()}
    return with_probabilities({**kept, "logits": _short(logits_NC)}, answering)


def with_probabilities(reference: Mapping[str, Any], answering: Answering) -> dict[str, Any]:
    """The same with the probabilities that its calibrator makes of the logits."""
    logits_NC = np.asarray(reference["logits"], dtype=np.float64)
    return {**reference, "probabilities": _short(answering.probabilities(logits_NC))}


def difference(reference: Mapping[str, Any], forward: Forward, answering: Answering, size: tuple[int, int]) -> float:
    """Largest difference of a probability between now and the record; infinity where the pictures are no longer the same.

    Args:
        reference: what `answers` gave.
        forward: of the artifact.
        answering: as the artifact has it.
        size: (height, width) of the network's input, px.
    """
    pictures = reference_pictures(int(reference["seed"]), int(reference["pictures"]), *size)
    if hashlib.sha256(pictures.tobytes()).hexdigest() != reference["sha256"]:
        return float("inf")
    probs_NC = answering(forward, pictures)
    recorded_NC = np.asarray(reference["probabilities"], dtype=np.float64)
    if probs_NC.shape != recorded_NC.shape:
        return float("inf")
    return float(np.abs(probs_NC - recorded_NC).max())


def _short(values: NDArray[Any]) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in np.asarray(values, dtype=np.float64)]
