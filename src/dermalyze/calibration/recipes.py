"""Inference recipes: how one answer is made from one or more passes of a network. A calibration belongs to one recipe.

Pure numpy: the step `score`, the predictor and the evaluation of another set run the very same passes.
"""

# Shapes: B or N images, H height, W width, S passes, C classes, D width of the embedding.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.errors import ModelError, nearest
from dermalyze.imaging.samples import Array, Batch, as_batch, image_names
from dermalyze.metrics.activation import log_softmax

Images = NDArray[Any]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
Forward = Callable[[Batch], Outputs]
Samples = NDArray[np.float32]

TURN_DEGREES, BRIGHTER = 5.0, 0.1  # of `tta`


def plain(images_BHW3: Images) -> tuple[Images, ...]:
    """The image as it is."""
    return (images_BHW3,)


def flips(images_BHW3: Images) -> tuple[Images, ...]:
    """The image, its two mirror images and the half turn."""
    return images_BHW3, images_BHW3[:, :, ::-1], images_BHW3[:, ::-1], images_BHW3[:, ::-1, ::-1]


def tta(images_BHW3: Images) -> tuple[Images, ...]:
    """The image, its two mirror images, turned by 5 degrees either way, a tenth brighter and a tenth darker."""
    turned = (turn(images_BHW3, degrees) for degrees in (TURN_DEGREES, -TURN_DEGREES))
    lit = (brighten(images_BHW3, factor) for factor in (1 + BRIGHTER, 1 - BRIGHTER))
    return images_BHW3, images_BHW3[:, :, ::-1], images_BHW3[:, ::-1], *turned, *lit


RECIPES: dict[str, Callable[[Images], tuple[Images, ...]]] = {"plain": plain, "flips": flips, "tta": tta}
"""Images (B, H, W, 3) to the views of them that are answered. Each list is fixed: nothing is drawn."""


def apply_recipe(
    name: str, forward: Forward, batch: Batch | Array, pooled: Callable[[Samples], Samples] | None = None
) -> Outputs:
    """Logits and embedding of a batch by a named recipe; `pool` of its `passes`.

    Args:
        name: a key of `RECIPES`.
        forward: a batch to logits (B, C) and embedding (B, D), float32.
        batch: inputs by name at the network's size (images alone may come as an array); B may be 0.
        pooled: logits (B, S, C) of several passes to (B, C), as the task has it; None: `pool`.

    Returns:
        logits (B, C) float32, whose softmax is the recipe's probability, and embedding (B, D) float32.

    Raises:
        ModelError: no such recipe.

    >>> from dermalyze.metrics.activation import softmax
    >>> def left(batch):
    ...     x = batch["image"]
    ...     return np.stack([x[:, 0, 0, 0], x[:, 0, -1, 0]], 1).astype(np.float32), np.zeros((len(x), 1), np.float32)
    >>> image = np.zeros((1, 2, 2, 3), np.uint8)
    >>> image[0, 0, 0] = 4
    >>> [softmax(apply_recipe(recipe, left, image)[0]).round(3).tolist() for recipe in ("plain", "flips")]
    [[[0.982, 0.018]], [[0.5, 0.5]]]
    """
    samples_BSC, embedding_BD = passes(name, forward, batch)
    return (pool if pooled is None else pooled)(samples_BSC), embedding_BD


def passes(name: str, forward: Forward, batch: Batch | Array) -> Outputs:
    """The network's answer to each view of a recipe.

    Args:
        name, forward, batch: as for `apply_recipe`. Every image of a sample is seen in the same view.

    Returns:
        logits (B, S, C) float32 of the S views, and the mean embedding (B, D) float32.

    Raises:
        ModelError: no such recipe.
    """
    if name not in RECIPES:
        raise ModelError(f"recipe '{name}' is not one of {', '.join(RECIPES)}{nearest(name, list(RECIPES))}")
    batch = as_batch(batch)
    views = {key: RECIPES[name](batch[key]) for key in image_names(batch)}
    outputs = [
        forward({**batch, **{key: np.ascontiguousarray(image) for key, image in zip(views, images, strict=True)}})
        for images in zip(*views.values(), strict=True)
    ]
    embedding_BD = outputs[0][1]
    if len(outputs) > 1:
        embedding_BD = np.stack([embedding for _, embedding in outputs]).mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.stack([logits for logits, _ in outputs], axis=1), embedding_BD


def pool(samples_NSC: Samples) -> Samples:
    """One answer from several passes, or members of an ensemble: the mean of their probabilities, never of their logits.

    Args:
        samples_NSC: logits of S passes, finite.

    Returns:
        (N, C) float32 log of the mean probability, whose softmax is that mean; of one pass the logits themselves.

    >>> from dermalyze.metrics.activation import softmax
    >>> softmax(pool(np.log([[[0.9, 0.1], [0.5, 0.5]]]).astype(np.float32))).round(3).tolist()
    [[0.7, 0.3]]
    """
    if samples_NSC.shape[1] == 1:
        return np.asarray(samples_NSC[:, 0], dtype=np.float32)
    n, s, c = samples_NSC.shape
    log_probs_NSC = log_softmax(samples_NSC.reshape(n * s, c)).reshape(n, s, c)
    return np.asarray(np.logaddexp.reduce(log_probs_NSC, axis=1) - np.log(s), dtype=np.float32)


def turn(images_BHW3: Images, degrees: float) -> Images:
    """Images turned about their middle, counter-clockwise, bilinear; what comes into view mirrors what is at the edge.

    Mirrored, not black: black corners are found at the edge of a dermatoscope's field and would say something.

    Args:
        images_BHW3: uint8 or uint16; H and W at least 1.
        degrees: any.

    >>> image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    >>> bool((turn(image, 90) == np.rot90(image, axes=(1, 2))).all())
    True
    """
    height, width = images_BHW3.shape[1:3]
    angle = np.deg2rad(degrees)
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    from_y = (y * np.cos(angle) + x * np.sin(angle) + (height - 1) / 2).round(6)
    from_x = (x * np.cos(angle) - y * np.sin(angle) + (width - 1) / 2).round(6)
    top, left = np.floor(from_y).astype(np.int64), np.floor(from_x).astype(np.int64)
    down, right = from_y - top, from_x - left
    corners = [
        (_mirrored(top + i, height) * width + _mirrored(left + k, width), (weight_y * weight_x).astype(np.float32)[..., None])
        for i, weight_y in enumerate((1 - down, down))
        for k, weight_x in enumerate((1 - right, right))
    ]
    turned_BHW3 = np.empty_like(images_BHW3)
    for image_HW3, turned_HW3 in zip(images_BHW3, turned_BHW3, strict=True):  # one by one, which stays in a core's cache
        pixels_P3 = image_HW3.reshape(height * width, -1)
        turned_HW3[:] = np.rint(sum(np.take(pixels_P3, place, axis=0) * weight for place, weight in corners))
    return turned_BHW3


def brighten(images_BHW3: Images, factor: float) -> Images:
    """Pixel values times a factor, rounded and cut at the largest of the type.

    >>> brighten(np.array([0, 100, 250], np.uint8), 1.1).tolist()
    [0, 110, 255]
    """
    largest = np.iinfo(images_BHW3.dtype).max
    table = (np.arange(largest + 1) * factor).round().clip(0, largest).astype(images_BHW3.dtype)
    return np.asarray(table[images_BHW3])


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places beyond an edge, taken back into 0..size-1 as by a mirror that stands on the edge's outer side."""
    folded = np.mod(index, 2 * size)
    return np.asarray(np.minimum(folded, 2 * size - 1 - folded))
