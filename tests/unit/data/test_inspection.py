"""Inspection: the same answers in any number of processes, in order."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import DataSpec
from dermalyze.core.errors import DataError, ResourceError
from dermalyze.data import inspection
from dermalyze.data.images import pixel_sha256
from dermalyze.data.inspection import inspect_images
from dermalyze.data.store import ImageStore


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    rng = np.random.default_rng(0)
    for i in range(150):
        Image.fromarray(rng.integers(0, 256, (4 + i % 3, 5, 3), np.uint8)).save(tmp_path / f"{i:03d}.png")
    (tmp_path / "007.png").write_bytes(b"")
    (tmp_path / "008.png").write_bytes((tmp_path / "009.png").read_bytes()[:40])
    return ImageStore.open(DataSpec(path=str(tmp_path)))


def test_what_is_noted(store):
    data = store.read("001.png")
    (one,) = inspect_images(store, ["001.png"], workers=0)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert one.sha256 == hashlib.sha256(data).hexdigest()
    assert one.pixel_sha256 == pixel_sha256(pixels)
    assert (one.width, one.height, one.mode, one.format, one.reason) == (5, 5, "RGB", "PNG", None)
    assert inspect_images(store, [], workers=None) == []


def test_processes_change_nothing(store):
    paths = [f"{i:03d}.png" for i in range(150)] + ["gone.png"]
    alone = inspect_images(store, paths, workers=0)
    assert [image.reason for image in alone if image.reason] == ["empty file (0 bytes)", "damaged file", "file is missing"]
    assert alone[7].sha256 is None
    assert inspect_images(store, paths, workers=2) == alone


def test_a_path_outside_is_no_bad_image_but_a_refusal(store):
    with pytest.raises(DataError, match="leaves its folder"):
        inspect_images(store, ["../x.png"], workers=0)


def test_memory_is_a_resource(store, monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(inspection, "decode", fail)
    with pytest.raises(ResourceError, match=r"stopped after 0 of 1 images.*data\.workers") as caught:
        inspect_images(store, ["001.png"], workers=0)
    assert caught.value.exit_code == 5
