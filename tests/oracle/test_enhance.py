"""CLAHE, Lab and black top-hat against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from dermalyze.imaging.enhance import clahe, equalize, remove_hair, shades_of_gray, to_lab, to_rgb


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth skin with a dark patch, and a little noise."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    skin = np.stack([200 + 40 * x, 150 + 30 * y, 130 + 20 * x * y], axis=-1)
    patch = ((x + 0.2) ** 2 + y**2 < 0.2)[..., None]
    noise = np.random.default_rng(seed).normal(0, 4, skin.shape)
    return np.clip(np.where(patch, 0.4 * skin, skin) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("clip", [1.0, 2.0, 4.0, 40.0])
@pytest.mark.parametrize(("shape", "tiles"), [((64, 64), 8), ((77, 101), 8), ((150, 200), 8), ((64, 50), 3), ((33, 47), 1)])
def test_equalization_is_opencvs_within_a_level(shape: tuple[int, int], tiles: int, clip: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for gray in (noise, photograph(*shape)[..., 0], np.full(shape, 7, np.uint8)):
        theirs = cv2.createCLAHE(clip, (tiles, tiles)).apply(gray)
        assert np.abs(equalize(gray, clip=clip, tiles=tiles).astype(int) - theirs).max() <= 1


def test_lab_is_opencvs_within_a_level() -> None:
    colors = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), axis=-1).reshape(52, -1, 3)
    theirs = cv2.cvtColor(colors, cv2.COLOR_RGB2LAB)
    apart = np.abs(to_lab(colors) - theirs)
    assert apart.max() <= 2  # near black, where their tables are coarse
    assert (apart > 1).mean() < 0.001
    back = cv2.cvtColor(theirs, cv2.COLOR_LAB2RGB).astype(int)
    assert np.abs(to_rgb(theirs.astype(np.float32)).astype(int) - back).mean() < 0.5


def test_the_whole_chain_is_near_opencvs() -> None:
    """Their Lab differs by up to a level, which equalization then stretches; on average little of it is left."""
    image = photograph(150, 200)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(lab[..., 0])
    theirs = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    assert np.abs(clahe(image, clip=2.0, tiles=8).astype(int) - theirs).mean() < 2


def test_color_constancy_takes_a_cast_away() -> None:
    image = photograph(60, 80)
    cast = np.clip(image * [1.0, 0.8, 0.6], 0, 255).astype(np.uint8)

    def hues(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(pixels.mean(axis=(0, 1)) / pixels.mean())

    before = np.abs(hues(image) - hues(cast)).max()
    after = np.abs(hues(shades_of_gray(image, power=6.0)) - hues(shades_of_gray(cast, power=6.0))).max()
    assert before > 0.15
    assert after < before / 10
    assert np.array_equal(shades_of_gray(np.zeros((4, 4, 3), np.uint8), power=6.0), np.zeros((4, 4, 3), np.uint8))


def test_planted_hairs_are_painted_over_and_the_rest_stays() -> None:
    image = photograph(225, 300)
    hairy = image.copy()
    for start in range(20, 280, 40):
        cv2.line(hairy, (start, 0), (start + 30, 224), (40, 25, 20), 2)
    hair = (hairy != image).any(axis=2)
    cleaned = remove_hair(hairy, threshold=10)
    error = np.abs(cleaned.astype(float) - image).mean(axis=2)
    assert error[hair].mean() < 0.25 * np.abs(hairy.astype(float) - image).mean(axis=2)[hair].mean()
    assert error[~hair].mean() < 3
    assert Image.fromarray(cleaned).size == (300, 225)
