"""An image's colors and textures as a short row of numbers: features where no trained network is available.

Nothing depends on which way up the image is: colors are read in rings about the center, texture without direction.
"""

# Shapes: H height, W width, K rings, D features.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.ranking import Floats

RINGS = 5
EDGES = np.array([0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, np.inf])
"""Gradient magnitudes, of intensities 0..1, that bound the bins of texture."""
SCALES = (1, 2, 4)
FEATURES = RINGS * 9 + len(SCALES) * 2 * (len(EDGES) - 1) + 64


def describe(pixels_HW3: NDArray[np.uint8]) -> Floats:
    """(151,) features of one image, each about 0..1.

    In each of 5 rings of equal width from the center out: mean, standard deviation and third root of the third central
    moment of brightness, red-green and yellow-blue (Stricker & Orengo 1995, "Similarity of color images", doi
    10.1117/12.205308). At 3 scales, inside and outside the third ring: shares of the pixels by gradient magnitude. Last, the
    square roots of a 4 x 4 x 4 histogram of RGB.

    Args:
        pixels_HW3: uint8 RGB, both edges 8 px or more.

    >>> describe(np.full((32, 32, 3), 255, np.uint8)).shape
    (151,)
    """
    rgb = pixels_HW3.astype(np.float64) / 255
    opponent = np.stack([rgb.mean(axis=2), rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]], axis=2)
    ring = _rings(*pixels_HW3.shape[:2])
    moments = np.concatenate([_moments(opponent[ring == k]) for k in range(RINGS)])
    textures = [_texture(opponent[..., 0], scale) for scale in SCALES]
    code = (pixels_HW3 >> 6).astype(np.int64) @ np.array([16, 4, 1])
    histogram = np.sqrt(np.bincount(code.ravel(), minlength=64) / code.size)
    return np.concatenate([moments, *textures, histogram])


def _rings(height: int, width: int) -> NDArray[np.int64]:
    """(H, W) ring of each pixel, 0 in the center, by distance in half edges; the corners belong to the last."""
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    distance_HW: Floats = np.hypot(y[:, None], x) * RINGS
    return np.minimum(distance_HW, RINGS - 1).astype(np.int64)


def _moments(values_N3: Floats) -> Floats:
    mean = values_N3.mean(axis=0)
    centred = values_N3 - mean
    return np.concatenate([mean, np.sqrt((centred**2).mean(axis=0)), np.cbrt((centred**3).mean(axis=0))])


def _texture(grey_HW: Floats, scale: int) -> Floats:
    """Shares of the pixels by gradient magnitude, in the inner and in the outer rings, after averaging blocks of pixels."""
    height, width = (edge // scale for edge in grey_HW.shape)
    blocks = grey_HW[: height * scale, : width * scale].reshape(height, scale, width, scale).mean(axis=(1, 3))
    magnitude = np.hypot(*np.gradient(blocks))
    inner = _rings(height, width) <= RINGS // 2
    return np.concatenate([np.histogram(magnitude[part], EDGES)[0] / max(1, part.sum()) for part in (inner, ~inner)])
