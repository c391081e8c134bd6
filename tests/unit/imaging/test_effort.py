"""Files that would keep a decoder busy are refused by their structure, and ordinary ones are not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.imaging.effort import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, USUAL_SCANS, refuse_effort, refuse_scans
from dermalyze.imaging.image import ImageError


def picture(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def saved(kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    picture().save(sink, kind, **options)
    return sink.getvalue()


def progressive(repeated: int) -> bytes:
    """A progressive JPEG whose last scan stands so many times."""
    whole = saved("JPEG", progressive=True)
    last = whole.rfind(b"\xff\xda")
    return whole[:last] + whole[last:-2] * repeated + whole[-2:]


def with_segments(count: int, size: int, marker: int = 0xE1) -> bytes:
    whole = saved("JPEG")
    segment = bytes([0xFF, marker]) + struct.pack(">H", size + 2) + b"Exif\0\0"[:size].ljust(size, b"x")
    return whole[:2] + segment * count + whole[2:]


def png_with(chunks: int, size: int = 4) -> bytes:
    whole = saved("PNG")
    body = b"tEXt" + b"k\0".ljust(size, b"v")
    chunk = struct.pack(">I", size) + body + struct.pack(">I", zlib.crc32(body))
    return whole[:33] + chunk * chunks + whole[33:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (progressive(10_000), f"a JPEG of more than {MAX_SCANS} scans"),
        (with_segments(400, 60_000), "more than 8 MiB of metadata"),
        (with_segments(MAX_SEGMENTS + 1, 2, 0xFE), f"more than {MAX_SEGMENTS} segments"),
        (png_with(200_000), f"more than {MAX_CHUNKS} chunks"),
        (png_with(5, 2 * 2**20), "more than 8 MiB of metadata"),
    ],
    ids=["scans", "EXIF", "comments", "texts", "long texts"],
)
def test_what_would_cost_too_much_is_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_scans_are_allowed_by_the_size_of_the_image() -> None:
    assert decode(progressive(30)).pixels.shape == (48, 64, 3)  # many, of a small image
    refuse_scans(USUAL_SCANS, 64_000_000)
    with pytest.raises(ImageError, match="a JPEG of 100 scans; an image of this size may have 16"):
        refuse_scans(100, 25_000_000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_ordinary_files_pass(kind: str) -> None:
    assert decode(saved(kind), formats=PREPARE_FORMATS).pixels.shape == (48, 64, 3)


def test_ordinary_progressive_files_have_about_ten_scans() -> None:
    assert 2 <= refuse_effort(saved("JPEG", progressive=True), "JPEG") <= USUAL_SCANS
    assert refuse_effort(saved("JPEG"), "JPEG") == 1
    assert refuse_effort(with_segments(3, 60_000), "JPEG") == 1  # a large profile


@pytest.mark.parametrize(
    "data", [b"\xff\xd8", b"\xff\xd8" + b"\xff" * 100_000, b"\xff\xd8\xff\xda\0\0" * 5, b"\x89PNG\r\n\x1a\n" + b"\xff" * 50]
)
def test_damaged_structure_ends(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


def test_a_deflated_dicom_that_grows_without_end_is_refused() -> None:
    """PS3.10: a preamble, DICM, the group's length, the transfer syntax; then deflated zeros."""
    uid = b"1.2.840.10008.1.2.1.99"
    syntax = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(uid)) + uid
    head = bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(syntax)) + syntax
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(640)) + packer.flush()
    assert len(body) < 2**20
    with pytest.raises(ImageError, match="a deflated DICOM file of more than 512 MiB"):
        decode(head + body, formats=PREPARE_FORMATS)
