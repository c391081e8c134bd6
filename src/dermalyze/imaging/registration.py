"""How alike two small images are once one is laid on the other: shifted and stretched, detail against detail.

Photographs of two subjects resemble each other in what is large (a dark blot on an even ground, dark corners); two copies
of one photograph also agree in what is small. So images are compared by their detail: what lies between two Gaussian blurs,
divided by its local strength, so that a strong outline does not drown fine structure. The dark frame of a round field
of view, the rim along it and over-exposed places tell nothing and are left out.

Shapes: N pairs of C planes of S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FINE_PX, COARSE_PX = 0.5, 2.0
FLOOR = 1.5
"""Gray levels added to the local strength, so that the noise of an even ground counts little."""
LIMIT = 0.8
"""Detail is cut here: an outline counts no more than the structure within."""

OUTER, DARK, RIM = 0.75, 0.7, 0.07
"""A frame lies farther out than this share of the way from the center to an edge, is darker than this share of the image's
median, and spoils this share of an edge along it."""

MAX_SHIFT = 0.16
"""How far an edge of one image may lie from the other's, as a share of it: a tenth cropped off, with a margin."""
MAX_STEP = 0.05
TRUST = 0.25
"""A correlation counts by this power of the share of the image that both show within their frames: by chance a small part
agrees more easily than the whole."""

Planes = NDArray[np.float32]


@dataclass(frozen=True)
class Detail:
    """The fine structure of images.

    Attributes:
        values: (N, C, S, S), -0.8..0.8.
        valid: (N, C, S, S), 1 where a value can be believed, else 0: outside the frame, or black or white.
        inside: (N, 1, S, S), 1 within a round field of view and everywhere in other images, else 0.
    """

    values: Planes
    valid: Planes
    inside: Planes


def detail(planes_NCSS: NDArray[np.uint8], *, fine_px: float = FINE_PX, coarse_px: float = COARSE_PX) -> Detail:
    """The fine structure of each image: a band of frequencies, divided by its local strength.

    Args:
        planes_NCSS: colors, or green alone.
        fine_px, coarse_px: standard deviations of the two blurs.

    >>> found = detail(np.full((1, 3, 16, 16), 90, np.uint8))
    >>> float(np.abs(found.values).max()) < 1e-4, float(found.valid.min())
    (True, 1.0)
    """
    planes, size = planes_NCSS.astype(np.float32), planes_NCSS.shape[2]
    fine, coarse = _gaussian(size, fine_px), _gaussian(size, coarse_px)
    band = fine @ planes @ fine.T - coarse @ planes @ coarse.T
    strength = np.sqrt(coarse @ (band**2).mean(axis=1, keepdims=True) @ coarse.T)
    exposed = fine @ ((planes > 1) & (planes < 253)).astype(np.float32) @ fine.T > 0.8
    found = np.clip(band / (strength + FLOOR), -LIMIT, LIMIT)
    inside = _within_frame(planes)
    return Detail(*(part.astype(np.float32) for part in (found, exposed & inside, inside)))


def _within_frame(planes: Planes) -> NDArray[np.bool_]:
    """(N, 1, S, S) false in the dark frame of a round field of view and a rim along it."""
    size = planes.shape[2]
    place = (2 * np.arange(size) + 1) / size - 1
    blur, rim = _gaussian(size, 0.03 * size), _gaussian(size, RIM * size)
    grey = blur @ planes.mean(axis=1, keepdims=True) @ blur.T
    dark = (grey < DARK * np.median(grey, axis=(2, 3), keepdims=True)) & (place[:, None] ** 2 + place**2 > OUTER**2)
    return np.asarray(rim @ dark.astype(np.float32) @ rim.T < 0.05)


def _gaussian(size: int, sigma_px: float) -> Planes:
    """(size, size) blur of a column; rows sum to 1, so that borders are not darkened."""
    place = np.arange(size)
    weight = np.exp(-0.5 * ((place[:, None] - place) / sigma_px) ** 2)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)


def aligned_correlation(fixed: Detail, moving: Detail, start_N4: Planes, *, steps: int) -> tuple[Planes, Planes]:
    """The correlation of pairs after the best shift and stretch of the second image, by Gauss-Newton steps from a guess.

    Args:
        fixed, moving: of both images.
        start_N4: top, bottom, left, right of the part of the second image that shows what the first one does; 0..1 is the
            image itself, and a part may reach beyond.
        steps: 0: at the guess itself.

    Returns:
        (correlation (N,) in -1..1 over what can be compared, less where the images share little; the part (N, 4) where it is
        highest).

    Lucas and Kanade 1981, towards the correlation of Evangelidis and Psarakis 2008, doi 10.1109/TPAMI.2008.113.
    """
    still, planes = fixed.values, moving.values
    size, n = still.shape[2], len(still)
    part = start_N4.astype(np.float32)
    best, where = np.full(n, -1, np.float32), part
    slopes = np.gradient(planes, axis=(2, 3))
    far = ((np.arange(size) + 0.5) / size).astype(np.float32)  # a pixel's way from the first edge to the second
    for step in range(steps + 1):
        down, across = _sampling(part[:, :2], size)[:, None], _sampling(part[:, 2:], size)[:, None].swapaxes(2, 3)
        shared = np.asarray(fixed.valid * (down @ moving.valid @ across) > 0.5, dtype=np.float32)
        overlap = fixed.inside * (down @ moving.inside @ across) > 0.5
        one, _ = _unit(still * shared)
        two, length = _unit(np.asarray(down @ planes @ across * shared, dtype=np.float32))
        value = (one * two).sum(axis=(1, 2, 3)) * overlap.mean(axis=(1, 2, 3)) ** TRUST
        better = value > best
        best, where = np.where(better, value, best), np.where(better[:, None], part, where)
        if step == steps:
            break
        slope_y, slope_x = (down @ slope @ across * (shared * size / length) for slope in slopes)
        ways = (slope_y * (1 - far[:, None]), slope_y * far[:, None], slope_x * (1 - far), slope_x * far)
        jacobian = np.stack([way.reshape(n, -1) for way in ways], axis=1)
        jacobian -= (jacobian @ two.reshape(n, -1, 1)) * two.reshape(n, 1, -1)  # what only scales changes no correlation
        normal = jacobian @ jacobian.swapaxes(1, 2)
        normal += np.eye(4) * (1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-9)
        push = np.linalg.solve(normal, jacobian @ (one - two).reshape(n, -1, 1))[:, :, 0]
        ideal = np.array([0, 1, 0, 1])
        part = part + np.clip(push, -MAX_STEP, MAX_STEP)
        part = np.clip(part, ideal - MAX_SHIFT, ideal + MAX_SHIFT).astype(np.float32)
    return best.astype(np.float32), where


def _unit(planes: Planes) -> tuple[Planes, Planes]:
    length = np.sqrt((planes**2).sum(axis=(1, 2, 3), keepdims=True)) + 1e-6
    return planes / length, length


def _sampling(span_N2: Planes, size: int) -> Planes:
    """(N, S, S) linear interpolation at S places from the first edge to the second; rows beyond the image are 0."""
    place = (span_N2[:, :1] + (span_N2[:, 1:] - span_N2[:, :1]) * (np.arange(size) + 0.5) / size) * size - 0.5
    inside = (place > -0.5) & (place < size - 0.5)
    weight = np.maximum(0, 1 - np.abs(np.clip(place, 0, size - 1)[:, :, None] - np.arange(size)))
    return np.asarray(weight * inside[:, :, None], dtype=np.float32)


def crop(planes_NSS: Planes, window: tuple[float, float, float, float]) -> Planes:
    """A window (top, bottom, left, right, each 0..1) of every plane, at the planes' own size.

    >>> crop(np.arange(16, dtype=np.float32).reshape(1, 4, 4), (0, 1, 0.25, 0.75))[0, 0].tolist()
    [0.75, 1.25, 1.75, 2.25]
    """
    size = planes_NSS.shape[2]
    down, across = _sampling(np.array([window[:2], window[2:]], dtype=np.float32), size)
    found: Planes = down @ planes_NSS @ across.T
    return found
