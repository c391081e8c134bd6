"""Cases of two pictures: groups, leaks and conflicts over both, maps and streams of cases, caches that are in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermalyze.config.model import ModelSpec
from dermalyze.core.atomic import sha256_bytes
from dermalyze.data.cache import UnusableImageError
from dermalyze.data.grouping import conflicts, groups, leaks
from dermalyze.data.second import (
    CaseMap,
    pictures,
    places,
    read_case,
    read_case_batches,
    read_cases,
    require_second,
    seconds_of,
)
from dermalyze.data.store import ImageStore
from dermalyze.imaging.cases import packed, unpacked
from dermalyze.imaging.decode import Preprocessing

PREPROCESSING = Preprocessing("squash", 8, 10, 1.0, (0.5,) * 3, (0.5,) * 3)


def rows(*content: tuple[str, str | None], labels: str | None = None) -> pd.DataFrame:
    """Cases a, b, c ... by the content of their pictures."""
    ids = [chr(ord("a") + i) for i in range(len(content))]
    first, second = ([pair[k] for pair in content] for k in (0, 1))
    beside = [None if two is None else f"{i}2.png" for i, two in zip(ids, second, strict=True)]
    return pd.DataFrame(
        {
            "image_id": ids, "label": list(labels or "x" * len(ids)), "path": [f"{i}.png" for i in ids], "sha256": first,
            "pixel_sha256": first, "second_path": beside,
            "second_sha256": second, "second_pixel_sha256": second,
        }
    )  # fmt: skip


def test_a_shared_picture_joins_in_either_place() -> None:
    frame = rows(("1", "2"), ("2", None), ("3", "4"), ("5", "4"), ("6", None), ("7", None))
    assert groups(frame).tolist() == ["a", "a", "c", "c", "e", "f"]


@given(st.lists(st.tuples(st.sampled_from("12345678"), st.sampled_from("12345678") | st.none()), min_size=2, max_size=9))
def test_cases_without_a_common_picture_share_no_group_but_through_others(content: list[tuple[str, str | None]]) -> None:
    """The groups are the connected components of a naive search."""
    frame = rows(*content)
    sets = [{one for one in pair if one is not None} for pair in content]
    found = list(range(len(sets)))
    for _ in sets:
        for i, a in enumerate(sets):
            for j, b in enumerate(sets):
                if a & b:
                    found[i] = found[j] = min(found[i], found[j])
    assert groups(frame).tolist() == [chr(ord("a") + i) for i in found]


def test_leaks_name_what_crosses() -> None:
    frame = rows(("1", "2"), ("2", "3"), ("4", None))
    frame["group"] = groups(frame)
    (leak,) = leaks(frame, pd.Series(["train", "test", "train"]))
    assert leak["image_ids"] == ["a", "b"]
    assert leak["joined_by"] == ["sha256", "pixel_sha256"]
    assert leaks(frame, pd.Series(["train", "train", "test"])) == []


def test_conflicts_need_a_first_picture() -> None:
    assert conflicts(rows(("1", "9"), ("2", "9"), labels="xy")) == []
    assert conflicts(rows(("1", "2"), ("2", None), ("3", None), labels="xyx")) == [["a", "b"]]
    assert conflicts(rows(("1", "2"), ("2", None), labels="xx")) == []
    assert conflicts(rows(("1", "1"), ("2", None), labels="xy")) == []  # its own picture twice


def test_what_is_not_used_or_never_met_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    whole, some, none = rows(("1", "2")), rows(("1", "2"), ("3", None)), rows(("1", None))
    for frame, second, said in (
        (whole, None, "only the first image of 1 cases that have two"),
        (whole, {"kind": "shared", "hide": 0}, "a prediction without one is unreliable"),
        (whole, {"kind": "shared"}, ""),
        (some, {"kind": "shared", "hide": 0}, ""),
        (none, None, ""),
    ):
        require_second(frame, ModelSpec.model_validate({"head": {"kind": "linear"}, "second": second}))
        heard = capsys.readouterr().err
        assert said in heard
        assert bool(said) == bool(heard)


def test_one_row_a_picture() -> None:
    frame = pictures(rows(("1", "2"), ("3", None)))
    assert frame[["image_id", "path", "pixel_sha256"]].to_numpy().tolist() == [
        ["a", "a.png", "1"], ["a", "a2.png", "2"], ["b", "b.png", "3"],
    ]  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path) -> tuple[ImageStore, pd.DataFrame]:
    rng = np.random.default_rng(0)
    for name in ("a", "a2", "b", "c", "c2"):
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    sha = {path.stem: sha256_bytes(path.read_bytes()) for path in tmp_path.iterdir()}
    return ImageStore((("", tmp_path),)), rows((sha["a"], sha["a2"]), (sha["b"], None), (sha["c"], sha["c2"]))


def test_mapped_streamed_and_batched_cases_are_the_same(stored: tuple[ImageStore, pd.DataFrame]) -> None:
    store, frame = stored
    seconds = seconds_of(frame)
    jobs = list(zip(frame["path"], frame["sha256"], seconds, strict=True))
    streamed, bad = read_cases(store, jobs, PREPROCESSING)
    assert bad == {}
    (batch,) = read_case_batches(store, frame, PREPROCESSING, size=8, workers=1)
    first, second, known = unpacked(streamed)
    there = np.array([one is not None for one in seconds])
    assert known.tolist() == there.tolist() == [True, False, True]
    mapped = CaseMap(first, second[there], places(seconds))
    order = np.array([2, 1, 0, 2])
    np.testing.assert_array_equal(batch, streamed)
    np.testing.assert_array_equal(mapped[order], streamed[order])
    np.testing.assert_array_equal(packed(first, second, known), streamed)
    assert second[1].max() == 0


def test_a_second_picture_that_changed_is_refused(stored: tuple[ImageStore, pd.DataFrame], tmp_path: Path) -> None:
    store, frame = stored
    (tmp_path / "c2.png").write_bytes((tmp_path / "a2.png").read_bytes())
    jobs: list[Any] = list(zip(frame["path"], frame["sha256"], seconds_of(frame), strict=True))
    cases, bad = read_cases(store, jobs, PREPROCESSING)
    assert bad == {2: "second image: its bytes changed since prepare"}
    assert cases[2].max() == 0
    with pytest.raises(UnusableImageError, match="second image: its bytes changed"):
        read_case(store, jobs[2][:2], jobs[2][2], PREPROCESSING)
