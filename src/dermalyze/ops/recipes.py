"""Inference recipes: how one answer is made from one or more passes of a network. A calibration belongs to one recipe."""

# Shapes: B images, H height, W width, C classes, D width of the embedding.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.errors import ModelError, nearest

Images = NDArray[np.uint8]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
Forward = Callable[[Images], Outputs]


def plain(forward: Forward, images_BHW3: Images) -> Outputs:
    """One pass: the network's own logits and embedding."""
    return forward(images_BHW3)


def flips(forward: Forward, images_BHW3: Images) -> Outputs:
    """Mean over the image, its two mirror images and the half turn.

    Probabilities are averaged, not logits; the logits returned are the log of that mean, so that their softmax is the
    mean probability. The embedding is the mean embedding. Exact: the four views are fixed, nothing is drawn.
    """
    views = (images_BHW3, images_BHW3[:, :, ::-1], images_BHW3[:, ::-1], images_BHW3[:, ::-1, ::-1])
    outputs = [forward(np.ascontiguousarray(view)) for view in views]
    log_probs_VBC = np.stack([_log_softmax(logits_BC) for logits_BC, _ in outputs])
    mean_BC = np.logaddexp.reduce(log_probs_VBC, axis=0) - np.log(len(views))
    embedding_BD = np.stack([embedding for _, embedding in outputs]).mean(axis=0, dtype=np.float64)
    return mean_BC.astype(np.float32), embedding_BD.astype(np.float32)


RECIPES: dict[str, Callable[[Forward, Images], Outputs]] = {"plain": plain, "flips": flips}


def apply_recipe(name: str, forward: Forward, images_BHW3: Images) -> Outputs:
    """Logits and embedding of a batch by a named recipe.

    Args:
        name: a key of `RECIPES`.
        forward: images (B, H, W, 3) uint8 to logits (B, C) and embedding (B, D), float32.
        images_BHW3: uint8 RGB at the network's size; B may be 0.

    Returns:
        logits (B, C) float32, whose softmax is the recipe's probability, and embedding (B, D) float32.

    Raises:
        ModelError: no such recipe.

    >>> left = lambda x: (np.stack([x[:, 0, 0, 0], x[:, 0, -1, 0]], 1).astype(np.float32), np.zeros((len(x), 1), np.float32))
    >>> image = np.zeros((1, 2, 2, 3), np.uint8)
    >>> image[0, 0, 0] = 4
    >>> [softmax(apply_recipe(recipe, left, image)[0]).round(3).tolist() for recipe in ("plain", "flips")]
    [[[0.982, 0.018]], [[0.5, 0.5]]]
    """
    if name not in RECIPES:
        raise ModelError(f"recipe '{name}' is not one of {', '.join(RECIPES)}{nearest(name, list(RECIPES))}")
    return RECIPES[name](forward, images_BHW3)


def softmax(logits_BC: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities in float64, so that each row sums to 1; any finite logits, B may be 0.

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    return np.exp(_log_softmax(logits_BC))


def _log_softmax(logits_BC: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    shifted_BC = logits_BC.astype(np.float64)
    shifted_BC = shifted_BC - shifted_BC.max(axis=1, keepdims=True)
    return np.asarray(shifted_BC - np.log(np.exp(shifted_BC).sum(axis=1, keepdims=True)), dtype=np.float64)
