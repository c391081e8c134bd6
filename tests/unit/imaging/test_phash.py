from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.fft import dctn

from dermalyze.imaging.phash import (
    BITS,
    FREQUENCIES,
    LOW,
    TRANSFORMS,
    coefficients,
    distance,
    inverse,
    near,
    signs,
    turned,
    turned_coefficients,
)


def pictures(n: int, size: int = 64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 9, 9), dtype=np.uint8)
    resized = [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in coarse]
    return np.array([np.asarray(one) for one in resized], dtype=np.float32)


def hashed(grey: np.ndarray) -> np.ndarray:
    return signs(coefficients(grey))


def test_signs_are_those_of_the_discrete_cosine_transform() -> None:
    """scipy's DCT-II samples the cosine where we average it over a pixel, which multiplies by a positive number."""
    grey = pictures(20)
    expected = dctn(grey, axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES]
    assert ((coefficients(grey) > 0) == (expected > 0)).reshape(20, -1)[:, 1:].mean() > 0.999


@pytest.mark.parametrize("transform", range(8), ids=[name.replace(" ", "-") for name in TRANSFORMS])
def test_the_hash_of_a_turned_picture_follows_from_its_coefficients(transform: int) -> None:
    grey = pictures(20)
    assert distance(hashed(turned(grey, transform)), signs(turned_coefficients(coefficients(grey), transform))).max() <= 1
    assert np.array_equal(turned(turned(grey, transform), inverse(transform)), grey)
    if transform:
        assert distance(hashed(turned(grey, transform)), hashed(grey)).min() > 20


def test_turns_are_those_of_pillow() -> None:
    grey = pictures(1).astype(np.uint8)
    for name, method in {
        "mirrored left to right": Image.Transpose.FLIP_LEFT_RIGHT,
        "mirrored top to bottom": Image.Transpose.FLIP_TOP_BOTTOM,
        "half turn": Image.Transpose.ROTATE_180,
        "transposed": Image.Transpose.TRANSPOSE,
        "quarter turn to the right": Image.Transpose.ROTATE_270,
        "quarter turn to the left": Image.Transpose.ROTATE_90,
        "transposed along the other diagonal": Image.Transpose.TRANSVERSE,
    }.items():
        expected = np.asarray(Image.fromarray(grey[0]).transpose(method))
        assert np.array_equal(turned(grey, TRANSFORMS.index(name))[0], expected), name


def test_brightness_size_and_blur_change_few_bits_another_picture_half() -> None:
    grey = pictures(50)
    plain = hashed(grey)
    assert distance(hashed(0.7 * grey + 20), plain).max() <= 2
    small = [Image.fromarray(one.astype(np.uint8)).resize((40, 32), Image.Resampling.BILINEAR) for one in grey]
    assert distance(hashed(np.array([np.asarray(one, dtype=np.float32) for one in small])), plain).max() <= 10
    soft = [Image.fromarray(one.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1)) for one in grey]
    assert distance(hashed(np.array([np.asarray(one, dtype=np.float32) for one in soft])), plain).max() <= 10
    assert 60 < distance(plain[:25], plain[25:]).mean() < 83


def test_a_window_is_the_picture_cut_out() -> None:
    grey = pictures(20)
    cut = grey[:, 8:56, 16:64]
    assert np.allclose(coefficients(grey, (8 / 64, 56 / 64, 16 / 64, 1.0)), coefficients(cut), atol=1e-3)


def test_bits_are_where_they_are_said_to_be() -> None:
    one = -np.ones((1, FREQUENCIES, FREQUENCIES), np.float32)
    low, high, mean = one.copy(), one.copy(), one.copy()
    low[0, LOW - 1, LOW - 1] = high[0, LOW, 0] = mean[0, 0, 0] = 1
    base = signs(one)
    assert np.bitwise_count(signs(low) ^ base).tolist() == [[1, 0, 0]]
    assert np.bitwise_count(signs(high) ^ base)[0, 0] == 0
    assert distance(signs(high), base) == 1
    assert distance(signs(mean), base) == 0
    assert distance(signs(-one), base) == BITS


@pytest.mark.parametrize(("low", "total"), [(0, 0), (12, 30), (20, 40), (63, 143)])
def test_near_finds_what_comparing_one_by_one_finds(low: int, total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermalyze.imaging.phash._BLOCK", (3, 16))
    rng = np.random.default_rng(0)
    bank = rng.integers(0, 2**64, (50, 3), dtype=np.uint64) & signs(np.ones((1, FREQUENCIES, FREQUENCIES), np.float32))
    query = bank[rng.integers(0, 50, 23)]
    for row in query:  # some bits flipped
        for bit in rng.integers(0, 62, rng.integers(0, 25)):
            row[0] ^= np.uint64(1 << int(bit))
    expected = set()
    for q, one in enumerate(query):
        for b, other in enumerate(bank):
            words = [(int(x) ^ int(y)).bit_count() for x, y in zip(one, other, strict=True)]
            if words[0] <= low and sum(words) <= total:
                expected.add((q, b))
    found = [
        (int(q), int(b)) for qs, bs in near(query, bank, low_bits=low, all_bits=total) for q, b in zip(qs, bs, strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert expected or low == 0
