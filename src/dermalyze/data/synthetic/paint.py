"""A canvas of skin to paint on: pigment densities that make a color, and random fields, dots and strokes.

The color model is an absorbing one. Each pixel holds densities (melanin, blood, deep blue-gray pigment) that darken
white light exponentially, and two coverings (white scar or scale, yellow keratin) that are blended over it. Lengths are
in *units*: 1 unit is the shorter edge of a photograph at magnification 1 (about 12 mm of skin), so that what is painted
does not depend on the size in pixels.

Shapes: H = W = canvas edge, N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]

# Absorption of red, green and blue by one density of each, fitted by eye to the mean lesion and skin colors of HAM10000.
ABSORPTION = {"melanin": (0.44, 0.85, 1.00), "blood": (0.18, 0.90, 0.66), "blue": (0.95, 0.72, 0.34)}
COVER = {"white": (0.97, 0.90, 0.91), "yellow": (0.86, 0.70, 0.46)}


@dataclass(frozen=True)
class Canvas:
    """A square piece of skin, `edge_px` wide, `unit_px` pixels to the unit, (0, 0) in its middle."""

    edge_px: int
    unit_px: float

    def axes(self) -> tuple[Field, Field]:
        """Coordinates of the pixel centers in units: x as (1, W), y as (H, 1)."""
        line = ((np.arange(self.edge_px, dtype=np.float32) + 0.5) - self.edge_px / 2) / np.float32(self.unit_px)
        return line[None, :], line[:, None]


@dataclass
class Pigments:
    """What lies in the skin, each (H, W) float32 and >= 0: densities, and coverings of 0..1."""

    melanin: Field
    blood: Field
    blue: Field
    white: Field
    yellow: Field

    def colour(self) -> Field:
        """The color under white light, (H, W, 3) in 0..1."""
        layers = [np.exp(-sum(getattr(self, name) * k[c] for name, k in ABSORPTION.items())) for c in range(3)]
        for name, tint in COVER.items():
            cover = np.clip(getattr(self, name), 0.0, 0.92)
            layers = [layer + cover * (np.float32(tint[c]) - layer) for c, layer in enumerate(layers)]
        return np.stack(layers, axis=-1).astype(np.float32)


# --- fields ----------------------------------------------------------------------------------------------------------


def noise(rng: np.random.Generator, canvas: Canvas, wavelength: float, octaves: int = 1) -> Field:
    """Smooth random field, (H, W), mean 0 and standard deviation about 1; each octave halves wavelength and weight."""
    total = np.zeros((canvas.edge_px, canvas.edge_px), np.float32)
    weight, power = 1.0, 0.0
    for octave in range(octaves):
        cells = math.ceil(canvas.edge_px / canvas.unit_px / wavelength * 2**octave * 2) + 1
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        if cells > canvas.edge_px:
            fine = coarse[: canvas.edge_px, : canvas.edge_px]
        else:
            size = (canvas.edge_px, canvas.edge_px)
            fine = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) * np.float32(1.35)
        total += np.float32(weight) * fine
        power += weight**2
        weight *= 0.55
    return total / np.float32(math.sqrt(power))


def rise(field: Field, low: float, high: float) -> Field:
    """Smooth step from 0 where `field` <= `low` to 1 where it is >= `high`."""
    t: Field = np.clip((field - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def dots(canvas: Canvas, xy_N2: NDArray[np.float64], radius_N: NDArray[np.float64], soft: float = 0.5) -> Field:
    """Round spots of 0..1 at points in units; `soft` is the share of the radius over which a spot fades."""
    field = np.zeros((canvas.edge_px, canvas.edge_px), np.float32)
    place = xy_N2 * canvas.unit_px + canvas.edge_px / 2 - 0.5
    for (px, py), radius in zip(place, np.maximum(radius_N * canvas.unit_px, 0.6), strict=True):
        reach = math.ceil(radius * (1 + soft)) + 1
        x0, x1 = (min(max(int(px) + d, 0), canvas.edge_px) for d in (-reach, reach + 2))
        y0, y1 = (min(max(int(py) + d, 0), canvas.edge_px) for d in (-reach, reach + 2))
        if x0 >= x1 or y0 >= y1:
            continue
        away = np.hypot(np.arange(x0, x1) - px, (np.arange(y0, y1) - py)[:, None]) / radius
        spot = np.clip((1 + soft / 2 - away) / max(soft, 1.0 / radius), 0, 1).astype(np.float32)
        np.maximum(field[y0:y1, x0:x1], spot, out=field[y0:y1, x0:x1])
    return field


def strokes(canvas: Canvas, paths: Sequence[tuple[NDArray[np.float64], float]], *, taper: bool = False) -> Field:
    """Smooth-edged lines of 0..1: each path is ((N, 2) points in units, width in units); `taper` thins the far end."""
    image = Image.new("L", (canvas.edge_px * 2, canvas.edge_px * 2))
    draw = ImageDraw.Draw(image)
    for xy, width in paths:
        place = (xy * canvas.unit_px + canvas.edge_px / 2) * 2
        for step, (start, end) in enumerate(pairwise(place)):
            width_px = 2 * canvas.unit_px * width * (1 - 0.7 * step / len(place) if taper else 1)
            level = round(255 * min(1.0, 0.35 + 0.65 * width_px / 2))
            draw.line([tuple(start), tuple(end)], fill=level, width=max(1, round(width_px)))
    return np.asarray(image.reduce(2), dtype=np.float32) / np.float32(255)
