"""What happens to a photograph on its way into a second collection: the copies that a search for duplicates must know again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

Copy = Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]
"""From an image to its copy and the JPEG quality it is saved with."""

GOOD = 92


def _brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = float(rng.choice([rng.uniform(0.7, 0.85), rng.uniform(1.15, 1.3)]))
    return ImageEnhance.Brightness(image).enhance(factor)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    wide, high = round(0.9 * width), round(0.9 * height)
    left, top = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - high + 1))
    return image.crop((left, top, left + wide, top + high))


COPIES: Mapping[str, Copy] = {
    "jpeg-30": lambda image, rng: (image, 30),
    "half-size": lambda image, rng: (image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC), GOOD),
    "blur": lambda image, rng: (image.filter(ImageFilter.GaussianBlur(image.width / 100)), GOOD),
    "brightness": lambda image, rng: (_brighter(image, rng), GOOD),
    "flip-x": lambda image, rng: (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), GOOD),
    "flip-y": lambda image, rng: (image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), GOOD),
    "turn-90": lambda image, rng: (image.transpose(Image.Transpose.ROTATE_90), GOOD),
    "turn-180": lambda image, rng: (image.transpose(Image.Transpose.ROTATE_180), GOOD),
    "turn-270": lambda image, rng: (image.transpose(Image.Transpose.ROTATE_270), GOOD),
    "crop-10": lambda image, rng: (_crop(image, rng), GOOD),
}
"""JPEG of quality 30, half the size, a blur of a hundredth of the width, 15 to 30 % darker or brighter, two flips, three
quarter turns, and a tenth of both edges cut off, anywhere."""
