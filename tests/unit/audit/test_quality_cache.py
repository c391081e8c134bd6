"""Looks are kept beside the hash of the file that they were measured on, and never taken for another one's."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermalyze.audit.image_statistics import measure_images
from dermalyze.audit.quality_cache import KEPT, read_statistics, with_statistics, write_statistics
from dermalyze.config.data import DataSpec
from dermalyze.core.run import Run
from dermalyze.data.store import ImageStore
from dermalyze.errors import ModelError


def measure(run, rows, store):
    write_statistics(run, rows, measure_images(store, rows, workers=0))


@pytest.fixture
def measured(tmp_path):
    """(run, rows, store): three skins, the last with a mask over most of it."""
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for k, rgb in enumerate([(222, 180, 148), (135, 90, 65), (222, 180, 148)]):
        Image.new("RGB", (120, 90), rgb).save(data / f"{k}.png")
        sha = hashlib.sha256((data / f"{k}.png").read_bytes()).hexdigest()
        rows.append({"image_id": f"i{k}", "sha256": sha, "path": f"{k}.png", "mask_path": None})
    half = np.zeros((90, 120), np.uint8)
    half[:, :90] = 255
    Image.fromarray(half).save(data / "mask.png")
    rows[2]["mask_path"] = "mask.png"
    return Run(tmp_path / "run"), pd.DataFrame(rows), ImageStore.open(DataSpec(path=str(data)))


def test_looks_are_kept_and_read_back(measured):
    run, rows, store = measured
    measure(run, rows, store)
    found = with_statistics(run, rows.set_index("image_id"))
    assert set(KEPT) < set(found.columns)
    assert found["ita"].tolist() == pytest.approx([found["ita"]["i0"], found["ita"]["i1"], found["ita"]["i0"]])
    assert found["ita"]["i0"] > 41 > 10 > found["ita"]["i1"]
    assert found["skin_share"]["i2"] < 0.3 < found["skin_share"]["i0"], "the mask is used"


def test_another_image_of_that_name_has_no_looks(measured):
    run, rows, store = measured
    measure(run, rows, store)
    changed = rows.set_index("image_id")
    changed.loc["i1", "sha256"] = "0" * 64
    found = with_statistics(run, changed)
    assert found["ita"].notna().tolist() == [True, False, True]
    assert with_statistics(Run(run.root / "other"), changed)["ita"].isna().all()


def test_a_damaged_file_is_refused_with_the_remedy(measured):
    run, rows, store = measured
    measure(run, rows, store)
    assert len(read_statistics(run)) == 3
    whole = run.looks_path.read_bytes()
    for damaged in (whole[:-20], b"no parquet", b""):
        run.looks_path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"looks\.parquet: damaged .*delete it and run: dermalyze audit"):
            read_statistics(run)
    measure(run, rows, store)
    assert run.looks_path.read_bytes() == whole, "the same images, the same bytes"
