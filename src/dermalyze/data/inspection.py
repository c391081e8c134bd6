"""Every image decoded once, in worker processes, for its hashes, its size and its faults."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

from dermalyze.core.atomic import sha256_bytes
from dermalyze.core.errors import ResourceError
from dermalyze.core.machine import available_cores
from dermalyze.core.progress import progress
from dermalyze.data.images import PREPARE_FORMATS, ImageError, decode, pixel_sha256
from dermalyze.data.store import ImageStore, ReadError

CHUNK = 64
_ALONE = 256  # fewer images are decoded sooner than a process starts


@dataclass(frozen=True)
class Inspected:
    """What decoding one image told.

    Attributes:
        reason: why it is unusable, without name or path; None for a good one. The rest is of good ones only.
        sha256: of the file's bytes.
        pixel_sha256: of the shape and the RGB bytes.
        width, height: upright, px.
        mode, format, notes, personal: as in `dermalyze.data.images.Decoded`.
    """

    reason: str | None
    sha256: str | None = None
    pixel_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    format: str | None = None
    notes: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()


def inspect_images(store: ImageStore, paths: Sequence[str], *, workers: int | None = None) -> list[Inspected]:
    """Decode images, in the order of `paths`, with a progress bar.

    Args:
        store: reads the bytes.
        paths: manifest paths.
        workers: processes; None: one a core; 0: in this process.

    Raises:
        DataError: a path outside the data folder, or an unsafe archive.
        ResourceError: a worker was killed, or memory ran out.
    """
    jobs = [(store, tuple(paths[i : i + CHUNK])) for i in range(0, len(paths), CHUNK)]
    found: list[Inspected] = []
    with progress("prepare", len(paths), cost=True) as advance:
        try:
            for block in _blocks(jobs, len(paths), workers):
                found.extend(block)
                advance(len(block))
        except (BrokenProcessPool, MemoryError) as error:
            raise ResourceError(
                f"decoding stopped after {len(found)} of {len(paths)} images: a process ended, most likely for memory "
                "(or the calling script has no `if __name__ == '__main__':`); use fewer with --set data.workers=1"
            ) from error
    return found


def _blocks(jobs: Sequence[tuple[ImageStore, tuple[str, ...]]], images: int, workers: int | None) -> Iterator[list[Inspected]]:
    count = min(available_cores() if workers is None else workers, len(jobs))
    if count == 0 or (workers is None and (images < _ALONE or count == 1)):
        yield from map(_inspect_block, jobs)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        yield from pool.map(_inspect_block, jobs)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it does: a pool's process would else wait for ever for its next job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _inspect_block(job: tuple[ImageStore, tuple[str, ...]]) -> list[Inspected]:
    store, paths = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; what matters is in the notes
        return [_inspect(store, path) for path in paths]


def _inspect(store: ImageStore, path: str) -> Inspected:
    try:
        data = store.read(path)
        image = decode(data, formats=PREPARE_FORMATS)
    except ReadError as error:
        return Inspected(error.reason)
    except ImageError as error:
        return Inspected(str(error))
    height, width = image.pixels.shape[:2]
    return Inspected(
        None,
        sha256_bytes(data),
        pixel_sha256(image.pixels),
        width,
        height,
        image.mode,
        image.format,
        image.notes,
        image.personal,
    )
