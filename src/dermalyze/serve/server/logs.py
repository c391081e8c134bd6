"""The server's log: one JSON object a line on standard error, without a file name, a pixel, an address or a header."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

TOGETHER_S = 0.05
WAITING = 10_000
"""Lines that wait to be written at most; whoever reads them too slowly loses lines, and the server continues."""


class Log:
    """Writes events.

    Args:
        stream: where to, at once; default: standard error, by a thread of its own, since a pipe that nobody reads would block.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream, self.dropped = stream, 0
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        if stream is None:
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            self._thread.start()

    def event(self, event: str, /, **values: Any) -> None:
        """Write one line."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
        lost, self.dropped = self.dropped, 0
        line = json.dumps({"time": now, "event": event, **values, **({"lines_lost": lost} if lost else {})}, allow_nan=False)
        if self.stream is not None:
            print(line, file=self.stream, flush=True)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped = lost + 1

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._lines.put_nowait(None)
            self._thread.join(timeout=2)

    def _write(self) -> None:
        """What has come together is written at once: a thread that wakes for every line would slow the server under load."""
        line: str | None = ""
        while line is not None:
            lines = []
            with contextlib.suppress(queue.Empty):
                line = self._lines.get()
                while line is not None:
                    lines.append(line + "\n")
                    line = self._lines.get_nowait()
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write("".join(lines))
                sys.stderr.flush()
            if line is not None:
                time.sleep(TOGETHER_S)

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
