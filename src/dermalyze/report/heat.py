"""Heat maps over an image: perceptually uniform, color-blind safe colors, transparent where the map is 0."""

# Shapes: H x W pixels.

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.uint8]

COLOURS = "viridis"
"""Perceptually uniform and color-blind safe; Smith, van der Walt & Firing 2015, bids.github.io/colormap."""
OPACITY = 0.62
"""Of the hottest pixel; the lesion stays visible below it."""
STEPS = 6


def heat_of(map_HW: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """(height, width) in 0..1: the positive part of a map divided by its maximum; all 0 if nothing is positive."""
    positive = np.maximum(map_HW, 0).astype(np.float32)
    top = float(positive.max())
    if top <= 0:
        return np.zeros((height, width), np.float32)
    picture = Image.fromarray(positive / top, mode="F").resize((width, height), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(picture, np.float32), 0, 1)


def overlay(image_HW3: Pixels, heat_HW: NDArray[np.float32]) -> Pixels:
    """The image with its heat map; pixels with heat 0 are unchanged.

    >>> overlay(np.full((1, 2, 3), 200, np.uint8), np.array([[0.0, 1.0]], np.float32))[0].tolist()
    [[200, 200, 200], [233, 219, 99]]
    """
    colours = np.asarray(mpl.colormaps[COLOURS](heat_HW))[..., :3] * 255
    alpha = (OPACITY * heat_HW)[..., None]
    return np.asarray(np.rint(image_HW3 * (1 - alpha) + colours * alpha), np.uint8)


def contoured(image_HW3: Pixels, mask_HW: NDArray[np.bool_]) -> Pixels:
    """The image with the outline of the lesion, white between dark lines, visible on any skin tone."""
    drawn = np.array(image_HW3)
    line = mask_HW & ~ndimage.binary_erosion(mask_HW)
    drawn[ndimage.binary_dilation(line, np.ones((3, 3))) & ~line] = 30
    drawn[line] = 255
    return drawn


def boxed(image_HW3: Pixels, box: tuple[float, float, float, float]) -> Pixels:
    """The image with a frame: top, left, bottom, right as shares of its height and width."""
    height, width = image_HW3.shape[:2]
    inside = np.zeros((height, width), dtype=bool)
    top, left, bottom, right = box
    inside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return contoured(image_HW3, inside)


def jpeg(pixels: Pixels, quality: int = 85) -> str:
    """A JPEG in base64, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode()


def scale_css() -> str:
    """The color scale as a CSS gradient: colors as on a light image, transparent at the low end."""
    stops = []
    for k in range(STEPS + 1):
        share = k / STEPS
        colour = np.asarray(mpl.colormaps[COLOURS](share))[:3] * 255
        alpha = OPACITY * share
        red, green, blue = (round(float(v)) for v in 235 * (1 - alpha) + colour * alpha)
        stops.append(f"rgb({red},{green},{blue}) {100 * share:.0f}%")
    return f"linear-gradient(to right, {', '.join(stops)})"
