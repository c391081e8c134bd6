"""The files of an artifact, read with suspicion: plain files of bounded size, no links, no pickles."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from dermalyze.artifact.graph import REMEDY
from dermalyze.errors import ModelError, ResourceError

MAX_HEADER_BYTES = 100_000_000  # of safetensors


def regular_files(folder: Path) -> set[str]:
    """Names in a folder of regular files only."""
    try:
        with os.scandir(folder) as entries:
            present = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder.name}: no such artifact folder; give a run or the folder that export made") from None
    except OSError as error:
        raise ResourceError(f"{folder.name}: cannot be read: {error.strerror}") from error
    if odd := sorted(name for name, regular in present.items() if not regular):
        raise ModelError(f"{folder.name}: {odd} are links or folders; an artifact holds plain files only; {REMEDY}")
    return set(present)


@contextlib.contextmanager
def open_regular(path: Path, limit: int | None) -> Iterator[BufferedReader]:
    """Open a regular file of at most `limit` bytes, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, opened without following links
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or (limit is not None and status.st_size > limit):
                raise ModelError(f"{path.name}: {status.st_size} bytes; a plain file of at most {limit} is read; {REMEDY}")
            yield stream
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error


def check_safetensors(stream: BufferedReader, name: str) -> None:
    """Eight bytes of header length, then a JSON object: what is never true of a pickle or a zip of pickles."""
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    try:
        header = json.loads(stream.read(length)) if 2 <= length <= MAX_HEADER_BYTES else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{name}: not a safetensors file (pickles are never opened); {REMEDY}")
