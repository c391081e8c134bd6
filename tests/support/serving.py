"""A real server process, and images and requests to try it with. As a program: a server whose model is slowed or broken."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

BOUNDARY = "b0undary"


def picture(seed: int = 0, width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    """A smooth image of skin colors with a dark middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    near = np.exp(-(((x / width - 0.5) / 0.2) ** 2 + ((y / height - 0.5) / 0.25) ** 2))
    skin = np.array([205, 150, 130]) + rng.normal(0, 6, 3)
    pixels = skin - near[..., None] * np.array([90, 95, 90]) + rng.normal(0, 4, (height, width, 1))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def multipart(*parts: tuple[str, bytes], boundary: str = BOUNDARY) -> bytes:
    """A body of (Content-Disposition without `form-data; `, content)."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode("utf-8", "surrogateescape") + content + b"\r\n"
        for head, content in parts
    )
    return body + f"--{boundary}--\r\n".encode()


FILE = 'name="file"; filename="x.jpg"'


@contextlib.contextmanager
def server(*models: Path, program: str = "", options: tuple[str, ...] = (), **environment: str) -> Iterator[Server]:
    """A running `dermalyze serve` on a free port; `program` is run before, to plant something."""
    code = f"{program}\nfrom dermalyze.cli import main\nmain()"
    words = [sys.executable, "-c", code, "serve", *map(str, models), "--port", "0", "--threads", "1", "--json", *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed below; not a pipe, which would fill unread
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        errors.seek(0)
        raise AssertionError(errors.read())
    address = json.loads(line)["address"]
    made = Server(process, address, int(address.rpartition(":")[2]), errors)
    try:
        made.wait()
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        errors.close()


class Server:
    """One process."""

    def __init__(self, process: subprocess.Popen[str], address: str, port: int, errors: TextIO) -> None:
        self.process, self.address, self.port, self.errors = process, address, port, errors

    def log(self) -> str:
        """What it wrote, once it has ended."""
        self.process.wait(timeout=60)
        self.errors.seek(0)
        return self.errors.read()

    def wait(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError):
                if self.raw(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
                    return
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def connect(self, timeout: float = 60) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data: bytes, timeout: float = 60) -> bytes:
        """Send bytes, read until the other side closes."""
        with self.connect(timeout) as channel:
            with contextlib.suppress(ConnectionError):
                channel.sendall(data)
            return read_all(channel)

    def children(self) -> list[int]:
        """Processes that any of its threads started."""
        found: list[int] = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has just ended
                found += [int(pid) for pid in (task / "children").read_text().split()]
        return found


def read_all(channel: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := channel.recv(65536):
            got += chunk
    return got


def post(body: bytes, path: str = "/v1/predict", *headers: str, length: int | None = None) -> bytes:
    """A whole request as bytes, after which the connection is closed."""
    head = [
        f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}", *headers,
    ]  # fmt: skip
    if not any(line.lower().startswith("transfer-encoding") for line in headers):
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def answer_of(response: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of a response."""
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, json.loads(body) if body else None
