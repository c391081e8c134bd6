"""Images decoded once into a memory-mapped file, shared by every run that sees the same pixels."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.atomic import (
    require_space,
    resource_errors,
    sha256_bytes,
    sha256_file,
    size_text,
    sweep,
    sync_folder,
    try_lock,
    write_json,
)
from dermalyze.core.machine import available_cores
from dermalyze.core.progress import progress, say
from dermalyze.data.store import ImageStore, ReadError
from dermalyze.errors import DataError
from dermalyze.imaging.decode import PREPARE_FORMATS, Preprocessing, to_size
from dermalyze.imaging.image import ImageError
from dermalyze.imaging.modalities import modality

CHUNK, AHEAD = 64, 16  # images a block, blocks a round


def cache_folder() -> Path:
    """`$DERMALYZE_CACHE`, else `dermalyze` in the user's cache folder."""
    chosen = os.environ.get("DERMALYZE_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dermalyze"


def cache_bytes(images: int, preprocessing: Preprocessing) -> int:
    """Size of a cache on disk, in bytes."""
    return images * int(np.prod(preprocessing.image.shape)) * np.dtype(preprocessing.dtype).itemsize


def cache_key(hashes: Sequence[str], preprocessing: Preprocessing) -> str:
    """The name of a cache: a hash of the images' hashes, in order, and of all that is done to their pixels."""
    resize = {key: value for key, value in preprocessing.as_dict().items() if key not in ("mean", "std")}
    identity = {"version": 2, "resize": resize, "images": sha256_bytes("\n".join(hashes).encode())}
    return sha256_bytes(json.dumps(identity, sort_keys=True).encode())[:32]


class UnusableImageError(DataError):
    """An image that became unusable after `prepare`; `reason` contains no name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"image {name}: {reason}; put the file back as it was, or run prepare again in a new run folder")
        self.reason = reason


def read_image(
    store: ImageStore, path: str, sha256: str, preprocessing: Preprocessing, *, name: str | None = None
) -> NDArray[Any]:
    """One image as the network sees it, before normalization: the shape and dtype of `preprocessing.image`.

    Args:
        store, path: where its bytes are.
        sha256: of the bytes that were prepared.
        preprocessing: how pixels become the network's size.
        name: for messages, its image_id; by default the start of its hash. A path may name a patient.

    Raises:
        UnusableImageError: the file is gone, damaged, or not the one that was prepared.
    """
    name = name or sha256[:12]
    try:
        data = store.read(path)
        if sha256_bytes(data) != sha256:
            raise UnusableImageError(name, "its bytes changed since prepare")
        decoded = modality(preprocessing.modality).read(data, formats=PREPARE_FORMATS, least=preprocessing.least)
        return to_size(decoded.image, preprocessing)
    except ReadError as error:
        raise UnusableImageError(name, error.reason) from None
    except ImageError as error:
        raise UnusableImageError(name, str(error)) from None


def open_cache(
    store: ImageStore,
    paths: Sequence[str],
    hashes: Sequence[str],
    preprocessing: Preprocessing,
    *,
    workers: int | None,
    check: Callable[[], None] = lambda: None,
    names: Sequence[str] | None = None,
) -> NDArray[Any]:
    """The images (N, height, width, channels) as a read-only memory map; made on first use, checked on every later one.

    The file's name is the hash of the images' hashes, the size and the preprocessing, so it can be deleted at any time
    and never goes stale. One process makes it, others wait for it; a file that a killed process left is written again.

    Args:
        store: reads an image's bytes.
        paths: N manifest paths.
        hashes: N SHA-256 of the images' bytes, same order.
        preprocessing: how pixels become the network's size.
        workers: decoding threads (Pillow decodes and resizes outside the interpreter's lock); None: one per core.
        check: called often while the cache is made; what it raises ends the work and leaves nothing behind.
        names: N image_ids, for messages; by default the start of each hash.

    Raises:
        ResourceError: not enough disk.
        DataError: an image is gone or changed.
    """
    key = cache_key(hashes, preprocessing)
    target, record = cache_folder() / f"{key}.bin", cache_folder() / f"{key}.json"
    shape, dtype = (len(paths), *preprocessing.image.shape), np.dtype(preprocessing.dtype)
    waiting = False
    while not _is_whole(target, record, shape):
        with _claimed(target) as part:
            if part is not None:
                _build(
                    *part,
                    target,
                    record,
                    shape,
                    dtype,
                    _decoded(store, paths, hashes, names or [sha[:12] for sha in hashes], preprocessing, workers),
                    check,
                )
            elif not waiting:
                say("image cache: another process is writing it; waiting")
                waiting = True
        if part is None:
            check()
            time.sleep(0.2)
    return np.memmap(target, dtype, "r", shape=shape)


def _is_whole(target: Path, record: Path, shape: tuple[int, ...]) -> bool:
    if not (target.exists() and record.exists()):
        return False
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return bool(known["shape"] == list(shape) and known["sha256"] == sha256_file(target))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _claimed(target: Path) -> Iterator[tuple[Path, BinaryIO] | None]:
    """An empty file beside `target` to write it to and then rename, or None while another process is at it."""
    part = target.with_name(f".{target.name}.part")
    with resource_errors(target.name):
        part.parent.mkdir(parents=True, exist_ok=True)
        stream = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    with resource_errors(target.name), stream:  # closing flushes, which can fail as well
        # who held the lock before may have renamed the file after it was opened here
        if not (try_lock(stream.fileno()) and part.exists() and os.path.samestat(os.fstat(stream.fileno()), part.stat())):
            yield None
            return
        stream.truncate(0)
        try:
            yield part, stream
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _build(
    part: Path,
    stream: BinaryIO,
    target: Path,
    record: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    blocks: Iterator[NDArray[Any]],
    check: Callable[[], None],
) -> None:
    """Write the blocks to `part`, then the record, then rename: the cache is whole at once."""
    if target.exists():
        say("the image cache is damaged; writing it again")
    sweep(record.parent, f".{record.name}.*.tmp")
    needed = int(np.prod(shape)) * dtype.itemsize
    say(f"image cache: {shape[0]} images, {size_text(needed)} in {target.parent} (safe to delete)")
    remedy = "free space, set DERMALYZE_CACHE to another disk, or train with --set train.cache=stream"
    require_space(target.parent, needed, f"{shape[0]} images in the image cache", remedy)
    digest = hashlib.sha256()
    with progress("decode", shape[0], cost=True) as advance, resource_errors(target.name):
        for block in blocks:
            stream.write(block.data)  # not through a memory map: on a full disk that ends the process without a word
            digest.update(block.data)
            advance(len(block))
            check()
        stream.flush()
        os.fsync(stream.fileno())
        write_json(record, {"shape": list(shape), "sha256": digest.hexdigest()})
        part.replace(target)
        sync_folder(target.parent)


def _decoded(
    store: ImageStore,
    paths: Sequence[str],
    hashes: Sequence[str],
    names: Sequence[str],
    preprocessing: Preprocessing,
    workers: int | None,
) -> Iterator[NDArray[Any]]:
    """Blocks of images in order."""
    rows = list(zip(paths, hashes, names, strict=True))
    jobs = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]

    def block(job: list[tuple[str, str, str]]) -> NDArray[Any]:
        return np.stack([read_image(store, path, sha, preprocessing, name=name) for path, sha, name in job])

    with ThreadPoolExecutor(workers or available_cores()) as pool:
        for start in range(0, len(jobs), AHEAD):  # in rounds, so that decoded blocks never pile up in memory
            yield from pool.map(block, jobs[start : start + AHEAD])
