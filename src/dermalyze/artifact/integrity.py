"""The files of an artifact, read with suspicion: plain files of bounded size, no links, no pickles."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import unicodedata
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from dermalyze.artifact.graph import REMEDY
from dermalyze.errors import ModelError, ResourceError, one_line

MAX_HEADER_BYTES = 100_000_000  # of safetensors
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16,
    "U8": 8, "BOOL": 8,
}  # fmt: skip
ALLOWED = "\n\t\u200c\u200d"
"""Control and format characters of ordinary text; the last two join or part letters of some scripts."""


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


def strict_json(data: bytes, name: str) -> Any:
    """JSON as RFC 8259 has it, and as two programs read it alike: UTF-8, each key once, finite numbers, text that can be shown.

    Args:
        data: the file.
        name: of the file, for the message.

    Raises:
        ModelError: anything else; one line.

    >>> strict_json(b'{"a": [1, 2.5]}', "artifact.json")
    {'a': [1, 2.5]}
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [key for key, _ in pairs]
            raise ValueError(f"key {next(key for key in names if names.count(key) > 1)!r} twice")
        return found

    def number(word: str) -> float:
        raise ValueError(f"{word} is no number of JSON")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text} is too large a number")
        return value

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=number, parse_float=finite)
        _check_text(value)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        raise ModelError(f"{name}: not valid JSON ({one_line(str(error))[:200]}); {REMEDY}") from error
    return value


def _check_text(value: Any) -> None:
    """Refuse half of a character, and what moves the cursor of a terminal or hides text from a reader."""
    if isinstance(value, str):
        for letter in value:
            if unicodedata.category(letter) in ("Cc", "Cs", "Cf") and letter not in ALLOWED:
                raise ValueError(f"text with the character U+{ord(letter):04X}")
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_text(key)
            _check_text(one)
    elif isinstance(value, list):
        for one in value:
            _check_text(one)


def check_safetensors(stream: BufferedReader, name: str) -> None:
    """Eight bytes of header length, a JSON object, then exactly the tensors that it describes: what is never true of a pickle.

    Raises:
        ModelError: another file, or tensors that overlap, leave gaps, reach beyond the file or do not fit their shapes.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    try:
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ModelError("no header")
        header = strict_json(stream.read(length), name)
        if not isinstance(header, dict):
            raise ModelError("no object")
    except ModelError:
        raise ModelError(f"{name}: not a safetensors file (pickles are never opened); {REMEDY}") from None
    if problem := _misplaced(header, size - 8 - length):
        raise ModelError(f"{name}: {problem}; {REMEDY}")


def _misplaced(header: dict[str, Any], size: int) -> str:
    """What is wrong with the places of the tensors in `size` bytes; "" where all fit."""
    places = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        whole = isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}
        shape, offsets = (entry["shape"], entry["data_offsets"]) if whole else (None, None)
        if (
            not whole
            or entry["dtype"] not in BITS
            or not isinstance(shape, list)
            or not all(type(edge) is int and edge >= 0 for edge in shape)
            or not (isinstance(offsets, list) and len(offsets) == 2 and all(type(place) is int for place in offsets))
        ):
            return f"tensor {name[:60]!r} has no dtype, shape and offsets of safetensors"
        if 8 * (offsets[1] - offsets[0]) != math.prod(shape) * BITS[entry["dtype"]]:
            return f"tensor {name[:60]!r} takes other bytes than its shape and dtype do"
        places.append(tuple(offsets))
    end = 0
    for begin, after in sorted(places):
        if begin != end:
            return "its tensors overlap or leave a gap"
        end = after
    return "" if end == size else f"its tensors take {end} bytes, and {size} are there"
