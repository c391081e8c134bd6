"""Equal colors are equal pixels, whatever profile they are stored with: against the definitions of the color spaces."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dermalyze.imaging.decode import ImageError, decode

# Red, green and blue of each space as XYZ under D50, one a column; exponent of its curve. SRGB: IEC 61966-2-1.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
SPACES = {
    "Display P3": (np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]), 2.2),
    "Adobe RGB": (
        np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]),
        2.19921875,
    ),
    "ProPhoto RGB": (np.array([[0.79767, 0.13519, 0.03134], [0.28804, 0.71187, 0.00009], [0.0, 0.0, 0.82491]]), 1.8),
}


def profile(matrix: NDArray[np.float64], gamma: float) -> bytes:
    """A matrix profile of ICC version 2 (ICC.1:2001-04)."""

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">2I", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def stored(pixels: NDArray[np.uint8], icc: bytes | None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", icc_profile=icc)
    return buffer.getvalue()


@pytest.mark.parametrize("space", SPACES)
def test_equal_colors_are_equal_pixels(space: str) -> None:
    matrix, gamma = SPACES[space]
    levels = np.random.default_rng(0).integers(40, 216, (40, 50, 3)) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    there = np.clip(linear @ (np.linalg.inv(matrix) @ SRGB).T, 0, 1) ** (1 / gamma)
    as_stored = np.rint(255 * there).astype(np.uint8)
    wanted = np.rint(255 * levels)
    assert np.abs(as_stored - wanted).mean() > 4, "numbers differ much between the spaces"
    image = decode(stored(as_stored, profile(matrix, gamma)))
    assert np.abs(image.pixels - wanted).mean() < 1
    assert "colors converted from its ICC profile to sRGB" in image.notes


def test_srgb_written_by_another_program_is_left_alone() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    from PIL import ImageCms

    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(stored(pixels, made))
    assert (image.pixels == pixels).all()
    assert image.notes == ()


@pytest.mark.parametrize("icc", [b"no profile", profile(*SPACES["Adobe RGB"])[:200]], ids=["text", "cut"])
def test_a_broken_profile_is_said(icc: bytes) -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    image = decode(stored(pixels, icc))
    assert (image.pixels == pixels).all()
    assert image.notes == ("its ICC profile is unusable, taken as sRGB",)


def deep(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">2I5B", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_color_of_12_bits_in_16_is_refused_and_not_shown_black() -> None:
    values = np.random.default_rng(2).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    with pytest.raises(ImageError, match="scale it to 8 bits"):
        decode(deep(values))
    image = decode(deep(values * 16))
    assert image.notes == ("color of 16 bits reduced to 8",)
    assert (image.pixels == values // 16).all()
