"""What would change an answer: the smallest part of an image that, painted over, makes the network call it something else.

Shapes: H, W pixels; K windows; C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalyze.explain.faithfulness import Image, Predict
from dermalyze.metrics.ranking import Floats

EDGES = (0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Of the window, as shares of the image's; half a window is the step."""


@dataclass(frozen=True)
class Flip:
    """A window that changes the answer.

    Attributes:
        top, left, bottom, right: shares of the image's height and width, 0..1.
        share: of the image's area.
        becomes: (C,) whether it is then called so.
        probability: of what is then called and was not; where nothing is, that what was called is absent.
    """

    top: float
    left: float
    bottom: float
    right: float
    share: float
    becomes: NDArray[np.bool_]
    probability: float


def windows(height: int, width: int, edge: float) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of a window at every half of its edge, and at the far sides.

    >>> windows(4, 4, 0.5)[:2], len(windows(4, 4, 0.5))
    ([(0, 0, 2, 2), (0, 1, 2, 3)], 9)
    """
    tall, wide = max(1, round(edge * height)), max(1, round(edge * width))
    tops = sorted({*range(0, height - tall + 1, max(1, tall // 2)), height - tall})
    lefts = sorted({*range(0, width - wide + 1, max(1, wide // 2)), width - wide})
    return [(top, left, top + tall, left + wide) for top in tops for left in lefts]


def smallest_flip(image_HW3: Image, predict: Predict, call: Callable[[Floats], NDArray[np.bool_]]) -> Flip | None:
    """The smallest window of `EDGES`, painted in the image's mean color, that changes the answer; None if none does.

    Of equally large ones it is the one that makes the other answer the most probable.

    Args:
        image_HW3: RGB at the network's size.
        predict: see `explain.faithfulness.Predict`.
        call: probabilities (K, C) to (K, C) whether an image is called so.
    """
    height, width = image_HW3.shape[:2]
    colour = np.rint(image_HW3.mean(axis=(0, 1))).astype(np.uint8)
    called_1C = call(predict(image_HW3[None]))
    for edge in EDGES:
        places = windows(height, width, edge)
        painted = np.repeat(image_HW3[None], len(places), axis=0)
        for one, (top, left, bottom, right) in zip(painted, places, strict=True):
            one[top:bottom, left:right] = colour
        p = predict(painted)
        other_KC = call(p)
        gained_KC, lost_KC = other_KC & ~called_1C, called_1C & ~other_KC
        if (gained_KC | lost_KC).any():
            sure_K = np.where(gained_KC, p, -1.0).max(axis=1)
            sure_K = np.where(gained_KC.any(axis=1), sure_K, np.where(lost_KC, 1 - p, -1.0).max(axis=1))
            k = int(sure_K.argmax())
            top, left, bottom, right = places[k]
            return Flip(
                top / height, left / width, bottom / height, right / width, (bottom - top) * (right - left) / (height * width),
                other_KC[k], float(sure_K[k]),
            )  # fmt: skip
    return None
