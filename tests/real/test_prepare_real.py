"""`prepare` on HAM10000 itself, where it stands beside the repository."""

import csv
import io
from pathlib import Path

import pytest

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest
from dermalyze.data.sources import ham10000
from dermalyze.data.store import ImageStore
from dermalyze.stages.prepare import prepare

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "ham10000"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real images (../shared/data/ham10000) are not there"),
]
IMAGES = 400


def test_the_whole_set_is_listed():
    """Counts of Tschandl et al. 2018, table 1, and of the metadata file."""
    listing = ham10000(ImageStore.open(build_experiment({"data": {"path": str(FOLDER)}}).data))
    assert len(listing.rows) == 10_015
    assert all(row.path is not None and row.known["mask_path"] is not None for row in listing.rows)
    counts = {name: sum(row.label == name for row in listing.rows) for name in listing.classes or ()}
    assert counts == {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
    assert len({row.known["lesion_id"] for row in listing.rows}) == 7470
    assert sum(row.known["age"] is None for row in listing.rows) == 57


def test_some_hundred_images_from_the_official_zips(tmp_path):
    with (FOLDER / "HAM10000_metadata.csv").open(newline="") as stream:
        reader = csv.reader(stream)
        header, rows = next(reader), sorted(reader, key=lambda row: row[1])
    step = len(rows) // IMAGES
    chosen = rows[::step]
    sink = io.StringIO()
    csv.writer(sink).writerows([header, *chosen])
    (tmp_path / "HAM10000_metadata.csv").write_text(sink.getvalue())
    archives = sorted(FOLDER.glob("HAM10000_*.zip"))
    spec = build_experiment({"data": {"path": [str(p) for p in (*archives, tmp_path / "HAM10000_metadata.csv")]}})
    before = {path: path.stat().st_mtime_ns for path in archives}

    run = Run(tmp_path / "run")
    result = prepare(run, spec)

    assert result.summary["images"] == len(chosen)
    assert result.summary["sizes"] == {"200x150": len(chosen)}
    assert result.summary["formats"] == {"JPEG": len(chosen)}
    assert result.summary["giveaway_columns"] == ["dx_type"]
    assert result.summary["quarantined"]["images"] == 0
    assert result.summary["missing"]["mask_path"] == 0
    frame = read_manifest(run)
    assert frame["image_id"].tolist() == [row[1] for row in chosen]
    assert frame["label"].tolist() == [row[2] for row in chosen]
    assert not prepare(run, spec).fresh
    assert {path: path.stat().st_mtime_ns for path in archives} == before
