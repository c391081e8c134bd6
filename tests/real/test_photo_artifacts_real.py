"""Artifacts in images of HAM10000 that were looked at: ten that show each, and ten that show none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermalyze.audit.image_statistics import ImageStatistics, measure_images
from dermalyze.config.data import DataSpec
from dermalyze.data.store import ImageStore
from dermalyze.imaging.photo_artifacts import ARTIFACTS

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "ham10000"
ARCHIVES = [FOLDER / f"HAM10000_images_part_{part}.zip" for part in (1, 2)]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not all(path.exists() for path in ARCHIVES), reason="HAM10000 is not in ../shared/data/ham10000"),
]

SHOW = {  # the last five digits of ISIC_00.....
    "hair": "31858 27278 26651 27132 30692 33464 28001 31352 28595 26536",
    "ruler": "27783 25154 25918 30953 26553 27959 27578 32015 29606 31937",
    "ink": "30006 31263 27984 26957 25564 27294 30091 29360 30608 30263",
    "dark_corners": "33872 33188 33213 34079 33253 24647 29012 24654 27549 24762",
    "glare": "24962 24823 28030 31308 25133 30961 27930 31119 26049 31554",
}
CLEAN = "29015 28133 27332 27534 28833 29400 29156 31820 24580 26926"


@pytest.fixture(scope="module")
def looks() -> tuple[list[str], ImageStatistics]:
    """Every 25th image, and those named above."""
    store = ImageStore.open(DataSpec(path=[str(path) for path in ARCHIVES]))
    named = {number for numbers in (*SHOW.values(), CLEAN) for number in numbers.split()}
    pictures = [entry for entry in store.entries() if entry.name.endswith(".jpg")]
    chosen = [entry for k, entry in enumerate(pictures) if k % 25 == 0 or entry.stem[-5:] in named]
    frame = pd.DataFrame({"path": [entry.path for entry in chosen]})
    return [entry.stem[-5:] for entry in chosen], measure_images(store, frame, workers=0)


def test_pictures_that_show_an_artifact_and_pictures_that_show_none(looks: tuple[list[str], ImageStatistics]) -> None:
    numbers, measured = looks
    for name, shown in SHOW.items():
        found = dict(zip(numbers, measured.artifact(name) == "yes", strict=True))
        assert sum(found[number] for number in shown.split()) >= 9, name
        assert not any(found[number] for number in CLEAN.split()), name


def test_shares_of_the_whole_set(looks: tuple[list[str], ImageStatistics]) -> None:
    numbers, measured = looks
    sample = [number not in " ".join((*SHOW.values(), CLEAN)) for number in numbers]
    share = {name: 100 * float(np.mean((measured.artifact(name) == "yes")[sample])) for name in ARTIFACTS}
    assert 11 < share["hair"] < 23
    assert 0.5 < share["ruler"] < 6
    assert share["ink"] < 1.5
    assert 3.5 < share["dark_corners"] < 12
    assert share["glare"] < 6
