"""Pixels at the network's size, and labels as class numbers: what the model is asked of."""

# Shapes: B images, H height, W width, N rows.

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run
from dermalyze.data.cache import cache_bytes, open_cache, read_image
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.second import CaseMap, places, read_case_batches, seconds_of
from dermalyze.data.store import ImageStore
from dermalyze.imaging.decode import Preprocessing

BATCHES_AHEAD = 2  # decoded before they are asked for


class Source:
    """Pixels at the network's size: from the training's memory map where it is used, else decoded on the way.

    Args:
        run: for its manifest, in whose order the map is made.
        spec: for `data` and the `train.cache` settings.
        preprocessing: the artifact's.
        second: give cases (B, H, W, 7) with their second images.
    """

    def __init__(self, run: Run, spec: ExperimentSpec, preprocessing: Preprocessing, *, second: bool = False) -> None:
        self.run, self.spec, self.preprocessing, self.second = run, spec, preprocessing, second

    @cached_property
    def store(self) -> ImageStore:
        """Of the images, opened when the first part is read: where all is done, it is not needed."""
        return ImageStore.open(self.spec.data)

    @cached_property
    def map(self) -> tuple[NDArray[np.uint8] | CaseMap, dict[str, int]] | None:
        """The memory map and each image's row in it, or None."""
        settings, workers = self.spec.train, self.spec.data.workers
        frame = usable(read_manifest(self.run)).reset_index(drop=True)
        seconds = seconds_of(frame) if self.second else []
        others = [one for one in seconds if one is not None]
        fits = cache_bytes(len(frame) + len(others), self.preprocessing) <= settings.cache_limit_gib * 2**30
        if settings.cache == "memory_map" or (settings.cache == "auto" and fits):
            paths, hashes = frame["path"].tolist(), frame["sha256"].tolist()
            row_of = {image_id: row for row, image_id in enumerate(frame["image_id"])}
            pixels = open_cache(self.store, paths, hashes, self.preprocessing, workers=workers)
            if not self.second:
                return pixels, row_of
            paths, hashes = [path for path, _ in others], [sha256 for _, sha256 in others]
            more = open_cache(self.store, paths, hashes, self.preprocessing, workers=workers)
            return CaseMap(pixels, more, places(seconds)), row_of
        return None

    def batches(self, frame: pd.DataFrame) -> Iterator[NDArray[np.uint8]]:
        """Batches (B, H, W, 3) uint8 of the frame's images, in order; of cases (B, H, W, 7) where they are asked for.

        Raises:
            DataError: an image is gone or changed; named by its hash.
        """
        size = self.spec.inference.batch_size
        if self.map is not None:
            pixels, row_of = self.map
            rows = np.array([row_of[image_id] for image_id in frame["image_id"]], dtype=np.int64)
            for start in range(0, len(rows), size):
                yield pixels[rows[start : start + size]]
            return
        read = read_case_batches if self.second else read_batches
        yield from read(self.store, frame, self.preprocessing, size=size, workers=self.spec.data.workers)


def read_batches(
    store: ImageStore, frame: pd.DataFrame, preprocessing: Preprocessing, *, size: int, workers: int | None
) -> Iterator[NDArray[np.uint8]]:
    """Batches (B, H, W, 3) uint8 of the frame's images, in order, by the decoding and resizing that training uses.

    Args:
        store: reads an image's bytes.
        frame: rows with `path` and `sha256`.
        preprocessing: the model's.
        size: images per batch.
        workers: decoding threads, which work ahead of the caller; None: 2.

    Raises:
        DataError: an image is gone or changed; named by its hash.
    """
    jobs = iter(zip(frame["path"], frame["sha256"], strict=True))

    def read(path: str, sha256: str) -> NDArray[np.uint8]:
        return read_image(store, path, sha256, preprocessing)

    with ThreadPoolExecutor(max(1, workers or 2)) as pool:
        waiting = [pool.submit(read, *job) for job in islice(jobs, BATCHES_AHEAD * size)]
        while waiting:
            ready, waiting = waiting[:size], waiting[size:]
            pixels = np.stack([future.result() for future in ready])
            waiting += [pool.submit(read, *job) for job in islice(jobs, len(ready))]
            yield pixels
