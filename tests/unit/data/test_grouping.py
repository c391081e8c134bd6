from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dermalyze.data.grouping import LINKS, conflicts, crossings, describe_leaks, groups, keys, leaks


@st.composite
def linked(draw: st.DrawFn) -> pd.DataFrame:
    """Rows with few distinct ids, so that chains across columns are common."""
    n = draw(st.integers(1, 25))
    columns = {name: draw(st.lists(st.sampled_from([None, "", *"12345678"]), min_size=n, max_size=n)) for name in LINKS}
    return pd.DataFrame({"image_id": [f"i{k:02}" for k in range(n)], **columns})


def components(frame: pd.DataFrame) -> np.ndarray:
    """Independent reference: scipy's connected components on images beside their (column, value) nodes."""
    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (i, len(frame) + nodes.setdefault((column, value), len(nodes)))
        for column in LINKS
        for i, value in enumerate(frame[column])
        if isinstance(value, str) and value.strip()
    ]
    size = len(frame) + len(nodes)
    a, b = zip(*edges, strict=True) if edges else ((), ())
    return connected_components(coo_matrix((np.ones(len(edges)), (a, b)), shape=(size, size)), directed=False)[1][: len(frame)]


@settings(max_examples=60, deadline=None)
@given(linked())
def test_groups_are_the_connected_components(frame: pd.DataFrame) -> None:
    ours, theirs = groups(frame).to_numpy(), components(frame)
    assert ((ours[:, None] == ours) == (theirs[:, None] == theirs)).all()


@settings(max_examples=60, deadline=None)
@given(linked(), st.randoms())
def test_no_order_of_rows_changes_a_group(frame: pd.DataFrame, random: object) -> None:
    order = list(range(len(frame)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = frame.iloc[order]
    assert groups(shuffled).sort_index().tolist() == groups(frame).tolist()


def test_a_chain_through_every_column_is_one_group() -> None:
    frame = pd.DataFrame({"image_id": list("fedcba")})
    for step, column in enumerate(LINKS):
        frame[column] = [f"{column}-own{k}" if k not in (step, step + 1) else "shared" for k in range(6)]
    assert groups(frame).tolist() == ["a"] * 6


def test_missing_and_blank_ids_join_nothing_and_columns_do_not_mix() -> None:
    frame = pd.DataFrame(
        {"image_id": list("abcd"), "patient_id": [None, " ", "7", float("nan")], "lesion_id": [None, "", None, "7"]}
    )
    assert groups(frame).tolist() == list("abcd")


def test_numbers_are_ids_too() -> None:
    assert keys(pd.DataFrame({"lesion_id": [1, 2]}), "lesion_id").tolist() == ["1", "2"]
    assert keys(pd.DataFrame({"a": [1]}), "lesion_id").isna().all()


def test_leaks_name_the_lesions_and_what_joins_them_but_no_patient() -> None:
    frame = pd.DataFrame(
        {
            "image_id": list("abcde"),
            "patient_id": ["MRN-77", "MRN-77", None, None, None],
            "lesion_id": ["L1", "L2", "L3", "L3", "L4"],
        }
    ).assign(group=lambda f: groups(f))
    parts = pd.Series(["train", "test", "val", "test", "test"])
    found = leaks(frame, parts)
    assert [leak["lesion_ids"] for leak in found] == [["L1", "L2"], ["L3"]]
    assert [leak["joined_by"] for leak in found] == [["patient_id"], ["lesion_id"]]
    assert found[1]["parts"] == {"val": 1, "test": 1}
    assert "MRN" not in str(found)
    assert (
        describe_leaks(found)
        == "2 group(s) with 4 images are in more than one split; first: lesion L1, L2 in train (1) and test (1)"
    )
    assert leaks(frame, pd.Series(["train"] * 5)) == []


def test_crossings_leave_nulls_out() -> None:
    values = pd.Series(["a", "b", "b", None, None])
    assert crossings(values, pd.Series(["train", "train", "test", "train", "test"])) == ["b"]


def test_conflicts_are_found_by_bytes_and_by_pixels() -> None:
    frame = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "sha256": ["1", "1", "2", "3", "4", "4"],
            "pixel_sha256": ["p", "p", "q", "q", "r", "r"],
            "label": ["mel", "nv", "mel", "nv", "nv", "nv"],
        }
    )
    assert conflicts(frame) == [["a", "b"], ["c", "d"]]
