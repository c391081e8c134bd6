"""Classes by words: the directions of prompts in the space that a CLIP-type model gives images and texts."""

# Shapes: N images, T texts of a class, C classes, D features.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.features.neighbors import unit


def directions(texts: Sequence[NDArray[np.floating]]) -> Floats:
    """One direction a class (C, D), of length 1: the mean of its texts' directions.

    Args:
        texts: of each class, (T, D) features of its prompts, T 1 or more; T may differ between classes.

    Radford et al. 2021, arXiv:2103.00020, section 3.1.4

    >>> directions([np.array([[2.0, 0.0], [0.0, 5.0]])]).round(3).tolist()
    [[0.707, 0.707]]
    """
    return unit(np.stack([unit(text_TD).mean(axis=0) for text_TD in texts]))


def zero_shot(images_ND: NDArray[np.floating], directions_CD: Floats, scale: float) -> Floats:
    """Probabilities (N, C), none of them 0: the softmax over classes of `scale` times the cosine.

    Args:
        images_ND: features of images.
        directions_CD: of the classes, length 1.
        scale: 1 / temperature, as learned with the model; above 0, often 100.

    >>> zero_shot(np.array([[3.0, 0.0]]), np.eye(2), np.log(3)).round(3).tolist()
    [[0.75, 0.25]]
    """
    logits_NC = scale * (unit(images_ND) @ directions_CD.T)
    odds_NC = np.maximum(np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True)), np.finfo(np.float64).tiny)
    return np.asarray(odds_NC / odds_NC.sum(axis=1, keepdims=True), dtype=np.float64)
