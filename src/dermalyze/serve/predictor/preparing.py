"""An image file to what is asked about it: the network's pixels, and how the image looks."""

# Shapes: H height, W width.

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.errors import DataError
from dermalyze.imaging.decode import OPTIONAL_FORMATS, SERVING_FORMATS, Preprocessing, find_spec, to_size
from dermalyze.imaging.image import MAX_PIXELS, check_size
from dermalyze.imaging.modalities import modality
from dermalyze.imaging.preprocess import small
from dermalyze.imaging.quality import Appraisal, appraise

MIN_EDGE_PX = 8  # less is not a photograph


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image, ready.

    Attributes:
        pixels: (H, W, 3) uint8 RGB at the network's size.
        width, height: of the image as it was decoded, px.
        notes: what was done beyond decoding.
        looks: how it looks.
        pixels: itself, upright, where it was to be kept.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...]
    looks: Appraisal
    image: Image.Image | None = None


def formats() -> tuple[str, ...]:
    """The kinds of files that are read: HEIC and DICOM where their extras are installed."""
    return (*SERVING_FORMATS, *(kind for kind, module in OPTIONAL_FORMATS.items() if find_spec(module) is not None))


def prepare(data: bytes, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS, keep: bool = False) -> Prepared:
    """Decode one file and bring it to the network's size.

    Raises:
        ImageError: it is no image that is read; see `decode`.
        DataError: an edge is too short.
    """
    decoded = modality(preprocessing.modality).read(data, formats=formats(), max_pixels=max_pixels, least=preprocessing.least)
    return prepare_pixels(decoded.image, preprocessing, decoded.notes, keep=keep)


def prepare_pixels(
    pixels: NDArray[np.uint8] | Image.Image, preprocessing: Preprocessing, notes: tuple[str, ...] = (), *, keep: bool = False
) -> Prepared:
    """Bring pixels to the network's size.

    Args:
        pixels: (H, W, 3) uint8 RGB, or Pillow's image of mode RGB.

    Raises:
        DataError: an edge is too short, or the image has too many pixels.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    check_size(*image.size)
    if min(image.size) < MIN_EDGE_PX:
        raise DataError(f"{image.width} x {image.height} px is not a photograph; each edge needs {MIN_EDGE_PX} px at least")
    return Prepared(to_size(pixels, preprocessing), *image.size, notes, appraise(small(image)), image if keep else None)


def rgb_array(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of an array that a person gave: gray ones (H, W) are repeated.

    Raises:
        DataError: another type or shape.
    """
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.dtype != np.uint8 or not (colour or pixels.ndim == 2) or pixels.size == 0:
        raise DataError(f"an array of {pixels.dtype} {pixels.shape}; must be uint8 RGB (H, W, 3) or gray (H, W)")
    return pixels if colour else np.repeat(pixels[:, :, None], 3, axis=2)


def png_bytes(image: Any) -> bytes:
    """A Pillow image as PNG bytes, orientation kept, so that it takes the same way as a file.

    Raises:
        DataError: no Pillow image, or one of a mode that PNG does not have.
    """
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG", exif=image.getexif())
    except AttributeError:
        raise DataError(f"{type(image).__name__} is not an image; give a path, bytes, a Pillow image or an array") from None
    except (OSError, ValueError) as error:
        raise DataError(f"a Pillow image of mode {image.mode} that is not read; convert it to RGB") from error
    return buffer.getvalue()
