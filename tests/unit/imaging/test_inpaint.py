"""Images with a part painted over: what is shown stays as it is, and of the rest nothing is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermalyze.imaging.inpaint import BLANK, INK_RGB, MARGIN, box, mark, only, ring, with_border_of


def picture(seed=0, height=24, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_what_is_shown_stays_and_the_rest_is_one_colour_made_from_it_alone():
    shown = np.zeros((24, 32), dtype=bool)
    shown[4:9, 10:20] = True
    image, other = picture(0), picture(1)
    other[shown] = image[shown]
    painted = only(image, shown)
    assert (painted[shown] == image[shown]).all()
    assert len(np.unique(painted[~shown], axis=0)) == 1
    assert np.abs(painted[~shown][0] - image[shown].mean(axis=0)).max() <= 0.5
    assert (only(other, shown) == painted).all(), "the hidden part must not be felt"


def test_a_picture_that_is_hidden_as_a_whole_is_grey():
    assert (only(picture(), np.zeros((24, 32), dtype=bool)) == BLANK).all()


@given(st.integers(0, 2**32 - 1))
def test_the_box_covers_the_lesion_and_is_a_rectangle(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random((30, 40)) < 0.02
    filled = box(mask)
    assert (filled >= mask).all()
    rows, columns = filled.any(axis=1), filled.any(axis=0)
    assert filled.sum() == rows.sum() * columns.sum()
    if mask.any():
        y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert rows.sum() <= y[-1] - y[0] + 1 + 2 * round(MARGIN * 30)
        assert columns.sum() <= x[-1] - x[0] + 1 + 2 * round(MARGIN * 40)
    else:
        assert not filled.any()


def test_the_ring_is_an_eighth_of_each_edge():
    shown = ring(80, 160)
    assert shown[:10].all()
    assert shown[:, :20].all()
    assert not shown[10:70, 20:140].any()


@pytest.mark.parametrize("corner", range(4))
def test_a_mark_is_in_its_corner_and_leaves_the_given_picture_alone(corner):
    image = picture()
    before = image.copy()
    marked = mark(image, corner)
    assert (image == before).all()
    changed = (marked != image).any(axis=2)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    assert (rows.min() >= 21) if corner & 2 else (rows.max() <= 2)
    assert (columns.min() >= 28) if corner & 1 else (columns.max() <= 3)
    assert (marked[changed] == INK_RGB).all()
    assert not ((~ring(24, 32)) & changed).any(), "the mark is where borders are exchanged"


def test_a_border_is_taken_from_the_other_picture_where_asked():
    a, b, shown = picture(0), picture(1), ring(24, 32)
    mixed = with_border_of(a, b, shown)
    assert (mixed[shown] == b[shown]).all()
    assert (mixed[~shown] == a[~shown]).all()
