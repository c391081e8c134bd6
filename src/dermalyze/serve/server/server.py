"""The function behind `dermalyze serve`: models, an address and limits become a process that answers until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dermalyze.config.serve import ServeSpec
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import MissingExtraError, ResourceError, UsageError

KEYS_VARIABLE = "DERMALYZE_API_KEYS"
HERE = ("localhost", "127.0.0.1", "[::1]")
EVERYWHERE = ("0.0.0.0", "::")
WANTED = {
    "host": "must be an address such as 127.0.0.1",
    "hosts": "must be names such as clinic.example, or *",
    "origins": "must be origins such as https://clinic.example",
}
MIN_KEY_CHARS = 16
CONNECTIONS = 256  # at once; more are closed unanswered
HEAD_BYTES = 32 * 1024


def serve_http(
    models: Sequence[str | Path],
    spec: ServeSpec | None = None,
    *,
    keys_file: str | Path | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Answer HTTP requests until SIGTERM or SIGINT; requests under way are finished first.

    Args:
        models: runs or artifacts; the first answers where a request names none.
        spec: address and limits; default: `ServeSpec()`.
        keys_file: API keys, one per line; else those of the variable `DERMALYZE_API_KEYS`, by commas; without any, none is
            required.
        started: told of the address once it listens; default: it is said on standard error.

    Raises:
        MissingExtraError: the server's libraries are not installed.
        UsageError: no model, an unusable key.
        ModelError: an artifact is refused.
        ResourceError: the address is taken.
    """
    limits = spec or ServeSpec()
    try:
        import fastapi  # noqa: F401 - said before a model is opened
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("serve", "serve") from error
    from dermalyze.serve.server.app import build_app
    from dermalyze.serve.server.logs import Forward, Log
    from dermalyze.serve.server.protocol import PatientProtocol
    from dermalyze.serve.server.service import Service

    keys = read_keys(keys_file, os.environ)
    listening = _listen(limits.host, limits.port)
    address = _address(listening)
    service = Service(models, limits)
    log = Log()
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], False
    logging.getLogger("uvicorn.error").handlers = [Forward(log)]
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    app = build_app(service, hosts=names(limits), origins=limits.origins, keys=keys, log=log)

    class Patient(PatientProtocol):
        slow_s, most = limits.slow_s, CONNECTIONS
        turned_away = staticmethod(app.turned_away)

    config = uvicorn.Config(
        app, http=Patient, ws="none", lifespan="off", loop="asyncio", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_keep_alive=5, timeout_graceful_shutdown=limits.drain_s,
        h11_max_incomplete_event_size=HEAD_BYTES, limit_concurrency=None, backlog=CONNECTIONS,
    )  # fmt: skip
    server = uvicorn.Server(config)
    # uvicorn raises the signal again once it has stopped; to be told to stop is no failure
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        say(f"serving {', '.join(service.predictors)} at {address} ({DISCLAIMER})")
        if started is not None:
            started(address)
        asyncio.run(server.serve(sockets=[listening]))
    finally:
        service.close()
        log.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def spec_of(values: Mapping[str, Any]) -> ServeSpec:
    """A `ServeSpec` of options; None stands for a default.

    Raises:
        UsageError: a value is out of range.
    """
    try:
        return ServeSpec(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        what = WANTED.get(name, first["msg"].replace("Input should", "must"))
        raise UsageError(f"{name}: {what}, found {first['input']!r}") from None


def names(spec: ServeSpec) -> tuple[str, ...]:
    """Names under which the server may be called."""
    own = () if spec.host in EVERYWHERE else (f"[{spec.host}]" if ":" in spec.host and spec.host[0] != "[" else spec.host,)
    return (*HERE, *own, *spec.hosts)


def read_keys(path: str | Path | None, environment: Mapping[str, str]) -> list[str]:
    """API keys of a file, else of the environment.

    Raises:
        UsageError: the file cannot be read, holds none or others may read it; or a key is too short.

    >>> read_keys(None, {"DERMALYZE_API_KEYS": "0123456789abcdef, fedcba9876543210"})
    ['0123456789abcdef', 'fedcba9876543210']
    """
    if path is None:
        found = [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",")]
    else:
        try:
            if stat.S_IMODE(Path(path).stat().st_mode) & 0o077 and os.name == "posix":
                raise UsageError(f"{Path(path).name}: others may read these keys; run: chmod 600 {Path(path).name}")
            found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{Path(path).name}: the keys cannot be read ({type(error).__name__})") from None
        if not any(found):
            raise UsageError(f"{Path(path).name}: holds no key; write one per line")
    keys = [key for key in found if key]
    if any(len(key) < MIN_KEY_CHARS or not key.isascii() or " " in key for key in keys):
        raise UsageError(
            f"an API key is shorter than {MIN_KEY_CHARS} characters, or not plain text; make one with: openssl rand -hex 16"
        )
    return keys


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; taken before a model is opened, so that a taken address is said at once."""
    bare = host.strip("[]")
    try:
        kind = socket.AF_INET6 if ":" in bare else socket.AF_INET
        # with its protocol named, or asyncio leaves Nagle's algorithm on and an answer waits 40 ms for its second half
        listening = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((bare, port))
        listening.set_inheritable(False)
        return listening
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no such address"
        raise ResourceError(f"cannot listen on {host} port {port}: {why}; choose another with --host and --port") from None


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
