"""Second images of cases, such as a clinical photograph beside dermoscopy: found, checked, compared, read."""

# Shapes: N rows, B cases, H height, W width. Cases are those of `imaging.cases`: 7 planes.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.columns import SECOND_COLUMNS
from dermalyze.config.model import ModelSpec
from dermalyze.core.progress import say
from dermalyze.data.cache import UnusableImageError, read_image
from dermalyze.data.inspection import Inspected, inspect_images
from dermalyze.data.sources.reading import MISSING_FILE, Row
from dermalyze.data.store import ImageStore
from dermalyze.errors import ConfigError
from dermalyze.imaging.cases import PLANES, packed
from dermalyze.imaging.preprocess import Preprocessing

Seconds = list[tuple[str, str] | None]
"""(manifest path, SHA-256) of the second image of each row; None where there is none."""


def inspect_second(store: ImageStore, rows: Sequence[Row], *, workers: int | None) -> list[Inspected | None]:
    """Decode the second image of each row; None where none is named.

    Raises:
        As `inspect_images`.
    """
    paths = [row.second for row in rows if row.second]
    found = iter(inspect_images(store, paths, workers=workers) if paths else ())
    return [
        None if row.second is None else next(found) if row.second else Inspected(MISSING_FILE)
        for row in rows
    ]  # fmt: skip


def as_cases(first: Sequence[Inspected], second: Sequence[Inspected | None]) -> list[Inspected]:
    """The first images, unusable where either is.

    >>> [case.reason for case in as_cases([Inspected(None), Inspected(None)], [None, Inspected("truncated")])]
    [None, 'second image: truncated']
    """
    return [
        Inspected(f"second image: {two.reason}") if one.reason is None and two is not None and two.reason is not None else one
        for one, two in zip(first, second, strict=True)
    ]


def second_columns(row: Row, case: Inspected, second: Inspected | None) -> dict[str, str | None]:
    """The manifest's further columns for one case."""
    good = second if second is not None and case.reason is None else None
    values = (row.second or None, good.sha256 if good else None, good.pixel_sha256 if good else None)
    return dict(zip(SECOND_COLUMNS, values, strict=True))


def summary_of(frame: pd.DataFrame) -> dict[str, int] | None:
    """How many usable cases have a second image, for summary.json; None for a set of one image per case.

    Args:
        frame: usable manifest rows.
    """
    if "second_sha256" not in frame:
        return None
    there = frame["second_sha256"].notna()
    same = there & (frame["second_pixel_sha256"] == frame["pixel_sha256"])
    return {"cases": int(there.sum()), "missing": int((~there).sum()), "same_as_first": int(same.sum())}


def lines_of(second: dict[str, int] | None) -> list[str]:
    """Lines for a person.

    >>> lines_of({"cases": 9, "missing": 1, "same_as_first": 0})
    ['9 cases have a second image, 1 has none']
    """
    if second is None:
        return []
    without = f"{second['missing']} {'has' if second['missing'] == 1 else 'have'} none"
    line = f"{second['cases']} cases have a second image" + (f", {without}" if second["missing"] else "")
    same = f"in {second['same_as_first']} cases the second image equals the first"
    return [line, *([same] if second["same_as_first"] else [])]


def require_second(frame: pd.DataFrame, spec: ModelSpec, *, what: str = "the set") -> None:
    """Refuse a network of two images where no case has a second one; note second images that are unused or never missing.

    Args:
        frame: manifest rows.
        spec: its `second`.
        what: the rows, in words.

    Raises:
        ConfigError: with the remedy.
    """
    there = sum(one is not None for one in seconds_of(frame))
    if spec.second is None:
        if there:
            say(f"model.second is not set: the network uses only the first image of {there} cases that have two")
    elif there == 0:
        raise ConfigError(
            f"model.second: {what} has no second images; name them in a column second_path of the CSV "
            "(data.source.columns maps another name to it), or leave model.second out"
        )
    elif there == len(frame) and spec.second.hide == 0:
        say("model.second: no case lacks its second image and hide is 0, so a prediction without one is unreliable")


def seconds_of(frame: pd.DataFrame) -> Seconds:
    """Where the second image of each manifest row is."""
    if "second_sha256" not in frame:
        return [None] * len(frame)
    there = frame["second_sha256"].notna()
    rows = zip(frame["second_path"], frame["second_sha256"], there, strict=True)
    return [(str(path), str(sha256)) if known else None for path, sha256, known in rows]


def pictures(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per image instead of one per case: second ones under the image_id of their case, after the first.

    >>> row = {"image_id": ["a"], "path": ["1.jpg"], "pixel_sha256": ["p"], "second_path": ["2.jpg"],
    ...        "second_sha256": ["t"], "second_pixel_sha256": ["q"]}
    >>> pictures(pd.DataFrame(row))["path"].tolist()
    ['1.jpg', '2.jpg']
    """
    if "second_sha256" not in frame:
        return frame
    second = frame[frame["second_sha256"].notna()]
    values = {name.removeprefix("second_"): second[name] for name in SECOND_COLUMNS}
    return pd.concat([frame, second.assign(**values)]).sort_values("image_id", kind="stable", ignore_index=True)


@dataclass(frozen=True, eq=False)
class CaseMap:
    """Cases by row, gathered from a map of first images and a map of second ones.

    Attributes:
        first_NHW3: first images, in the order of the rows.
        second_KHW3: second images, of the rows that have one.
        place_N: where in these a row's is; -1 for none.
    """

    first_NHW3: NDArray[np.uint8]
    second_KHW3: NDArray[np.uint8]
    place_N: NDArray[np.int64]

    def __getitem__(self, rows_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Cases (B, H, W, 7)."""
        place_B = self.place_N[rows_B]
        return packed(self.first_NHW3[rows_B], self.second_KHW3[np.maximum(place_B, 0)], place_B >= 0)


def places(seconds: Seconds) -> NDArray[np.int64]:
    """(N,) number of each row's second image among those there are; -1 for none.

    >>> places([("a", "1"), None, ("b", "2")]).tolist()
    [0, -1, 1]
    """
    there = np.array([one is not None for one in seconds], dtype=bool)
    return np.where(there, np.cumsum(there) - 1, -1).astype(np.int64)


def read_case(
    store: ImageStore, first: tuple[str, str], second: tuple[str, str] | None, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """One case (H, W, 7), by the decoding and resizing of `read_image`.

    Raises:
        UnusableImageError: either file is gone, damaged, or not the one that was prepared.
    """
    one = read_image(store, *first, preprocessing)
    if second is None:
        return packed(one, None)
    try:
        return packed(one, read_image(store, *second, preprocessing))
    except UnusableImageError as error:
        raise UnusableImageError(first[1][:12], f"second image: {error.reason}") from None


def read_case_batches(
    store: ImageStore, frame: pd.DataFrame, preprocessing: Preprocessing, *, size: int, workers: int | None
) -> Iterator[NDArray[np.uint8]]:
    """As `dermalyze.data.pixels.read_batches`, of cases (B, H, W, 7)."""
    jobs = list(zip(frame["path"], frame["sha256"], seconds_of(frame), strict=True))

    def read(job: Job) -> NDArray[np.uint8]:
        path, sha256, second = job
        return read_case(store, (path, sha256), second, preprocessing)

    with ThreadPoolExecutor(max(1, workers or 2)) as pool:
        for start in range(0, len(jobs), size):
            yield np.stack([*pool.map(read, jobs[start : start + size])])


Job = tuple[str, str, tuple[str, str] | None]
"""(path, SHA-256) of the first image, and of the second."""


def read_cases(
    store: ImageStore, jobs: Sequence[Job], preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """As `dermalyze.data.cache.read_block`, of cases (B, H, W, 7): why some are unusable, by place; those are black."""
    cases = np.zeros((len(jobs), preprocessing.height, preprocessing.width, PLANES), np.uint8)
    bad: dict[int, str] = {}
    for place, (path, sha256, second) in enumerate(jobs):
        try:
            cases[place] = read_case(store, (path, sha256), second, preprocessing)
        except UnusableImageError as error:
            bad[place] = error.reason
    return cases, bad


def shared_second(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Cases whose second image is in another case too, in either place, pixel for pixel: their image_ids, sorted.

    >>> row = {"image_id": ["a", "b", "c"], "path": ["1", "2", "3"], "pixel_sha256": ["p", "q", "r"],
    ...        "second_path": ["4", "1", None], "second_sha256": ["t", "u", None], "second_pixel_sha256": ["s", "p", None]}
    >>> shared_second(pd.DataFrame(row))
    [('a', 'b')]
    """
    if "second_pixel_sha256" not in frame:
        return []
    shown = pictures(frame)
    shown = shown[shown["pixel_sha256"].isin(set(frame["second_pixel_sha256"].dropna()))]
    ids = shown["image_id"].astype(str).groupby(shown["pixel_sha256"]).agg(lambda one: tuple(sorted(set(one))))
    return sorted(found for found in ids if len(found) > 1)
