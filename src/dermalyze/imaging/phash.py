"""A perceptual hash of 143 bits that is compared under the eight flips and quarter turns, and the search for close ones.

A bit is the sign of one of the 12 x 12 lowest cosine coefficients of the gray image, squeezed to a square; the mean is left
out. Signs do not change with brightness and contrast, and hardly with JPEG, blur and resizing. A flip changes the odd ones
and a transposition swaps the two frequencies, so the hashes of all eight variants follow from one transform.
The coefficients of a window (a crop) come from the same pixels through a cosine that spans the window only.

Shapes: N images of H x W pixels, F = 12 frequencies, Q and B hashes of 3 words.

After Zauner 2010, "Implementation and benchmarking of perceptual image hash functions" (the hash of cosine coefficients).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FREQUENCIES, LOW = 12, 8
WORDS, BITS = 3, FREQUENCIES**2 - 1
TRANSFORMS = (
    "none",
    "mirrored left to right",
    "mirrored top to bottom",
    "half turn",
    "transposed",
    "quarter turn to the right",
    "quarter turn to the left",
    "transposed along the other diagonal",
)
"""Names of the eight transforms: bit 4 of the number transposes, then bit 1 mirrors left to right, then bit 2 top to bottom."""

Scalar = TypeVar("Scalar", bound=np.generic)
Window = tuple[float, float, float, float]
WHOLE: Window = (0.0, 1.0, 0.0, 1.0)
"""Top, bottom, left, right as shares of the image's edges."""

_BLOCK = 16, 4096  # hashes compared at a time: what fits the cache of a core


def turned(images: NDArray[Scalar], transform: int) -> NDArray[Scalar]:
    """Images under one of the eight transforms.

    Args:
        images: (N, H, W) or (N, H, W, 3), any type; H = W where the transform transposes into the same shape.
        transform: 0..7, an index of `TRANSFORMS`.

    >>> turned(np.array([[[1, 2], [3, 4]]]), 5).tolist()
    [[[3, 1], [4, 2]]]
    """
    if transform & 4:
        images = images.swapaxes(1, 2)
    if transform & 1:
        images = images[:, :, ::-1]
    if transform & 2:
        images = images[:, ::-1]
    return images


def inverse(transform: int) -> int:
    """The transform that undoes one.

    >>> [inverse(t) for t in range(8)]
    [0, 1, 2, 3, 4, 6, 5, 7]
    """
    return {5: 6, 6: 5}.get(transform, transform)


def coefficients(grey_NHW: NDArray[np.float32], window: Window = WHOLE) -> NDArray[np.float32]:
    """The lowest cosine coefficients of a window of each image.

    Args:
        grey_NHW: brightness, any scale.
        window: top, bottom, left, right, each 0..1.

    Returns:
        (N, F, F), vertical frequency first.

    >>> abs(coefficients(np.ones((1, 4, 4), np.float32))).round(3)[0, :2, :2].tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    top, bottom, left, right = window
    down, across = _cosines(grey_NHW.shape[1], top, bottom), _cosines(grey_NHW.shape[2], left, right)
    return np.asarray(down @ grey_NHW @ across.T, dtype=np.float32)


def _cosines(pixels: int, start: float, stop: float) -> NDArray[np.float32]:
    """(F, pixels) mean of cos(pi u x) over each pixel's share of the window, x running 0..1 across it."""
    edges = np.clip((np.arange(pixels + 1) / pixels - start) / (stop - start), 0, 1)
    u = np.arange(FREQUENCIES)[:, None]
    area = np.sin(np.pi * u * edges) / (np.pi * np.maximum(u, 1))
    area[0] = edges
    return np.diff(area, axis=1).astype(np.float32)


def turned_coefficients(found_NFF: NDArray[np.float32], transform: int) -> NDArray[np.float32]:
    """The coefficients of the turned images, from those of the images.

    >>> image = np.arange(16, dtype=np.float32).reshape(1, 4, 4) ** 2
    >>> bool(np.allclose(turned_coefficients(coefficients(image), 6), coefficients(turned(image, 6)), atol=1e-4))
    True
    """
    if transform & 4:
        found_NFF = found_NFF.swapaxes(1, 2)
    odd = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
    return found_NFF * (odd if transform & 1 else 1) * (odd[:, None] if transform & 2 else 1)


def signs(found_NFF: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The hash: the sign of each coefficient but the mean, the 63 of the 8 lowest frequencies in the first word.

    Returns:
        (N, 3) uint64; one bit of 144 unused, with 48 more to fill the words.

    >>> int(distance(signs(np.ones((1, 12, 12), np.float32)), signs(-np.ones((1, 12, 12), np.float32)))[0])
    143
    """
    low = np.zeros((FREQUENCIES, FREQUENCIES), dtype=bool)
    low[:LOW, :LOW] = True
    positive = found_NFF > 0
    first, rest = positive[:, low], positive[:, ~low]
    first[:, 0] = False  # the mean
    bits = np.concatenate([first, np.pad(rest, ((0, 0), (0, (WORDS - 1) * 64 - rest.shape[1])))], axis=1)
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


def distance(one_NW: NDArray[np.uint64], other_NW: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of bits in which hashes differ, 0..143, over the last axis; broadcasts."""
    return np.asarray(np.bitwise_count(one_NW ^ other_NW).sum(axis=-1, dtype=np.int64))


def near(
    query_QW: NDArray[np.uint64], bank_BW: NDArray[np.uint64], *, low_bits: int, all_bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every pair of a query and a hash of the bank that differ in few bits; all are compared, block by block.

    Args:
        low_bits: at most so many different bits of the first word.
        all_bits: and so many altogether.

    Yields:
        (index into the queries, index into the bank), equally long, for one block.

    >>> hashes = np.array([[0, 0, 0], [1, 0, 0], [255, 0, 0]], dtype=np.uint64)
    >>> [(q.tolist(), b.tolist()) for q, b in near(hashes[:1], hashes, low_bits=1, all_bits=1)]
    [([0, 0], [0, 1])]
    """
    rows, columns = _BLOCK
    differing, counted = np.empty(rows * columns, np.uint64), np.empty(rows * columns, np.uint8)
    for start in range(0, len(query_QW), rows):
        query = query_QW[start : start + rows]
        for first in range(0, len(bank_BW), columns):
            bank = bank_BW[first : first + columns]
            shape, size = (len(query), len(bank)), len(query) * len(bank)  # new arrays here would cost ten times the counting
            words, counts = differing[:size].reshape(shape), counted[:size].reshape(shape)
            np.bitwise_xor(query[:, None, 0], bank[None, :, 0], out=words)
            np.bitwise_count(words, out=counts)
            q, b = np.divmod(np.flatnonzero(counts <= low_bits), len(bank))
            if len(q):
                kept = distance(query[q], bank[b]) <= all_bits
                yield q[kept] + start, b[kept] + first
