"""Reduced-scale JPEG decoding (preprocess.draft) against the plain PIL path, on 600x450 JPEGs as HAM10000 is distributed.

    .venv/bin/python benchmarks/decoding.py [FOLDER with HAM10000 images, default ../shared/data/ham10000] [--images 300]

The images are brought to 600x450 and saved again as JPEG, since the copy beside the repository is smaller; without one,
synthetic ones are painted. Once at quality 92 (27 KiB each), and once with fine grain at quality 98 (200 KiB, nearer to the
originals' 270): there the entropy decoding, which no scale spares, takes most of the time.
Each way takes the same files to the size named; they take turns, the shortest of the rounds counts, what matters is the ratio.
"Loading" is what training does for an image: read it from disk, check its SHA-256, decode, resize.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dermalyze.config.data import DataSpec
from dermalyze.core.atomic import sha256_bytes
from dermalyze.data.cache import read_image
from dermalyze.data.loader import StreamLoader
from dermalyze.data.samples import Samples
from dermalyze.data.store import ImageStore
from dermalyze.data.synthetic.synth import synthesize
from dermalyze.imaging.decode import Preprocessing

ROUNDS = 5


class PilImages(Dataset[torch.Tensor]):
    """What a tutorial would write."""

    def __init__(self, paths: list[Path], size: tuple[int, int]) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(plain(self.paths[row], self.size).copy())


def plain(path: Path, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/data/ham10000"))
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()
    for quality, grain in ((92, 0), (98, 9)):
        folder = Path(tempfile.mkdtemp())
        paths = make(arguments.folder, folder, arguments.images, quality, grain)
        for size in ((144, 192), (96, 128)):
            measure(folder, paths, size)


def measure(folder: Path, paths: list[Path], size: tuple[int, int]) -> None:
    """All ways over the images of one folder, to (height, width)."""
    kib = sum(path.stat().st_size for path in paths) / len(paths) / 1024
    print(f"== {len(paths)} JPEGs of 600x450, {kib:.0f} KiB each, to {size[1]}x{size[0]}")
    store = ImageStore.open(DataSpec(path=str(folder)))
    names, hashes = [path.name for path in paths], [sha256_bytes(path.read_bytes()) for path in paths]
    full, draft = (Preprocessing("squash", *size, 0.875, (0.5,) * 3, (0.5,) * 3, d) for d in (False, True))  # type: ignore[arg-type]
    rows = np.arange(len(paths))
    batches = [rows[i : i + 64] for i in range(0, len(rows), 64)]

    def ours(p: Preprocessing) -> Callable[[], object]:
        return lambda: [read_image(store, name, digest, p) for name, digest in zip(names, hashes, strict=True)]

    def threads(p: Preprocessing) -> Callable[[], object]:
        def work() -> object:
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(lambda job: read_image(store, *job, p), zip(names, hashes, strict=True)))

        return work

    single = {"plain PIL": lambda: [plain(path, size) for path in paths], "full decode": ours(full), "draft": ours(draft)}
    loader = DataLoader(
        PilImages(paths, size), batch_sampler=[b.tolist() for b in batches], num_workers=2, persistent_workers=True
    )  # fmt: skip
    samples = Samples(store, draft, (draft.image,), names, {"image": list(zip(names, hashes, strict=True))})
    stream = StreamLoader(samples, workers=2)
    double = {
        "plain PIL, DataLoader, 2 workers": lambda: sum(len(b) for b in loader),
        "draft, StreamLoader, 2 workers": lambda: sum(len(b["image"]) for b in stream.batches(batches)),
        "full decode, 2 threads (as the cache is made)": threads(full),
        "draft, 2 threads (as the cache is made)": threads(draft),
    }
    print("one process, CPU time")
    compare(single, len(paths), time.process_time)
    print("two workers, elapsed time")
    compare(double, len(paths), time.perf_counter)
    differences = [
        np.abs(read_image(store, n, h, full).astype(int) - read_image(store, n, h, draft).astype(int)).mean()
        for n, h in zip(names[:100], hashes[:100], strict=True)
    ]
    print(f"mean difference from the full decode: {np.mean(differences):.2f} of 255 (worst image {max(differences):.2f})")


def make(source: Path, folder: Path, count: int, quality: int, grain: float) -> list[Path]:
    """Images of 600x450 in `folder`."""
    if source.is_dir():
        store = ImageStore.open(DataSpec(path=str(source.resolve())))
        names = [entry.path for entry in store.entries() if entry.name.endswith(".jpg")][:count]
        pictures = [Image.open(io.BytesIO(store.read(name))).convert("RGB") for name in names]
    else:
        synthesize(folder / "set", lesions=count, size_px=(450, 600), images_per_lesion=1.0)
        pictures = [Image.open(path) for path in sorted((folder / "set").rglob("*.jpg"))[:count]]
    paths, rng = [], np.random.default_rng(0)
    for number, picture in enumerate(pictures):
        paths.append(folder / f"{number}.jpg")
        pixels = np.asarray(picture.resize((600, 450), Image.Resampling.BICUBIC)) + rng.normal(0, grain, (450, 600, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=quality)
    return paths


def compare(ways: dict[str, Callable[[], object]], images: int, clock: Callable[[], float]) -> None:
    """Time the ways in turns and print rates, and ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if round_:  # the first is a warm-up
                seconds[name].append(clock() - started)
    shortest = {name: min(values) for name, values in seconds.items()}
    first = next(iter(shortest.values()))
    for name, value in shortest.items():
        print(f"  {name:46s} {images / value:7.0f} images/s   {first / value:5.2f} times the plain PIL path")


if __name__ == "__main__":
    main()
