"""Does a class hang on something at the rim of the image, away from what matters? Two ways to find out, both by painting over.

By the map, which may point to another place in each image; and place by place, since a map of few cells shows no small mark.

Shapes: N images; H, W pixels; K boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.explain.faithfulness import Image, Map, Mask, Predict, mean_with_interval
from dermalyze.metrics.bootstrap import Estimate

CELLS = 5  # the rim is the outermost ring of a 5 x 5 grid
MOST_FOREGROUND = 0.05  # boxes with more of the foreground than this share are no rim
NAMES = {
    (0, 0): "upper left corner", (0, 4): "upper right corner", (4, 0): "lower left corner", (4, 4): "lower right corner",
}  # fmt: skip
SIDES = {0: "upper edge", 4: "lower edge"}
LEAST_FALL = 0.1
"""Probability that a class must lose, by the lower end of the interval, to be named."""
LEAST_GROUPS = 5


@dataclass(frozen=True)
class Box:
    """A part of the rim: rows and columns of pixels, and what it is called."""

    top: int
    bottom: int
    left: int
    right: int
    name: str

    @property
    def place(self) -> tuple[slice, slice]:
        """Index of its pixels."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Place:
    """What a class loses at one place of the rim, the same in every image.

    Attributes:
        name: of the place, that of the largest loss.
        fall: of its probability where that is painted over.
        over: fall - the median fall over the other places of the same image; its interval is corrected for `tried`.
        tried: places that were tried (Bonferroni).
    """

    name: str
    fall: Estimate
    over: Estimate
    tried: int


@dataclass(frozen=True)
class Rim:
    """What a class loses at the rim.

    Attributes:
        name: of the class.
        hot: fall of its probability where the hottest box is painted over.
        cold: the same for the coldest box: what painting alone does.
        over: hot - cold on the same images.
        where: the boxes that were hottest, most often first, with counts.
        place: the place of the largest loss; None where no place was tried in enough groups.
        by_map, by_place: whether `over` of the one or of the other is surely larger than `LEAST_FALL`.
    """

    name: str
    hot: Estimate
    cold: Estimate
    over: Estimate
    where: dict[str, int]
    place: Place | None
    by_map: bool
    by_place: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def rim_boxes(height: int, width: int, *, corners_only: bool) -> list[Box]:
    """The outermost ring of a 5 x 5 grid: the corners, and what lies between them.

    >>> [box.name for box in rim_boxes(10, 10, corners_only=True)][1], len(rim_boxes(10, 10, corners_only=False))
    ('upper right corner', 16)
    """
    rows, columns = (np.rint(np.linspace(0, edge, CELLS + 1)).astype(int) for edge in (height, width))
    found = []
    for r in range(CELLS):
        for c in range(CELLS):
            if r not in (0, CELLS - 1) and c not in (0, CELLS - 1):
                continue
            name = NAMES.get((r, c)) or SIDES.get(r) or ("left edge" if c == 0 else "right edge")
            if (r, c) in NAMES or not corners_only:
                found.append(Box(int(rows[r]), int(rows[r + 1]), int(columns[c]), int(columns[c + 1]), name))
    return found


def hottest_and_coldest(map_HW: Map, mask_HW: Mask | None) -> tuple[Box, Box] | None:
    """The rim's boxes with the largest and the smallest mean of a map; None where the mask covers the rim or all is alike.

    Args:
        map_HW: hot where the class is seen.
        mask_HW: of the foreground; without one only the corners count, where the subject hardly reaches.
    """
    boxes = rim_boxes(*map_HW.shape, corners_only=mask_HW is None)
    if mask_HW is not None:
        boxes = [box for box in boxes if mask_HW[box.place].mean() <= MOST_FOREGROUND]
    if len(boxes) < 2:
        return None
    heat = [float(np.maximum(map_HW[box.place], 0).mean()) for box in boxes]
    if max(heat) == min(heat):
        return None
    return boxes[int(np.argmax(heat))], boxes[int(np.argmin(heat))]


def painted_over(image_HW3: Image, box: Box, mask_HW: Mask | None) -> Image:
    """The image with a box in the median color of the rest of its rim; pixels of the foreground stay.

    >>> image = np.zeros((10, 10, 3), np.uint8)
    >>> image[:2, :2] = 200
    >>> int(painted_over(image, rim_boxes(10, 10, corners_only=True)[0], None).max())
    0
    """
    height, width = image_HW3.shape[:2]
    rim: NDArray[np.bool_] = np.zeros((height, width), dtype=bool)
    for one in rim_boxes(height, width, corners_only=False):
        rim[one.place] = True
    here = np.zeros_like(rim)
    here[box.place] = True
    if mask_HW is not None:
        rim, here = rim & ~mask_HW, here & ~mask_HW
    rest = rim & ~here
    painted = np.array(image_HW3)
    if rest.any():
        painted[here] = np.median(image_HW3[rest], axis=0).astype(np.uint8)
    return painted


def falls(image_HW3: Image, boxes: tuple[Box, Box], mask_HW: Mask | None, predict: Predict, c: int) -> tuple[float, float]:
    """By how much p(class) falls where the hottest box is painted over, and where the coldest is."""
    p = predict(np.stack([image_HW3, *(painted_over(image_HW3, box, mask_HW) for box in boxes)]))[:, c]
    return float(p[0] - p[1]), float(p[0] - p[2])


def place_falls(image_HW3: Image, mask_HW: Mask | None, predict: Predict, c: int) -> list[float | None]:
    """(K,) by how much p(class) falls where each box of the rim is painted over; None for a box with the foreground in it.

    Without a mask only the corners are tried, as in `hottest_and_coldest`.
    """
    height, width = image_HW3.shape[:2]
    corners = set(rim_boxes(height, width, corners_only=True))
    boxes = rim_boxes(height, width, corners_only=False)
    free = [box in corners if mask_HW is None else mask_HW[box.place].mean() <= MOST_FOREGROUND for box in boxes]
    painted = [painted_over(image_HW3, box, mask_HW) for box, clear in zip(boxes, free, strict=True) if clear]
    p = predict(np.stack([image_HW3, *painted]))[:, c]
    found = iter(p[0] - p[1:])
    return [float(next(found)) if clear else None for clear in free]


def worst_place(falls_NK: Sequence[Sequence[float | None]], groups_N: Sequence[str], **interval: Any) -> Place | None:
    """The place whose loss stands out most surely; None where none was tried in enough groups.

    Args:
        falls_NK: of `place_falls`, one per image that was called so.
        groups_N: the group of each.
        interval: resamples, level and seed.

    >>> corner = [[None, 0.6, *[0.0] * 14] for _ in range(12)]
    >>> found = worst_place(corner, [str(i) for i in range(12)], resamples=100, level=0.95, seed=0)
    >>> found.name, round(found.over.value, 3), found.tried
    ('upper edge', 0.6, 15)
    """
    names = [box.name for box in rim_boxes(CELLS, CELLS, corners_only=False)]
    values_NK = np.array([[np.nan if one is None else one for one in row] for row in falls_NK], dtype=np.float64)
    values_NK = values_NK.reshape(-1, values_NK.shape[-1] if values_NK.size else len(names))
    groups = np.asarray(groups_N)
    known = [k for k in range(values_NK.shape[1]) if len(set(groups[~np.isnan(values_NK[:, k])])) >= LEAST_GROUPS]
    found: list[Place] = []
    corrected = {**interval, "level": 1 - (1 - interval["level"]) / max(1, len(known))}
    for k in known:
        others_N = np.array(
            [np.nanmedian(rest) if np.isfinite(rest).any() else np.nan for rest in np.delete(values_NK, k, axis=1)]
        )
        there = np.isfinite(values_NK[:, k]) & np.isfinite(others_N)
        if len(set(groups[there])) < LEAST_GROUPS:
            continue
        here, rest = values_NK[there, k], others_N[there]
        fall = mean_with_interval(here, groups[there], least_groups=LEAST_GROUPS, **interval)
        over = mean_with_interval(here - rest, groups[there], least_groups=LEAST_GROUPS, **corrected)
        found.append(Place(names[k], fall, over, len(known)))
    return max(found, key=lambda place: -np.inf if place.over.low is None else place.over.low, default=None)


def assess_rim(
    name: str,
    falls_N2: Sequence[tuple[float, float]],
    where_N: Sequence[str],
    groups_N: Sequence[str],
    place: Place | None = None,
    **interval: Any,
) -> Rim:
    """Whether a class hangs on its rim.

    Args:
        name: of the class.
        falls_N2: of `falls`, one per image that was called so.
        where_N: the hottest box of each.
        groups_N: the group of each.
        place: of `worst_place`.
        interval: resamples, level and seed.

    >>> many = [(0.5, 0.0)] * 12
    >>> assess_rim("mel", many, ["left edge"] * 12, [str(i) for i in range(12)], resamples=100, level=0.95, seed=0).by_map
    True
    """
    values = np.asarray(falls_N2, dtype=np.float64).reshape(-1, 2)
    hot, cold, over = (
        mean_with_interval(one, groups_N, least_groups=LEAST_GROUPS, **interval)
        for one in (values[:, 0], values[:, 1], values[:, 0] - values[:, 1])
    )
    where = dict(Counter(where_N).most_common())
    return Rim(name, hot, cold, over, where, place, _surely(over), place is not None and _surely(place.over))


def _surely(over: Estimate) -> bool:
    return over.low is not None and over.low > LEAST_FALL
