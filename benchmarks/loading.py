"""Loading batches from the memory-mapped cache against a torch DataLoader that decodes with PIL.

    .venv/bin/python benchmarks/loading.py [FOLDER with HAM10000 images, default ../shared/data/ham10000]

Both give uint8 batches of 64 at 144x192, in the same random order, on the same images; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

os.environ["DERMALYZE_CACHE"] = tempfile.mkdtemp()

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.cache import open_cache
from dermalyze.data.loader import MappedLoader
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.pixels import ImageMap
from dermalyze.data.samples import Samples
from dermalyze.data.store import ImageStore
from dermalyze.imaging.decode import Preprocessing
from dermalyze.stages.prepare import prepare

SIZE = (144, 192)


class PilImages(Dataset[torch.Tensor]):
    """What a tutorial would write: the JPEG bytes are in memory already, decoding and resizing happen on access."""

    def __init__(self, blobs: list[bytes]) -> None:
        self.blobs = blobs

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, row: int) -> torch.Tensor:
        image = Image.open(io.BytesIO(self.blobs[row])).convert("RGB").resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image).copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/data/ham10000"))
    parser.add_argument("--images", type=int, default=3000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    spec = build_experiment({"data": {"path": str(arguments.folder.resolve())}})
    run = Run.create(folder / "run", spec)
    prepare(run, spec)
    frame = usable(read_manifest(run)).head(arguments.images)
    store = ImageStore.open(spec.data)
    paths, hashes = frame["path"].tolist(), frame["sha256"].tolist()
    size = Preprocessing("squash", *SIZE, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    started = time.perf_counter()
    images = open_cache(store, paths, hashes, size, workers=None)
    print(f"cache made in {time.perf_counter() - started:.1f} s ({images.nbytes / 2**20:.0f} MiB)")

    order = np.random.default_rng(0).permutation(len(paths))
    batches = [order[i : i + 64] for i in range(0, len(order), 64)]
    plain = DataLoader(
        PilImages([store.read(path) for path in paths]), batch_sampler=[b.tolist() for b in batches], num_workers=2
    )
    samples = Samples.of(store, frame, size, (size.image,))
    mapped = MappedLoader(samples, {"image": ImageMap(images, np.arange(len(samples)))})
    seconds = {"cache": rate(mapped.batches(batches)), "DataLoader with PIL, 2 workers": rate(plain)}
    for name, value in seconds.items():
        print(f"{name:32s} {len(order) / value:9.0f} images/s")
    print(f"ratio: {seconds['DataLoader with PIL, 2 workers'] / seconds['cache']:.1f}")


def rate(batches: object) -> float:
    started = time.perf_counter()
    total = sum(len(batch["image"] if isinstance(batch, dict) else batch) for batch in batches)  # type: ignore[attr-defined]
    assert total
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
