"""The server's log: one JSON object a line on standard error, without a file name, a pixel, an address or a header."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO


class Log:
    """Writes events.

    Args:
        stream: default: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self._lock = threading.Lock()

    def event(self, event: str, /, **values: Any) -> None:
        """Write one line."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
        line = json.dumps({"time": now, "event": event, **values}, allow_nan=False)
        with self._lock:
            print(line, file=self.stream if self.stream is not None else sys.stderr, flush=True)

    def request(self, number: str, method: str, route: str, status: int, seconds: float, received: int) -> None:
        """A request was answered."""
        shown = method if method.isalpha() and len(method) <= 8 else "other"
        values = {"method": shown, "route": route, "status": status, "ms": round(1000 * seconds, 1), "bytes": received}
        self.event("request", id=number, **values)

    def fault(self, number: str, error: BaseException) -> None:
        """A failure that nobody foresaw: its kind and where it happened; its message may hold what it happened to."""
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        self.event("fault", id=number, kind=type(error).__name__, where=places)


class Forward(logging.Handler):
    """Writes what uvicorn says as an event."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One line; of an exception its kind alone."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        more = {"kind": kind} if kind else {}
        self.log.event("server", level=record.levelname.lower(), message=record.getMessage().strip()[:200], **more)
