"""Batches of uint8 images by row index, from the memory map or from decoding workers; always one batch ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermalyze.config.data import DataSpec
from dermalyze.config.train import TrainSpec
from dermalyze.core.progress import say
from dermalyze.data.cache import cache_bytes, open_cache, read_block
from dermalyze.data.inspection import begin_worker
from dermalyze.data.second import CaseMap, Seconds, places, read_cases
from dermalyze.data.store import ImageStore
from dermalyze.errors import ResourceError
from dermalyze.imaging.decode import Preprocessing

Rows = NDArray[np.int64]
Block = tuple[NDArray[np.uint8], dict[int, str]]


class Loader(Protocol):
    """Yields the images (B, H, W, 3) uint8 of each batch of rows, in order; cases (B, H, W, 7) for a network of two images.

    Attributes:
        bad: rows met so far whose image can no longer be used, and why; they come out black.
    """

    bad: dict[int, str]

    def batches(self, rows: Sequence[Rows]) -> Generator[Tensor, None, None]: ...

    def close(self) -> None: ...


def open_loader(
    data: DataSpec,
    settings: TrainSpec,
    images: Sequence[tuple[str, str, str]],
    preprocessing: Preprocessing,
    *,
    pin: bool = False,
    check: Callable[[], None] = lambda: None,
    seconds: Seconds | None = None,
) -> Loader:
    """The loader that `train.cache` asks for.

    Args:
        data, settings: where the images are; which loader.
        images: (image_id, manifest path, SHA-256) a row.
        preprocessing: to the network's size.
        pin: give page-locked memory, for fast copies to a GPU.
        check: as for `open_cache`.
        seconds: the second image of each row, for a network of two images.

    Raises:
        ResourceError, DataError: see `open_cache`.
    """
    store = ImageStore.open(data)
    names, paths, hashes = (list(column) for column in zip(*images, strict=True))
    others = [one for one in seconds or () if one is not None]
    fits = cache_bytes(len(images) + len(others), preprocessing) <= settings.cache_limit_gib * 2**30
    if settings.cache == "memory_map" or (settings.cache == "auto" and fits):
        mapped = open_cache(store, paths, hashes, preprocessing, workers=data.workers, check=check, names=names)
        if seconds is None:
            return MappedLoader(mapped, pin=pin)
        where, marks = (list(column) for column in zip(*others, strict=True))
        more = open_cache(store, where, marks, preprocessing, workers=data.workers, check=check)
        return MappedLoader(CaseMap(mapped, more, places(seconds)), pin=pin)
    return StreamLoader(
        store, paths, hashes, preprocessing, names=names, workers=settings.num_workers, prefetch=settings.prefetch_factor,
        persistent=settings.persistent_workers, pin=pin, seconds=seconds,
    )  # fmt: skip


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
        images: (N, H, W, 3) uint8, or cases.
        pin: give page-locked memory, for fast copies to a GPU.
    """

    def __init__(self, images: NDArray[np.uint8] | CaseMap, *, pin: bool = False) -> None:
        self.images = images
        self.pin = pin
        self.bad: dict[int, str] = {}  # the images were checked when they were decoded

    def _gather(self, rows: Rows) -> Tensor:
        batch = torch.from_numpy(self.images[rows])
        return batch.pin_memory() if self.pin else batch

    def batches(self, rows: Sequence[Rows]) -> Generator[Tensor, None, None]:
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Tensor] | None = None
            for batch in rows:
                ready, ahead = ahead, pool.submit(self._gather, batch)
                if ready is not None:
                    yield ready.result()
            if ahead is not None:
                yield ahead.result()

    def close(self) -> None:
        """Nothing is held open."""


class StreamLoader:
    """Decodes in worker processes, for sets too large to be cached. Blocks come back through pipes: shared memory is not used.

    A worker that is killed breaks its pool. The batch that was waited for is then decoded once more, image by image in a
    process of its own, so that an image that kills its decoder is known by name.

    Args:
        store, paths, hashes, preprocessing: as for `open_cache`.
        names: image_ids, for messages.
        workers: decoding processes; 0: in this process.
        prefetch: batches ready a worker.
        persistent: keep the workers between epochs.
        pin: give page-locked memory.
        seconds: the second image of each row, for a network of two images.
    """

    def __init__(
        self,
        store: ImageStore,
        paths: Sequence[str],
        hashes: Sequence[str],
        preprocessing: Preprocessing,
        *,
        names: Sequence[str],
        workers: int,
        prefetch: int = 2,
        persistent: bool = True,
        pin: bool = False,
        seconds: Seconds | None = None,
    ) -> None:
        self.store, self.preprocessing, self.names = store, preprocessing, names
        self.read: Callable[..., Block] = read_block if seconds is None else read_cases
        pairs = zip(paths, hashes, strict=True)
        self.jobs: list[Any] = list(
            pairs if seconds is None else ((*one, two) for one, two in zip(pairs, seconds, strict=True))
        )
        self.workers, self.prefetch, self.persistent, self.pin = workers, prefetch, persistent, pin
        self.bad: dict[int, str] = {}
        self._pool: ProcessPoolExecutor | None = None

    def batches(self, rows: Sequence[Rows]) -> Generator[Tensor, None, None]:
        try:
            for batch, (pixels, bad) in zip(rows, self._blocks(rows), strict=True):
                self.bad.update({int(batch[place]): reason for place, reason in bad.items()})
                ready = torch.from_numpy(pixels)
                yield ready.pin_memory() if self.pin else ready
        finally:
            if not self.persistent:
                self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None

    def _blocks(self, rows: Sequence[Rows]) -> Iterator[Block]:
        ahead: deque[Future[Block]] = deque()
        try:
            for number, batch in enumerate(rows):
                self._open()
                if self._pool is None:
                    yield self.read(self.store, self._jobs(batch), self.preprocessing)
                    continue
                try:
                    for later in rows[number + len(ahead) : number + 1 + self.workers * self.prefetch]:
                        ahead.append(self._submit(self._pool, later))
                    block = ahead.popleft().result()
                except BrokenProcessPool:
                    ahead.clear()
                    self.close()
                    say("a decoding process was killed; decoding its batch again")
                    block = self._one_by_one(batch)
                yield block
        finally:
            for future in ahead:
                future.cancel()

    def _open(self) -> None:
        """Start the pool where there is none; without semaphores (a /dev/shm that takes none) decode in this process."""
        if self._pool is not None or self.workers == 0:
            return
        try:
            self._pool = _new_pool(self.workers)
        except (OSError, ImportError, NotImplementedError) as error:
            say(f"no decoding processes ({error}): decoding in this one, slower and the same; give /dev/shm some space")
            self.workers = 0

    def _jobs(self, batch: Rows) -> list[Any]:
        return [self.jobs[row] for row in batch]

    def _submit(self, pool: ProcessPoolExecutor, batch: Rows) -> Future[Block]:
        return pool.submit(self.read, self.store, self._jobs(batch), self.preprocessing)

    def _one_by_one(self, batch: Rows) -> Block:
        with _new_pool(1) as pool:
            blocks: list[Block] = []
            for place in range(len(batch)):
                try:
                    blocks.append(self._submit(pool, batch[place : place + 1]).result())
                except BrokenProcessPool:
                    raise ResourceError(
                        f"image {self.names[batch[place]]}: the process that decodes it was killed again, most likely for "
                        "memory (or the calling script has no `if __name__ == '__main__':`); free memory, or set "
                        "train.num_workers: 0 in the run's config.yaml; the last checkpoint is kept; "
                        "run the same command to resume"
                    ) from None
        bad = {place: reasons[0] for place, (_, reasons) in enumerate(blocks) if reasons}
        return np.concatenate([pixels for pixels, _ in blocks]), bad


def _new_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=begin_worker)
