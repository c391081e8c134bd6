"""Images decoded once into a memory-mapped uint8 file, shared by every run that sees the same pixels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.atomic import replacing, sha256_bytes, sha256_file, write_json
from dermalyze.core.errors import DataError, ResourceError
from dermalyze.core.machine import available_cores
from dermalyze.core.progress import progress, say
from dermalyze.data.images import PREPARE_FORMATS, Preprocessing, decode, to_size
from dermalyze.data.store import ImageStore

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
    return images * preprocessing.height * preprocessing.width * 3


def cache_key(hashes: Sequence[str], preprocessing: Preprocessing) -> str:
    """The name of a cache: a hash of the images' hashes, in order, and of all that is done to their pixels."""
    resize = {key: value for key, value in preprocessing.as_dict().items() if key not in ("mean", "std")}
    identity = {"version": 1, "resize": resize, "images": sha256_bytes("\n".join(hashes).encode())}
    return sha256_bytes(json.dumps(identity, sort_keys=True).encode())[:32]


def read_image(store: ImageStore, path: str, sha256: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """One image as the network sees it, before normalisation: (height, width, 3) uint8.

    Raises:
        DataError: the file is gone, damaged, or not the one that was prepared.
    """
    data = store.read(path)
    if sha256_bytes(data) != sha256:
        raise DataError(f"image {sha256[:12]}: its bytes changed since prepare; run prepare again in a new run folder")
    return to_size(decode(data, formats=PREPARE_FORMATS, least=preprocessing.least).image, preprocessing)


def open_cache(
    store: ImageStore,
    paths: Sequence[str],
    hashes: Sequence[str],
    preprocessing: Preprocessing,
    *,
    workers: int | None,
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """The images (N, height, width, 3) uint8 as a read-only memory map; made on first use, checked on every later one.

    The file's name is the hash of the images' hashes, the size and the preprocessing, so it can be deleted at any time
    and never goes stale.

    Args:
        store: reads an image's bytes.
        paths: N manifest paths.
        hashes: N SHA-256 of the images' bytes, same order.
        preprocessing: how pixels become the network's size.
        workers: decoding threads (Pillow decodes and resizes outside the interpreter's lock); None: one a core.
        check: called often while the cache is made; what it raises ends the work and leaves nothing behind.

    Raises:
        ResourceError: not enough disk.
        DataError: an image is gone or changed.
    """
    key = cache_key(hashes, preprocessing)
    target, record = cache_folder() / f"{key}.u8", cache_folder() / f"{key}.json"
    shape = (len(paths), preprocessing.height, preprocessing.width, 3)
    if not _is_whole(target, record, shape):
        _build(target, record, shape, store, paths, hashes, preprocessing, workers, check)
    return np.memmap(target, np.uint8, "r", shape=shape)


def _is_whole(target: Path, record: Path, shape: tuple[int, ...]) -> bool:
    if not (target.exists() and record.exists()):
        return False
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        whole = bool(known["shape"] == list(shape) and known["sha256"] == sha256_file(target))
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        say("the image cache is damaged; making it again")
    return whole


def _build(
    target: Path,
    record: Path,
    shape: tuple[int, ...],
    store: ImageStore,
    paths: Sequence[str],
    hashes: Sequence[str],
    preprocessing: Preprocessing,
    workers: int | None,
    check: Callable[[], None],
) -> None:
    needed = int(np.prod(shape))
    with replacing(target) as temporary:
        free = shutil.disk_usage(target.parent).free
        say(f"image cache: {shape[0]} images, {needed / 2**20:.0f} MiB in {target.parent} (safe to delete)")
        if needed > free:
            raise ResourceError(
                f"the image cache needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free; "
                "free space, set DERMALYZE_CACHE to another disk, or train with --set train.cache=stream"
            )
        images = np.memmap(temporary, np.uint8, "w+", shape=shape)
        done = 0
        with progress("decode", shape[0], cost=True) as advance:
            for block in _decoded(store, paths, hashes, preprocessing, workers):
                images[done : done + len(block)] = block
                done += len(block)
                advance(len(block))
                check()
        images.flush()
        del images
    write_json(record, {"shape": list(shape), "sha256": sha256_file(target)})


def _decoded(
    store: ImageStore, paths: Sequence[str], hashes: Sequence[str], preprocessing: Preprocessing, workers: int | None
) -> Iterator[NDArray[np.uint8]]:
    """Blocks of images in order."""
    jobs = [(list(paths[i : i + CHUNK]), list(hashes[i : i + CHUNK])) for i in range(0, len(paths), CHUNK)]

    def block(job: tuple[list[str], list[str]]) -> NDArray[np.uint8]:
        return np.stack([read_image(store, path, sha, preprocessing) for path, sha in zip(*job, strict=True)])

    with ThreadPoolExecutor(workers or available_cores()) as pool:
        for start in range(0, len(jobs), AHEAD):  # in rounds, so that decoded blocks never pile up in memory
            yield from pool.map(block, jobs[start : start + AHEAD])
