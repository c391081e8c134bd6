"""Batches by row: sizes, order, one ahead."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deadly import DeadlyStore
from hypothesis import given, settings
from hypothesis import strategies as st
from mounts import own_mounts
from PIL import Image

import dermalyze.data.loader
from dermalyze.config.data import DataSpec
from dermalyze.data.loader import MappedLoader, StreamLoader, balanced_batches
from dermalyze.data.pixels import ImageMap
from dermalyze.data.samples import Samples
from dermalyze.data.store import ImageStore
from dermalyze.errors import ResourceError
from dermalyze.imaging.decode import Preprocessing, decode, to_size


@settings(deadline=None)
@given(st.integers(2, 500), st.integers(2, 64))
def test_balanced_batches(count: int, batch_size: int) -> None:
    order = np.random.default_rng(count).permutation(count)
    batches = balanced_batches(order, batch_size)
    sizes = [len(batch) for batch in batches]
    assert np.concatenate(batches).tolist() == order.tolist()
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size or (count == 3 and batch_size == 2) or len(batches) == count // 2
    assert len(batches) <= -(-count // batch_size)


def mapped(images: np.ndarray[Any, Any], kind: type[MappedLoader] = MappedLoader) -> MappedLoader:
    """A loader of images that are in memory."""
    count, height, width, _ = images.shape
    p = Preprocessing("squash", height, width, 1.0, (0.5,) * 3, (0.5,) * 3)
    ids = [str(row) for row in range(count)]
    samples = Samples(ImageStore(()), p, (p.image,), ids, {"image": [(name, name) for name in ids]})
    return kind(samples, {"image": ImageMap(images, np.arange(count))})


def test_rows_come_in_order_and_as_asked() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    rows = [np.array([3, 3, 1]), np.array([19]), np.array([0, 2])]
    got = list(mapped(images).batches(rows))
    assert all(torch.equal(batch["image"], torch.from_numpy(images[chosen])) for batch, chosen in zip(got, rows, strict=True))


def test_no_batches() -> None:
    assert list(mapped(np.zeros((1, 2, 2, 3), np.uint8)).batches([])) == []


def test_a_batch_is_the_reader_s_own() -> None:
    images = np.zeros((2, 2, 2, 3), np.uint8)
    next(iter(mapped(images).batches([np.array([0, 1])])))["image"].fill_(7)
    assert images.sum() == 0


def test_it_stays_one_batch_ahead_and_no_more() -> None:
    gathered: list[int] = []

    class Watched(MappedLoader):
        def _gather(self, rows):  # type: ignore[no-untyped-def]
            gathered.append(int(rows[0]))
            return super()._gather(rows)

    batches = mapped(np.zeros((9, 2, 2, 3), np.uint8), Watched).batches([np.array([i]) for i in range(9)])
    next(batches)
    batches.close()
    assert gathered in ([0], [0, 1])


SIZE = Preprocessing("squash", 12, 16, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ROWS = [np.array([3, 3, 1]), np.array([0, 2]), np.array([5, 4]), np.array([6]), np.array([7, 1])]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (9 + i % 3, 11, 3), dtype=np.uint8)).save(root / f"JOHN_DOE_{i}.png")
    return root


class TestStream:
    def loader(self, root: Path, *, store: ImageStore | None = None, **options: Any) -> StreamLoader:
        files = sorted(root.iterdir())
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        names = [f"ISIC_{i}" for i in range(len(files))]
        store = store or ImageStore.open(DataSpec(path=str(root)))
        paths = list(zip([file.name for file in files], hashes, strict=True))
        return StreamLoader(Samples(store, SIZE, (SIZE.image,), names, {"image": list(paths)}), **options)

    def expected(self, root: Path) -> list[np.ndarray[Any, Any]]:
        images = np.stack([to_size(decode(file.read_bytes()).pixels, SIZE) for file in sorted(root.iterdir())])
        return [images[rows] for rows in ROWS]

    def deadly(self, root: Path, **options: Any) -> DeadlyStore:
        return DeadlyStore((("", root.resolve()),), victim="JOHN_DOE_4.png", spared=os.getpid(), **options)

    @pytest.mark.parametrize(("workers", "persistent"), [(0, True), (2, True), (2, False)])
    def test_equals_decoding_each(self, workers: int, persistent: bool, pictures: Path) -> None:
        loader = self.loader(pictures, workers=workers, persistent=persistent)
        for _ in range(2):
            got = [batch["image"].numpy() for batch in loader.batches(ROWS)]
            assert all(np.array_equal(a, b) for a, b in zip(got, self.expected(pictures), strict=True))
            assert (loader._pool is not None) == (workers > 0 and persistent)
        loader.close()

    def test_a_worker_killed_once_is_made_good(
        self, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        once = tmp_path / "once"
        once.touch()
        loader = self.loader(pictures, store=self.deadly(pictures, once=once), workers=2)
        got = [batch["image"].numpy() for batch in loader.batches(ROWS)]
        loader.close()
        assert not once.exists()
        assert all(np.array_equal(a, b) for a, b in zip(got, self.expected(pictures), strict=True))
        assert "a decoding process was killed; decoding its batch again" in capsys.readouterr().err

    def test_an_image_that_kills_its_decoder_is_named(self, pictures: Path) -> None:
        loader = self.loader(pictures, store=self.deadly(pictures), workers=2)
        with pytest.raises(ResourceError, match=r"image ISIC_4: the process that decodes it was killed again") as caught:
            list(loader.batches(ROWS))
        assert caught.value.exit_code == 5
        assert "JOHN" not in str(caught.value)
        loader.close()

    def test_without_semaphores_it_decodes_itself_and_says_so(
        self, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def none(workers: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(dermalyze.data.loader, "_new_pool", none)
        got = [batch["image"].numpy() for batch in self.loader(pictures, workers=2).batches(ROWS)]
        assert all(np.array_equal(a, b) for a, b in zip(got, self.expected(pictures), strict=True))
        assert capsys.readouterr().err.count("no decoding processes") == 1

    @pytest.mark.skipif(not own_mounts(), reason="needs root and mount namespaces")
    @pytest.mark.parametrize(("options", "warned"), [("size=1m", False), ("size=1m,ro", True)])
    def test_a_tiny_shared_memory(self, options: str, warned: bool, pictures: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from dermalyze.config.data import DataSpec\n"
            "from dermalyze.imaging.decode import Preprocessing; from dermalyze.data.loader import StreamLoader\n"
            "from dermalyze.data.store import ImageStore; from dermalyze.data.samples import Samples\n"
            "import hashlib, numpy as np\n"
            "if __name__ == '__main__':\n"
            "    files = sorted(Path(sys.argv[1]).iterdir()) * 100\n"
            "    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]\n"
            "    size = Preprocessing('squash', 64, 64, 0.875, (0.5,) * 3, (0.5,) * 3)\n"  # a batch: 2.4 MB
            "    store = ImageStore.open(DataSpec(path=sys.argv[1])); names = [file.name for file in files]\n"
            "    files = {'image': list(zip(names, hashes))}\n"
            "    loader = StreamLoader(Samples(store, size, (size.image,), names, files), workers=2)\n"
            "    print(sum(len(batch['image']) for batch in loader.batches([np.arange(200)] * 4))); loader.close()\n"
        )
        script = pictures.parent / "stream.py"
        script.write_text(code)
        mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
        words = ["unshare", "-m", "bash", "-c", f'{mount} && exec "$0" "$1" "$2"', sys.executable, str(script), str(pictures)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.stdout.strip() == "800", done.stderr
        assert ("no decoding processes" in done.stderr) == warned, done.stderr

    @pytest.mark.parametrize("workers", [0, 1])
    def test_bad_images_are_black_and_known(self, workers: int, pictures: Path, tmp_path: Path) -> None:
        root = Path(shutil.copytree(pictures, tmp_path / "copy"))
        loader = self.loader(root, workers=workers)
        whole = self.expected(root)
        (root / "JOHN_DOE_2.png").write_bytes(b"")
        (root / "JOHN_DOE_3.png").unlink()
        shutil.copy(root / "JOHN_DOE_5.png", root / "JOHN_DOE_4.png")
        got = [batch["image"].numpy() for batch in loader.batches(ROWS)]
        loader.close()
        for rows, mine, good in zip(ROWS, got, whole, strict=True):
            bad = np.isin(rows, [2, 3, 4])
            assert not mine[bad].any()
            assert np.array_equal(mine[~bad], good[~bad])
        assert loader.bad == {
            2: "its bytes changed since prepare",
            3: "file is missing",
            4: "its bytes changed since prepare",
        }
