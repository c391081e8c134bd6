from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dermalyze.imaging.registration import MAX_SHIFT, aligned_correlation, crop, detail

WHOLE = np.array([[0, 1, 0, 1]], dtype=np.float32)


def picture(seed: int, size: int = 320) -> Image.Image:
    """Structure of several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3))
    for cells, weight in ((6, 60), (20, 40), (50, 25)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += weight / 128 * (np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)).astype(float) - 128)
    return Image.fromarray(np.clip(140 + total, 0, 255).astype(np.uint8))


def planes(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    small = image.resize((64, 64), Image.Resampling.BILINEAR, box=box)
    return np.asarray(small).transpose(2, 0, 1)[None]


def test_a_crop_is_found_and_aligned() -> None:
    image = picture(0)
    left, top, right, low = 10, 22, 300, 312  # of 320: about a tenth cut off
    value, part = aligned_correlation(detail(planes(image, (left, top, right, low))), detail(planes(image)), WHOLE, steps=12)
    assert value[0] > 0.95
    assert part[0] == pytest.approx(np.array([top, low, left, right]) / 320, abs=0.006)
    unaligned, _ = aligned_correlation(detail(planes(image, (left, top, right, low))), detail(planes(image)), WHOLE, steps=0)
    assert unaligned[0] < 0.5


def test_the_other_way_round_what_lies_beyond_is_left_out() -> None:
    image = picture(1)
    value, part = aligned_correlation(detail(planes(image)), detail(planes(image, (16, 16, 304, 304))), WHOLE, steps=12)
    assert value[0] > 0.9  # on four fifths of the image
    assert part[0] == pytest.approx([-16 / 288, 304 / 288, -16 / 288, 304 / 288], abs=0.006)


def test_brighter_or_darker_is_the_same_and_another_picture_is_not() -> None:
    image = picture(2)
    darker = Image.fromarray((np.asarray(image) * 0.6).astype(np.uint8))
    brighter = Image.fromarray(np.clip(np.asarray(image) * 1.4, 0, 255).astype(np.uint8))
    for other in (darker, brighter):
        assert aligned_correlation(detail(planes(image)), detail(planes(other)), WHOLE, steps=3)[0][0] > 0.9
    assert abs(aligned_correlation(detail(planes(image)), detail(planes(picture(3))), WHOLE, steps=8)[0][0]) < 0.4


def test_pairs_in_one_call_are_as_alone() -> None:
    images = [planes(picture(seed)) for seed in range(4)]
    fixed, moving = np.concatenate(images[:2]), np.concatenate(images[2:])
    together = aligned_correlation(detail(fixed), detail(moving), WHOLE.repeat(2, axis=0), steps=5)
    for k in range(2):
        alone = aligned_correlation(detail(images[k]), detail(images[k + 2]), WHOLE, steps=5)
        assert together[0][k] == pytest.approx(alone[0][0], abs=1e-4)
        assert together[1][k] == pytest.approx(alone[1][0], abs=1e-3)


def test_a_round_dark_frame_does_not_make_two_pictures_alike() -> None:
    place = np.linspace(-1, 1, 320)
    inside = (place[:, None] ** 2 + place**2 < 0.8)[:, :, None]
    framed = [planes(Image.fromarray(np.where(inside, np.asarray(picture(seed)), 4).astype(np.uint8))) for seed in (4, 5)]
    one, two = (detail(frame) for frame in framed)
    assert one.valid[0, 0, 2, 2] == 0
    assert one.valid[0, 0, 32, 32] == 1
    assert aligned_correlation(one, two, WHOLE, steps=8)[0][0] < 0.4
    assert 0.7 < aligned_correlation(one, one, WHOLE, steps=8)[0][0] < 0.9  # less than 1: it was measured on a part


def test_nothing_to_see_gives_no_correlation() -> None:
    even = np.full((1, 3, 64, 64), 200, np.uint8)
    white = np.full((1, 3, 64, 64), 255, np.uint8)
    assert np.abs(detail(even).values).max() < 1e-4
    assert aligned_correlation(detail(white), detail(white), WHOLE, steps=2)[0][0] == 0


def test_a_part_never_leaves_its_bounds() -> None:
    start = WHOLE + np.float32(0.14)
    _, part = aligned_correlation(detail(planes(picture(6))), detail(planes(picture(7))), start, steps=20)
    assert np.abs(part - WHOLE).max() <= MAX_SHIFT + 1e-6


def test_crop_is_what_pillow_cuts() -> None:
    grey = np.asarray(picture(8).convert("L").resize((64, 64)), dtype=np.float32)
    box = (3.2, 6.4, 60.8, 64.0)  # left, top, right, low
    expected = np.asarray(Image.fromarray(grey).resize((64, 64), Image.Resampling.BILINEAR, box=box))
    got = crop(grey[None], (box[1] / 64, box[3] / 64, box[0] / 64, box[2] / 64))[0]
    assert np.abs(got - expected)[2:-2, 2:-2].max() < 0.5
