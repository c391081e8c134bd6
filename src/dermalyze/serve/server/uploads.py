"""A request's body, read with limits and kept in memory: size, speed, parts. Nothing is written to a disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dermalyze.config.columns import OPTIONAL_IMAGES
from dermalyze.serve.server.refusals import Refusal

MIN_BYTES_PER_S = 16 * 1024  # a body may take `slow_s` and a second for each so many of its bytes
BEYOND_BYTES = 64 * 1024  # are read at most of what is refused, so that the other side reads the answer
BEYOND_S = 1.0
MAX_FIELD_BYTES = 64 * 1024
MORE_PARTS = 16  # fields beside the images
MAX_PART_HEADER_BYTES = 4096

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class Hung(Exception):
    """The other side has gone; nobody is there to be answered."""


@dataclass
class Form:
    """What a multipart body holds.

    Attributes:
        files: content of each part named `file`, in order.
        images: content of the parts that are named like an optional image, in order; empty for a file without one.
        fields: the others' text, by name.
    """

    files: list[bytearray] = field(default_factory=list)
    images: dict[str, list[bytearray]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


class Budget:
    """Bytes of request bodies that may be in memory at once, of all requests together."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self, size: int) -> None:
        """Raises: Refusal: there is no room."""
        if self.taken + size > self.most:
            raise Refusal("busy", "the requests under way fill the memory that is set aside for them", {"Retry-After": "1"})
        self.taken += size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.taken -= size


async def chunks(receive: Receive, *, limit: int, slow_s: float) -> AsyncIterator[bytes]:
    """The body as it comes.

    Args:
        receive: ASGI's.
        limit: bytes.
        slow_s: a body may take so long, and a second more for each `MIN_BYTES_PER_S` bytes that have come.

    Raises:
        Refusal: more than `limit` bytes, or too slow.
        Hung: the other side has gone.
    """
    got, started = 0, time.monotonic()
    while True:
        left = started + slow_s + got / MIN_BYTES_PER_S - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                message = await receive()
        except TimeoutError:
            raise Refusal("too_slow", f"the body came too slowly ({got} bytes so far)") from None
        if message["type"] == "http.disconnect":
            raise Hung
        chunk = message.get("body", b"")
        got += len(chunk)
        if got > limit:
            raise Refusal("too_large", f"the body is larger than {limit} bytes")
        yield chunk
        if not message.get("more_body", False):
            return


async def drain(receive: Receive, *, limit: int = BEYOND_BYTES, within_s: float = BEYOND_S) -> None:
    """Take what is still on its way, up to a limit, so that the other side gets to read why it was refused."""
    got = 0
    try:
        async with asyncio.timeout(within_s):
            while got < limit:
                message = await receive()
                got += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def boundary_of(content_type: str | None) -> bytes:
    """The boundary of a multipart body.

    Raises:
        Refusal: another type, or no boundary.

    >>> boundary_of("multipart/form-data; boundary=x")
    b'x'
    """
    kind, options = parse_options_header(content_type or "")
    if kind != b"multipart/form-data":
        raise Refusal("not_multipart", "the body is not multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise Refusal("bad_multipart", "Content-Type names no boundary of 1 to 70 characters")
    return bytes(boundary)


async def read_form(body: AsyncIterator[bytes], boundary: bytes, *, files: int) -> Form:
    """Parse a multipart body as it comes.

    Args:
        body: its chunks.
        boundary: see `boundary_of`.
        files: how many are taken.

    Raises:
        Refusal: it is damaged, has too many parts, a field twice, or a part without a name.
    """
    parts = _Parts(files)
    try:
        parser = MultipartParser(boundary, parts.callbacks(), max_header_count=8, max_header_size=MAX_PART_HEADER_BYTES)
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise Refusal("bad_multipart", "the body is not what its boundary says: it is damaged or cut off") from None
    if not parts.ended:
        raise Refusal("bad_multipart", "the body ends before its last boundary")
    return parts.form()


class _Parts:
    """The parts of a body, filled by the parser's calls."""

    def __init__(self, files: int) -> None:
        self.most, self.ended = files, False
        self.name, self.value = bytearray(), bytearray()
        self.seen: dict[str, bytearray] = {}
        self.files: list[bytearray] = []
        self.images: dict[str, list[bytearray]] = {}
        self.headers: dict[bytes, bytes] = {}
        self.data = bytearray()
        self.limit: int | None = None
        self.count = 0

    def callbacks(self) -> Any:
        """Of python_multipart."""
        return {
            "on_part_begin": self._begin, "on_header_field": self._name, "on_header_value": self._value,
            "on_header_end": self._header, "on_headers_finished": self._headed, "on_part_data": self._data,
            "on_end": self._end,
        }  # fmt: skip

    def form(self) -> Form:
        """Everything, checked.

        Raises:
            Refusal: a field is not text.
        """
        try:
            return Form(self.files, self.images, {name: data.decode() for name, data in self.seen.items()})
        except UnicodeDecodeError:
            raise Refusal("bad_field", "a field is not text in UTF-8") from None

    def _begin(self) -> None:
        self.count += 1
        most = self.most * (1 + len(OPTIONAL_IMAGES)) + MORE_PARTS
        if self.count > most:
            raise Refusal("too_many_parts", f"more than {most} parts")
        self.headers, self.data = {}, bytearray()

    def _name(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def _header(self) -> None:
        self.headers[bytes(self.name).lower()] = bytes(self.value)
        self.name, self.value = bytearray(), bytearray()

    def _headed(self) -> None:
        kind, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if kind != b"form-data" or not name:
            raise Refusal("bad_multipart", "a part without a name (Content-Disposition: form-data; name=…)")
        label = name.decode("utf-8", "replace")
        if label == "file" or label in OPTIONAL_IMAGES:
            several = self.files if label == "file" else self.images.setdefault(label, [])
            if len(several) == self.most:
                raise Refusal("too_many_files", f"more than {self.most} images")
            self.limit = None
            several.append(self.data)
            return
        if label in self.seen:
            raise Refusal("bad_field", "a field is given twice")
        self.limit = MAX_FIELD_BYTES
        self.seen[label] = self.data

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.data += memoryview(data)[start:end]
        if self.limit is not None and len(self.data) > self.limit:
            raise Refusal("bad_field", f"a field of more than {self.limit} bytes")

    def _end(self) -> None:
        self.ended = True
