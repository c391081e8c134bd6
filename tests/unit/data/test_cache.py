"""The memory map: equal to decoding, checked, keyed by content, whole or absent."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import DataSpec
from dermalyze.core.atomic import try_lock
from dermalyze.data import cache
from dermalyze.data.cache import cache_bytes, open_cache
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError, ResourceError
from dermalyze.imaging.decode import Preprocessing, decode, to_size

SIZE = Preprocessing("squash", 12, 16, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
COUNT = 300  # several blocks and more than a round of them


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (9 + i % 3, 11, 3), dtype=np.uint8)).save(root / f"{i:03d}.png")
    return root


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CHUNK", 16)
    monkeypatch.setattr(cache, "AHEAD", 4)
    return tmp_path / "cache"


def opened(root: Path, size: Preprocessing = SIZE, count: int = COUNT, workers: int | None = 2):  # type: ignore[no-untyped-def]
    paths = sorted(path.name for path in root.glob("*.png"))[:count]
    hashes = [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths]
    return open_cache(ImageStore.open(DataSpec(path=str(root))), paths, hashes, size, workers=workers)


def test_equals_decoding_each(pictures: Path) -> None:
    images = opened(pictures)
    assert images.shape == (COUNT, 12, 16, 3)
    for i in (0, 15, 16, 63, 64, 299):
        expected = to_size(decode((pictures / f"{i:03d}.png").read_bytes()).pixels, SIZE)
        assert np.array_equal(images[i], expected)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_number_of_workers_changes_nothing(pictures: Path, folder: Path) -> None:
    first = np.array(opened(pictures, workers=1))
    shutil.rmtree(folder)
    assert np.array_equal(first, opened(pictures, workers=3))


def test_the_second_opening_reads_no_image(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(opened(pictures))
    monkeypatch.setattr(cache, "read_image", None)
    assert np.array_equal(first, opened(pictures))


def test_normalisation_shares_a_cache_but_size_and_content_do_not(pictures: Path, folder: Path) -> None:
    opened(pictures)
    opened(pictures, Preprocessing("squash", 12, 16, 0.875, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)))
    assert len(list(folder.glob("*.bin"))) == 1
    opened(pictures, Preprocessing("pad", 12, 16, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    opened(pictures, count=10)
    assert len(list(folder.glob("*.bin"))) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "record"])
def test_a_damaged_cache_is_made_again(damage: str, pictures: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = np.array(opened(pictures))
    file, record = next(folder.glob("*.bin")), next(folder.glob("*.json"))
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[100] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-1])
    else:
        record.write_text("{}")
    assert np.array_equal(whole, opened(pictures))
    assert "damaged; writing it again" in capsys.readouterr().err


def test_a_changed_image_leaves_no_cache(pictures: Path, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    store = ImageStore.open(DataSpec(path=str(copy)))
    paths = sorted(path.name for path in copy.glob("*.png"))
    hashes = [hashlib.sha256((copy / path).read_bytes()).hexdigest() for path in paths]
    shutil.copy(copy / "001.png", copy / "000.png")
    with pytest.raises(DataError, match=f"image {hashes[0][:12]}: its bytes changed since prepare"):
        open_cache(store, paths, hashes, SIZE, workers=1)
    assert not list(folder.iterdir())


def test_too_little_disk_is_said_before_work(
    pictures: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    monkeypatch.setattr(cache, "read_image", None)
    with pytest.raises(ResourceError, match="set DERMALYZE_CACHE to another disk") as caught:
        opened(pictures)
    assert caught.value.exit_code == 5
    assert "safe to delete" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_an_interruption_leaves_nothing(pictures: Path, folder: Path) -> None:
    class StopError(Exception):
        pass

    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StopError

    paths = sorted(path.name for path in pictures.glob("*.png"))
    hashes = [hashlib.sha256((pictures / path).read_bytes()).hexdigest() for path in paths]
    with pytest.raises(StopError):
        open_cache(ImageStore.open(DataSpec(path=str(pictures))), paths, hashes, SIZE, workers=2, check=check)
    assert not list(folder.iterdir())


def test_cache_bytes() -> None:
    assert cache_bytes(10, SIZE) == 10 * 12 * 16 * 3


def test_one_process_makes_it_and_another_waits(pictures: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class StopError(Exception):
        pass

    def check() -> None:
        raise StopError

    whole = np.array(opened(pictures))
    target = next(folder.glob("*.bin"))
    target.unlink()
    part = target.with_name(f".{target.name}.part")
    paths = sorted(path.name for path in pictures.glob("*.png"))
    hashes = [hashlib.sha256((pictures / path).read_bytes()).hexdigest() for path in paths]
    with part.open("wb") as other:
        other.write(b"half")
        assert try_lock(other.fileno())
        with pytest.raises(StopError):
            open_cache(ImageStore.open(DataSpec(path=str(pictures))), paths, hashes, SIZE, workers=1, check=check)
        assert "another process is writing it; waiting" in capsys.readouterr().err
        assert part.exists()
    assert np.array_equal(opened(pictures), whole)  # the other was killed: what it left is written again
    assert not list(folder.glob(".*"))


def test_a_disk_that_fills_up(pictures: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory map would end the process here (SIGBUS)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            opened(pictures)
        except ResourceError as error:
            code = error.exit_code if "File too large; free space on that disk" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert not list(folder.iterdir())


def test_an_image_is_named_by_its_id(pictures: Path, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pictures, tmp_path / "copy"))
    store = ImageStore.open(DataSpec(path=str(copy)))
    (copy / "000.png").unlink()
    with pytest.raises(DataError, match="image ISIC_1: file is missing; put the file back as it was") as caught:
        open_cache(store, ["000.png"], ["0" * 64], SIZE, workers=1, names=["ISIC_1"])
    assert "000.png" not in str(caught.value)
    assert not list(folder.iterdir())
