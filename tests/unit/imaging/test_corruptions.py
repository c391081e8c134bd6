"""Corruptions: pure functions of their address, graded, and harmless to what they are given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dermalyze.errors import ConfigError
from dermalyze.imaging import corruptions
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt

Y, X = np.mgrid[:48, :64]
SKIN = np.stack([200 - 0.5 * X, 150 + 0.4 * Y, 130 + 0 * X], axis=-1)
PICTURE = np.where((np.hypot(Y - 24, X - 30) < 12)[:, :, None], SKIN * 0.4, SKIN).astype(np.uint8)


def all_of(kind, **address):
    address = {"image_id": "a", "seed": 1, **address}
    return [corrupt(PICTURE, kind, severity, **address) for severity in SEVERITIES]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_same_address_same_pixels_and_the_picture_stays(kind):
    before = PICTURE.copy()
    for one, again in zip(all_of(kind), all_of(kind), strict=True):
        assert one.dtype == np.uint8
        assert one.shape == PICTURE.shape
        np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(PICTURE, before)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_is_further_from_the_picture(kind):
    distances = [np.abs(one.astype(float) - PICTURE).mean() for one in all_of(kind)]
    assert distances[0] > 0
    assert all(a < b for a, b in itertools.pairwise(distances)), distances


@pytest.mark.parametrize("kind", ["noise", "patch", "hair"])
def test_what_is_drawn_belongs_to_the_picture_and_the_seed(kind):
    one, other, third = (all_of(kind, **a)[2] for a in ({}, {"image_id": "b"}, {"seed": 2}))
    assert (one != other).any()
    assert (one != third).any()


def test_a_patch_covers_its_share_and_hair_grows():
    for severity, share in zip(SEVERITIES, CORRUPTIONS["patch"][1], strict=True):
        covered = (corrupt(np.zeros((200, 300, 3), np.uint8), "patch", severity, image_id="x", seed=0) == 128).all(axis=2)
        assert 100 * covered.mean() == pytest.approx(share, abs=0.5)
    strokes = [(one != PICTURE).any(axis=2) for one in all_of("hair")]
    assert all((less & ~more).sum() == 0 for less, more in itertools.pairwise(strokes))


def test_exposure_is_a_factor_of_linear_light():
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    stop = corruptions.exposure(grey, -1.0, np.random.default_rng(0))[0, :, 0].astype(float)

    def linear(v):
        return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)

    np.testing.assert_allclose(linear(stop / 255), linear(np.arange(256) / 255) / 2, atol=0.005)


def test_the_table_in_the_docstring_is_the_table():
    rows = {cells[0]: cells[2:] for line in corruptions.__doc__.splitlines() if line.startswith("| ")
            for cells in [[c.strip() for c in line.strip("|").split("|")]]}  # fmt: skip
    assert {kind: tuple(float(v) for v in rows[kind]) for kind in CORRUPTIONS} == {k: s for k, (_, s) in CORRUPTIONS.items()}


@pytest.mark.parametrize(("kind", "severity"), [("blurr", 1), ("blur", 0), ("blur", 6)])
def test_what_there_is_not_is_refused(kind, severity):
    with pytest.raises(ConfigError):
        corrupt(PICTURE, kind, severity, image_id="a", seed=0)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_tiny_pictures_are_taken(kind):
    assert corrupt(PICTURE[:8, :8], kind, 5, image_id="a", seed=0).shape == (8, 8, 3)
