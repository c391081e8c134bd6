"""The metadata encoder: what is refused, what is said of odd values, what travels in a file."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dermalyze.errors import DataError, ModelError
from dermalyze.imaging.tabular import MAX_VALUES, Categorical, Numeric, fit_encoder

ENCODER = fit_encoder({"age": [30, None, 50.0, "70"], "site": ["Back", "face", None, "unknown"]})


def test_what_is_numeric_and_what_is_a_category() -> None:
    age, site = ENCODER.columns
    assert isinstance(age, Numeric)
    assert (age.median, age.mean, age.low, age.high) == (50.0, 50.0, 30.0, 70.0)
    assert isinstance(site, Categorical)
    assert site.values == ("back", "face")
    assert isinstance(fit_encoder({"grade": ["1", "2", "II"]}).columns[0], Categorical)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"age": 40, "site": " BACK "}, {}),
        ({"age": 40}, {"site": "is missing"}),
        ({"age": math.nan, "site": "n/a"}, {"age": "is missing", "site": "is missing"}),
        ({"age": "old", "site": "face"}, {"age": "is no number and counts as missing"}),
        ({"age": "inf", "site": "face"}, {"age": "is no number and counts as missing"}),
        ({"age": 200, "site": "face"}, {"age": "is outside the 30 to 70 of training and was taken to its edge"}),
        ({"age": 50, "site": "elbow"}, {"site": "is not among the values of training and counts as unknown"}),
    ],
)
def test_what_is_said_of_a_row(row: dict[str, Any], said: dict[str, str]) -> None:
    assert ENCODER.problems(row) == said


def test_an_outlier_is_taken_to_the_edge_and_the_unseen_are_alike() -> None:
    rows = ENCODER({"age": [200, 70, 70], "site": ["elbow", None, "knee"]})
    assert (rows == rows[0]).all()


def test_a_constant_number_is_zero() -> None:
    assert fit_encoder({"x": [3, 3, 3]})({"x": [3, None]}).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_a_table_without_rows() -> None:
    assert ENCODER({"age": [], "site": []}).shape == (0, ENCODER.width)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([None, "", "unknown"], "'x' has no value in the training split"),
        ([f"id{i}" for i in range(MAX_VALUES + 1)], "65 different"),
    ],
)
def test_what_is_no_input(values: list[Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        fit_encoder({"x": values})


def damaged(place: int, **changes: Any) -> dict[str, Any]:
    values = ENCODER.as_dict()
    values["columns"][place] = {**values["columns"][place], **changes}
    return values


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"columns": []},
        {"columns": "age"},
        {"columns": [3]},
        {**ENCODER.as_dict(), "more": 1},
        {"columns": ENCODER.as_dict()["columns"][:1] * 2},
        damaged(0, kind="text"),
        damaged(0, std=0.0),
        damaged(0, std=math.inf),
        damaged(0, mean="50"),
        damaged(0, low=80.0),
        damaged(0, more=1.0),
        damaged(0, name=""),
        damaged(1, values=[]),
        damaged(1, values=["a", "a"]),
        damaged(1, values=[1, 2]),
        damaged(1, values=[str(i) for i in range(MAX_VALUES + 1)]),
    ],
)
def test_a_damaged_encoder_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="metadata encoder is damaged"):
        type(ENCODER).from_dict(values)


def test_the_blank_row_of_a_record_must_be_its_encoders() -> None:
    record = {"encoder": ENCODER.as_dict(), "blank": ENCODER.blank.tolist()}
    assert type(ENCODER).from_record(record) == ENCODER
    for blank in (record["blank"][:-1], [1.0, *record["blank"][1:]]):
        with pytest.raises(ModelError, match="not the one that the model was exported with"):
            type(ENCODER).from_record({**record, "blank": blank})
