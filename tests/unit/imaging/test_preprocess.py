"""Reduced-scale decoding: near the full decode, never below the size needed, upright, and one path in training and serving."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import DataSpec, PreprocessSpec
from dermalyze.core.atomic import sha256_bytes
from dermalyze.data.cache import open_cache, read_image
from dermalyze.data.store import ImageStore
from dermalyze.errors import ModelError
from dermalyze.imaging.decode import decode
from dermalyze.imaging.image import ImageError
from dermalyze.imaging.preprocess import Preprocessing, to_size
from dermalyze.serve.predictor.predictor import Predictor

HALF = (0.5, 0.5, 0.5)
KINDS = ("squash", "resize_crop", "pad")


def preprocessing(kind: str, height: int, width: int, *, draft: bool = True, crop_ratio: float = 0.875) -> Preprocessing:
    return Preprocessing(kind, height, width, crop_ratio, HALF, HALF, draft)  # type: ignore[arg-type]


def photograph(width: int = 600, height: int = 450) -> Image.Image:
    """Smooth, with one sharp dark disc off the center, so that a turned or shifted image is another one."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    skin = np.stack([200 + 40 * x, 150 + 30 * y, 130 + 20 * x * y], axis=-1)
    disc = ((x + 0.4) ** 2 + (y + 0.2) ** 2 < 0.16)[..., None]
    return Image.fromarray(np.where(disc, skin * 0.4, skin).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, orientation: int | None = None, **options: object) -> bytes:
    sink = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(sink, "JPEG", quality=92, exif=exif, **options)
    return sink.getvalue()


def both(data: bytes, p: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """The network's pixels by the reduced and by the full decode."""
    return to_size(decode(data, least=p.least).pixels, p), to_size(decode(data).pixels, p)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(144, 192), (96, 96), (192, 256)], ids=str)
def test_close_to_the_full_decode(kind: str, size: tuple[int, int]) -> None:
    p = preprocessing(kind, *size)
    reduced, full = both(jpeg(photograph()), p)
    assert reduced.shape == full.shape == (*size, 3)
    difference = np.abs(reduced.astype(int) - full.astype(int))
    assert 0 < difference.mean() < 1.5  # of 255; not the same pixels, and nearly so
    assert np.percentile(difference, 95) < 6


@pytest.mark.parametrize("kind", KINDS)
def test_never_below_the_size_needed_and_reduced_where_it_can_be(kind: str) -> None:
    rng = np.random.default_rng(0)
    scales = set()
    for _ in range(150):
        width, height = (int(v) for v in rng.integers(40, 700, 2))
        p = preprocessing(kind, *(int(8 * 2**v) for v in rng.uniform(0, 5, 2)), crop_ratio=float(rng.uniform(0.5, 1)))
        needed = p.resized(width, height)
        rows, columns = decode(jpeg(Image.new("RGB", (width, height))), least=p.least).pixels.shape[:2]
        scale = next(s for s in (1, 2, 4, 8) if (-(-height // s), -(-width // s)) == (rows, columns))
        scales.add(scale)
        if scale > 1:
            assert columns >= needed[0]
            assert rows >= needed[1]
        if scale < 8:
            assert width < 2 * scale * needed[0] or height < 2 * scale * needed[1], "could have been smaller"
    assert scales == {1, 2, 4, 8}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_a_turned_photograph_is_reduced_as_the_upright_one(kind: str, orientation: int) -> None:
    """A frame that is wide when stored and tall when upright, where the two edges would allow different scales."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    upright = photograph(640, 320)
    stored = upright if inverse is None else upright.transpose(inverse)
    p = preprocessing(kind, 72, 144, crop_ratio=1.0)
    decoded = decode(jpeg(stored, orientation), least=p.least).pixels
    assert decoded.shape == (80, 160, 3)  # 1/4; taken for a tall frame it could not have been
    expected = to_size(decode(jpeg(upright), least=p.least).pixels, p)
    assert np.abs(to_size(decoded, p).astype(int) - expected.astype(int)).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_in_full(kind: str) -> None:
    sink = io.BytesIO()
    photograph().save(sink, kind)
    assert decode(sink.getvalue(), least=preprocessing("squash", 32, 32).least).pixels.shape == (450, 600, 3)


def test_without_draft_nothing_is_reduced() -> None:
    p = preprocessing("squash", 32, 32, draft=False)
    assert p.least is None
    assert decode(jpeg(photograph()), least=p.least).pixels.shape == (450, 600, 3)


def test_grey_progressive_and_multi_picture_files_are_reduced() -> None:
    p = preprocessing("squash", 100, 100)
    assert decode(jpeg(photograph().convert("L")), least=p.least).pixels.shape == (113, 150, 3)
    assert decode(jpeg(photograph(), progressive=True), least=p.least).pixels.shape == (113, 150, 3)
    sink = io.BytesIO()
    photograph().save(sink, "MPO", save_all=True, append_images=[Image.new("RGB", (600, 450), "red")])
    image = decode(sink.getvalue(), least=p.least)
    assert (image.format, image.pixels.shape) == ("MPO", (113, 150, 3))
    assert image.pixels[0, 0, 2] > 50, "the first image, not the red one"


def test_a_truncated_file_is_refused_as_without() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode(jpeg(photograph())[:9000], least=preprocessing("squash", 32, 32).least)


def test_training_and_serving_see_the_same_pixels(
    make_artifact: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes into the memory map of training and scoring is, byte for byte, what the predictor gives to the graph."""
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
    p = preprocessing("squash", 12, 16)
    (tmp_path / "data").mkdir()
    blobs = {f"{n}.jpg": jpeg(photograph(600 - 40 * n, 450), orientation=n) for n in range(1, 9)}
    for name, data in blobs.items():
        (tmp_path / "data" / name).write_bytes(data)
    store = ImageStore.open(DataSpec(path=str(tmp_path / "data")))
    hashes = [sha256_bytes(data) for data in blobs.values()]
    trained = open_cache(store, list(blobs), hashes, p, workers=1)
    predictor = Predictor(make_artifact(preprocessing=p.as_dict()), threads=1)
    for row, data in enumerate(blobs.values()):
        _, served = predictor._prepare((row, data))
        assert served is not None
        assert np.array_equal(trained[row], served["image"])
    full = read_image(store, "1.jpg", hashes[0], preprocessing("squash", 12, 16, draft=False))
    assert not np.array_equal(trained[0], full), "the option does something"


def test_the_option_goes_from_the_configuration_into_the_record() -> None:
    p = Preprocessing.resolve(PreprocessSpec(draft=True, size=64), size=(8, 8), mean=HALF, std=HALF)
    assert p.draft
    assert Preprocessing.from_dict(p.as_dict()) == p


def test_a_record_without_the_key_is_refused() -> None:
    values = preprocessing("squash", 64, 64, draft=False).as_dict()
    with pytest.raises(ModelError, match="draft out of range or of the wrong type"):
        Preprocessing.from_dict({**values, "draft": 1})
    del values["draft"]
    with pytest.raises(ModelError, match=r"must have .*'draft'.*; export the model again"):
        Preprocessing.from_dict(values)
