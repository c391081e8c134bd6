"""A network that hangs on a corner is found out; one that reads the middle is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermalyze.ops.hotspots import falls, hottest_and_coldest, judge_rim, painted_over, rim_boxes

SIZE = (40, 60)
OPTIONS = {"resamples": 200, "level": 0.95, "seed": 0}


def violet(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """p(class 1) rises with violet ink anywhere."""
    ink = (pictures[..., 2].astype(int) - pictures[..., 0] > 60).mean(axis=(1, 2))
    p = np.minimum(1.0, 0.1 + 40 * ink)
    return np.stack([1 - p, p], axis=1)


def dark_middle(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    p = 1 - pictures[:, 15:25, 20:40].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - p, p], axis=1)


def lesion(rng: np.random.Generator, corner: int | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
    """A dark lesion on skin, with ink in a corner; its mask; and a map that is hot at the ink, or at random."""
    image = np.clip(rng.normal(200, 5, (*SIZE, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros(SIZE, bool)
    mask[13:27, 18:42] = True
    image[mask] = 60
    heat = rng.random(SIZE)
    if corner is not None:
        rows, columns = slice(1, 5) if corner < 2 else slice(35, 39), slice(2, 9) if corner % 2 == 0 else slice(51, 58)
        image[rows, columns] = (70, 40, 150)
        heat[rows, columns] += 3
    return image, mask, heat


def judged(predict: object, marked: bool, with_mask: bool = True) -> object:
    rng = np.random.default_rng(0)
    rows, where = [], []
    for number in range(20):
        image, mask, heat = lesion(rng, number % 4 if marked else None)
        known = mask if with_mask else None
        boxes = hottest_and_coldest(heat, known)
        assert boxes is not None
        rows.append(falls(image, boxes, known, predict, 1))  # type: ignore[arg-type]
        where.append(boxes[0].name)
    return judge_rim("mel", rows, where, [str(i) for i in range(20)], **OPTIONS)


def test_a_planted_mark_is_named_with_and_without_masks() -> None:
    for with_mask in (True, False):
        found = judged(violet, True, with_mask)
        assert found.suspected  # type: ignore[attr-defined]
        assert sorted(found.where.values()) == [5, 5, 5, 5]  # type: ignore[attr-defined]
        assert all("corner" in name for name in found.where)  # type: ignore[attr-defined]


def test_a_clean_set_and_a_network_that_reads_the_lesion_are_not() -> None:
    assert not judged(violet, False).suspected  # type: ignore[attr-defined]
    assert not judged(dark_middle, True).suspected  # type: ignore[attr-defined]


def test_the_lesion_is_never_painted_and_a_lesion_at_the_rim_is_no_rim() -> None:
    image, mask, _ = lesion(np.random.default_rng(1), None)
    mask[:10, :20] = True
    box = rim_boxes(*SIZE, corners_only=True)[0]
    assert (painted_over(image, box, mask)[mask] == image[mask]).all()
    hot_there = np.zeros(SIZE)
    hot_there[:8, :12] = 1.0
    hot_there[-8:, -12:] = 0.5
    boxes = hottest_and_coldest(hot_there, mask)
    assert boxes is not None
    assert boxes[0].name == "lower right corner"
    assert hottest_and_coldest(np.zeros(SIZE), mask) is None
    assert hottest_and_coldest(hot_there, np.ones(SIZE, bool)) is None


def test_few_pictures_prove_nothing() -> None:
    found = judge_rim("mel", [(0.9, 0.0)] * 4, ["left edge"] * 4, list("abcd"), **OPTIONS)
    assert found.over.low is None
    assert not found.suspected
