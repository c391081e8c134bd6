"""What would change an answer: the smallest part of a picture that, painted over, makes another class the most probable.

Shapes: H, W pixels; K windows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dermalyze.explain.faithfulness import Image, Predict

EDGES = (0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Of the window, as shares of the picture's; half a window is the step."""


@dataclass(frozen=True)
class Flip:
    """A window that changes the answer.

    Attributes:
        top, left, bottom, right: shares of the picture's height and width, 0..1.
        share: of the picture's area.
        becomes: index of the class that is then the most probable.
        probability: of that class then.
    """

    top: float
    left: float
    bottom: float
    right: float
    share: float
    becomes: int
    probability: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def windows(height: int, width: int, edge: float) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of a window at every half of its edge, and at the far sides.

    >>> windows(4, 4, 0.5)[:2], len(windows(4, 4, 0.5))
    ([(0, 0, 2, 2), (0, 1, 2, 3)], 9)
    """
    tall, wide = max(1, round(edge * height)), max(1, round(edge * width))
    tops = sorted({*range(0, height - tall + 1, max(1, tall // 2)), height - tall})
    lefts = sorted({*range(0, width - wide + 1, max(1, wide // 2)), width - wide})
    return [(top, left, top + tall, left + wide) for top in tops for left in lefts]


def smallest_flip(image_HW3: Image, predict: Predict) -> Flip | None:
    """The smallest window of `EDGES`, painted in the picture's mean colour, that changes the answer; None if none does.

    Of equally large ones it is the one that makes the other class the most probable.

    Args:
        image_HW3: RGB at the network's size.
        predict: see `explain.faithfulness.Predict`.
    """
    height, width = image_HW3.shape[:2]
    colour = np.rint(image_HW3.mean(axis=(0, 1))).astype(np.uint8)
    called = int(predict(image_HW3[None])[0].argmax())
    for edge in EDGES:
        places = windows(height, width, edge)
        painted = np.repeat(image_HW3[None], len(places), axis=0)
        for one, (top, left, bottom, right) in zip(painted, places, strict=True):
            one[top:bottom, left:right] = colour
        p = predict(painted)
        other = p.argmax(axis=1)
        if (other != called).any():
            k = int(np.where(other != called, p.max(axis=1), -1.0).argmax())
            top, left, bottom, right = places[k]
            return Flip(
                top / height, left / width, bottom / height, right / width, (bottom - top) * (right - left) / (height * width),
                int(other[k]), float(p[k].max()),
            )  # fmt: skip
    return None
