"""Skin tone on skins whose color is known, with everything in the image that is not skin."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dermalyze.imaging.skin_tone import CAST, ITA_BANDS, grown, ita_band, lab, skin_of, skin_tone, typology_angle

# sRGB colors with L*, a*, b* under D65: the primaries as published by Lindbloom, brucelindbloom.com, and the middle gray
PUBLISHED = {
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (255, 255, 0): (97.1393, -21.5537, 94.4780),
    (0, 255, 255): (91.1132, -48.0875, -14.1312),
    (255, 0, 255): (60.3242, 98.2343, -60.8249),
    (119, 119, 119): (50.0344, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
}
SKINS = {"very light": (244, 216, 190), "light": (222, 180, 148), "intermediate": (205, 160, 125), "tan": (178, 130, 96),
         "brown": (135, 90, 65), "dark": (72, 47, 38)}  # fmt: skip


@pytest.mark.parametrize(("rgb", "expected"), PUBLISHED.items(), ids=str)
def test_lab_has_the_published_values(rgb, expected):
    assert lab(np.array(rgb, np.uint8)) == pytest.approx(np.array(expected), abs=0.02)


def test_the_angle_by_hand():
    assert typology_angle(np.array([70.0, 50.0, 30.0]), np.array([20.0, 20.0, 20.0])).tolist() == [45.0, 0.0, -45.0]
    assert float(typology_angle(50 + 10 * np.sqrt(3), 10.0)) == pytest.approx(60)


def test_bands_are_half_open_and_a_cast_has_none():
    named = [ita_band(upper - 0.01) for _, upper in ITA_BANDS[:-1]]
    assert named == [name for name, _ in ITA_BANDS[:-1]]
    assert [ita_band(upper + 0.01) for _, upper in ITA_BANDS[:-1]] == [name for name, _ in ITA_BANDS[1:]]
    assert ita_band(89.9) == "very light"
    assert {ita_band(d) for d in (90.0, 120.0, -90.0, 180.0)} == {CAST}
    assert ita_band(float("nan")) is None


def photograph(rgb, seed=0, *, noise=5.0, extras=False, size=(200, 150), lesion=(70, 50)):
    """A skin of a color with grain, a dark lesion off the middle, and its mask."""
    image, mask = Image.new("RGB", size, rgb), Image.new("L", size)
    box = [
        (size[0] // 2 - lesion[0] // 2 + 8, size[1] // 2 - lesion[1] // 2),
        (size[0] // 2 + lesion[0] // 2 + 8, size[1] // 2 + lesion[1] // 2),
    ]
    ImageDraw.Draw(image).ellipse(box, fill=tuple(c // 3 for c in rgb))
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    if extras:
        draw = ImageDraw.Draw(image)
        for k in range(12):
            draw.line([(5 + 16 * k, 0), (30 + 15 * k, 149)], fill=(30, 20, 20), width=2)
        for k in range(5):
            draw.ellipse([(20 + 30 * k, 8), (26 + 30 * k, 13)], fill=(255, 255, 255))
        draw.line([(5, 130), (60, 140)], fill=(70, 40, 160), width=8)
        rim = Image.new("L", size, 255)
        ImageDraw.Draw(rim).ellipse([(5, -20), (195, 170)], fill=0)
        image.paste((5, 5, 5), mask=rim)
    grain = np.random.default_rng(seed).normal(0, noise, (size[1], size[0], 3))
    return np.clip(np.asarray(image) + grain, 0, 255).round().astype(np.uint8), np.asarray(mask) > 127


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("known", [False, True], ids=["rim", "mask"])
@pytest.mark.parametrize(("name", "rgb"), SKINS.items())
def test_skins_of_known_colour_are_within_two_degrees(name, rgb, known, extras):
    truth = lab(np.array(rgb, np.uint8))
    expected = float(typology_angle(truth[0], truth[2]))
    assert ita_band(expected) == name
    for seed in range(3):
        pixels, mask = photograph(rgb, seed, extras=extras, noise=3.0)
        found = skin_tone(pixels, mask if known else None)
        assert found.ita == pytest.approx(expected, abs=2.0)


def test_a_mask_keeps_a_pale_lesion_out_that_reaches_the_rim():
    skin, pale = SKINS["light"], (185, 140, 110)
    pixels, lesion = np.full((150, 200, 3), skin, np.uint8), np.zeros((150, 200), np.bool_)
    lesion[:, :150] = True
    pixels[lesion] = pale
    right = skin_tone(np.full((150, 200, 3), skin, np.uint8)).ita
    assert skin_tone(pixels, lesion).ita == pytest.approx(right)
    assert skin_tone(pixels).ita < right - 10


@pytest.mark.parametrize("pixels", [np.zeros((0, 0, 3), np.uint8), np.full((60, 80, 3), 255, np.uint8)])
def test_no_skin_is_no_number(pixels):
    lesion = np.ones(pixels.shape[:2], np.bool_)
    found = skin_tone(pixels, lesion)
    assert np.isnan(found.ita)
    assert np.isnan(found.lightness)
    assert ita_band(found.ita) is None


def test_a_photograph_of_any_size_is_measured():
    for size in ((1, 1), (3, 200), (200, 3)):
        skin_tone(np.full((*size, 3), (205, 160, 125), np.uint8))


def test_what_is_no_skin_is_left_out():
    pixels, mask = photograph(SKINS["light"], extras=True, noise=0.0)
    skin = skin_of(pixels, mask)
    assert not (skin & mask).any()
    assert pixels[skin].max(axis=1).min() > 20, "dark corners"
    assert not (pixels[skin] == 255).all(axis=1).any(), "glare"
    assert not (pixels[skin] == (70, 40, 160)).all(axis=1).any(), "ink"


def test_grown_is_a_square_around_each_pixel():
    there = np.zeros((7, 9), np.bool_)
    there[3, 4] = True
    assert grown(there, 2).sum() == 25
    assert (grown(there, 0) == there).all()
