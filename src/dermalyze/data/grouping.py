"""Groups as connected components, and checks that no group crosses splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.columns import OPTIONAL_COLUMNS, OPTIONAL_IMAGES
from dermalyze.config.data import PARTS

LINKS = ("patient_id", "lesion_id", "cluster_id", "sha256", "pixel_sha256")
"""Columns whose equal values join two images; a null joins nothing."""


def keys(frame: pd.DataFrame, column: str) -> pd.Series:
    """Values of a column as text, null where missing or blank; all null where the column is absent.

    >>> keys(pd.DataFrame({"a": ["x", " ", None]}), "a").notna().tolist()
    [True, False, False]
    """
    if column not in frame:
        return pd.Series(None, index=frame.index, dtype=object)
    text = frame[column].astype(object).where(frame[column].notna(), "").map(lambda value: str(value).strip())
    return text.where(text != "", None)


def contents(frame: pd.DataFrame, column: str) -> list[pd.Series]:
    """`keys` of a column of `LINKS`, and for hashes those of the samples' optional images beside them.

    >>> frame = pd.DataFrame({"sha256": ["x", "y"], "image_2_sha256": ["z", "x"]})
    >>> [values.tolist() for values in contents(frame, "sha256")]
    [['x', 'y'], ['z', 'x']]
    """
    optional = [f"{name}_{column}" for name in OPTIONAL_IMAGES]
    return [keys(frame, column), *(keys(frame, one) for one in optional if one in OPTIONAL_COLUMNS and one in frame)]


def listed(frame: pd.DataFrame, column: str, parts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """`contents` as one list, and the split of each; optional images that are not there are left out.

    Args:
        parts: split of each row, indexed like `frame`.
    """
    first, *second = contents(frame, column)
    if not second:
        return first, parts
    values = [first, *(one.dropna() for one in second)]
    return pd.concat(values, ignore_index=True), pd.concat([parts[one.index] for one in values], ignore_index=True)


def groups(frame: pd.DataFrame) -> pd.Series:
    """The group of each image: connected components over patient, lesion, near-duplicate cluster and identical content.

    Args:
        frame: manifest rows with unique `image_id` and any of the columns in `LINKS`.

    Returns:
        the smallest image_id of each image's component, indexed like `frame`; no order of rows changes it.

    >>> groups(pd.DataFrame({"image_id": list("abcd"), "lesion_id": ["1", "1", "2", None],
    ...                      "patient_id": [None, "p", "p", None]})).tolist()
    ['a', 'a', 'a', 'd']
    """
    edges: list[tuple[int, int]] = []
    for column in LINKS:
        first: dict[str, int] = {}
        for values in contents(frame, column):
            edges += [(first.setdefault(key, i), i) for i, key in enumerate(values) if isinstance(key, str)]
    names = frame["image_id"].astype(str)
    return names.groupby(components(len(frame), edges)).transform("min").rename("group")


def lesion_names(frame: pd.DataFrame) -> list[str]:
    """The lesion of each image; an image of no known lesion is one of its own.

    >>> lesion_names(pd.DataFrame({"image_id": list("abc"), "lesion_id": ["L1", None, "L1"]}))
    ['lesion L1', 'image b', 'lesion L1']
    """
    known = keys(frame, "lesion_id")
    ids = frame["image_id"].astype(str)
    return [f"lesion {lesion}" if isinstance(lesion, str) else f"image {i}" for lesion, i in zip(known, ids, strict=True)]


def components(count: int, edges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(count,) the smallest number of each number's connected component.

    >>> components(4, [(2, 1), (3, 1)]).tolist()
    [0, 1, 1, 1]
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in edges:
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(count)], dtype=np.int64)


def crossings(values: pd.Series, parts: pd.Series) -> list[str]:
    """The values (nulls left out) that are in more than one split, sorted.

    >>> crossings(pd.Series(["a", "a", None, None]), pd.Series(["train", "test", "train", "test"]))
    ['a']
    """
    spread = parts[values.notna()].groupby(values[values.notna()].astype(str)).nunique()
    return sorted(spread.index[spread > 1])


def leaks(frame: pd.DataFrame, parts: pd.Series) -> list[dict[str, Any]]:
    """Groups in more than one split, each with what joins it, its lesions and images (never a patient's own number).

    Args:
        frame: rows with `image_id` and `group`.
        parts: split of each row.
    """
    rows = frame[frame["group"].isin(crossings(frame["group"], parts))]
    named = keys(rows, "lesion_id")
    crossed = {}
    for column in LINKS:
        bad = crossings(*listed(rows, column, parts[rows.index]))
        crossed[column] = pd.concat([values.isin(bad) for values in contents(rows, column)], axis=1).any(axis=1)
    found: dict[str, dict[str, Any]] = {}
    columns = [rows["group"], rows["image_id"].astype(str), parts[rows.index], named, *crossed.values()]
    for name, image_id, part, lesion, *by in sorted(zip(*columns, strict=True), key=lambda row: row[:2]):
        leak = found.setdefault(name, {"group": name, "joined_by": [], "lesion_ids": [], "image_ids": [], "parts": {}})
        leak["joined_by"] = [c for c, crosses in zip(LINKS, by, strict=True) if crosses or c in leak["joined_by"]]
        leak["lesion_ids"] += [lesion] if isinstance(lesion, str) else []
        leak["image_ids"].append(image_id)
        leak["parts"][part] = leak["parts"].get(part, 0) + 1
    for leak in found.values():
        leak["lesion_ids"] = sorted(set(leak["lesion_ids"]))
        leak["parts"] = {part: leak["parts"][part] for part in PARTS if part in leak["parts"]}
    return list(found.values())


def describe_leaks(found: Sequence[dict[str, Any]]) -> str:
    """One clause: how many groups cross, and the first of them."""
    first = found[0]
    name = f"lesion {', '.join(first['lesion_ids'][:3])}" if first["lesion_ids"] else f"group {first['group']}"
    where = " and ".join(f"{part} ({n})" for part, n in first["parts"].items())
    images = sum(len(leak["image_ids"]) for leak in found)
    return f"{len(found)} group(s) with {images} images are in more than one split; first: {name} in {where}"


def conflicts(frame: pd.DataFrame) -> list[list[str]]:
    """Images with the same file bytes or the same pixels that have two labels: their image_ids, sorted.

    A second image that several cases share is no conflict: an overview may show two subjects. One that is the first
    image of a case with another label is.
    """
    found = set()
    for column in ("sha256", "pixel_sha256"):
        key, *second = contents(frame, column)
        rows = frame
        if second:
            key = pd.concat([key, *(one[one.isin(set(key.dropna()))] for one in second)])
            rows, key = frame.loc[key.index].reset_index(drop=True), key.reset_index(drop=True)
        twice = rows[key.notna() & key.duplicated(keep=False)]
        labels = twice["label"].groupby(key).nunique()  # first the few that matter: a frame a key takes a millisecond
        for _, same in twice[key[twice.index].isin(labels.index[labels > 1])].groupby(key):
            found.add(tuple(sorted(set(same["image_id"].astype(str)))))
    return [list(ids) for ids in sorted(found)]
