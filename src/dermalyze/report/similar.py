"""An image beside the training cases that it resembles: a figure and a page."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image

from dermalyze.core.result import DISCLAIMER
from dermalyze.report.evaluation_data import Json
from dermalyze.report.figures import draw
from dermalyze.report.html import template
from dermalyze.report.style import ACCENT, QUIET, class_styles

COLUMNS = 4
WIDTH_IN = 9.6
CAPTION = (
    "One image of each of the nearest groups of the training split, by cosine distance of the network's features. Alike to "
    "the network is not alike in kind: it may look at the frame, the light or a ruler."
)

Pixels = NDArray[np.uint8]


def jpeg(pixels: Pixels, edge_px: int, quality: int = 78) -> str:
    """A small JPEG in base64, drawn from the pixels alone, so that it carries no metadata."""
    small = Image.fromarray(pixels)
    small.thumbnail((edge_px, edge_px), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode()


def shares_text(shares: Mapping[str, float]) -> str:
    """Share of each class or label among the neighbors.

    >>> shares_text({"mel": 0.75, "nv": 0.25}), shares_text({})
    ('mel 75%, nv 25%', 'no label')
    """
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "no label"


def sheet_png(values: Json, shown: Pixels, thumbnails: Sequence[Pixels | None]) -> bytes:
    """The image first, framed, then its neighbours in rows of four under label and distance.

    Args:
        values: of a `SimilarResult`, with `where_in_run`.
        shown: RGB pixels of the image.
        thumbnails: of its neighbours; None where one is gone.
    """
    cases = values["neighbours"]
    rows = -(-(len(cases) + 1) // COLUMNS)
    aspect = max(pixels.shape[0] / pixels.shape[1] for pixels in [shown, *(p for p in thumbnails if p is not None)])
    tile_in = WIDTH_IN / COLUMNS * min(aspect, 1.4) + 0.3
    said = [f"Among these {len(cases)}: {shares_text(values['shares'])}.", values["where_in_run"] or "", CAPTION, DISCLAIMER]
    lines = [line for text in said if text for line in textwrap.wrap(text[:1].upper() + text[1:], 145)]
    foot_in = 0.2 * len(lines) + 0.15
    height_in = rows * tile_in + foot_in

    def paint(canvas: Canvas) -> None:
        grid = canvas.add_gridspec(rows + 1, COLUMNS, height_ratios=[*[tile_in] * rows, foot_in])
        tiles = [
            ("the image", shown),
            *((f"{one['label']}   {one['distance']:.3f}", p) for one, p in zip(cases, thumbnails, strict=True)),
        ]
        for place, (title, pixels) in enumerate(tiles):
            axes = canvas.add_subplot(grid[place // COLUMNS, place % COLUMNS])
            axes.set_title(title, loc="left", fontsize=9.5, pad=3, fontweight="bold" if place == 0 else "normal")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(place == 0)
            axes.spines[:].set(color=ACCENT, linewidth=2.5)
            if pixels is None:
                axes.text(0.5, 0.5, "not available", ha="center", va="center", color=QUIET, transform=axes.transAxes)
            else:
                axes.imshow(pixels, interpolation="bilinear")
        foot = canvas.add_subplot(grid[rows, :])
        foot.axis("off")
        foot.text(0, 1, "\n".join(lines), fontsize=9, color=QUIET, va="top", linespacing=1.5, transform=foot.transAxes)

    return draw(WIDTH_IN, height_in, "Similar training cases", values["accepted_leak"], paint)


def sheet_page(values: Json, shown: Pixels, thumbnails: Sequence[Pixels | None]) -> str:
    """The same as one self-contained page."""
    cases = values["neighbours"]
    names = sorted({one["label"] for one in cases})
    colours = dict(zip(names, (style.colour for style in class_styles(names)), strict=True))
    return template("similar.html.jinja").render(
        title="Similar training cases",
        m=values,
        shown=jpeg(shown, 420),
        cases=[
            {**one, "data": None if pixels is None else jpeg(pixels, 240), "colour": colours[one["label"]]}
            for one, pixels in zip(cases, thumbnails, strict=True)
        ],
        shares=shares_text(values["shares"]),
        caption=CAPTION,
    )
