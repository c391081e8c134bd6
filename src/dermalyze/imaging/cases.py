"""A case of two images as one array, so that crops, rotations and batches treat both alike.

planes 0..2   the first image, RGB
planes 3..5   the second image, RGB; black where there is none
plane  6      1 where there is a second image, else 0; the same over the whole plane
"""

# Shapes: B cases, H height, W width.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PLANES = 7

Pixels = NDArray[np.uint8]


def packed(first: Pixels, second: Pixels | None, known_B: NDArray[np.bool_] | None = None) -> Pixels:
    """Cases (..., H, W, 7) of first images (..., H, W, 3) and second ones of the same shape.

    Args:
        first: uint8.
        second: uint8; None: there is none.
        known_B: of a batch, which second images there are; default: all of them.

    >>> case = packed(np.full((1, 1, 3), 9, np.uint8), None)
    >>> case.tolist()
    [[[9, 9, 9, 0, 0, 0, 0]]]
    """
    cases = np.zeros((*first.shape[:-1], PLANES), np.uint8)
    cases[..., :3] = first
    if second is not None:
        there = np.ones(first.shape[:-3], bool) if known_B is None else known_B
        cases[..., 3:6] = np.where(there[..., None, None, None], second, 0)
        cases[..., 6] = there[..., None, None]
    return cases


def statistics(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the planes of a case, from those of RGB on a scale of 0..1; the last plane comes out as 0 or 1.

    >>> statistics((0.5,) * 3, (0.25,) * 3)[0]
    (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0)
    """
    return (*mean, *mean, 0.0), (*std, *std, 1 / 255)


def unpacked(cases_BHW7: Pixels) -> tuple[Pixels, Pixels, NDArray[np.bool_]]:
    """First images (B, H, W, 3), second images (B, H, W, 3), and which of these there are (B,).

    >>> first, second, known = unpacked(packed(np.full((2, 1, 1, 3), 9, np.uint8), np.full((2, 1, 1, 3), 5, np.uint8)))
    >>> int(first[0, 0, 0, 0]), int(second[0, 0, 0, 0]), known.tolist()
    (9, 5, [True, True])
    """
    first, second = (np.ascontiguousarray(part) for part in (cases_BHW7[..., :3], cases_BHW7[..., 3:6]))
    return first, second, cases_BHW7[:, 0, 0, 6] > 0
