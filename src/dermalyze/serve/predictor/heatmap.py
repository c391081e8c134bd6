"""A class-activation map over its image: numpy and Pillow only.

The colors are viridis, which rises evenly in lightness from dark violet to yellow and keeps its order for readers with any
common color blindness and in gray print (Smith & van der Walt 2015, released as CC0; every sixteenth of its 256 colors).
"""

# Shapes: h x w map, H x W image.

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import UsageError
from dermalyze.imaging.preprocess import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

VIRIDIS = (
    (68, 1, 84), (72, 24, 106), (71, 45, 123), (66, 64, 134), (59, 82, 139), (51, 99, 141), (44, 114, 142), (38, 130, 142),
    (33, 145, 140), (31, 160, 136), (40, 174, 128), (63, 188, 115), (94, 201, 98), (132, 212, 75), (173, 220, 48),
    (216, 226, 25), (253, 231, 37),
)  # fmt: skip
OPACITY = 0.6
MAX_EDGE_PX = 1024  # of an image that is drawn on; a map of 7 x 7 places says no more on a larger one


def viridis_colors(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """RGB (..., 3) of values in 0..1; what is outside is cut.

    >>> viridis_colors(np.array([0.0, 1.0])).tolist()
    [[68, 1, 84], [253, 231, 37]]
    """
    table = np.array(VIRIDIS, dtype=np.float64)
    places = np.clip(values, 0.0, 1.0) * (len(table) - 1)
    channels = [np.interp(places, np.arange(len(table)), table[:, k]) for k in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=-1)), dtype=np.uint8)


def strength(cam_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    """What speaks for the class, as a share of the strongest place, 0..1; all 0 where nothing does.

    >>> strength(np.array([[-1.0, 0.0], [1.0, 4.0]], np.float32)).tolist()
    [[0.0, 0.0], [0.25, 1.0]]
    """
    positive = np.maximum(cam_hw, 0.0).astype(np.float32)
    largest = float(positive.max(initial=0.0))
    return positive / np.float32(largest) if largest > 0 else positive


def spread(cam_hw: NDArray[np.float32], size: tuple[int, int], p: Preprocessing) -> NDArray[np.float32]:
    """The map over the whole upright image, (H, W), bilinear; NaN where the network did not look.

    Args:
        cam_hw: (h, w), of the network's frame.
        size: (W, H) of the image, px.
        p: how the image came to the network: what a crop left out has no value, and the map of black bars is left out.

    >>> p = Preprocessing("squash", 8, 8, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> spread(np.array([[0.0, 1.0]], np.float32), (4, 2), p).tolist()
    [[0.0, 0.25, 0.75, 1.0], [0.0, 0.25, 0.75, 1.0]]
    """
    from PIL import Image

    (width, height), (rows, columns) = size, cam_hw.shape
    cam = Image.fromarray(np.ascontiguousarray(cam_hw, dtype=np.float32))
    wide, tall = p.resized(width, height)
    if p.kind == "resize_crop":
        left, top = round((wide - p.width) / 2), round((tall - p.height) / 2)
        edges = [left / wide * width, top / tall * height, (left + p.width) / wide * width, (top + p.height) / tall * height]
        x0, y0, x1, y1 = (round(edge) for edge in edges)
        whole = np.full((height, width), np.nan, dtype=np.float32)
        seen = (max(1, min(x1, width) - max(x0, 0)), max(1, min(y1, height) - max(y0, 0)))
        resized = np.array(cam.resize(seen, Image.Resampling.BILINEAR), dtype=np.float32)
        whole[max(y0, 0) : max(y0, 0) + seen[1], max(x0, 0) : max(x0, 0) + seen[0]] = resized
        return whole
    left, top = (p.width - wide) // 2, (p.height - tall) // 2  # of the image within black bars; 0 where it fills the frame
    box = (
        left / p.width * columns, top / p.height * rows, (left + wide) / p.width * columns, (top + tall) / p.height * rows
    )  # fmt: skip
    return np.array(cam.resize(size, Image.Resampling.BILINEAR, box=box), dtype=np.float32)


def heat(cam_hw: NDArray[np.float32], size: tuple[int, int], p: Preprocessing, *, opacity: float = 1.0) -> Image:
    """What speaks for the class as an image of mode RGBA: the stronger, the lighter and the less transparent.

    Args:
        cam_hw, size, p: see `spread`.
        opacity: of the strongest place, 0..1.

    Raises:
        UsageError: opacity out of range.
    """
    from PIL import Image

    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity is {opacity}, must be 0..1")
    values = np.nan_to_num(spread(strength(cam_hw), size, p), nan=0.0).clip(0.0, 1.0)
    alpha = np.rint(255 * opacity * np.sqrt(values)).astype(np.uint8)  # the root: half as strong is still well seen
    return Image.fromarray(np.dstack([viridis_colors(values), alpha]), "RGBA")


def heat_png(cam_hw: NDArray[np.float32], size: tuple[int, int], p: Preprocessing) -> bytes:
    """`heat` alone as a PNG, to be laid over the image by whoever shows it; longest edge at most `MAX_EDGE_PX`."""
    return _png(heat(cam_hw, _shown(size), p))


def overlay_png(
    image: Image, cam_hw: NDArray[np.float32], p: Preprocessing, *, opacity: float = OPACITY, caption: str | None = None
) -> bytes:
    """The image with its map over it, as a PNG without any metadata.

    Args:
        image: upright, mode RGB.
        cam_hw: (h, w) of the network's frame.
        p: how the image came to the network.
        opacity: of the strongest place, 0..1.
        caption: put below it, with the disclaimer; None: neither.
    """
    from PIL import Image

    size = _shown(image.size)
    shown = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    laid = Image.alpha_composite(shown.convert("RGBA"), heat(cam_hw, size, p, opacity=opacity)).convert("RGB")
    return _png(laid if caption is None else _captioned(laid, caption))


def _captioned(image: Image, caption: str) -> Image:
    """A strip below the image with the caption, the scale and the disclaimer; broken where it is too wide."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    width = max(image.width, 220)
    lines = [line for text in (caption, DISCLAIMER) for line in _broken(text, font.getlength, width - 12)]
    strip = 30 + 15 * len(lines)
    sheet = Image.new("RGB", (width, image.height + strip), (255, 255, 255))
    sheet.paste(image, ((width - image.width) // 2, 0))
    draw, top = ImageDraw.Draw(sheet), image.height + 6
    ramp = Image.fromarray(np.tile(viridis_colors(np.linspace(0, 1, 96)), (10, 1, 1)))
    draw.text((6, top - 2), "weak", fill=(40, 40, 40), font=font)
    sheet.paste(ramp, (42, top))
    draw.text((144, top - 2), "strong", fill=(40, 40, 40), font=font)
    for k, line in enumerate(lines):
        draw.text((6, top + 16 + 15 * k), line, fill=(20, 20, 20), font=font)
    return sheet


def _broken(text: str, length: Callable[[str], float], width: int) -> list[str]:
    """Words in lines of at most `width` px."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _shown(size: tuple[int, int]) -> tuple[int, int]:
    """The size at which an image of (W, H) is drawn on."""
    scale = min(1.0, MAX_EDGE_PX / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
