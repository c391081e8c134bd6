"""A client of the server, of the standard library alone."""

from __future__ import annotations

import http.client
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from dermalyze.errors import DataError, ResourceError, UsageError

Images = str | Path | bytes | Sequence[str | Path | bytes]


class Client:
    """Asks a server.

    Args:
        address: as `http://127.0.0.1:8000`.
        key: an API key, where it asks for one.
        timeout_s: for one request.

    Raises:
        UsageError: no such address, a key that no header can carry, or no time.

    Example:
        client = Client("http://127.0.0.1:8000")
        for result in client.predict(["a.jpg", "b.jpg"])["results"]:
            print(result.get("predicted_class") or result.get("positive"), result.get("verdict"))
    """

    def __init__(self, address: str, *, key: str | None = None, timeout_s: float = 60.0) -> None:
        try:
            parts = urlsplit(address)
            self._place = f"{parts.hostname}{'' if parts.port is None else f':{parts.port}'}"  # without the password before it
        except ValueError:
            raise UsageError("no address of a server; give one as http://127.0.0.1:8000") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not _plain(parts.hostname + parts.path):
            raise UsageError(f"'{address}' is no address of a server; give one as http://127.0.0.1:8000")
        if key is not None and not (key.isprintable() and key.isascii()):
            raise UsageError("key: holds a line end or another character that no header carries; strip it")
        if not 0 < timeout_s < math.inf:
            raise UsageError(f"timeout_s is {timeout_s}, must be a number of seconds above 0")
        self._parts, self._key, self._timeout_s = parts, key, timeout_s

    def predict(
        self,
        images: Images,
        *,
        image_2: Images | None = None,
        explain: bool = False,
        **fields: Any,
    ) -> dict[str, Any]:
        """Answers for images.

        Args:
            images: a path, a file's bytes, or several of them. Paths stay here: files go without their names.
            image_2: the second image of each sample, of a model of two; empty bytes for one without.
            explain: whether heat maps are made.
            **fields: `metadata` (a mapping, or a list of them), `top_k`, `model`, `recipe`, `of_class` (the class or label
                that a heat map is of), `scores="true"` (class and probabilities of refused images too).

        Returns:
            the reply of `/v1/predict`: in `results` a mapping per image, with `error`, or of a model of classes with
            `predicted_class` and `confidence`, of a model of several labels with `positive` and `thresholds`; with
            `probabilities`, `operating_points` and `flagged`, the operating points that are reached. Of a refused image
            these are None.

        Raises:
            DataError: an image can't be read, or the server refuses the request; then the message is its own.
            ResourceError: no answer.
        """
        files = {"file": _contents(images), **({} if image_2 is None else {"image_2": _contents(image_2)})}
        given = {("class" if name == "of_class" else name): value for name, value in fields.items() if value is not None}
        if "metadata" in given and not isinstance(given["metadata"], str):
            given["metadata"] = json.dumps(given["metadata"])
        boundary = secrets.token_hex(16)
        body = form(files, {**given, **({"explain": "true"} if explain else {})}, boundary)
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return dict(json.loads(self._ask("POST", "/v1/predict", body, kind)))

    def models(self) -> list[dict[str, Any]]:
        """The server's models."""
        return list(json.loads(self._ask("GET", "/v1/models"))["models"])

    def card(self, model: str) -> str:
        """A model's card, Markdown."""
        return self._ask("GET", f"/v1/models/{quote(model, safe='')}/card").decode()

    def ready(self) -> bool:
        """Whether it can answer for images."""
        try:
            return bool(json.loads(self._ask("GET", "/v2/health/ready"))["ready"])
        except (DataError, ResourceError):
            return False

    def _ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)
        given = {**(headers or {}), **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body, given)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ResourceError(f"{self._place}: no answer ({type(error).__name__}); is the server running?") from error
        finally:
            connection.close()
        if response.status != 200:
            raise DataError(f"the server refuses it: {_words(content, response.status)}")
        return content


def _contents(images: Images) -> list[bytes]:
    """The bytes of each file."""
    several = [images] if isinstance(images, str | Path | bytes) else list(images)
    try:
        return [image if isinstance(image, bytes) else Path(image).read_bytes() for image in several]
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "neither a path nor bytes"
        raise DataError(f"an image cannot be read: {why}; give the path of a file, or its bytes") from error


def form(files: Mapping[str, Sequence[bytes]], fields: Mapping[str, Any], boundary: str) -> bytes:
    """A multipart body.

    >>> form({}, {"top_k": 3}, "x").decode().split("\\r\\n")
    ['--x', 'Content-Disposition: form-data; name="top_k"', '', '3', '--x--', '']
    """
    parts = [(f'name="{name}"', str(value).encode()) for name, value in fields.items()]
    parts += [
        (f'name="{name}"; filename="image"\r\nContent-Type: application/octet-stream', content)
        for name, contents in files.items()
        for content in contents
    ]
    body = bytearray()
    for words, content in parts:
        body += f"--{boundary}\r\nContent-Disposition: form-data; {words}\r\n\r\n".encode() + content + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode())


def _words(content: bytes, status: int) -> str:
    try:
        error = json.loads(content)["error"]
        return f"{error['message']} ({error['code']}); {error['remedy']}"
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


def _plain(text: str) -> bool:
    """Whether it is ASCII without blanks and control characters, as addresses are."""
    return all("!" <= letter <= "~" for letter in text)
