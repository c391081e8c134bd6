"""Batches of samples at the network's size: from the training's memory maps where these are used, else decoded on the way."""

# Shapes: B samples, N rows.

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact
from dermalyze.config.data import DataSpec
from dermalyze.config.train import TrainSpec
from dermalyze.core.run import Run
from dermalyze.data.cache import cache_bytes, open_cache
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.metadata import encode_rows, encoder_of
from dermalyze.data.samples import Samples, read_sample
from dermalyze.data.store import ImageStore
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import Array, Input, stack
from dermalyze.imaging.tabular import Encoder

BATCHES_AHEAD = 2  # decoded before they are asked for


@dataclass(frozen=True, eq=False)
class ImageMap:
    """One image input of every row: those that there are, memory-mapped, and 0 everywhere for the others.

    Attributes:
        pixels: of the rows that have the image, in their order.
        place_N: where in these a row's is; -1 for none.
    """

    pixels: NDArray[Any]
    place_N: NDArray[np.int64]

    def __getitem__(self, rows_B: NDArray[np.int64]) -> Array:
        """(B, H, W, channels), a copy."""
        place_B = self.place_N[rows_B]
        images = np.asarray(self.pixels[np.maximum(place_B, 0)])
        images[place_B < 0] = 0
        return images


def may_cache(samples: Samples, settings: TrainSpec) -> bool:
    """Whether `train.cache` asks for memory maps of these samples."""
    images = sum(file is not None for files in samples.files.values() for file in files)
    fits = cache_bytes(images, samples.preprocessing) <= settings.cache_limit_gib * 2**30
    return settings.cache == "memory_map" or (settings.cache == "auto" and fits)


def open_maps(samples: Samples, *, workers: int | None, check: Callable[[], None] = lambda: None) -> dict[str, ImageMap]:
    """The memory map of each image input; made on first use.

    Args:
        workers, check: as for `open_cache`.

    Raises:
        ResourceError, DataError: see `open_cache`.
    """
    maps = {}
    for name, files in samples.files.items():
        there_N = np.array([file is not None for file in files], dtype=bool)
        place_N = np.where(there_N, np.cumsum(there_N) - 1, -1).astype(np.int64)
        paths, hashes = ([file[i] for file in files if file is not None] for i in range(2))
        names = [image_id for image_id, there in zip(samples.ids, there_N, strict=True) if there]
        p = samples.preprocessing
        pixels = open_cache(samples.store, paths, hashes, p, workers=workers, check=check, names=names) if paths else None
        maps[name] = ImageMap(p.image.empty(1) if pixels is None else pixels, place_N)
    return maps


class Source:
    """Batches of a run's samples as a model takes them.

    Args:
        run: for its manifest, in whose order the maps are made.
        data, settings: for `data` and the `train.cache` settings.
        preprocessing: the model's.
        inputs: of the network; None: the image alone.
        encoder: of its metadata.
        size: samples per batch.
    """

    def __init__(
        self,
        run: Run,
        data: DataSpec,
        settings: TrainSpec,
        preprocessing: Preprocessing,
        *,
        inputs: tuple[Input, ...] | None = None,
        encoder: Encoder | None = None,
        size: int,
    ) -> None:
        self.run, self.data, self.settings, self.preprocessing, self.size = run, data, settings, preprocessing, size
        self.inputs, self.encoder = inputs or (preprocessing.image,), encoder

    @classmethod
    def of_artifact(cls, run: Run, data: DataSpec, settings: TrainSpec, artifact: Artifact, *, size: int) -> Source:
        """As an artifact takes them."""
        preprocessing = Preprocessing.from_dict(artifact.preprocessing)
        return cls(run, data, settings, preprocessing, inputs=artifact.inputs, encoder=encoder_of(artifact), size=size)

    @cached_property
    def store(self) -> ImageStore:
        """Of the images, opened when the first split is read: where all is done, it is not needed."""
        return ImageStore.open(self.data)

    def samples(self, frame: pd.DataFrame) -> Samples:
        """The rows of a frame."""
        return Samples.of(self.store, frame, self.preprocessing, self.inputs, encode_rows(self.encoder, frame))

    @cached_property
    def maps(self) -> tuple[dict[str, ImageMap], Samples, dict[str, int]] | None:
        """The memory maps, the samples they are of and each image's row in them; None where they are not used."""
        frame = usable(read_manifest(self.run)).reset_index(drop=True)
        samples = self.samples(frame)
        if not may_cache(samples, self.settings):
            return None
        row_of = {image_id: row for row, image_id in enumerate(samples.ids)}
        return open_maps(samples, workers=self.data.workers), samples, row_of

    def batches(self, frame: pd.DataFrame) -> Iterator[dict[str, Array]]:
        """Batches of the frame's samples, in order.

        Raises:
            DataError: an image is gone or changed; named by its hash.
        """
        if self.maps is None:
            yield from read_batches(self.samples(frame), size=self.size, workers=self.data.workers)
            return
        maps, samples, row_of = self.maps
        rows = np.array([row_of[image_id] for image_id in frame["image_id"].astype(str)], dtype=np.int64)
        for start in range(0, len(rows), self.size):
            part = rows[start : start + self.size]
            yield samples.whole({name: one[part] for name, one in maps.items()}, part)


def read_batches(samples: Samples, *, size: int, workers: int | None) -> Iterator[dict[str, Array]]:
    """Batches of samples, in order, by the decoding and resizing that training uses.

    Args:
        samples: read from their files.
        size: samples per batch.
        workers: decoding threads, which work ahead of the caller; None: 2.

    Raises:
        DataError: an image is gone or changed; named by its hash.
    """
    rows = iter(range(len(samples)))

    def read(row: int) -> dict[str, Array]:
        return read_sample(samples.store, samples.job(row), samples.image_inputs, samples.preprocessing)

    with ThreadPoolExecutor(max(1, workers or 2)) as pool:
        waiting = [pool.submit(read, row) for row in islice(rows, BATCHES_AHEAD * size)]
        done = 0
        while waiting:
            ready, waiting = waiting[:size], waiting[size:]
            images = stack(future.result() for future in ready)
            waiting += [pool.submit(read, row) for row in islice(rows, len(ready))]
            yield samples.whole(images, np.arange(done, done + len(ready)))
            done += len(ready)
