"""The label audit and the metadata model on HAM10000 itself, where it stands beside the repository."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermalyze.audit.label_errors import LabelAudit, audit_labels, color_texture_features
from dermalyze.audit.metadata_baseline import column_table, metadata_model
from dermalyze.data.grouping import groups

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "ham10000"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real images (../shared/data/ham10000) are not there"),
]


def rows() -> pd.DataFrame:
    table = pd.read_csv(FOLDER / "HAM10000_metadata.csv").sort_values("image_id", ignore_index=True)
    table = table.rename(columns={"dx": "label", "localization": "site"})
    table[["sex", "site"]] = table[["sex", "site"]].replace("unknown", None)
    return table.assign(group=groups(table))


def test_metadata_alone() -> None:
    frame = rows()
    found = metadata_model(frame)
    assert found is not None
    assert 0.74 < found.macro_auroc.low < found.macro_auroc.value < found.macro_auroc.high < 0.81
    alone = {row["column"]: row for row in column_table(frame)}
    assert alone["dx_type"]["giveaway"]
    assert max(row["auroc"] for row in alone.values()) < 0.9


@pytest.mark.slow
def test_noise_planted_in_the_real_labels_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """5 % of the lesions under another label; features are colors and textures alone."""
    frame = rows()
    pictures = {
        Path(name).stem: (archive, name)
        for archive in map(zipfile.ZipFile, sorted(FOLDER.glob("HAM10000_images_part_*.zip")))
        for name in archive.namelist()
        if name.endswith(".jpg")
    }
    features = np.concatenate([color_texture_features(read(*pictures[image_id])[None]) for image_id in frame["image_id"]])
    rng = np.random.default_rng(0)
    lesions = np.unique(frame["group"])
    chosen = rng.choice(lesions, len(lesions) // 20, replace=False)
    shift = frame["group"].map(dict(zip(chosen, rng.integers(1, 7, len(chosen)), strict=True))).fillna(0).to_numpy(dtype=int)
    names, number = np.unique(frame["label"], return_inverse=True)
    noisy = frame.assign(label=names[(number + shift) % 7])
    clean, found = (audit_labels(one, features, "colors and textures") for one in (frame, noisy))
    wrong = set(frame["image_id"][shift > 0])
    with capsys.disabled():
        told(clean, found, wrong)
    ids = [error.image_id for error in found.errors]
    chance = len(wrong) / len(frame)
    assert len(wrong & set(ids)) / len(ids) > 3 * chance
    assert len(wrong & set(ids[: found.strong])) / found.strong > 8 * chance
    assert len(wrong & set(ids)) / len(wrong) > 0.6
    assert clean.strong < 0.75 * found.strong


def read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(archive.read(name))) as image:
        return np.asarray(image.convert("RGB"))


def told(clean: LabelAudit, found: LabelAudit, wrong: set[str]) -> None:
    """Print what was measured."""
    ids = [error.image_id for error in found.errors]
    hits = len(wrong & set(ids))
    strong = len(wrong & set(ids[: found.strong]))
    lines = (
        f"as they are: {len(clean.errors)} likely errors, {clean.strong} strong, of {clean.images}",
        f"{len(wrong)} labels changed: {len(ids)} likely errors",
        f"all of them: precision {hits / len(ids):.2f}, recall {hits / len(wrong):.2f}",
        f"{found.strong} strong: precision {strong / found.strong:.2f}, recall {strong / len(wrong):.2f}",
    )
    for line in lines:
        print(line)  # noqa: T201
