"""Measures of maps on networks whose reasons are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dermalyze.explain.faithfulness import (
    FLOORS,
    center_gaussian,
    deletion_insertion,
    disturbed,
    energy_inside,
    grade,
    hottest_first,
    mean_with_interval,
    pointing,
    random_map,
    similarity,
)

SIZE = (24, 32)


def corner_reader(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """p(class 1) is the brightness of the upper right corner, and nothing else."""
    p = pictures[:, :8, 24:].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - p, p], axis=1)


def picture() -> NDArray[np.uint8]:
    image = np.full((*SIZE, 3), 20, np.uint8)
    image[:8, 24:] = 250
    return image


def hot(rows: slice, columns: slice) -> NDArray[np.float64]:
    found = np.zeros(SIZE)
    found[rows, columns] = 1.0
    return found


def test_the_true_reason_beats_a_wrong_one_and_the_floors() -> None:
    maps = {
        "true": hot(slice(0, 8), slice(24, 32)),
        "wrong": hot(slice(16, 24), slice(0, 8)),
        "centre": center_gaussian(*SIZE),
        "random": random_map(*SIZE, [0]),
    }
    found = deletion_insertion(picture(), maps, corner_reader, 1, seed=0)
    assert found["true"]["deletion_mean"] < found["centre"]["deletion_mean"]
    assert found["true"]["insertion_blur"] > found["centre"]["insertion_blur"]
    value = {name: one["faithfulness"] for name, one in found.items()}
    assert value["true"] > 0.4
    assert value["true"] - max(value["wrong"], value["centre"], value["random"]) > 0.3


def test_curves_begin_and_end_at_the_picture_and_its_baseline() -> None:
    """A flat network has the same area everywhere: p itself."""
    flat = deletion_insertion(
        picture(), {"any": center_gaussian(*SIZE)}, lambda x: np.tile([0.25, 0.75], (len(x), 1)), 1, seed=0
    )
    assert flat["any"]["deletion_blur"] == pytest.approx(0.75)
    assert flat["any"]["faithfulness"] == pytest.approx(0.0)


def test_a_flat_map_is_a_random_order_and_says_nothing_of_places() -> None:
    order = hottest_first(np.zeros(SIZE), 3)
    assert sorted(order) == list(range(24 * 32))
    assert order.tolist() != hottest_first(np.zeros(SIZE), 4).tolist()
    empty, mask = np.zeros(SIZE), hot(slice(0, 8), slice(0, 8)) > 0
    assert np.isnan([energy_inside(empty, mask), pointing(empty, mask), similarity(empty, center_gaussian(*SIZE))]).all()
    assert np.isnan(energy_inside(center_gaussian(*SIZE), np.zeros(SIZE, bool)))


def test_localisation_by_hand() -> None:
    mask = hot(slice(0, 8), slice(24, 32)) > 0
    assert energy_inside(mask.astype(float), mask) == 1.0
    assert energy_inside(np.ones(SIZE), mask) == pytest.approx(mask.mean())
    assert (pointing(mask.astype(float), mask), pointing(1.0 - mask, mask)) == (1.0, 0.0)
    negative = np.where(mask, 1.0, -5.0)
    assert energy_inside(negative, mask) == 1.0, "what speaks against the class is no energy"


def test_disturbances_are_small_and_repeatable() -> None:
    changed = disturbed(picture(), 5)
    assert changed.shape == (2, *SIZE, 3)
    assert np.abs(changed.astype(int) - picture()).max() <= 16
    assert (changed == disturbed(picture(), 5)).all()


def test_intervals_are_over_lesions() -> None:
    """Twenty copies of one lesion are no evidence; missing values are left out."""
    options = {"resamples": 300, "level": 0.95, "seed": 0}
    values = np.random.default_rng(0).normal(1, 1, 60)
    single = mean_with_interval(values, [str(i) for i in range(60)], **options)
    grouped = mean_with_interval(np.repeat(values[:20], 3), [str(i // 3) for i in range(60)], **options)
    assert single.low is not None
    assert grouped.low is not None
    assert grouped.high - grouped.low > single.high - single.low  # type: ignore[operator]
    few = mean_with_interval(values[:9], [str(i) for i in range(9)], **options)
    assert few.low is None
    assert "at least 10" in few.note
    holes = np.where(np.arange(60) % 2 == 0, values, np.nan)
    assert mean_with_interval(holes, [str(i) for i in range(60)], **options).value == pytest.approx(values[::2].mean())


def test_grades() -> None:
    rng, groups = np.random.default_rng(1), [str(i) for i in range(40)]
    options = {"resamples": 300, "level": 0.95, "seed": 0}
    floors = {name: rng.normal(0.1, 0.05, 40) for name in FLOORS}
    assert grade(rng.normal(0.3, 0.05, 40), floors, groups, **options).verdict == "better"
    blob = grade(floors["centre"] + rng.normal(0, 0.05, 40), {**floors, "random": rng.normal(-1, 0.1, 40)}, groups, **options)
    assert blob.sentence == "no better than a centered blob for this model"
    assert grade(np.full(40, -1.0), floors, groups, **options).sentence.count(" and ") == 1
    few = grade(np.ones(5), {name: np.zeros(5) for name in FLOORS}, groups[:5], **options)
    assert few.verdict == "not graded"
