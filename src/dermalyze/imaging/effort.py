"""What decoding a file would cost, told from its structure before anything is decoded.

A file of a few kilobytes can keep a decoder busy for minutes: a progressive JPEG whose last scan is repeated ten thousand
times, 200,000 text chunks, a stream of zeros. The size in the header does not show it.
"""

from __future__ import annotations

import re
import zlib

from dermalyze.imaging.image import ImageError

MAX_SCANS, MAX_SCANNED = 100, 400_000_000
"""Scans of a JPEG, and scans times pixels; an ordinary progressive file has about ten, and 64 million pixels at most."""
USUAL_SCANS = 12
MAX_SEGMENTS, MAX_CHUNKS = 2_000, 20_000
"""Segments of a JPEG and chunks of a PNG; a file of 64 MiB by libpng has 8,192 chunks of pixels."""
MAX_METADATA_BYTES = 8 * 2**20
"""EXIF, profiles, comments and texts together."""
MAX_INFLATED_BYTES = 512 * 2**20
"""Of a deflated DICOM file."""

_MARKER = re.compile(rb"\xff+([\x01\xc0-\xcf\xd8-\xfe])", re.S)
_EOI, _SOS, _COMMENT = 0xD9, 0xDA, 0xFE
_ALONE = (0x01, 0xD8)
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def refuse_effort(data: bytes, kind: str) -> int:
    """Refuse a file that is made of more pieces than an image needs.

    Args:
        data: the file.
        kind: of `dermalyze.imaging.decode.PREPARE_FORMATS`.

    Returns:
        scans of a JPEG, for `refuse_scans`; 1 for another kind.

    Raises:
        ImageError: too many pieces, or too much beside the pixels.
    """
    if kind == "JPEG":
        return _jpeg(data)
    if kind == "PNG":
        _png(data)
    elif kind == "DICOM":
        _dicom(data)
    return 1


def refuse_scans(scans: int, pixels: int) -> None:
    """Refuse a progressive JPEG whose scans, each of which goes over the whole image, are too many for its size.

    >>> refuse_scans(10, 64_000_000)
    """
    if scans > USUAL_SCANS and scans * pixels > MAX_SCANNED:
        raise ImageError(f"a JPEG of {scans} scans; an image of this size may have {max(USUAL_SCANS, MAX_SCANNED // pixels)}")


def _jpeg(data: bytes) -> int:
    """Count scans, segments and bytes of metadata, without reading what is between (ITU-T T.81, annex B)."""
    scans = segments = metadata = 0
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker in _ALONE:
            continue
        if marker == _EOI:
            break
        length = int.from_bytes(data[at : at + 2], "big")
        segments, scans = segments + 1, scans + (marker == _SOS)
        metadata += length if 0xE0 <= marker <= 0xEF or marker == _COMMENT else 0
        if scans > MAX_SCANS:
            raise ImageError(f"a JPEG of more than {MAX_SCANS} scans; save it again")
        _refuse_pieces(segments, MAX_SEGMENTS, metadata, "segments")
        at += max(2, length)
    return scans


def _png(data: bytes) -> None:
    chunks = metadata = 0
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunks += 1
        metadata += length if kind != b"IDAT" else 0
        _refuse_pieces(chunks, MAX_CHUNKS, metadata, "chunks")
        if kind == b"IEND":
            break
        at += 12 + length


def _dicom(data: bytes) -> None:
    """Inflate a deflated data set as far as it may go, and forget it (DICOM PS3.5, annex A.5)."""
    if data[132:138] != b"\x02\x00\x00\x00UL" or _DEFLATED not in data[: 144 + 1024]:
        return
    start = 144 + int.from_bytes(data[140:144], "little")
    inflater, left, size = zlib.decompressobj(-15), data[start:], 0
    try:
        while left and not inflater.eof:
            size += len(inflater.decompress(left, 2**24))
            left = inflater.unconsumed_tail
            if size > MAX_INFLATED_BYTES:
                raise ImageError(f"a deflated DICOM file of more than {MAX_INFLATED_BYTES >> 20} MiB; save it uncompressed")
    except zlib.error:
        return  # pydicom says what is wrong with it


def _refuse_pieces(count: int, most: int, metadata: int, what: str) -> None:
    if count > most:
        raise ImageError(f"more than {most} {what}; save the image again")
    if metadata > MAX_METADATA_BYTES:
        raise ImageError(f"more than {MAX_METADATA_BYTES >> 20} MiB of metadata; save the image without it")
