"""HTTP/1.1 with clocks that uvicorn lacks, for a request's headers and an answer that nobody takes; and a door that shuts."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dermalyze.serve.server.refusals import Refusal
from dermalyze.serve.server.uploads import BEYOND_BYTES, BEYOND_S

TICK_S = 0.5
ANSWERS = (b"/v1/predict", b"/v1/explain")


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, with patience that ends. The clock of a body is the application's (`uploads.chunks`)."""

    slow_s: ClassVar[float] = 8.0
    """For the headers of a request, and for what was sent to be taken."""
    most: ClassVar[int] = 256
    """Connections at once."""

    @staticmethod
    def turned_away(path: str) -> bytes | None:
        """The whole response to a request for an answer at this path, where there is no room for it; None: there is."""
        return None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection; one too many is closed unanswered."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        self._headers_since: float | None = time.monotonic()
        self._unsent, self._unsent_since = 0, 0.0
        self._clock: asyncio.TimerHandle | None = self.loop.call_later(TICK_S, self._tick)
        self._away = 0  # bytes that came since it was turned away, and one

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request. Under overload most are refused, which must cost next to nothing: no parsing, no task."""
        if self._away:
            self._away += len(data)
            if self._away > BEYOND_BYTES:
                self.transport.close()
            return
        path = next((path for path in ANSWERS if data.startswith(b"POST %b " % path)), None)
        if path is not None and self._untouched() and (response := self.turned_away(path.decode())) is not None:
            self.transport.write(response)
            self.transport.write_eof()
            self._away, self._headers_since = 1, None
            self.loop.call_later(BEYOND_S, self.transport.close)  # what else comes is taken for a moment, see `uploads.drain`
            return
        if self._headers_since is None and self._between():
            self._headers_since = time.monotonic()
        super().data_received(data)
        if not self._between():
            self._headers_since = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the form of every other refusal."""
        hint = getattr(sys.exc_info()[1], "error_status_hint", 400)
        code = "long_headers" if hint == 431 else "bad_request"
        self._refuse(Refusal(code, "the request's head is too long" if hint == 431 else "the request is not understood"))

    def _untouched(self) -> bool:
        """Whether nothing of a request has come yet."""
        return self._between() and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    def _between(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _tick(self) -> None:
        now = time.monotonic()
        if self._headers_since is not None and now - self._headers_since > self.slow_s and not self.transport.is_closing():
            self._refuse(Refusal("too_slow", "the request's head came too slowly"))
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self.slow_s:
            self.transport.abort()
            return
        self._clock = self.loop.call_later(TICK_S, self._tick)

    def _refuse(self, refusal: Refusal) -> None:
        self._headers_since = None
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(refusal.body)).encode()),
            (b"connection", b"close"),
        ]
        events: list[Any] = [
            h11.Response(status_code=refusal.status, headers=headers), h11.Data(data=refusal.body), h11.EndOfMessage(),
        ]  # fmt: skip
        try:
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer is under way already
            pass
        self.transport.close()
