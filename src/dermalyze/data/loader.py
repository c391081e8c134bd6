"""Batches of uint8 images by row index, from the memory map or from decoding workers; always one batch ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dermalyze.data.cache import read_image
from dermalyze.data.images import Preprocessing
from dermalyze.data.store import ImageStore

Rows = NDArray[np.int64]


class Loader(Protocol):
    """Yields the images (B, H, W, 3) uint8 of each batch of rows, in order."""

    def batches(self, rows: Sequence[Rows]) -> Iterator[Tensor]: ...


def balanced_batches(order: Rows, batch_size: int) -> list[Rows]:
    """Cut an order into batches of at most `batch_size` whose sizes differ by at most one, never a batch of one.

    BatchNorm cannot train on a batch of one, and a tiny last batch makes a noisy step. (Three rows at batch size two
    give one batch of three: the only case that exceeds `batch_size`.)

    >>> [len(batch) for batch in balanced_batches(np.arange(65), 64)]
    [33, 32]
    """
    count = max(1, min(-(-len(order) // batch_size), len(order) // 2))
    return [np.ascontiguousarray(batch) for batch in np.array_split(order, count)]


class MappedLoader:
    """Gathers rows of a memory-mapped array; a thread reads one batch ahead, so the loop never waits for the disk.

    Args:
        images: (N, H, W, 3) uint8.
        pin: give page-locked memory, for fast copies to a GPU.
    """

    def __init__(self, images: NDArray[np.uint8], *, pin: bool = False) -> None:
        self.images = images
        self.pin = pin

    def _gather(self, rows: Rows) -> Tensor:
        batch = torch.from_numpy(self.images[rows])
        return batch.pin_memory() if self.pin else batch

    def batches(self, rows: Sequence[Rows]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Tensor] | None = None
            for batch in rows:
                ready, ahead = ahead, pool.submit(self._gather, batch)
                if ready is not None:
                    yield ready.result()
            if ahead is not None:
                yield ahead.result()


class _Images(Dataset[Tensor]):
    def __init__(self, store: ImageStore, paths: list[str], hashes: list[str], preprocessing: Preprocessing) -> None:
        self.store, self.paths, self.hashes, self.preprocessing = store, paths, hashes, preprocessing

    def __getitem__(self, row: int) -> Tensor:
        return torch.tensor(read_image(self.store, self.paths[row], self.hashes[row], self.preprocessing))


class StreamLoader:
    """Decodes in worker processes, for sets too large to be cached.

    Args:
        store, paths, hashes, preprocessing: as for `open_cache`.
        workers: decoding processes; 0: in this process.
        prefetch: batches ready a worker.
        persistent: keep the workers between epochs.
        pin: give page-locked memory.
    """

    def __init__(
        self,
        store: ImageStore,
        paths: Sequence[str],
        hashes: Sequence[str],
        preprocessing: Preprocessing,
        *,
        workers: int,
        prefetch: int = 2,
        persistent: bool = True,
        pin: bool = False,
    ) -> None:
        self._rows: list[list[int]] = []
        self._loader = DataLoader(
            _Images(store, list(paths), list(hashes), preprocessing),
            batch_sampler=self._rows,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            persistent_workers=persistent and workers > 0,
            pin_memory=pin,
        )

    def batches(self, rows: Sequence[Rows]) -> Iterator[Tensor]:
        self._rows[:] = [batch.tolist() for batch in rows]
        yield from self._loader
