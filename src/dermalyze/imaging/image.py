"""A decoded image, why one is refused, and how large one may be."""

# Shapes: H height, W width.

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.errors import DataError

MAX_PIXELS = 64_000_000
MAX_ASPECT = 50  # longer edge / shorter edge; more is not a photograph, and could take gigabytes to resize


class ImageError(DataError):
    """An image is unusable; the message is a reason without name, path or content, so that it can be counted and shown."""


class PersonalDataError(DataError):
    """An image is refused because it can name a patient. Not put into quarantine like a bad one: the set must be cleaned."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as everything after sees it.

    Attributes:
        image: Pillow's, mode RGB, upright, loaded.
        mode: Pillow's name of the stored pixel layout, as "RGB", "L", "I;16".
        format: "JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF" or "DICOM".
        notes: what was done beyond decoding, as "alpha composited on white".
        personal: kinds of metadata in the file that can identify a person, as "gps"; never their content.
    """

    image: Image.Image
    mode: str
    format: str
    notes: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright; of a modality with other arrays, these."""
        return np.array(self.image)


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Check an image's edges, in pixels, before memory is allocated for it.

    Raises:
        ImageError: an edge of 0, too many pixels, or a strip that is not a photograph.

    >>> check_size(200, 150)
    """
    if width < 1 or height < 1:
        raise ImageError("no pixels (an edge of 0)")
    if width * height > max_pixels:
        raise ImageError(f"more than {max_pixels} pixels; make it smaller")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height} px is not a photograph; one edge may be at most {MAX_ASPECT} times the other")
