"""Images to look at: what pages show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.data.store import ImageStore, ReadError
from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.imaging.image import ImageError


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery.

    Attributes:
        image_id: the user's key.
        caption: a few words to stand under it.
    """

    image_id: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Images that belong together, in rows.

    Attributes:
        kind: of the finding they belong to.
        title: one line.
        explanation: a sentence or two: what is shown, what to do.
        rows: what stands side by side.
    """

    kind: str
    title: str
    explanation: str
    rows: tuple[tuple[GalleryImage, ...], ...]


def small_pixels(store: ImageStore, path: str, edge_px: int) -> NDArray[np.uint8] | None:
    """One image of a data set, RGB, no edge longer than `edge_px`; None where it cannot be read.

    It is drawn from the pixels alone, so it carries no metadata.
    """
    try:
        small = Image.fromarray(decode(store.read(path), formats=PREPARE_FORMATS).pixels)
    except (ReadError, ImageError):
        return None
    small.thumbnail((edge_px, edge_px), Image.Resampling.BILINEAR)
    return np.asarray(small)
