"""Batches of samples by row index, from memory maps or from decoding workers; always one batch ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
from dermalyze.data.inspection import begin_worker
from dermalyze.data.pixels import ImageMap, may_cache, open_maps
from dermalyze.data.samples import Samples, read_block
from dermalyze.errors import ResourceError
from dermalyze.imaging.samples import concatenate

Rows = NDArray[np.int64]
Block = tuple[dict[str, NDArray[Any]], dict[int, str]]
Tensors = dict[str, Tensor]


class Loader(Protocol):
    """Yields the batch of each group of rows, in order: the network's inputs by name, images as they are stored.

    Attributes:
        bad: rows met so far with an image that can no longer be used, and why; their images are 0 everywhere.
    """

    bad: dict[int, str]

    def batches(self, rows: Sequence[Rows]) -> Generator[Tensors, None, None]: ...

    def close(self) -> None: ...


def open_loader(
    data: DataSpec,
    settings: TrainSpec,
    samples: Samples,
    *,
    pin: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Loader:
    """The loader that `train.cache` asks for.

    Args:
        data, settings: how many workers decode; which loader.
        samples: of all rows.
        pin: give page-locked memory, for fast copies to a GPU.
        check: as for `open_cache`.

    Raises:
        ResourceError, DataError: see `open_cache`.
    """
    if may_cache(samples, settings):
        return MappedLoader(samples, open_maps(samples, workers=data.workers, check=check), pin=pin)
    return StreamLoader(
        samples, workers=settings.num_workers, prefetch=settings.prefetch_factor, persistent=settings.persistent_workers,
        pin=pin,
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
    """Gathers rows of memory-mapped arrays; a thread reads one batch ahead, so the loop never waits for the disk.

    Args:
        samples: of all rows.
        maps: of each image input; see `dermalyze.data.pixels.open_maps`.
        pin: give page-locked memory, for fast copies to a GPU.
    """

    def __init__(self, samples: Samples, maps: Mapping[str, ImageMap], *, pin: bool = False) -> None:
        self.samples, self.maps, self.pin = samples, maps, pin
        self.bad: dict[int, str] = {}  # the images were checked when they were decoded

    def _gather(self, rows: Rows) -> Tensors:
        images = {name: one[rows] for name, one in self.maps.items()}
        return _tensors(self.samples.whole(images, rows), self.pin)

    def batches(self, rows: Sequence[Rows]) -> Generator[Tensors, None, None]:
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Tensors] | None = None
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
        samples: of all rows.
        workers: decoding processes; 0: in this process.
        prefetch: batches ready per worker.
        persistent: keep the workers between epochs.
        pin: give page-locked memory.
    """

    def __init__(
        self, samples: Samples, *, workers: int, prefetch: int = 2, persistent: bool = True, pin: bool = False
    ) -> None:
        self.samples = samples
        self.workers, self.prefetch, self.persistent, self.pin = workers, prefetch, persistent, pin
        self.bad: dict[int, str] = {}
        self._pool: ProcessPoolExecutor | None = None

    def batches(self, rows: Sequence[Rows]) -> Generator[Tensors, None, None]:
        try:
            for batch, (images, bad) in zip(rows, self._blocks(rows), strict=True):
                self.bad.update({int(batch[place]): reason for place, reason in bad.items()})
                yield _tensors(self.samples.whole(images, batch), self.pin)
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
                    yield read_block(*self._job(batch))
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

    def _job(self, batch: Rows) -> tuple[Any, ...]:
        s = self.samples
        return s.store, [s.job(row) for row in batch], s.image_inputs, s.preprocessing

    def _submit(self, pool: ProcessPoolExecutor, batch: Rows) -> Future[Block]:
        return pool.submit(read_block, *self._job(batch))

    def _one_by_one(self, batch: Rows) -> Block:
        with _new_pool(1) as pool:
            blocks: list[Block] = []
            for place in range(len(batch)):
                try:
                    blocks.append(self._submit(pool, batch[place : place + 1]).result())
                except BrokenProcessPool:
                    raise ResourceError(
                        f"image {self.samples.ids[batch[place]]}: the process that decodes it was killed again, most likely "
                        "for memory (or the calling script has no `if __name__ == '__main__':`); free memory, or set "
                        "train.num_workers: 0 in the run's config.yaml; the last checkpoint is kept; "
                        "run the same command to resume"
                    ) from None
        bad = {place: reasons[0] for place, (_, reasons) in enumerate(blocks) if reasons}
        return concatenate(images for images, _ in blocks), bad


def _tensors(batch: Mapping[str, NDArray[Any]], pin: bool) -> Tensors:
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    return {name: values.pin_memory() for name, values in tensors.items()} if pin else tensors


def _new_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=begin_worker)
