"""A dermatologist's words, measured from an image and the lesion's mask: asymmetry, border, colors, diameter.

They describe a shape. None of them is a diagnosis, and none has a threshold here.

Shapes: H, W pixels; P pixels of the lesion.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from dermalyze.imaging.skin_tone import lab

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
LEAST_PX = 50  # smaller lesions have no measurable outline

MEANINGS: dict[str, tuple[str, str]] = {
    "asymmetry": (
        "asymmetry",
        "share of the lesion that does not cover its mirror image, mean over its two principal axes; 0 of an ellipse, below 1",
    ),
    "border": (
        "border irregularity",
        "perimeter squared over 4 pi area, minus 1; 0 of a circle, 0.27 of a square, more for notches",
    ),
    "colors": ("color variety", "root mean square distance of the lesion's colors from their mean, CIELAB units"),
    "diameter_px": ("diameter", "largest distance of two points of the outline, pixels of the image"),
    "diameter_mm": ("diameter", "the same in millimetres, where the scale is known"),
}
SOURCE = (
    "After the ABCD rule (Nachbar et al. 1994, doi:10.1016/S0190-9622(94)70061-3) as measured by Celebi et al. 2007, "
    "doi:10.1016/j.compmedimag.2007.01.003; definitions here, no thresholds, no diagnosis."
)


@dataclass(frozen=True)
class Abcd:
    """What was measured; see `MEANINGS`.

    Attributes:
        asymmetry: 0..1.
        border: 0 or more.
        colors: CIELAB units, 0 or more.
        diameter_px: above 0.
        diameter_mm: the same, or None where no scale is known.
        cut_off: the lesion reaches the image's frame, so that the true values are unknown.
    """

    asymmetry: float
    border: float
    colors: float
    diameter_px: float
    diameter_mm: float | None
    cut_off: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def measure(pixels_HW3: NDArray[np.uint8], mask_HW: Mask, *, mm_per_px: float | None = None) -> Abcd | None:
    """The four measures of one lesion, of its largest connected part with holes filled; None of fewer than 50 pixels.

    Args:
        pixels_HW3: RGB.
        mask_HW: True in the lesion.
        mm_per_px: width of a pixel, mm, above 0; None: unknown.

    >>> mask = np.zeros((40, 60), bool)
    >>> mask[10:30, 10:50] = True
    >>> found = measure(np.zeros((40, 60, 3), np.uint8), mask, mm_per_px=0.1)
    >>> round(found.asymmetry, 2), found.colors, found.cut_off
    (0.0, 0.0, False)
    """
    whole = largest(mask_HW)
    if whole.sum() < LEAST_PX:
        return None
    diameter = feret(whole)
    edges = (whole[0], whole[-1], whole[:, 0], whole[:, -1])
    return Abcd(
        asymmetry=round(asymmetry(whole), 4),
        border=round(max(0.0, perimeter(whole) ** 2 / (4 * math.pi * float(whole.sum())) - 1), 4),
        colors=round(spread(lab(pixels_HW3[whole])), 4),
        diameter_px=round(diameter, 2),
        diameter_mm=None if mm_per_px is None else round(diameter * mm_per_px, 3),
        cut_off=any(bool(edge.any()) for edge in edges),
    )


def largest(mask_HW: Mask) -> Mask:
    """The largest connected part (corners join), with its holes filled."""
    labels, count = ndimage.label(mask_HW, np.ones((3, 3)))
    if count == 0:
        return np.zeros_like(mask_HW)
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes))), dtype=bool)


def asymmetry(mask_HW: Mask) -> float:
    """Share of the lesion beyond its mirror image: |A xor mirrored A| / (2 |A|), mean over both principal axes, 0..1.

    The lesion is turned so that its principal axes lie along rows and columns, about its center of mass.

    >>> asymmetry(np.pad(np.ones((10, 20), bool), 8)) < 0.02
    True
    """
    y, x = np.nonzero(mask_HW)
    points_P2 = np.stack([y - y.mean(), x - x.mean()], axis=1)
    _, axes_22 = np.linalg.eigh(points_P2.T @ points_P2)
    along = points_P2 @ axes_22
    reach = int(np.ceil(np.abs(along).max())) + 2
    grid = np.arange(-reach, reach + 1, dtype=float)
    steps = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1) @ axes_22.T
    places = [steps[..., 0] + y.mean(), steps[..., 1] + x.mean()]
    turned = ndimage.map_coordinates(mask_HW.astype(np.float32), places, order=1, cval=0.0) > 0.5
    shares = [float((turned ^ np.flip(turned, axis)).sum()) / (2 * float(turned.sum())) for axis in (0, 1)]
    return float(np.mean(shares))


def perimeter(mask_HW: Mask) -> float:
    """Length of the outline, px: Crofton's formula with four directions, which does not count the stairs of pixels.

    Legland, Kieu & Devaux 2007, doi:10.5566/ias.v26.p83-92
    """
    padded = np.pad(mask_HW, 1)
    across = [
        (np.diff(padded.astype(np.int8), axis=0) != 0).sum(),
        (np.diff(padded.astype(np.int8), axis=1) != 0).sum(),
    ]
    slant = [(padded[1:, 1:] != padded[:-1, :-1]).sum(), (padded[1:, :-1] != padded[:-1, 1:]).sum()]
    return float(math.pi / 8 * (sum(across) + sum(slant) / math.sqrt(2)))


def feret(mask_HW: Mask) -> float:
    """Largest distance of two corners of the lesion's pixels, px.

    >>> feret(np.ones((3, 4), bool))
    5.0
    """
    y, x = np.nonzero(mask_HW)
    corners = np.unique(np.concatenate([np.stack([y + dy, x + dx], axis=1) for dy in (0, 1) for dx in (0, 1)]), axis=0)
    try:
        outer = corners[ConvexHull(corners).vertices].astype(float)
    except QhullError:  # all in one line
        outer = corners.astype(float)
    return float(np.sqrt(np.square(outer[:, None] - outer[None]).sum(axis=-1).max()))


def spread(lab_P3: Floats) -> float:
    """Root mean square distance of colors from their mean.

    >>> spread(np.array([[0.0, 0, 0], [10.0, 0, 0]]))
    5.0
    """
    return float(np.sqrt(np.square(lab_P3 - lab_P3.mean(axis=0)).sum(axis=1).mean()))
