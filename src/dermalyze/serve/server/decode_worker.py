"""A process that decodes images for the server, within limits of its own, and may die of one: `python -m … FD MEMORY_MIB`."""

from __future__ import annotations

import contextlib
import gc
import resource
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dermalyze.core.machine import step_back
from dermalyze.errors import DataError, one_line
from dermalyze.imaging.decode import Preprocessing, sniff
from dermalyze.imaging.image import ImageError
from dermalyze.serve.predictor.preparing import formats, prepare
from dermalyze.serve.server import frames

MAX_FILE_BYTES = 1 << 30  # the server's own limit of a body is below it


def confine(memory_mib: int) -> None:
    """Bound the memory of this process above what it has now; it writes no file and leaves no core."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM):  # of the whole group: the server ends this process when it is done
        signal.signal(number, signal.SIG_IGN)


def answer(head: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    """What is sent back for one image: its pixels, or the code and the words of a refusal."""
    try:
        if sniff(data, formats()) not in formats():
            raise ImageError(f"not of the kinds that are read; accepted are {', '.join(formats())}")
    except ImageError as error:
        return {"code": "undecodable" if not data else "not_an_image", "message": str(error)}, b""
    try:
        made = prepare(data, Preprocessing.from_dict(head["preprocessing"]), max_pixels=head["max_pixels"])
    except DataError as error:
        return {"code": "undecodable", "message": one_line(str(error))}, b""
    except MemoryError:
        return {"code": "undecodable", "message": "decoding it needs more memory than an image may take"}, b""
    known = {"shape": made.pixels.shape, "width": made.width, "height": made.height, "notes": made.notes}
    return {**known, "looks": asdict(made.looks)}, made.pixels.tobytes()


def main() -> None:
    """Serve one channel until it is closed."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    step_back()
    confine(int(sys.argv[2]))
    frames.send(channel, {"ready": True})
    with contextlib.suppress(frames.Gone, BrokenPipeError, ConnectionResetError):
        while True:
            head, data = frames.receive(channel, most=MAX_FILE_BYTES)
            image = bytes(data)
            del data
            frames.send(channel, *answer(head, image))
            del image
            gc.collect(0)


if __name__ == "__main__":
    main()
