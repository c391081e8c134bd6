"""Out-of-distribution images: made here by kind and number, or read from folders and MedMNIST files."""

# Shapes: H height, W width.

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dermalyze.core.progress import say
from dermalyze.errors import DataError
from dermalyze.imaging.decode import PREPARE_FORMATS, Preprocessing, decode, to_size
from dermalyze.rng import permutation

Pixels = NDArray[np.uint8]
Rng = np.random.Generator

EACH = 32
"""Images of each kind that is made here."""
MOST = 500
"""Images of a folder or file that are looked at; of more, a seeded sample."""
MAX_MEMBER_BYTES = 2**31  # of an npz


def blank(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """One color; the first is black, the second white."""
    colour = {0: np.zeros(3), 1: np.full(3, 255)}.get(number, rng.integers(0, 256, 3))
    return np.broadcast_to(colour.astype(np.uint8), (height, width, 3)).copy()


def noise(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """Each pixel by itself, in color or gray, of full or small contrast, in grains of 1 to 4 px."""
    grain, channels = int(rng.integers(1, 5)), 3 if number % 2 else 1
    field = rng.random((height // grain + 1, width // grain + 1, channels))
    field = np.repeat(np.repeat(field, grain, axis=0), grain, axis=1)[:height, :width]
    centre, contrast = rng.uniform(60, 196), rng.uniform(40, 255)
    return _bytes(np.broadcast_to(centre + contrast * (field - 0.5), (height, width, 3)))


def text(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """A page of words in a line grid, dark on light."""
    page = Image.new("RGB", (width, height), tuple(int(c) for c in rng.integers(225, 256, 3)))
    draw, size = ImageDraw.Draw(page), max(8, round(height * rng.uniform(0.045, 0.09)))
    font, ink = ImageFont.load_default(size), tuple(int(c) for c in rng.integers(0, 70, 3))
    y, letters = round(0.06 * height), np.array(list("abcdefghijklmnopqrstuvwxyz"))
    while y < 0.95 * height:
        words = ("".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(40))
        line, end = " ".join(words), 0.95 * width if rng.random() > 0.2 else rng.uniform(0.3, 0.9) * width
        fits = bisect_right(range(len(line) + 1), end - 0.06 * width, key=lambda n: draw.textlength(line[:n], font)) - 1
        draw.text((0.06 * width, y), line[:fits], ink, font)
        y += round(1.35 * size)
    return np.asarray(page)


def clouds(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """Noise of a spectrum as natural scenes have it (amplitude 1 / f ^ 0.7 to 1.6), between two colors."""
    y, x = np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None] * width
    spectrum = 1 / np.maximum(1, np.hypot(y, x)) ** rng.uniform(0.7, 1.6)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((height, width))) * spectrum).real
    return _between(rng, (field - field.mean()) / (4 * max(field.std(), 1e-12)) + 0.5)


def stripes(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """Parallel bars, hard or soft, at any angle."""
    angle, bars = rng.uniform(0, np.pi), rng.uniform(3, 24)
    y, x = np.mgrid[:height, :width] / min(height, width)
    wave = np.sin(2 * np.pi * bars * (x * np.cos(angle) + y * np.sin(angle)))
    return _between(rng, np.clip(0.5 + rng.uniform(0.5, 5) * wave, 0, 1))


def bricks(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """A wall: rows shifted by half a brick, each brick of its own shade, with joints."""
    tall = max(4, round(height / rng.uniform(5, 14)))
    wide, joint = 2 * tall + int(rng.integers(0, tall)), max(1, tall // 8)
    y, x = np.mgrid[:height, :width]
    row = y // tall
    column = (x + (row % 2) * (wide // 2)) // wide
    shade = rng.uniform(0.3, 1, (int(row.max()) + 1, int(column.max()) + 1))[row, column]
    shade = shade + rng.normal(0, 0.06, shade.shape)
    gap = (y % tall < joint) | ((x + (row % 2) * (wide // 2)) % wide < joint)
    return _between(rng, np.where(gap, 0.05, shade))


def wood(rng: Rng, height: int, width: int, number: int) -> Pixels:
    """Rings cut lengthwise: a stretched, wavering distance to an axis, with fine grain."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    middle, waver = rng.uniform(-0.5, 1.5), rng.uniform(0.02, 0.12)
    rings = np.hypot(y - middle + waver * np.sin(rng.uniform(1, 4) * x + rng.uniform(0, 6)), 0.15 * x) * rng.uniform(8, 24)
    grain = np.repeat(rng.normal(0, 0.08, (height, 1)), width, axis=1) + rng.normal(0, 0.03, (height, width))
    light, dark = np.array([205, 160, 105]) + rng.normal(0, 15, 3), np.array([120, 75, 40]) + rng.normal(0, 12, 3)
    share = np.clip(rings % 1 + grain, 0, 1)[:, :, None]
    return _bytes(light * share + dark * (1 - share))


SYNTHETIC: dict[str, Callable[[Rng, int, int, int], Pixels]] = {
    "blank": blank, "noise": noise, "text": text, "clouds": clouds, "stripes": stripes, "bricks": bricks, "wood": wood,
}  # fmt: skip
"""Kind to what makes one: a generator, the size in px, and its number among those of its kind."""


@dataclass(frozen=True, eq=False)
class OodImage:
    """One out-of-distribution image: `kind` of it, `image_id`, and pixels (H, W, 3) uint8 at the network's size."""

    kind: str
    image_id: str
    pixels: Pixels


def synthetic(preprocessing: Preprocessing, *, seed: int) -> Iterator[OodImage]:
    """`EACH` images of each kind of `SYNTHETIC`, the same for the same seed and size."""
    for kind, make in SYNTHETIC.items():
        for number in range(EACH):
            rng = np.random.default_rng(int.from_bytes(sha256(f"{seed}/{kind}/{number}".encode()).digest()[:16], "big"))
            yield OodImage(kind, f"{kind}/{number}", make(rng, preprocessing.height, preprocessing.width, number))


def name_of(path: Path) -> str:
    """What a set read from `path` is called: its name in plain letters.

    >>> name_of(Path("data/Chest films.npz"))
    'Chest_films'
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in path.stem)
    return plain.strip("_")[:60] or "foreign"


def read_ood_images(path: Path, preprocessing: Preprocessing, *, seed: int) -> Iterator[OodImage]:
    """Images of a folder (searched to the bottom) or of a file in the MedMNIST layout (arrays `*_images` in an npz).

    At most `MOST`, else a seeded sample of them. Files of a folder that are no readable images are counted and said.

    Raises:
        DataError: not there, no such file, or without a single readable image.
    """
    if path.is_dir():
        found = _folder(path, preprocessing, seed)
    elif path.suffix.lower() == ".npz" and path.is_file():
        found = _npz(path, preprocessing, seed)
    else:
        raise DataError(f"{path.name}: neither a folder of images nor an npz file in the MedMNIST layout")
    count, name = 0, name_of(path)
    for pixels in found:
        yield OodImage(name, f"{name}/{count}", pixels)
        count += 1
    if not count:
        raise DataError(f"{path.name}: holds no image that can be read; give JPEG, PNG, WebP, AVIF, BMP, TIFF, HEIC or DICOM")


def _folder(root: Path, preprocessing: Preprocessing, seed: int) -> Iterator[Pixels]:
    paths = sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink() and not p.name.startswith("."))
    refused: dict[str, int] = {}
    for i in _sample(len(paths), seed):
        try:
            yield to_size(decode(paths[i].read_bytes(), formats=PREPARE_FORMATS).image, preprocessing)
        except (DataError, OSError) as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
    for reason, n in refused.items():
        say(f"{root.name}: {n} of {len(paths)} files are left out: {reason}")


def _npz(path: Path, preprocessing: Preprocessing, seed: int) -> Iterator[Pixels]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename: m.file_size for m in archive.infolist()}
        names = [name for name in ("test_images.npy", "val_images.npy", "train_images.npy") if name in members]
        if not names:
            raise DataError(f"{path.name}: has no array test_images, val_images or train_images; it has {sorted(members)[:5]}")
        if members[names[0]] > MAX_MEMBER_BYTES:
            raise DataError(f"{path.name}: {names[0]} unpacks to over {MAX_MEMBER_BYTES // 2**30} GiB; give a smaller file")
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays[names[0].removesuffix(".npy")]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path.name}: not a readable npz file ({type(error).__name__})") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(f"{path.name}: images of {images.dtype} {images.shape}; must be uint8 (N, H, W) or (N, H, W, 3)")
    for i in _sample(len(images), seed):
        image = images[i] if images.ndim == 4 else np.repeat(images[i][:, :, None], 3, axis=2)
        yield to_size(image, preprocessing)


def _sample(count: int, seed: int) -> list[int]:
    return sorted(int(i) for i in permutation(seed, 0, count)[:MOST])


def _between(rng: Rng, share_HW: NDArray[np.float64]) -> Pixels:
    """Shares 0..1 to colors between a dark and a light one."""
    dark, light = rng.uniform(0, 140, 3), rng.uniform(110, 255, 3)
    return _bytes(dark + (light - dark) * np.clip(share_HW, 0, 1)[:, :, None])


def _bytes(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
