"""Images with a part painted over, a planted mark, or another image's border: inputs of the negative controls."""

# Shapes: N images, H height, W width.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

RING = 1 / 8
"""Width of the border, as a share of each edge: 44 % of the image."""
MARGIN = 0.05
"""By how much a lesion's box is grown on every side, as a share of each edge, so that no rim of the lesion stays."""
INK_RGB = (70, 40, 150)
"""Gentian violet, with which skin is marked."""
MARK = 1 / 8
"""Edge of the planted mark, as a share of the image's."""
BLANK = 128
"""Gray of an image that is painted over as a whole."""


def ring(height: int, width: int) -> Mask:
    """(H, W) True in the border, `RING` of each edge wide.

    >>> int(ring(8, 16).sum())
    56
    """
    shown = np.ones((height, width), dtype=bool)
    y, x = max(1, round(RING * height)), max(1, round(RING * width))
    shown[y : height - y, x : width - x] = False
    return shown


def box(mask_HW: Mask) -> Mask:
    """(H, W) True in the upright rectangle around the lesion, grown by `MARGIN`; a rectangle hides the lesion's outline.

    >>> mask = np.zeros((20, 20), bool)
    >>> mask[5:8, 10] = True
    >>> int(box(mask).sum())
    15
    """
    filled = np.zeros_like(mask_HW)
    if not mask_HW.any():
        return filled
    y, x = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    high, wide = (round(MARGIN * edge) for edge in mask_HW.shape)
    filled[max(0, y[0] - high) : y[-1] + 1 + high, max(0, x[0] - wide) : x[-1] + 1 + wide] = True
    return filled


def only(image_HW3: Image, shown_HW: Mask) -> Image:
    """(H, W, 3) the image with all else painted in the mean color of what is shown, so that nothing of the rest is left.

    >>> only(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.array([[True, True], [False, False]]))[1, 0].tolist()
    [2, 2, 4]
    """
    painted = np.array(image_HW3)
    painted[~shown_HW] = np.round(image_HW3[shown_HW].mean(axis=0)) if shown_HW.any() else BLANK
    return painted


def mark(image_HW3: Image, corner: int) -> Image:
    """(H, W, 3) the image with a square of violet ink in a corner.

    Args:
        image_HW3: RGB.
        corner: 0..3: upper left, upper right, lower left, lower right.

    >>> mark(np.zeros((8, 8, 3), np.uint8), 3)[7, 7].tolist()
    [70, 40, 150]
    """
    painted = np.array(image_HW3)
    height, width = painted.shape[:2]
    y, x = max(1, round(MARK * height)), max(1, round(MARK * width))
    rows = slice(height - y, height) if corner & 2 else slice(0, y)
    columns = slice(width - x, width) if corner & 1 else slice(0, x)
    painted[rows, columns] = INK_RGB
    return painted


def with_border_of(image_HW3: Image, other_HW3: Image, shown_HW: Mask) -> Image:
    """(H, W, 3) the image with the other's pixels where `shown` says so.

    >>> with_border_of(np.zeros((1, 2, 3), np.uint8), np.ones((1, 2, 3), np.uint8), np.array([[True, False]]))[0, :, 0].tolist()
    [1, 0]
    """
    return np.where(shown_HW[..., None], other_HW3, image_HW3)
