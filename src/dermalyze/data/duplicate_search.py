"""Which of many images show one photograph, also after edits of a copy: three filters, from coarse to fine.

All work on 64 x 64 thumbnails in color, of every image against every other:

1. a perceptual hash (`imaging.phash`) of each image under the eight flips and quarter turns, against that of each other
   image and of 13 crops of it;
2. the correlation of detail, on 32 x 32 pixels, at the crop that the hash named;
3. the correlation of detail after the images are aligned (`imaging.registration`), on 32 x 32 and then on 64 x 64 pixels in
   color.

Shapes: N images, P pairs, S = 64 pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.core.progress import progress
from dermalyze.imaging import phash, registration

SIZE = 64

WINDOWS: tuple[phash.Window, ...] = (
    phash.WHOLE,
    *((0.1 * y, 0.1 * y + 0.9, 0.1 * x, 0.1 * x + 0.9) for y in (0.1, 0.5, 0.9) for x in (0.1, 0.5, 0.9)),
    *((0.05 * y, 0.05 * y + 0.95, 0.05 * x, 0.05 * x + 0.95) for y in (0.15, 0.85) for x in (0.15, 0.85)),
)
"""The whole, nine crops of nine tenths and four of nineteen twentieths: any crop down to nine tenths lies close to one."""

WHOLE_BITS, CROP_BITS = (14, 34), (12, 30)
"""Most bits of 63 (low frequencies) and of 143 in which hashes may differ."""

LEAST_CONTRAST = 2.0
"""Images with a smaller standard deviation (of 255) show nothing that could be compared."""

ROUGH, ALIGNED = 0.45, 0.65
"""Least correlations in the second sieve and in the first half of the third."""

CONFIRM = 0.61
"""Least correlation of a pair, from HAM10000 at 200 x 150 pixels (benchmarks/duplicates.py).

Of 50 million pairs of its 10,015 images the most alike of two groups reach 0.57 (two subjects in a round frame), then
0.55. The lowest found of 2,000 copies (--copies 2000 --seed 1) is 0.74 after JPEG of quality 30 (0.69 with another seed) and
0.84 after anything else but a change of brightness, of which one in 200 was missed. The six pairs across two groups that
pass lie at 0.64 to 0.94, and each was looked at. Two photographs of one subject taken apart from each other are mostly below.
"""


def shrink(image: Image.Image) -> NDArray[np.uint8]:
    """The thumbnail of an RGB image: squeezed to (64, 64, 3)."""
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def find_near_duplicates(thumbs_NSS3: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """All near-duplicates among thumbnails.

    Returns:
        (images (P, 2), the lower index first; the transform (P,) that turns the second into the first; correlation (P,)).
    """
    if len(thumbs_NSS3) < 2:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    found = _candidates(thumbs_NSS3)
    order = np.lexsort((-found["rough"], found["other"], found["one"]))
    found = {name: values[order] for name, values in found.items()}
    new = np.append(True, (np.diff(found["one"]) != 0) | (np.diff(found["other"]) != 0))[: len(order)]
    found = {name: values[new] for name, values in found.items()}  # of each pair the most alike of its guesses
    value = np.empty(len(found["one"]), dtype=np.float32)
    for start in range(0, len(value), 128):
        block = slice(start, start + 128)
        still, moving = thumbs_NSS3[found["turned"][block]], thumbs_NSS3[found["fixed"][block]]
        for transform in np.unique(found["transform"][block]):
            mine = found["transform"][block] == transform
            still[mine] = phash.turned(still[mine], int(transform))
        value[block] = _confirm(still, moving, np.array(WINDOWS, dtype=np.float32)[found["window"][block]])
    kept = value >= CONFIRM
    pair = np.stack([found["one"], found["other"]], axis=1)[kept]
    undone = np.array([phash.inverse(t) for t in range(8)])
    as_found = found["turned"][kept] == pair[:, 1]  # the second was turned to look like the first
    transform = np.where(as_found, found["transform"][kept], undone[found["transform"][kept]])
    return pair, transform, value[kept]


def _candidates(thumbs_NSS3: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Guesses of the first two sieves: image `turned` under `transform` looks like `window` of image `fixed`."""
    n = len(thumbs_NSS3)
    chunks = [slice(start, start + 1024) for start in range(0, n, 1024)]

    def hashed(window: phash.Window) -> NDArray[np.float32]:
        greens = (thumbs_NSS3[chunk, :, :, 1].astype(np.float32) for chunk in chunks)
        return np.concatenate([phash.coefficients(green, window) for green in greens])

    whole = hashed(phash.WHOLE)
    queries = [phash.signs(phash.turned_coefficients(whole, transform)) for transform in range(8)]
    small = np.concatenate([_rough_detail(_halved(thumbs_NSS3[chunk])) for chunk in chunks])
    found: list[tuple[NDArray[Any], ...]] = []
    with progress("compare", len(WINDOWS) * 8, "passes") as advance:
        for number, window in enumerate(WINDOWS):
            bank = phash.signs(hashed(window))
            cropped = _unit(registration.crop(small, window))
            low_bits, all_bits = CROP_BITS if number else WHOLE_BITS
            for transform in range(8):
                turned = _unit(phash.turned(small, transform))
                for q, b in phash.near(queries[transform], bank, low_bits=low_bits, all_bits=all_bits):
                    new = q != b if number else q < b
                    q, b = q[new], b[new]
                    rough = np.concatenate([np.empty(0, np.float32), *(
                        np.einsum("pd,pd->p", turned[q[i : i + 4096]], cropped[b[i : i + 4096]]) for i in range(0, len(q), 4096)
                    )])  # fmt: skip
                    alike = rough >= ROUGH
                    q, b = q[alike], b[alike]
                    how = np.full((2, len(q)), [[transform], [number]])
                    found.append((np.minimum(q, b), np.maximum(q, b), q, b, *how, rough[alike]))
                advance(1)
    names = ("one", "other", "turned", "fixed", "transform", "window", "rough")
    columns = zip(*found, strict=True) if found else [[np.empty(0, np.int64)]] * len(names)
    return {name: np.concatenate(list(values)) for name, values in zip(names, columns, strict=True)}


def _confirm(still: NDArray[np.uint8], moving: NDArray[np.uint8], window_P4: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P,) correlation after alignment: roughly in green, and where that is promising finely in color; else 0."""
    one, two = (registration.detail(_planes(_halved(pictures))[:, 1:2]) for pictures in (still, moving))
    rough, part = registration.aligned_correlation(one, two, window_P4, steps=8)
    good = np.flatnonzero(rough >= ALIGNED)
    one, two = (registration.detail(_planes(pictures[good]), fine_px=0.7) for pictures in (still, moving))
    value = np.zeros(len(still), dtype=np.float32)
    value[good] = registration.aligned_correlation(one, two, part[good], steps=3)[0]
    return value


def _planes(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def _halved(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    n, half = len(pictures), SIZE // 2
    sums = pictures.reshape(n, half, 2, half, 2, 3).sum(axis=(2, 4), dtype=np.uint16)
    return np.asarray((sums + 2) // 4, dtype=np.uint8)


def _rough_detail(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    found = registration.detail(_planes(pictures)[:, 1:2], coarse_px=1.2)
    return np.asarray((found.values * found.valid)[:, 0])


def _unit(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = planes.reshape(len(planes), -1)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), dtype=np.float32)
