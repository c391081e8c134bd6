"""Does a map show what the network looks at? Deletion and insertion, localisation, stability; and floors to beat.

Shapes: H, W pixels of the network's input; F fractions; N images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dermalyze.metrics.bootstrap import MIN_GROUPS, Estimate, estimate, group_index, group_weights
from dermalyze.metrics.ranking import Floats, ratio, spearman

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Map = NDArray[np.floating[Any]]
Predict = Callable[[NDArray[np.uint8]], Floats]
"""Images (N, H, W, 3) to probabilities (N, C)."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of the pixels that are taken away or put back, the hottest first."""
SIGMA = 0.07
"""Of the blur that takes structure away, as share of the longer edge."""
GAUSSIAN_SIGMA = 0.25
"""Of the centered blob, as share of each edge."""
RANDOM_CELLS = (5, 7)
FLOORS = {"centre": "a centered blob", "random": "a random map"}


def center_gaussian(height: int, width: int) -> Floats:
    """(H, W) a blob in the middle, 1 at its top: what finds most subjects without looking, since they are photographed there.

    >>> int(center_gaussian(3, 5).argmax())
    7
    """
    y, x = (np.linspace(-0.5, 0.5, edge) / GAUSSIAN_SIGMA for edge in (height, width))
    return np.asarray(np.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2))


def random_map(height: int, width: int, seed: Sequence[int]) -> Floats:
    """(H, W) in 0..1, noise as smooth as a network's map; single random pixels would break an image up and seem faithful."""
    coarse = np.random.default_rng(list(seed)).random(RANDOM_CELLS)
    y, x = (np.linspace(0, cells - 1, edge) for cells, edge in zip(RANDOM_CELLS, (height, width), strict=True))
    return np.asarray(ndimage.map_coordinates(coarse, np.meshgrid(y, x, indexing="ij"), order=1))


def baselines(image_HW3: Image) -> dict[str, Image]:
    """What stands for a missing pixel: the image blurred until no structure is left, and its mean color."""
    sigma = SIGMA * max(image_HW3.shape)
    blurred = ndimage.gaussian_filter(image_HW3.astype(np.float32), (sigma, sigma, 0))
    mean = np.broadcast_to(image_HW3.mean(axis=(0, 1)), image_HW3.shape)
    return {"blur": np.rint(blurred).astype(np.uint8), "mean": np.rint(mean).astype(np.uint8)}


def hottest_first(map_HW: Map, seed: int) -> NDArray[np.int64]:
    """(H * W,) pixels from hot to cold; equal ones in random order, so that a flat map is a random one.

    >>> hottest_first(np.array([[0.0, 2.0], [1.0, 3.0]]), 0)
    array([3, 1, 2, 0])
    """
    shuffled = np.random.default_rng(seed).permutation(map_HW.size)
    return np.asarray(shuffled[np.argsort(-map_HW.ravel()[shuffled], kind="stable")])


def altered(image_HW3: Image, base_HW3: Image, order: NDArray[np.int64], fractions: Sequence[float]) -> Image:
    """(F, H, W, 3) the image with the first share of `order` taken from the baseline.

    >>> altered(np.ones((1, 2, 3), np.uint8), np.zeros((1, 2, 3), np.uint8), np.array([1, 0]), [0.0, 0.5, 1.0])[:, 0, :, 0]
    array([[1, 1],
           [1, 0],
           [0, 0]], dtype=uint8)
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    counts = np.rint(np.asarray(fractions) * len(order))
    gone = (place[None] < counts[:, None]).reshape(-1, *image_HW3.shape[:2], 1)
    return np.where(gone, base_HW3[None], image_HW3[None])


def area(values_F: Floats, fractions: Sequence[float]) -> float:
    """Area under a curve over the fractions, trapezoids.

    >>> area(np.array([1.0, 0.0]), [0.0, 1.0])
    0.5
    """
    return float(np.trapezoid(values_F, fractions))


def deletion_insertion(image_HW3: Image, maps: Mapping[str, Map], predict: Predict, c: int, seed: int) -> dict[str, Any]:
    """Deletion and insertion of several maps of one image, asked in one batch a baseline.

    deletion: area under p(class) while the hottest pixels give way to the baseline, low where the map is right.
    insertion: the same while they come back to the baseline, high where it is right.

    Args:
        image_HW3: RGB at the network's size.
        maps: name to (H, W), hot where the class is seen.
        predict: see `Predict`.
        c: class.
        seed: of the order of equal pixels.

    Returns:
        name to {"deletion_blur", "insertion_blur", "deletion_mean", "insertion_mean", "faithfulness"}; the last is the mean
        over both baselines of insertion - deletion, -1..1.

    Petsiuk, Das & Saenko 2018, arXiv:1806.07421
    """
    inner = FRACTIONS[1:-1]
    orders = {name: hottest_first(found, seed) for name, found in maps.items()}
    values: dict[str, dict[str, float]] = {name: {} for name in maps}
    for kind, base in baselines(image_HW3).items():
        stacks = [image_HW3[None], base[None]]
        for order in orders.values():
            stacks += [altered(image_HW3, base, order, inner), altered(base, image_HW3, order, inner)]
        p = predict(np.concatenate(stacks))[:, c]
        whole, none, rest = p[0], p[1], p[2:].reshape(len(maps), 2, len(inner))
        for name, (gone, back) in zip(maps, rest, strict=True):
            values[name][f"deletion_{kind}"] = area(np.concatenate([[whole], gone, [none]]), FRACTIONS)
            values[name][f"insertion_{kind}"] = area(np.concatenate([[none], back, [whole]]), FRACTIONS)
    for found in values.values():
        gains = [found[f"insertion_{kind}"] - found[f"deletion_{kind}"] for kind in ("blur", "mean")]
        found["faithfulness"] = float(np.mean(gains))
    return values


def energy_inside(map_HW: Map, mask_HW: Mask) -> float:
    """Share of a map's positive values that lies in the foreground, 0..1; NaN of an empty map or mask.

    >>> energy_inside(np.array([[3.0, 1.0]]), np.array([[True, False]]))
    0.75

    Wang et al. 2020 (Score-CAM), arXiv:1910.01279
    """
    positive = np.maximum(map_HW, 0)
    total = float(positive.sum())
    return float(positive[mask_HW].sum()) / total if total > 0 and mask_HW.any() else float("nan")


def pointing(map_HW: Map, mask_HW: Mask) -> float:
    """1 where the hottest pixel lies in the foreground, else 0; NaN of an empty map or mask.

    Zhang et al. 2016, arXiv:1608.00507
    """
    if not (map_HW > 0).any() or not mask_HW.any():
        return float("nan")
    return float(mask_HW.ravel()[int(np.argmax(map_HW))])


def similarity(a_HW: Map, b_HW: Map) -> float:
    """Rank correlation of two maps, -1..1; NaN where one is flat.

    >>> similarity(np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.0, 9.0]]))
    1.0
    """
    found = spearman(a_HW.ravel().astype(np.float64), b_HW.ravel().astype(np.float64))
    return float("nan") if found is None else found


def disturbed(image_HW3: Image, seed: int) -> Image:
    """(2, H, W, 3) the image 4 % brighter, and with a noise of 3 levels: changes that no eye would explain otherwise."""
    noise = np.random.default_rng(seed).normal(0, 3, image_HW3.shape)
    changed = np.stack([image_HW3 * 1.04, image_HW3 + noise])
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def mean_with_interval(
    values_N: Floats, groups_N: Sequence[str], *, resamples: int, level: float, seed: int, least_groups: int = MIN_GROUPS
) -> Estimate:
    """The mean of a value an image, over those that have one, with its interval over groups.

    >>> mean_with_interval(np.arange(20.0), [str(i) for i in range(20)], resamples=100, level=0.9, seed=0).value
    9.5
    """
    good_N = ~np.isnan(values_N)
    index_N, groups = group_index(groups_N)
    filled_N = np.where(good_N, values_N, 0.0)
    found = [ratio(filled_N @ w, good_N.astype(float) @ w) for w in group_weights(index_N, groups, resamples, seed)]
    value = float(filled_N.sum() / good_N.sum()) if good_N.any() else float("nan")
    return estimate(
        value, np.concatenate(found), n=int(good_N.sum()), groups=len(np.unique(index_N[good_N])), level=level,
        least_groups=least_groups,
    )  # fmt: skip


@dataclass(frozen=True)
class Grade:
    """Whether a method is better than maps that look at nothing.

    Attributes:
        over: its faithfulness minus that of each floor, on the same images.
        verdict: "better", "no better" or "not graded".
        sentence: the same for a person.
    """

    over: Mapping[str, Estimate]
    verdict: str
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def grade(values_N: Floats, floors: Mapping[str, Floats], groups_N: Sequence[str], **interval: Any) -> Grade:
    """Better only if the interval of the difference lies above 0 for every floor.

    Args:
        values_N: faithfulness of the method on each image.
        floors: a key of `FLOORS` to the faithfulness of that map on the same images.
        groups_N: the group of each.
        interval: resamples, level and seed.

    >>> floors = dict.fromkeys(FLOORS, np.zeros(20))
    >>> grade(np.linspace(0.1, 0.3, 20), floors, [str(i) for i in range(20)], resamples=200, level=0.95, seed=0).verdict
    'better'
    """
    over = {name: mean_with_interval(values_N - floor_N, groups_N, **interval) for name, floor_N in floors.items()}
    unknown = [one for one in over.values() if one.low is None]
    if unknown:
        return Grade(over, "not graded", f"not graded: {unknown[0].note or 'too few images'}")
    failed = [name for name, one in over.items() if one.low is not None and one.low <= 0]
    if failed:
        return Grade(over, "no better", f"no better than {' and '.join(FLOORS[name] for name in failed)} for this model")
    return Grade(over, "better", "better than a centered blob and a random map for this model")
