"""Masks of a data set, as the image they belong to is seen."""

# Shapes: H height, W width.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.data.store import ImageStore, ReadError
from dermalyze.errors import DataError
from dermalyze.imaging.decode import PREPARE_FORMATS, Preprocessing, decode, to_size
from dermalyze.imaging.image import ImageError


def read_mask(store: ImageStore, path: str, image_id: str) -> Image.Image:
    """A mask's image, RGB, bright in the foreground.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return decode(store.read(path), formats=PREPARE_FORMATS).image
    except (ReadError, ImageError) as error:
        raise DataError(f"mask of image {image_id}: {error}") from None


def mask_at(picture: Image.Image, preprocessing: Preprocessing) -> NDArray[np.bool_]:
    """(H, W) where the foreground is, at the network's size and in its frame."""
    return to_size(picture, preprocessing.geometry)[..., 0] > 127


def mask_of_size(picture: Image.Image, height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) where the foreground is, at the size of the whole photograph."""
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8)[..., 0] > 127
