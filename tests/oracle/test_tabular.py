"""The metadata encoder against scikit-learn's, and what must hold for any table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dermalyze.imaging.tabular import Encoder, fit_encoder

NUMBERS = st.one_of(st.none(), st.floats(-1e4, 1e4, allow_nan=False), st.integers(0, 99))
WORDS = st.one_of(st.none(), st.sampled_from(["back", "face", "Foot", "unknown", "", "lower extremity"]))


def test_numbers_are_those_of_standard_scaler() -> None:
    rng = np.random.default_rng(0)
    train, new = rng.normal(50, 17, 200), np.linspace(40, 60, 9)
    encoder = fit_encoder({"age": train.tolist()})
    expected = StandardScaler().fit(train[:, None]).transform(new[:, None])[:, 0]
    np.testing.assert_allclose(encoder({"age": new.tolist()})[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_missing_number_is_the_imputers_median() -> None:
    train = np.array([30.0, 41.0, np.nan, 77.0, 35.0, np.nan])
    imputed = SimpleImputer(strategy="median", add_indicator=True).fit(train[:, None]).transform([[np.nan], [41.0]])
    known = train[~np.isnan(train)]
    rows = fit_encoder({"age": train.tolist()})({"age": [None, 41.0]})
    np.testing.assert_allclose(rows[:, 0] * known.std() + known.mean(), imputed[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(rows[:, 1], imputed[:, 1])


def test_words_are_those_of_one_hot_encoder() -> None:
    train, new = ["back", "face", "foot", "back"], ["foot", "back", "elbow", "face"]
    oracle = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(np.array(train, dtype=object)[:, None])
    expected = oracle.transform(np.array(new, dtype=object)[:, None])
    rows = fit_encoder({"site": train})({"site": new})
    np.testing.assert_array_equal(rows[:, :-1], expected)
    np.testing.assert_array_equal(rows[:, -1], expected.sum(axis=1) == 0)


@settings(max_examples=60, deadline=None)
@given(train=st.lists(st.tuples(NUMBERS, WORDS), min_size=1, max_size=20), new=st.lists(st.tuples(NUMBERS, WORDS), max_size=8))
def test_of_any_table(train: list[tuple[float | None, str | None]], new: list[tuple[float | None, str | None]]) -> None:
    train = [*train, (1.0, "back")]
    encoder = fit_encoder({"n": [n for n, _ in train], "w": [w for _, w in train]})
    rows = encoder({"n": [n for n, _ in new], "w": [w for _, w in new]})
    assert rows.shape == (len(new), encoder.width) == (len(new), len(encoder.labels))
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (rows[:, encoder.blocks[1]].sum(axis=1) == 1).all()  # one category each, unknown among them
    low, high = encoder({"n": [-1e9, 1e9]})[:, 0]
    assert ((rows[:, 0] >= low - 1e-6) & (rows[:, 0] <= high + 1e-6)).all()
    assert Encoder.from_dict(json.loads(json.dumps(encoder.as_dict()))) == encoder
    order = np.arange(len(new))[::-1]
    again = encoder({"w": [new[i][1] for i in order], "n": [new[i][0] for i in order]})
    np.testing.assert_array_equal(again, rows[order])
    np.testing.assert_array_equal(encoder.hidden(rows, np.ones((len(new), 2), bool)), np.tile(encoder.blank, (len(new), 1)))
    np.testing.assert_array_equal(encoder.hidden(rows, np.zeros((len(new), 2), bool)), rows)


@pytest.mark.parametrize("column", ["n", "w"])
def test_hiding_one_column_leaves_the_other(column: str) -> None:
    encoder = fit_encoder({"n": [1, 2, 3], "w": ["a", "b", "a"]})
    place = encoder.names.index(column)
    rows = encoder({"n": [3], "w": ["b"]})
    expected = encoder({name: values for name, values in {"n": [3], "w": ["b"]}.items() if name != column})
    np.testing.assert_array_equal(encoder.hidden(rows, np.eye(2, dtype=bool)[[place]]), expected)
