"""The smallest window that changes an answer, on networks whose reason is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dermalyze.explain.counterfactual import EDGES, smallest_flip, windows
from dermalyze.tasks.base import TASKS


def dark_spot(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Class 1 where a dark spot of at least 3 x 3 px is left anywhere."""
    dark = (pictures.mean(axis=3) < 60).sum(axis=(1, 2)) >= 9
    return np.stack([np.where(dark, 0.2, 0.9), np.where(dark, 0.8, 0.1)], axis=1)


def likeliest(p: NDArray[np.float64]) -> NDArray[np.bool_]:
    return TASKS["multiclass"].called(p, None)


def test_the_window_lies_on_the_reason() -> None:
    image = np.full((40, 60, 3), 220, np.uint8)
    image[30:34, 50:54] = 10
    found = smallest_flip(image, dark_spot, likeliest)
    assert found is not None
    assert (found.becomes.tolist(), found.probability) == ([True, False], 0.9)
    assert found.share == pytest.approx(EDGES[0] ** 2, rel=0.1)
    assert found.top * 40 < 34
    assert found.bottom * 40 > 30
    assert found.left * 60 < 54
    assert found.right * 60 > 50


def test_an_answer_that_hangs_on_nothing_is_not_changed() -> None:
    image = np.full((40, 60, 3), 220, np.uint8)
    assert smallest_flip(image, lambda x: np.tile([0.3, 0.7], (len(x), 1)), likeliest) is None


def test_a_label_that_is_lost() -> None:
    """Of two labels the one that hangs on the spot; the other stays called."""
    image = np.full((40, 60, 3), 220, np.uint8)
    image[30:34, 50:54] = 10
    found = smallest_flip(image, lambda x: np.stack([dark_spot(x)[:, 1], np.full(len(x), 0.6)], axis=1), lambda p: p >= 0.5)
    assert found is not None
    assert found.becomes.tolist() == [False, True]
    assert found.probability == pytest.approx(0.9)


@pytest.mark.parametrize("edge", EDGES)
def test_windows_cover_the_picture_and_stay_in_it(edge: float) -> None:
    seen = np.zeros((37, 53), int)
    for top, left, bottom, right in windows(37, 53, edge):
        assert 0 <= top < bottom <= 37
        assert 0 <= left < right <= 53
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
