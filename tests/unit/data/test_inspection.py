"""Inspection: the same answers in any number of processes, in order."""

import hashlib
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import DataSpec
from dermalyze.data.inspection import inspect_images
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError, ResourceError
from dermalyze.imaging.decode import pixel_sha256


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


def test_memory_is_a_resource(store):
    def fail(*args, **options):
        raise MemoryError

    with pytest.raises(ResourceError, match=r"stopped after 0 of 1 images.*data\.workers") as caught:
        inspect_images(store, ["001.png"], workers=0, read=fail)
    assert caught.value.exit_code == 5


SCRIPT = """
import multiprocessing, threading, time
from pathlib import Path
from dermalyze.config.data import DataSpec
from dermalyze.data.inspection import inspect_images
from dermalyze.data.store import ImageStore

if __name__ == "__main__":
    store = ImageStore.open(DataSpec(path={folder!r}))
    work = threading.Thread(target=inspect_images, args=(store, ["001.png"] * 500_000), kwargs={{"workers": 2}}, daemon=True)
    work.start()
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(120)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_a_killed_parent(store, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(store.mounts[0][1])))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(lives(pid) for pid in children)
        parent.kill()
    deadline = time.monotonic() + 60
    while any(lives(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in children if lives(pid)]
