from __future__ import annotations

import numpy as np
import pytest

from dermalyze.imaging.color_texture import FEATURES, describe


def picture(seed: int = 0, height: int = 48, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_number_of_features_is_as_said_for_any_size() -> None:
    assert describe(picture()).shape == describe(picture(height=9, width=31)).shape == (FEATURES,) == (151,)


@pytest.mark.parametrize("value", [0, 255])
def test_a_flat_picture_has_finite_features_and_no_texture(value: int) -> None:
    found = describe(np.full((40, 40, 3), value, np.uint8))
    assert np.isfinite(found).all()
    assert found[-64:].max() == 1.0, "one color: one bin"
    textures = found[45:-64].reshape(6, -1)
    assert textures[:, 0].tolist() == [1.0] * 6


def test_turns_and_flips_do_not_matter() -> None:
    image = picture()
    for turned in (image[::-1], image[:, ::-1], np.rot90(image), image[::-1, ::-1]):
        np.testing.assert_allclose(describe(np.ascontiguousarray(turned)), describe(image), atol=1e-9)


def test_colour_in_the_centre_is_told_from_colour_at_the_edge() -> None:
    base = np.full((48, 48, 3), 200, np.uint8)
    inner, outer = base.copy(), base.copy()
    inner[20:28, 20:28] = (120, 40, 30)
    outer[:8, :8] = (120, 40, 30)
    a, b = describe(inner), describe(outer)
    np.testing.assert_allclose(a[-64:], b[-64:])  # the histogram is blind to place
    assert np.abs(a[:9] - b[:9]).max() > 0.1


def test_a_fine_pattern_is_told_from_a_coarse_one_of_the_same_colours() -> None:
    fine, coarse = (np.kron(np.indices((48 // k, 48 // k)).sum(0) % 2, np.ones((k, k))) for k in (1, 8))
    a, b = (describe((np.repeat(tile[..., None], 3, axis=2) * 255).astype(np.uint8)) for tile in (fine, coarse))
    assert np.abs(a[45:-64] - b[45:-64]).max() > 0.3
