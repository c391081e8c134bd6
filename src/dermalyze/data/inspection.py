"""Work on every image of a set in worker processes; above all, decoding each once for its hashes, its size and its faults."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from typing import TypeVar

from dermalyze.core.atomic import sha256_bytes
from dermalyze.core.machine import available_cores
from dermalyze.core.progress import progress
from dermalyze.data.store import ImageStore, ReadError
from dermalyze.errors import MissingExtraError, ResourceError, UsageError
from dermalyze.imaging.decode import PREPARE_FORMATS, decode, pixel_sha256
from dermalyze.imaging.image import Decoded, ImageError, PersonalDataError

CHUNK = 64
T = TypeVar("T")
J = TypeVar("J")
Read = Callable[..., Decoded]
_Job = tuple[Callable[[ImageStore, J], T], ImageStore, tuple[J, ...]]
_ALONE = 256  # fewer images are decoded sooner than a process starts


@dataclass(frozen=True)
class Inspected:
    """Result of decoding one image.

    Attributes:
        reason: why it is unusable, without name or path; None for a good one. The rest is of good ones only.
        sha256: of the file's bytes.
        pixel_sha256: of the shape and the RGB bytes.
        width, height: upright, px.
        mode, format, notes, personal: as in `dermalyze.imaging.image.Decoded`.
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


def inspect_images(
    store: ImageStore, paths: Sequence[str], *, workers: int | None = None, read: Read = decode
) -> list[Inspected]:
    """Decode images, in the order of `paths`, with a progress bar.

    Args:
        store: reads the bytes.
        paths: manifest paths.
        workers: processes; None: one per core; 0: in this process.
        read: the bytes of an image to pixels, as `Modality.read`.

    Raises:
        DataError: a path outside the data folder, an unsafe archive, or a DICOM file that can name a patient.
        UsageError: a DICOM file, and pydicom is not installed.
        ResourceError: a worker was killed, or memory ran out.
    """
    return map_images(partial(_inspect, read=read), store, paths, workers=workers, title="prepare")


def map_images(
    work: Callable[[ImageStore, J], T], store: ImageStore, images: Sequence[J], *, workers: int | None = None, title: str
) -> list[T]:
    """`work(store, image)` for each image, in their order, with a progress bar.

    Args:
        work: a function of a module (processes import it); what it returns goes between processes.
        store: reads the bytes.
        images: manifest paths, or whatever `work` takes; they go between processes.
        workers: processes; None: one per core; 0: in this process.
        title: of the progress bar.

    Raises:
        ResourceError: a worker was killed, or memory ran out.
        Whatever `work` raises.
    """
    jobs = [(work, store, tuple(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
    found: list[T] = []
    with progress(title, len(images), cost=True) as advance:
        try:
            for block in _blocks(jobs, len(images), workers):
                found.extend(block)
                advance(len(block))
        except (BrokenProcessPool, MemoryError) as error:
            raise ResourceError(
                f"decoding stopped after {len(found)} of {len(images)} images: a process ended, most likely for memory "
                "(or the calling script has no `if __name__ == '__main__':`); decode in this process with --set data.workers=0"
            ) from error
    return found


def _blocks(jobs: Sequence[_Job[J, T]], images: int, workers: int | None) -> Iterator[list[T]]:
    count = min(available_cores() if workers is None else workers, len(jobs))
    if count == 0 or (workers is None and (images < _ALONE or count == 1)):
        yield from map(_work_block, jobs)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=begin_worker) as pool:
        yield from pool.map(_work_block, jobs)


def begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it does: a pool's process would else wait for ever for its next job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_block(job: _Job[J, T]) -> list[T]:
    work, store, images = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; what matters is in the notes
        return [work(store, image) for image in images]


def _inspect(store: ImageStore, path: str, *, read: Read) -> Inspected:
    try:
        data = store.read(path)
        image = read(data, formats=PREPARE_FORMATS)
    except ReadError as error:
        return Inspected(error.reason)
    except ImageError as error:
        return Inspected(str(error))
    except PersonalDataError as error:
        raise PersonalDataError(f"{path}: {error}") from None
    except MissingExtraError as error:
        raise UsageError(str(error)) from None  # whole on its way out of a worker process
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
