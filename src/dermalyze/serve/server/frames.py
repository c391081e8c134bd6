"""The way of an image between the server and a process that decodes: a JSON head and bytes, each with its length before it."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

_LENGTHS = struct.Struct("<IQ")
MAX_HEAD_BYTES = 1 << 16


class Gone(Exception):
    """The other side has ended, or takes too long."""


def send(channel: socket.socket, head: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Send one frame."""
    words = json.dumps(head).encode()
    channel.sendall(_LENGTHS.pack(len(words), len(data)) + words)
    if data:
        channel.sendall(data)


def receive(channel: socket.socket, *, most: int, until: float | None = None) -> tuple[dict[str, Any], bytearray]:
    """Receive one frame.

    Args:
        channel: a connected stream.
        most: bytes of data that are taken.
        until: `time.monotonic()` after which it is given up.

    Raises:
        Gone: the other side has ended, is too slow or sends nonsense.
    """
    length, size = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, until))
    if length > MAX_HEAD_BYTES or size > most:
        raise Gone("a frame that is too large")
    head = json.loads(bytes(_exactly(channel, length, until)))
    return dict(head), _exactly(channel, size, until)


def _exactly(channel: socket.socket, size: int, until: float | None) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise Gone("too late")
            channel.settimeout(left)
        try:
            got = channel.recv_into(view[at:])
        except TimeoutError:
            raise Gone("too late") from None
        except OSError as error:
            raise Gone("the channel broke") from error
        if got == 0:
            raise Gone("the other side has ended")
        at += got
    return data
