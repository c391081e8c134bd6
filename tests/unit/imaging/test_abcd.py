"""Measures of shapes whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dermalyze.imaging.abcd import MEANINGS, Abcd, asymmetry, feret, largest, measure, perimeter


def ellipse(a: float, b: float, degrees: float = 0.0, size: int = 160) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    t = math.radians(degrees)
    u, v = x * math.cos(t) + y * math.sin(t), -x * math.sin(t) + y * math.cos(t)
    return np.asarray((u / a) ** 2 + (v / b) ** 2 <= 1)


def of(mask: NDArray[np.bool_], scale: float | None = None) -> Abcd:
    found = measure(np.zeros((*mask.shape, 3), np.uint8), mask, mm_per_px=scale)
    assert found is not None
    return found


@pytest.mark.parametrize("degrees", [0, 20, 45, 70])
def test_an_ellipse_is_symmetrical_at_any_angle(degrees: float) -> None:
    found = of(ellipse(60, 30, degrees), 0.1)
    assert found.asymmetry < 0.02
    assert found.diameter_px == pytest.approx(120, abs=2)
    assert found.diameter_mm == pytest.approx(12, abs=0.2)
    # perimeter of an ellipse by Ramanujan 1914
    length = math.pi * (3 * 90 - math.sqrt((3 * 60 + 30) * (60 + 3 * 30)))
    assert found.border == pytest.approx(length**2 / (4 * math.pi * math.pi * 1800) - 1, abs=0.06)
    assert not found.cut_off


def test_a_circle_has_no_irregular_border() -> None:
    assert of(ellipse(50, 50)).border < 0.03
    assert perimeter(ellipse(50, 50)) == pytest.approx(2 * math.pi * 50, rel=0.02)


def test_a_half_disc_is_asymmetrical_about_one_axis_alone() -> None:
    half = ellipse(60, 60)
    half[:80] = False
    y = 4 * 60 / (3 * math.pi)  # center of mass of a half-disc above its straight side
    # mirrored about the line at y: what is left over, by integration over strips
    t = np.linspace(0, 60, 20001)
    width, mirrored = 2 * np.sqrt(3600 - t**2), np.where(2 * y - t >= 0, 2 * np.sqrt(np.maximum(3600 - (2 * y - t) ** 2, 0)), 0)
    beyond = np.trapezoid(np.maximum(width - mirrored, 0), t) / (math.pi * 1800)
    assert asymmetry(half) == pytest.approx(beyond / 2, abs=0.02)


def test_notches_make_a_border_irregular() -> None:
    y, x = np.mgrid[:160, :160] - 79.5
    star = np.hypot(x, y) <= 50 + 12 * np.cos(9 * np.arctan2(y, x))
    assert of(star).border > 5 * max(0.02, of(ellipse(50, 50)).border)


def test_colour_variety_of_two_greys() -> None:
    """Half black, half white: L* 0 and 100, so 50 from their mean."""
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    image = np.zeros((40, 40, 3), np.uint8)
    assert measure(image, mask).colors == 0.0  # type: ignore[union-attr]
    image[:, 20:] = 255
    assert measure(image, mask).colors == pytest.approx(50, abs=0.1)  # type: ignore[union-attr]


def test_specks_and_holes_do_not_count_and_a_cut_lesion_is_said_so() -> None:
    mask = ellipse(40, 40)
    clean = of(mask)
    spoilt = mask.copy()
    spoilt[0, 0] = True
    spoilt[78:82, 78:82] = False
    assert of(spoilt) == clean
    assert largest(np.zeros((5, 5), bool)).sum() == 0
    assert measure(np.zeros((9, 9, 3), np.uint8), np.eye(9, dtype=bool)) is None
    assert of(ellipse(100, 40)).cut_off
    assert feret(np.eye(1, 8, 3, dtype=bool)) == pytest.approx(math.sqrt(2))


def test_every_measure_is_defined() -> None:
    assert set(MEANINGS) == set(Abcd.__dataclass_fields__) - {"cut_off"}
