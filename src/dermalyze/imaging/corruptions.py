"""Corrupted copies of images: what cameras, compression and hands do to them, in five severities.

Sizes are shares of the shorter edge, so that they mean the same at any resolution. Severity 1 to 5:

| kind | what | 1 | 2 | 3 | 4 | 5 |
|---|---|---|---|---|---|---|
| blur | Gaussian, standard deviation in % of the shorter edge | 0.6 | 1 | 1.6 | 2.4 | 3.6 |
| noise | Gaussian per channel, standard deviation in % of white | 4 | 7 | 11 | 17 | 25 |
| jpeg | quality of the JPEG coder | 40 | 25 | 16 | 11 | 7 |
| dark | exposure in stops, in linear light | -0.6 | -1.2 | -1.8 | -2.5 | -3.2 |
| bright | exposure in stops, in linear light, cut off at white | 0.3 | 0.6 | 0.9 | 1.3 | 1.7 |
| patch | a gray rectangle anywhere over this share of the frame in % | 3 | 6 | 11 | 17 | 25 |
| hair | dark curved strokes across the frame | 4 | 9 | 16 | 28 | 45 |

After Hendrycks & Dietterich 2019, arXiv:1903.12261, with the faults of photographs through a lens.
"""

# Shapes: H height, W width.

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dermalyze.errors import ConfigError, nearest

Pixels = NDArray[np.uint8]

SEVERITIES = (1, 2, 3, 4, 5)
_SHARP = 3  # strokes are drawn at this many times the size and brought down, so that their edges are smooth


def blur(pixels_HW3: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Out of focus: Gaussian of this share of the shorter edge."""
    radius_px = share / 100 * min(pixels_HW3.shape[:2])
    return np.asarray(Image.fromarray(pixels_HW3).filter(ImageFilter.GaussianBlur(radius_px)))


def noise(pixels_HW3: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """A sensor in the dark: the same noise at each severity, larger."""
    return _bytes(pixels_HW3 + 255 * share / 100 * rng.standard_normal(pixels_HW3.shape))


def jpeg(pixels_HW3: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    """Written and read as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer, formats=["JPEG"]))


def exposure(pixels_HW3: Pixels, stops: float, rng: np.random.Generator) -> Pixels:
    """Too little or too much light: a factor of 2 ^ stops on linear light (sRGB, IEC 61966-2-1)."""
    grey = np.arange(256) / 255
    linear = np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4)
    light = np.minimum(1, linear * 2**stops)
    return _bytes(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))[pixels_HW3]


def patch(pixels_HW3: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Something in front: a mid-gray rectangle of the frame's form, wholly inside it; it grows about the same place."""
    height, width = pixels_HW3.shape[:2]
    edge = np.sqrt(share / 100)
    tall, wide = max(1, round(edge * height)), max(1, round(edge * width))
    top, left = (np.asarray(rng.random(2)) * (height - tall + 1, width - wide + 1)).astype(int)
    covered = pixels_HW3.copy()
    covered[top : top + tall, left : left + wide] = 128
    return covered


def hair(pixels_HW3: Pixels, strokes: float, rng: np.random.Generator) -> Pixels:
    """Dark curved strokes from edge to edge; a higher severity adds some to those of the one below."""
    height, width = pixels_HW3.shape[:2]
    canvas = Image.new("L", (_SHARP * width, _SHARP * height), 0)
    draw = ImageDraw.Draw(canvas)
    t = np.linspace(0, 1, 25)[:, None]
    thick_px = max(1, round(_SHARP * 0.008 * min(height, width)))
    for _ in range(int(strokes)):
        angle, at = rng.uniform(0, 2 * np.pi), rng.random(2)
        along = 0.75 * np.array([np.cos(angle), np.sin(angle)])
        bend = rng.normal(0, 0.25) * np.array([-along[1], along[0]])
        ends = at - along, at + 2 * bend, at + along
        curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
        draw.line([(float(x), float(y)) for x, y in curve * (canvas.width, canvas.height)], fill=255, width=thick_px)
    cover = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float64)[:, :, None] / 255
    return _bytes(pixels_HW3 * (1 - cover) + np.array([42, 30, 26]) * cover)


CORRUPTIONS: dict[str, tuple[Callable[[Pixels, float, np.random.Generator], Pixels], tuple[float, ...]]] = {
    "blur": (blur, (0.6, 1, 1.6, 2.4, 3.6)),
    "noise": (noise, (4, 7, 11, 17, 25)),
    "jpeg": (jpeg, (40, 25, 16, 11, 7)),
    "dark": (exposure, (-0.6, -1.2, -1.8, -2.5, -3.2)),
    "bright": (exposure, (0.3, 0.6, 0.9, 1.3, 1.7)),
    "patch": (patch, (3, 6, 11, 17, 25)),
    "hair": (hair, (4, 9, 16, 28, 45)),
}
"""Kind to its function and the strength of each severity; the table above says what they mean."""


def corrupt(pixels_HW3: Pixels, kind: str, severity: int, *, image_id: str, seed: int) -> Pixels:
    """A corrupted copy, a pure function of the arguments.

    Args:
        pixels_HW3: (H, W, 3) uint8 RGB.
        kind: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        image_id: of the image; what is drawn (a place, strokes, noise) belongs to it, the kind and the seed, so that the
            severities of one image differ in strength alone.
        seed: any integer.

    Raises:
        ConfigError: no such kind or severity.

    >>> gray = np.full((4, 4, 3), 128, np.uint8)
    >>> corrupt(gray, "dark", 3, image_id="a", seed=0)[0, 0].tolist()
    [70, 70, 70]
    """
    if kind not in CORRUPTIONS:
        raise ConfigError(f"no corruption {kind!r}; there are {', '.join(CORRUPTIONS)}{nearest(kind, list(CORRUPTIONS))}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity {severity}; there are {SEVERITIES[0]} to {SEVERITIES[-1]}")
    apply, strengths = CORRUPTIONS[kind]
    address = sha256(f"{seed}/{kind}/{image_id}".encode()).digest()
    return apply(pixels_HW3, strengths[severity - 1], np.random.default_rng(int.from_bytes(address[:16], "big")))


def _bytes(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
