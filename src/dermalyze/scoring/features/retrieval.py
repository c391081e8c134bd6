"""Training cases that an image resembles."""

# Shapes: N training images, D features.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalyze.scoring.features.neighbors import cosine_distances, nearest_groups
from dermalyze.scoring.predictions import Predictions


@dataclass(frozen=True)
class Neighbour:
    """A training case: the image of one group that is nearest.

    Attributes:
        image_id: the user's key.
        group: what it belongs to.
        label: its diagnosis, or its labels as the manifest holds them.
        distance: cosine distance of the features, 0 (alike) to 2.
    """

    image_id: str
    group: str
    label: str
    distance: float


def nearest_cases(p: Predictions, query_1D: NDArray[np.float32], k: int, *, without: set[str]) -> tuple[Neighbour, ...]:
    """The nearest image of each of the k nearest groups, `without` left out."""
    assert p.embedding is not None
    ((_, far_1N),) = cosine_distances(query_1D, p.embedding)
    nearest = nearest_groups(far_1N[0], p.groups, k + len(without))
    labels = p.task.texts(p.labels[nearest], p.classes)
    cases = (Neighbour(p.ids[i], p.groups[i], label, float(far_1N[0, i])) for i, label in zip(nearest, labels, strict=True))
    return tuple(one for one in cases if one.group not in without)[:k]
