"""Stored predictions: what goes in comes out, the same bytes each time, and nothing unsound gets in or out."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.errors import ModelError
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions

META = {"classes": ["mel", "nv", "vasc"], "set": "test", "recipe": "plain", "task": "multiclass", "accepted_leak": None}


def some(n=5, width=4, seed=0, **changes):
    generator = np.random.default_rng(seed)
    values = {
        "ids": [f"i{k}" for k in range(n)],
        "groups": [f"g{k // 2}" for k in range(n)],
        "labels": generator.integers(3, size=n),
        "logits": generator.normal(size=(n, 3)) * 20,
        "embedding": generator.normal(size=(n, width)) if width else None,
        "meta": META,
    }
    return Predictions(**{**values, **changes})


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 50), width=st.sampled_from([0, 1, 7]), seed=st.integers(0, 99))
def test_round_trip_is_exact(tmp_path_factory, n, width, seed):
    path = tmp_path_factory.mktemp("p") / "a.parquet"
    before = some(n, width, seed, ids=[f"ü,\n{k}" for k in range(n)])
    write_predictions(path, before)
    after = read_predictions(path)
    assert (after.ids, after.groups, after.meta) == (before.ids, before.groups, before.meta)
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.logits, before.logits)
    assert after.logits.dtype == np.float32
    if width:
        np.testing.assert_array_equal(after.embedding, before.embedding)
    else:
        assert after.embedding is None


@settings(deadline=None, max_examples=20)
@given(n=st.integers(0, 9), s=st.integers(2, 5), seed=st.integers(0, 99))
def test_passes_come_back_as_they_were(tmp_path_factory, n, s, seed):
    path = tmp_path_factory.mktemp("p") / "a.parquet"
    samples = np.random.default_rng(seed).normal(size=(n, s, 3)).astype(np.float32)
    write_predictions(path, some(n, samples=samples))
    after = read_predictions(path)
    np.testing.assert_array_equal(after.samples, samples)
    assert after.samples.dtype == np.float32
    np.testing.assert_allclose(after.sample_probs().sum(axis=2), 1)
    assert some(n).sample_probs() is None


@pytest.mark.parametrize("version", ["1", "2", "3", "5"])
def test_another_format_is_refused(tmp_path, version):
    path = tmp_path / "a.parquet"
    write_predictions(path, some())
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"dermalyze.predictions": version.encode()}), path)
    with pytest.raises(ModelError, match=f"a.parquet: format version {version}; this dermalyze reads 4; run score again"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((5, 3)), "shape"),
        (np.zeros((4, 2, 3)), "shape"),
        (np.zeros((5, 2, 4)), "shape"),
        (np.zeros((5, 1, 3)), "single pass"),
        (np.where(np.arange(30).reshape(5, 2, 3) == 7, np.nan, 0.0), "1 of 5 rows have NaN or infinite samples"),
    ],
)
def test_unsound_passes_are_refused(samples, words):
    with pytest.raises(ModelError, match=words):
        some(samples=samples)


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_predictions(tmp_path / name, some(samples=np.ones((5, 2, 3))))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_probabilities_sum_to_one_whatever_the_logits():
    p = some(logits=np.array([[1e30, -1e30, 0], [88, 88, 88], [-700, 700, 0], [0, 0, 0], [1, 2, 3]]))
    np.testing.assert_allclose(p.probs().sum(axis=1), 1, atol=1e-12)
    assert p.probs()[1].tolist() == [pytest.approx(1 / 3)] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logits": np.full((5, 3), np.nan)}, "5 of 5 rows have NaN or infinite logits"),
        ({"logits": np.where(np.eye(5, 3) > 0, np.inf, 0.0)}, "3 of 5 rows have NaN or infinite logits"),
        ({"embedding": np.full((5, 2), np.nan)}, "5 of 5 rows have NaN or infinite embedding"),
        ({"logits": np.zeros((5, 4))}, r"shape \(5, 4\), must be \(5, 3\)"),
        ({"logits": np.zeros((4, 3))}, r"shape \(4, 3\), must be \(5, 3\)"),
        ({"labels": np.array([0, 1, 2, 3, 0])}, r"must be 0\.\.2"),
        ({"labels": np.array([0, 1, 2, -1, 0])}, r"must be 0\.\.2"),
        ({"groups": ["g"]}, "the numbers must be equal"),
        ({"ids": ["a", "a", "b", "c", "d"]}, "1 image ids are given more than once"),
        ({"meta": {"classes": ["mel", "nv", "vasc"]}}, "meta lacks"),
        ({"meta": {key: value for key, value in META.items() if key != "task"}}, r"meta lacks \['task'\]"),
        ({"meta": {**META, "task": "ranking"}}, "task 'ranking' is not one of multiclass, multilabel"),
        ({"meta": {**META, "classes": ["mel", "mel", "nv"]}}, "different names"),
    ],
)
def test_unsound_predictions_are_refused(changes, words):
    with pytest.raises(ModelError, match=words) as error:
        some(**changes)
    assert error.value.exit_code == 4


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "test-plain.parquet"
    write_predictions(path, some())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"test-plain.parquet: damaged .*; run score again"):
        read_predictions(path)


def test_no_flipped_bit_in_the_logits_goes_unseen(tmp_path):
    """A checksum a page: a wrong number never comes out. Bits of padding or of statistics may change nothing."""
    path = tmp_path / "a.parquet"
    before = some(200)
    write_predictions(path, before)
    data = path.read_bytes()
    refused = 0
    for at in range(8, len(data) - 8, 61):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        try:
            after = read_predictions(path)
        except ModelError:
            refused += 1
        else:
            np.testing.assert_array_equal(after.logits, before.logits)
            np.testing.assert_array_equal(after.labels, before.labels)
    assert refused > 20


def test_another_parquet_file_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image_id": ["a"]}), path)
    with pytest.raises(ModelError, match="not a file of predictions"):
        read_predictions(path)


def test_null_and_wrong_types_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    write_predictions(path, some(2, 0))
    table = pq.read_table(path)
    for column, values in (
        ("image_id", pa.array(["a", None])),
        ("logits", pa.array(["x", "y"])),
        ("label", pa.array(["0", "1"])),
    ):
        at = table.column_names.index(column)
        pq.write_table(table.set_column(at, column, values), path)
        with pytest.raises(ModelError, match="a column has the wrong type or holds nulls"):
            read_predictions(path)
