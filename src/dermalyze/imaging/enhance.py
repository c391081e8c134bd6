"""Changes of an image's colors and contrast before a network sees it. numpy and Pillow; removing hair needs OpenCV.

Each is a function from RGB in eight bits to the same, deterministic, and part of the artifact: training, evaluation and serving
take it from there. None is on by default; `docs/explanation/results.md` says what each did on HAM10000.
"""

# Shapes: H height, W width, T tiles along an edge.

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.errors import MissingExtraError

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float32]

LONGEST_PX = 1024
"""Longer edge of an image that is enhanced; a longer one is reduced first, so that the cost of a photograph is bounded."""

# sRGB primaries to CIE XYZ of D65, and the white's X and Z (Y is 1), as OpenCV has them.
_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], dtype=np.float32
)
_WHITE = np.array([0.950456, 1.0, 1.088754], dtype=np.float32)
_KNEE, _SLOPE = 0.008856, 7.787


def clahe(image_HW3: Rgb, *, clip: float, tiles: int) -> Rgb:
    """Contrast-limited adaptive histogram equalization of the L channel of CIE Lab; hue stays.

    Args:
        image_HW3: RGB.
        clip: highest count of a histogram's bin, in multiples of an even histogram's.
        tiles: T, in each direction.

    Zuiderveld 1994, "Contrast limited adaptive histogram equalization", Graphics Gems IV. Within one level of OpenCV's
    `createCLAHE` on the same L, whose own conversion to Lab differs by a level, near black by two.
    """
    lab = to_lab(image_HW3)
    lab[..., 0] = equalize(lab[..., 0].astype(np.uint8), clip=clip, tiles=tiles)
    return to_rgb(lab)


def equalize(gray_HW: NDArray[np.uint8], *, clip: float, tiles: int) -> NDArray[np.uint8]:
    """CLAHE of one channel, (H, W) uint8: each tile's clipped histogram gives a curve, and a pixel takes the four nearest.

    >>> equalize(np.full((16, 16), 9, np.uint8), clip=2.0, tiles=2).shape
    (16, 16)
    """
    height, width = gray_HW.shape
    more = (-height % tiles, -width % tiles)
    if any(more):  # as OpenCV, which adds a whole tile's worth along an edge that needs none, where the other does
        more = tuple(m or tiles for m in more)  # type: ignore[assignment]
    whole = np.pad(gray_HW, ((0, more[0]), (0, more[1])), mode="reflect")
    tall, wide = whole.shape[0] // tiles, whole.shape[1] // tiles
    cells = whole.reshape(tiles, tall, tiles, wide).transpose(0, 2, 1, 3).reshape(tiles * tiles, -1)
    places = cells.astype(np.int64) + 256 * np.arange(len(cells))[:, None]
    counts = np.bincount(places.ravel(), minlength=256 * len(cells)).reshape(-1, 256)
    curves = np.stack([_curve(of_tile, max(1, int(clip * tall * wide / 256)), tall * wide) for of_tile in counts])
    curves = curves.reshape(tiles, tiles, 256).astype(np.float32)
    up, down, y = _neighbors(height, tall, tiles)
    left, right, x = _neighbors(width, wide, tiles)

    def curve(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        return np.asarray(curves[rows[:, None], columns[None, :], gray_HW], dtype=np.float32)

    above = curve(up, left) * (1 - x) + curve(up, right) * x
    below = curve(down, left) * (1 - x) + curve(down, right) * x
    blended = above * (1 - y[:, None]) + below * y[:, None]
    return np.asarray(np.clip(np.rint(blended), 0, 255), dtype=np.uint8)


def shades_of_gray(image_HW3: Rgb, *, power: float) -> Rgb:
    """Color constancy: the light's color, taken as each channel's Minkowski mean, becomes gray.

    Args:
        image_HW3: RGB; black stays black.
        power: 1 is gray-world, and the higher the more the brightest pixels count.

    >>> shades_of_gray(np.full((2, 2, 3), (200, 100, 100), np.uint8), power=6.0)[0, 0].tolist()
    [133, 133, 133]

    Finlayson & Trezzi 2004, 12th Color and Imaging Conference, p. 37; Barata et al. 2015, doi:10.1109/JBHI.2014.2336473
    """
    light = np.power(np.mean(np.power(image_HW3.astype(np.float64) / 255, power), axis=(0, 1)), 1 / power)
    if not (light > 0).all():
        return image_HW3
    return np.asarray(np.clip(np.rint(image_HW3 * (light.mean() / light)), 0, 255), dtype=np.uint8)


def remove_hair(image_HW3: Rgb, *, threshold: int) -> Rgb:
    """Dark thin lines found by a black top-hat and painted over from their surroundings (as DullRazor does).

    Args:
        image_HW3: RGB.
        threshold: levels by which a line is darker than its closing.

    Lee et al. 1997, doi:10.1016/S0010-4825(97)00020-6; Telea 2004, doi:10.1080/10867651.2004.10487596
    """
    cv: Any = importlib.import_module("cv2")
    edge = max(3, round(max(image_HW3.shape[:2]) * 17 / 600)) | 1  # a hair is a few px wide at HAM10000's 600
    gray = cv.cvtColor(image_HW3, cv.COLOR_RGB2GRAY)
    hat = cv.morphologyEx(gray, cv.MORPH_BLACKHAT, cv.getStructuringElement(cv.MORPH_CROSS, (edge, edge)))
    return np.asarray(cv.inpaint(image_HW3, (hat > threshold).astype(np.uint8), 1, cv.INPAINT_TELEA), dtype=np.uint8)


STEPS: dict[str, Callable[..., Rgb]] = {"clahe": clahe, "shades_of_gray": shades_of_gray, "hair_removal": remove_hair}


LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "clahe": {"clip": (1e-9, 100), "tiles": (1, 64)},
    "shades_of_gray": {"power": (1, 20)},
    "hair_removal": {"threshold": (1, 255)},
}
"""Settings of each step, from and to."""


def enhanced(image: Rgb | Image.Image, steps: Sequence[Mapping[str, Any]]) -> Image.Image:
    """An image after some steps, its longer edge at most `LONGEST_PX`.

    Args:
        image: (H, W, 3) uint8 RGB, or Pillow's image of mode RGB.
        steps: each a kind, a key of `STEPS`, and its settings.

    >>> gray = Image.new("RGB", (2048, 16), (90, 80, 70))
    >>> enhanced(gray, [{"kind": "shades_of_gray", "power": 6.0}]).size
    (1024, 8)
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    if max(picture.size) > LONGEST_PX:
        scale = LONGEST_PX / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.uint8)
    for step in steps:
        pixels = STEPS[step["kind"]](pixels, **{name: value for name, value in step.items() if name != "kind"})
    return Image.fromarray(pixels)


def require_steps(steps: Sequence[Mapping[str, Any]]) -> None:
    """Refuse steps that cannot be taken here, before any work.

    Raises:
        MissingExtraError: hair is to be removed, and OpenCV is not installed.
    """
    if any(step["kind"] == "hair_removal" for step in steps) and importlib.util.find_spec("cv2") is None:
        raise MissingExtraError("preprocess.steps hair_removal", "cv")


def good_steps(values: Any) -> bool:
    """Whether these are steps with settings within their limits, as a record holds them.

    >>> good_steps([{"kind": "clahe", "clip": 2.0, "tiles": 8}]), good_steps([{"kind": "clahe", "clip": 2.0, "tiles": 0}])
    (True, False)
    """

    def fits(value: Any, low: float, high: float) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    def good(step: Any) -> bool:
        limits = LIMITS.get(step["kind"]) if isinstance(step, dict) and isinstance(step.get("kind"), str) else None
        return limits is not None and set(step) == {"kind", *limits} and all(fits(step[name], *limits[name]) for name in limits)

    return isinstance(values, list | tuple) and len(values) <= 16 and all(map(good, values))


def to_lab(image_HW3: Rgb) -> Floats:
    """(H, W, 3) CIE Lab of sRGB on a scale of eight bits: L 0..255, a and b about 128, rounded to whole numbers.

    >>> to_lab(np.full((1, 1, 3), 255, np.uint8))[0, 0].tolist()
    [255.0, 128.0, 128.0]
    """
    unit = _LINEAR[image_HW3]
    xyz = unit @ _XYZ.T / _WHITE
    f = np.where(xyz > _KNEE, np.cbrt(xyz), _SLOPE * xyz + np.float32(16 / 116))
    light = np.where(xyz[..., 1] > _KNEE, 116 * f[..., 1] - 16, np.float32(903.3) * xyz[..., 1])
    red_green, yellow_blue = 500 * (f[..., 0] - f[..., 1]) + 128, 200 * (f[..., 1] - f[..., 2]) + 128
    lab = np.stack([light * np.float32(2.55), red_green, yellow_blue], axis=-1)
    return np.asarray(np.clip(np.rint(lab), 0, 255), dtype=np.float32)


def to_rgb(lab_HW3: Floats) -> Rgb:
    """The inverse of `to_lab`, clipped to 0..255.

    >>> to_rgb(to_lab(np.full((1, 1, 3), 77, np.uint8)))[0, 0].tolist()
    [77, 77, 77]
    """
    light = lab_HW3[..., 0] / np.float32(2.55)
    y = np.where(light > 8, ((light + 16) / 116) ** 3, light / np.float32(903.3))
    f = np.where(y > _KNEE, np.cbrt(y), _SLOPE * y + np.float32(16 / 116))
    edges = np.stack([f + (lab_HW3[..., 1] - 128) / 500, f - (lab_HW3[..., 2] - 128) / 200], axis=-1)
    knee = np.float32(np.cbrt(_KNEE))
    xz = np.where(edges > knee, edges**3, (edges - np.float32(16 / 116)) / np.float32(_SLOPE))
    xyz = np.stack([xz[..., 0], y, xz[..., 1]], axis=-1) * _WHITE
    linear = np.clip(xyz @ np.linalg.inv(_XYZ).T, 0, 1)
    unit = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)
    return np.asarray(np.clip(np.rint(255 * unit), 0, 255), dtype=np.uint8)


_UNIT = np.arange(256, dtype=np.float64) / 255
_LINEAR = np.where(_UNIT <= 0.04045, _UNIT / 12.92, ((_UNIT + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""Light of each level of sRGB (IEC 61966-2-1)."""


def _curve(counts: NDArray[np.int64], limit: int, pixels: int) -> NDArray[np.uint8]:
    """(256,) the levels of a tile's pixels after equalization; what a bin has above the limit goes to all bins alike."""
    over = int(np.maximum(counts - limit, 0).sum())
    counts = np.minimum(counts, limit) + over // 256
    if rest := over % 256:
        step = max(256 // rest, 1)
        counts[: rest * step : step] += 1
    return np.asarray(np.clip(np.rint(np.cumsum(counts).astype(np.float32) * np.float32(255 / pixels)), 0, 255), dtype=np.uint8)


def _neighbors(length: int, tile: int, tiles: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Of each pixel along an edge: the tile whose middle is before it, the one after, and how far it is to that."""
    place = np.arange(length, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    before = np.floor(place).astype(np.int64)
    return np.maximum(before, 0), np.minimum(before + 1, tiles - 1), place - before
