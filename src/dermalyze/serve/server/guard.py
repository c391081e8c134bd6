"""What stands before every route: whose request it is, how it is framed, and what every response carries. Plain ASGI."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from dermalyze.serve.server.logs import Log
from dermalyze.serve.server.measured import Measured
from dermalyze.serve.server.refusals import Refusal
from dermalyze.serve.server.uploads import Hung, Receive, drain

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Any], Awaitable[None]]

REFUSE = "dermalyze.refuse"
"""Key of the scope under which a route finds how to answer with a refusal."""
MAX_TARGET_BYTES = 8192
OPEN = ("/v2/health/live", "/v2/health/ready")
"""Asked by machines that know neither a name of the server nor a key; they tell nothing."""
PAGE = ("/", "/static", "/openapi.json")
"""Without a key: the page that asks for it."""
CSP = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", "media-src 'self' blob:",
    "connect-src 'self'", "manifest-src 'self'", "font-src 'self'", "base-uri 'none'", "form-action 'none'",
    "frame-ancestors 'none'",
])  # fmt: skip
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}


class Guard:
    """Wraps the application.

    Args:
        app: the routes.
        hosts: names under which the server may be called, without ports; `*`: every one.
        origins: other origins that may post.
        keys: of which one must be shown; none: nobody needs one.
        measured, log: told of every request.
        room: raises a refusal where no further request for an answer is taken.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Sequence[str],
        origins: Sequence[str],
        keys: Sequence[str],
        measured: Measured,
        log: Log,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        self.app, self.measured, self.log, self.room = app, measured, log, room
        self.hosts, self.origins = frozenset(name.lower() for name in hosts), frozenset(origins)
        self.keys = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = _State(scope, send)
        scope[REFUSE] = state.refuse
        started, number = time.monotonic(), secrets.token_hex(6)
        try:
            try:
                self.check(scope)
                await self.app(scope, state.watch(receive), state.send)
            except Refusal as refusal:
                await state.refuse(refusal, receive)
        except Hung:
            state.status = 499  # nobody is there to read it
        except Exception as error:
            self.log.fault(number, error)
            if not state.begun:
                await state.refuse(Refusal("internal", f"the server failed on this request (number {number})"), receive)
        finally:
            seconds = time.monotonic() - started
            route = self.measured.request(scope["path"], scope["method"], state.status, seconds)
            self.log.request(number, scope["method"], route, state.status, seconds, state.got)

    def turned_away(self, path: str) -> bytes | None:
        """The response to a POST to that path where there is no room for it, of which nothing need be read; None: there is."""
        try:
            self.room()
        except Refusal as refusal:
            route = self.measured.request(path, "POST", refusal.status, 0.0)
            self.log.request(secrets.token_hex(6), "POST", route, refusal.status, 0.0, 0)
            length = str(len(refusal.body))
            own = {
                "content-type": "application/json",
                "content-length": length,
                "connection": "close",
                "cache-control": "no-store",
            }
            lines = [f"{name}: {value}" for name, value in {**own, **refusal.headers, **HEADERS}.items()]
            head = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"
            return "\r\n".join([head, *lines, "", ""]).encode("latin-1") + refusal.body
        return None

    def check(self, scope: Scope) -> None:
        """Whether the request may pass.

        Raises:
            Refusal: it may not.
        """
        names = [name for name, _ in scope["headers"]]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise Refusal("long_url", f"the address is longer than {MAX_TARGET_BYTES} bytes")
        if b"transfer-encoding" in names and b"content-length" in names:
            raise Refusal("ambiguous_length", "Content-Length and Transfer-Encoding together")
        if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Refusal("encoded_body", "the body has a Content-Encoding")
        path = scope["path"]
        if path in OPEN:
            return
        host = headers.get("host", "")
        if "*" not in self.hosts and _name(host) not in self.hosts:
            raise Refusal("bad_host", "the Host header is not a name of this server")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._same_origin(headers, host)
        if self.keys and path not in PAGE and not path.startswith("/static/") and not self._has_key(headers):
            raise Refusal("key_needed", "no key, or not one of this server's", {"WWW-Authenticate": "Bearer"})

    def _same_origin(self, headers: Mapping[str, str], host: str) -> None:
        origin = headers.get("origin")
        if origin is None:
            if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
                raise Refusal("other_origin", "a page of another origin posts here")
        elif origin not in self.origins and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise Refusal("other_origin", "a page of another origin posts here")

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        shown = given.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(shown.encode("latin-1")).digest()
        return sum(hmac.compare_digest(digest, key) for key in self.keys) > 0  # all are compared, whichever it is


def _name(host: str) -> str:
    """The name of a Host header, without its port, in lower case.

    >>> _name("LocalHost:8000"), _name("[::1]:80"), _name("[::1]")
    ('localhost', '[::1]', '[::1]')
    """
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


class _State:
    """What has become of one request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send = scope, send
        self.status, self.got, self.begun, self.whole = 500, 0, False, False

    def watch(self, receive: Receive) -> Receive:
        """Count the body's bytes, and see its end."""

        async def watched() -> Mapping[str, Any]:
            message = await receive()
            self.got += len(message.get("body", b""))
            self.whole = self.whole or not message.get("more_body", False)
            return message

        return watched

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send with the headers that every response carries."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            own = {name.lower() for name, _ in message.get("headers", [])}
            more = {**HEADERS, **({} if self.scope["path"].startswith("/static/") else {"cache-control": "no-store"})}
            extra = [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in own]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self._send(message)

    async def refuse(self, refusal: Refusal, receive: Receive) -> None:
        """Answer with the words of a refusal; the connection is closed if there may be more of the request."""
        names = {name for name, _ in self.scope["headers"]}
        more = not self.whole and (b"transfer-encoding" in names or b"content-length" in names)
        body = refusal.body
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        headers |= {"connection": "close"} if more else {}
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body, "more_body": more})
        if more:  # the answer is on its way; what else comes is taken for a moment, so that the reset does not overtake it
            await drain(receive)
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
