"""The manifest: the same content, the same bytes; an edited one is refused (FAULTS.md 18)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dermalyze.config.columns import is_giveaway
from dermalyze.core.run import MANIFEST_COLUMNS, Run
from dermalyze.data.manifest import manifest_bytes, read_classes, read_manifest, usable, write_manifest
from dermalyze.errors import DataError, UsageError


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ["b", "a", "c"],
            "path": ["x/b.jpg", "x/a.jpg", None],
            "label": ["mel", "nv", "nv"],
            "width": [200, 100, None],
            "height": [150, 80, None],
            "age": [45.0, np.nan, None],
            "quarantine_reason": [None, None, "image file is missing"],
            "dx_type": ["histo", None, "histo"],
        }
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.summary_path.write_text(json.dumps({"classes": ["mel", "nv"], "task": "multiclass"}))
    return run


def test_round_trip(run):
    digest = write_manifest(run, frame())
    assert digest == run.manifest_hash()
    back = read_manifest(run)
    assert back["image_id"].tolist() == ["a", "b", "c"]
    assert list(back.columns) == [*MANIFEST_COLUMNS, "dx_type"]
    assert back["width"].dtype == "Int32"
    assert back["width"].tolist()[:2] == [100, 200]
    assert back["age"].tolist()[1] == 45.0
    assert back["age"].isna().tolist() == [True, False, True]
    assert back["path"].isna().tolist() == [False, False, True]
    assert back["patient_id"].isna().all()
    assert usable(back)["image_id"].tolist() == ["a", "b"]


def test_bytes_depend_on_content_alone(run):
    data = manifest_bytes(frame())
    assert manifest_bytes(frame().iloc[[2, 0, 1]]) == data
    assert manifest_bytes(frame()[list(frame().columns[::-1])]) == data
    assert manifest_bytes(frame().astype(object)) == data
    changed = frame()
    changed.loc[0, "label"] = "nv"
    assert manifest_bytes(changed) != data
    write_manifest(run, frame())
    metadata = pq.read_metadata(run.manifest_path)
    assert not metadata.metadata
    write_manifest(run, read_manifest(run))
    assert run.manifest_path.read_bytes() == data


def test_ids_are_unique_and_present():
    with pytest.raises(DataError, match="0 rows have no image_id and 1 repeat one"):
        manifest_bytes(pd.DataFrame({"image_id": ["a", "a"]}))
    with pytest.raises(DataError, match="1 rows have no image_id"):
        manifest_bytes(pd.DataFrame({"image_id": ["a", None]}))


def test_an_edited_manifest_is_refused(run):
    write_manifest(run, frame())
    changed = frame()
    changed.loc[0, "label"] = "nv"
    run.manifest_path.write_bytes(manifest_bytes(changed))
    with pytest.raises(DataError, match=r"manifest\.parquet: was changed after prepare") as caught:
        read_manifest(run)
    assert caught.value.exit_code == 3


def test_writing_it_by_the_function_keeps_the_summary_right(run):
    write_manifest(run, frame())
    changed = frame()
    changed["cluster_id"] = "k1"
    write_manifest(run, changed)
    assert set(read_manifest(run)["cluster_id"]) == {"k1"}
    assert read_classes(run) == ["mel", "nv"]


def test_a_crash_between_the_two_files_asks_for_prepare(run, monkeypatch):
    write_manifest(run, frame())

    def fail(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr("dermalyze.data.manifest.write_bytes", fail)
    changed = frame()
    changed["cluster_id"] = "k1"
    with pytest.raises(KeyboardInterrupt):
        write_manifest(run, changed)
    with pytest.raises(UsageError, match="prepare"):
        read_manifest(run)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 1000])
def test_a_damaged_file_is_refused(run, data):
    run.manifest_path.write_bytes(data)
    with pytest.raises(DataError, match=r"manifest\.parquet: damaged"):
        read_manifest(run)


def test_one_flipped_bit_is_noticed_without_a_summary(run):
    write_manifest(run, frame())
    run.summary_path.unlink()
    data = bytearray(run.manifest_path.read_bytes())
    data[60] ^= 4
    run.manifest_path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        read_manifest(run)


def test_before_prepare(tmp_path):
    with pytest.raises(UsageError, match="run first: dermalyze prepare"):
        read_manifest(Run(tmp_path))
    with pytest.raises(UsageError, match="run first: dermalyze prepare"):
        read_classes(Run(tmp_path))


def test_classes_are_checked(run):
    run.summary_path.write_text('{"classes": ["mel"]}')
    with pytest.raises(DataError, match="has no classes"):
        read_classes(run)


def test_giveaways():
    assert [c for c in ("dx_type", "DX_TYPE", "mel_class", "age", "melanin", "biopsed") if is_giveaway(c)] == [
        "dx_type", "DX_TYPE", "mel_class", "biopsed",
    ]  # fmt: skip


@pytest.mark.parametrize("change", [{"width": "wide"}, {"age": "old"}, {"image_id": None}, {"image_id": "same"}])
def test_columns_of_another_kind_are_refused(run, change):
    write_manifest(run, frame())
    run.summary_path.unlink()
    pd.read_parquet(run.manifest_path).assign(**change).to_parquet(run.manifest_path)
    with pytest.raises(DataError, match=r"manifest\.parquet: (a column is of another type|rows without an image_id)"):
        read_manifest(run)
