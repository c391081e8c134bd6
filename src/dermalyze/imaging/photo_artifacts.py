"""Quality of one photograph: brightness, sharpness and color, and artifacts that are neither skin nor lesion.

Everything is measured on a reduction to at most 200 px (`THUMBNAIL_PX`), where the thresholds were set by eye on the real
HAM10000: estimates for the share of a set and for finding examples, no verdict on one image.

Shapes: H, W edges of the thumbnail, px; P pixels of a mask; T marks of a scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dermalyze.imaging.skin_tone import RIM_RADIUS, radius

Gray = NDArray[np.uint8]

THUMBNAIL_PX = 200
DIRECTIONS = 12  # in which lines are sought: every 15 degrees
HAIR_PX, TICK_PX, THIN_PX = 17, 5, 7  # a hair is at least so long, a mark of a scale so long, and either is thinner than 7 px
HAIR_CONTRAST, TICK_CONTRAST = 12, 18  # levels of 255 by which red is darker than beside the line
LESION_RADIUS = 0.6  # in half frames: inside lies the lesion; outside RIM_RADIUS mostly none of it
LEAST_PX = 100  # artifacts are not sought in images whose longer edge is shorter
RIM_CELLS = (6, 8)  # rows and columns of the grid whose outermost cells are the rim


@dataclass(frozen=True)
class Artifact:
    """A kind of artifact: neither skin nor lesion.

    Attributes:
        title: for a person.
        threshold: of the measure in `Look`, from which on it is said to be there.
        meaning: what is measured, and what it may be confused with.
    """

    title: str
    threshold: float
    meaning: str


ARTIFACTS: dict[str, Artifact] = {
    "hair": Artifact(
        "hair", 0.10, "thin dark lines; fine vessels and streaks in a lesion may pass for it, pale hair is not seen"
    ),
    "ruler": Artifact(
        "ruler", 1.0, "three or more even marks of a scale near the rim; a scale with fewer in the frame is not seen"
    ),
    "ink": Artifact("ink", 0.20, "vivid blue or violet away from the lesion; blue lesions that reach the rim may pass for it"),
    "dark_corners": Artifact(
        "dark corners", 0.5, "at least three corners less than half as bright as the image: the lens's rim"
    ),
    "glare": Artifact(
        "glare",
        0.02,
        "small white spots: reflections in gel and air bubbles; white scale, crust and white hairs may pass for it",
    ),
}
"""Detectors by the name of their measure in `Look`."""

STATISTICS = ("brightness", "contrast", "sharpness", "saturation", "red", "green", "blue")
"""Names of the measures that say how an image is taken rather than what is in it."""


@dataclass(frozen=True)
class Look:
    """What was measured on one image.

    Attributes:
        brightness, contrast: mean and standard deviation of luma (ITU-R BT.601), 0..1.
        sharpness: variance of the Laplacian of luma in levels of 255; Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548.
        saturation: mean of (largest - smallest channel) / largest, 0..1.
        red, green, blue: means, 0..1.
        hair: share of the frame that is the middle of thin dark lines, %.
        ruler: squared number of evenly spaced marks, over all marks like them.
        ink: share of the frame, %.
        dark_corners: 1 - brightness of the third darkest corner over that of the image, 0..1 (0 too where it is brighter).
        glare: share of the frame, %.
    """

    brightness: float
    contrast: float
    sharpness: float
    saturation: float
    red: float
    green: float
    blue: float
    hair: float
    ruler: float
    ink: float
    dark_corners: float
    glare: float


def measure(pixels_HW3: NDArray[np.uint8]) -> Look:
    """Measure one thumbnail.

    Args:
        pixels_HW3: uint8 RGB, longer edge `THUMBNAIL_PX` or less; the artifacts are NaN where it is less than `LEAST_PX`.

    >>> measure(np.full((60, 80, 3), 255, np.uint8)).brightness
    1.0
    """
    red, green, blue = (np.ascontiguousarray(pixels_HW3[..., c]) for c in range(3))  # planes, for speed
    largest, smallest = (pick(pick(red, green), blue) for pick in (np.maximum, np.minimum))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    large = max(red.shape) >= LEAST_PX
    hair, ruler = lines_in(red) if large else (math.nan, math.nan)
    return Look(
        brightness=round(float(luma.mean(dtype=np.float64)) / 255, 6),
        contrast=round(float(luma.std(dtype=np.float64)) / 255, 6),
        sharpness=round(float(ndimage.laplace(luma)[1:-1, 1:-1].var(dtype=np.float64)), 4) if min(luma.shape) > 2 else 0.0,
        saturation=round(float(((largest - smallest) / np.maximum(largest, 1)).mean()), 6),
        red=round(float(red.mean()) / 255, 6),
        green=round(float(green.mean()) / 255, 6),
        blue=round(float(blue.mean()) / 255, 6),
        hair=hair,
        ruler=ruler,
        ink=ink_in(red, blue, smallest) if large else math.nan,
        dark_corners=dark_corners_in(luma) if large else math.nan,
        glare=glare_in(smallest) if large else math.nan,
    )


def rim_colors(pixels_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean colors of the outermost cells of a `RIM_CELLS` grid, row by row: (24 * 3,) uint8; there skin lies, not the lesion.

    Args:
        pixels_HW3: uint8 RGB; an image smaller than the grid has its pixels repeated.

    >>> rim_colors(np.full((60, 80, 3), 7, np.uint8)).shape
    (72,)
    """
    rows, columns = RIM_CELLS
    times = [-(-cells // edge) for cells, edge in zip(RIM_CELLS, pixels_HW3.shape, strict=False)]
    pixels = pixels_HW3.repeat(times[0], axis=0).repeat(times[1], axis=1)
    height, width = pixels.shape[:2]
    grid = pixels[: height // rows * rows, : width // columns * columns]
    cells = grid.reshape(rows, height // rows, columns, width // columns, 3).mean(axis=(1, 3))
    inner = np.zeros(RIM_CELLS, np.bool_)
    inner[1:-1, 1:-1] = True
    colors: NDArray[np.uint8] = np.rint(cells[~inner]).astype(np.uint8).ravel()
    return colors


def lines_in(red: Gray) -> tuple[float, float]:
    """Measures of hair (%) and of a ruler (see `Look`) in the red channel, in which blood vessels hardly show.

    For each direction the image is closed across it, as DullRazor does, so that the difference is what is dark and thin;
    what is left of that after an erosion along the direction is the middle of lines at least so long.

    Args:
        red: (H, W) uint8.

    Lee, Ng, Gallagher, Coldman, McLean 1997, "DullRazor: a software approach to hair removal from images",
    doi 10.1016/S0010-4825(97)00020-6
    """
    rim = radius(red.shape)
    longest, ruler = np.zeros_like(red), 0.0
    margin = 2 * (THIN_PX // 2) + HAIR_PX // 2  # what the four slides take off each side
    padded = np.pad(red, margin, mode="edge")
    for k in range(DIRECTIONS):
        angle = math.pi * k / DIRECTIONS
        across = stroke(THIN_PX, angle + math.pi / 2)
        thin = slide(slide(padded, across, np.maximum), across, np.minimum) - padded[6:-6, 6:-6]
        short = slide(thin, stroke(TICK_PX, angle), np.minimum)
        reach = [(round(t * math.sin(angle)), round(t * math.cos(angle))) for t in (-6, -2, 2, 6)]  # 5 + 12 = HAIR_PX
        np.maximum(longest, slide(short, reach, np.minimum, pad=6), out=longest)
        ruler = max(ruler, evenness(*marks(short[6:-6, 6:-6] > TICK_CONTRAST, angle, rim)))
    edge = round(0.04 * max(red.shape))  # the sliver between the lens's round rim and the frame is thin and dark too
    inner = longest[edge:-edge, edge:-edge] if edge else longest
    return round(100 * float((inner > HAIR_CONTRAST).mean()), 4) if inner.size else 0.0, round(ruler, 4)


def marks(there: NDArray[np.bool_], angle: float, rim: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of short strokes near the rim of the frame: (T,) along their direction and (T,) across it, by the latter.

    Args:
        there: (H, W) eroded strokes; angle: their direction, radians; rim: `radius` of the frame.
    """
    labels, count = ndimage.label(there, np.ones((3, 3)))
    y, x = np.divmod(np.flatnonzero(there), there.shape[1])
    which = labels[y, x] - 1
    size = np.maximum(np.bincount(which, minlength=count), 1)

    def spread(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean = np.bincount(which, t, count) / size
        return mean, np.sqrt(np.maximum(12 * (np.bincount(which, t * t, count) / size - mean**2), 0))  # of a uniform bar

    along, length = spread(x * math.cos(angle) + y * math.sin(angle))
    across, width = spread(y * math.cos(angle) - x * math.sin(angle))
    good = (length < 12) & (width < 5) & (np.bincount(which, rim[y, x], count) / size > RIM_RADIUS)
    order = np.argsort(across[good], kind="stable")
    return along[good][order], across[good][order]


def evenness(along: NDArray[np.float64], across: NDArray[np.float64]) -> float:
    """T * T over the number of marks, T being the longest evenly spaced row of them (at least 3, else 0).

    Args:
        along, across: (T,) px, ascending by `across`; more than 60 are hair, not a ruler.

    >>> evenness(np.zeros(5), np.array([0.0, 8.0, 16.0, 24.0, 29.0]))
    3.2
    """
    n, best = len(along), 0
    if not 3 <= n <= 60:
        return 0.0
    step = across[None] - across[:, None]
    near = (step >= 4) & (step <= 20) & (np.abs(along[None] - along[:, None]) <= 0.6 * step)
    for row in zip(*np.nonzero(near), strict=True):
        before, last, count = int(row[0]), int(row[1]), 2
        while True:
            off = np.hypot(along - 2 * along[last] + along[before], across - 2 * across[last] + across[before])
            after = int(off.argmin())
            if after == last or off[after] > max(1.0, 0.12 * float(across[last] - across[before])):
                break
            before, last, count = last, after, count + 1
        best = max(best, count)
    return best * best / n if best >= 3 else 0.0


def ink_in(red: Gray, blue: Gray, smallest: Gray) -> float:
    """Vivid blue or violet marks that do not reach into the middle, where the lesion is, as a share of the frame in %.

    Args:
        red, blue, smallest: (H, W) uint8: two channels, and the smallest of the three.
    """
    there = (blue > 80) & (blue >= np.float32(1.1) * red) & (blue - smallest > np.float32(0.38) * blue)
    if not there.any():
        return 0.0
    rim = radius(there.shape)
    labels, count = ndimage.label(ndimage.binary_dilation(there, iterations=2))
    inside = np.bincount(labels[there & (rim < LESION_RADIUS)], minlength=count + 1) > 0
    return round(100 * float((there & ~inside[labels] & (rim > RIM_RADIUS)).mean()), 4)


def dark_corners_in(luma: NDArray[np.float32]) -> float:
    """1 - the third darkest corner's mean brightness over the upper quartile of the image's, at least 0.

    Args:
        luma: (H, W), any scale from 0.

    >>> dark_corners_in(np.pad(np.full((10, 10), 8, np.float32), 5))
    1.0
    """
    edge = max(1, round(0.08 * min(luma.shape)))
    corners = sorted(
        float(luma[y, x].mean()) for y in (slice(edge), slice(-edge, None)) for x in (slice(edge), slice(-edge, None))
    )
    return round(max(0.0, 1 - corners[2] / max(float(np.percentile(luma, 75)), 1e-6)), 4)


def glare_in(smallest: Gray) -> float:
    """Small spots far whiter than the image and than their surroundings, as a share of the frame in %.

    Args:
        smallest: (H, W) uint8, the smallest of the three channels, which is high in white alone.
    """
    level = max(190.0, float(np.median(smallest)) + 60)
    white = smallest > level
    if not white.any():
        return 0.0
    bridged = ndimage.grey_closing(smallest, (7, 7))  # so that skin between dark hairs is no spot
    return round(100 * float((white & (bridged - ndimage.grey_opening(bridged, (11, 11)) > 40)).mean()), 4)


def jpeg_quality(tables: Sequence[Sequence[int]]) -> float:
    """The libjpeg quality setting (1..100) whose luma table is nearest to that of a file.

    Args:
        tables: quantization tables of the file, luma first, 64 values each in any order.

    >>> jpeg_quality([[max(1, round(value / 2)) for value in _LUMA]])
    75.0

    ITU-T T.81, table K.1; the scaling is that of libjpeg's jpeg_quality_scaling.
    """
    scale = 100 * sum(tables[0]) / sum(_LUMA)
    return round(min(100.0, max(1.0, 5000 / scale if scale > 100 else (200 - scale) / 2)), 0)


_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def stroke(length_px: int, angle: float) -> list[tuple[int, int]]:
    """(down, right) of the pixels of a straight stroke around its middle.

    >>> stroke(3, 0.0)
    [(0, -1), (0, 0), (0, 1)]
    """
    places = [t - (length_px - 1) / 2 for t in range(length_px)]
    return [(round(t * math.sin(angle)), round(t * math.cos(angle))) for t in places]


def slide(gray: Gray, offsets: Sequence[tuple[int, int]], pick: Any, *, pad: int | None = None) -> Gray:
    """np.minimum or np.maximum of each pixel's neighbours at `offsets` (down, right): an erosion or a dilation.

    Args:
        gray: (H, W); offsets: each at most `pad` long; pad: half as many as there are offsets, where not given.

    Returns:
        (H - 2 pad, W - 2 pad): only pixels that have all neighbours.
    """
    pad = len(offsets) // 2 if pad is None else pad
    height, width = gray.shape[0] - 2 * pad, gray.shape[1] - 2 * pad
    views = [gray[pad + down : pad + down + height, pad + right : pad + right + width] for down, right in offsets]
    found = views[0].copy()
    for view in views[1:]:
        pick(found, view, out=found)
    return found
