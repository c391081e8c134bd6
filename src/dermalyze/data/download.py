"""Download of one file over HTTP: resumable and checked against the published checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.core.atomic import resource_errors, sync_folder, write_text
from dermalyze.core.progress import progress
from dermalyze.data.catalog import RemoteFile
from dermalyze.errors import DataError, ResourceError

_TRIES = 5  # in a row without a byte more
_PAUSE_S = 2.0
_TIMEOUT_S = 30
_BLOCK = 2**18
_MIB = 2**20


def download(file: RemoteFile, path: Path, *, pause_s: float = _PAUSE_S) -> None:
    """Download one file and resume an earlier attempt (HTTP Range, RFC 9110 section 14).

    What has come so far is in a hidden file beside `path`, with the host's ETag: a part of another version is thrown away.

    Raises:
        DataError: the whole file differs from its published checksum or size; it is removed.
        ResourceError: no network, the host refuses, the connection is cut again and again, no space.
    """
    part = path.with_name(f".{path.name}.part")
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _continue(file, part)
            if part.stat().st_size < total:
                raise ConnectionError("the response ended early")
            break
        except (OSError, http.client.HTTPException) as error:
            failure = explain_failure(error, file)
            came = (part.stat().st_size if part.exists() else 0) - before
            tries = 0 if came > 0 else tries + 1
            if failure.final or tries >= _TRIES:
                kept = f"; {shown_size(before + came)} are kept; run the same command to resume" if before + came else ""
                raise ResourceError(f"{file.name}: {failure.message}{kept}") from error
            time.sleep(pause_s * tries)
    wrong = file.md5 is not None and (got := md5_file(part)) != file.md5
    if wrong or (file.size is not None and part.stat().st_size != file.size):
        found = f"MD5 {got}, published is {file.md5}" if wrong else f"{part.stat().st_size} bytes, listed are {file.size}"
        _drop(part)
        raise DataError(
            f"{file.name}: the download is damaged or another file ({found}) and was removed; run the same command again"
        )
    with resource_errors(path.name):
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
        _tag(part).unlink(missing_ok=True)
        sync_folder(path.parent)


def _continue(file: RemoteFile, part: Path) -> int:
    """Read on from the host until it ends or breaks off; the size of the whole file."""
    have = part.stat().st_size if part.exists() else 0
    tag = _tag(part).read_text(encoding="utf-8") if _tag(part).exists() else ""
    if have and not tag:  # nothing tells whether the host still has the same file
        have = 0
    headers = {"Range": f"bytes={have}-", "If-Range": tag} if have else {}
    try:
        with open_url(file.url, headers) as answer:
            if answer.status == 206:
                start, total = _range(answer.headers.get("Content-Range", ""))
                if start != have:
                    raise http.client.HTTPException("the host sent another range than requested")
            else:
                _drop(part)  # before its new tag is written: bytes of two versions never meet
                length = answer.headers.get("Content-Length", "")
                have, total = 0, int(length) if length.isdecimal() else -1
            with resource_errors(part.parent.name):
                part.parent.mkdir(parents=True, exist_ok=True)
            _require_space(part, total - have)
            with resource_errors(file.name):
                etag = answer.headers.get("ETag", "W/")
                write_text(_tag(part), answer.headers.get("Last-Modified", "") if etag.startswith("W/") else etag)
            came = _append(answer, part, have, total, file.name)
            return total if total >= 0 else have + came
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to read
            if error.headers.get("Content-Range", "") == f"bytes */{have}" and error.headers.get("ETag", tag) == tag:
                return have
            _drop(part)
            raise http.client.HTTPException("the host has a shorter file than before") from error
        raise


def _append(answer: Any, part: Path, have: int, total: int, name: str) -> int:
    """Write what comes behind the first `have` bytes; how much came."""
    came = 0
    with progress(f"fetch {name}", max(1, total // _MIB), unit="MiB") as advance:
        advance(have // _MIB)
        with resource_errors(name):
            stream = part.open("r+b" if have else "wb")
        with stream:
            stream.seek(have)
            stream.truncate()
            while block := answer.read(_BLOCK):
                with resource_errors(name):
                    stream.write(block)
                advance((have + came + len(block)) // _MIB - (have + came) // _MIB)
                came += len(block)
    return came


@contextmanager
def open_url(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The answer to a GET request; only https, and http of this machine.

    Raises:
        DataError: another kind of address, also after a redirect.
        OSError: no answer, or one of refusal (urllib.error.HTTPError).
    """
    _require_safe(url)
    request = urllib.request.Request(url, headers={"User-Agent": "dermalyze", "Accept-Encoding": "identity", **headers})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        _require_safe(answer.geturl())  # after redirects
        yield answer


def _require_safe(url: str) -> None:
    address = urllib.parse.urlsplit(url)
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname == "127.0.0.1"):
        raise DataError(
            f"{address.hostname or address.scheme}: offers the file without https; download the set by hand from its page"
        )


@dataclass(frozen=True)
class Failure:
    """A failed request in words, and whether a retry is useless."""

    message: str
    final: bool


def explain_failure(error: Exception, file: RemoteFile) -> Failure:
    """Put an error of urllib into words."""
    host = urllib.parse.urlsplit(file.url).hostname
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (401, 403):
            return Failure(f"{host} answers {error.code}: a login or an agreement is required", True)
        gone = "the address may have changed" if error.code in (404, 410) else "try later"
        return Failure(f"{host} answers {error.code} for {file.name}; {gone}", error.code < 500 and error.code != 429)
    if isinstance(error, urllib.error.URLError) and not isinstance(error.reason, TimeoutError):
        if isinstance(error.reason, ssl.SSLError):
            return Failure(f"{host}: no secure connection ({error.reason.reason}); check the clock and the proxy", True)
        return Failure(
            f"no network: {host} cannot be reached ({_why(error.reason)}); connect and run the same command again", True
        )
    if isinstance(error, TimeoutError | urllib.error.URLError):
        return Failure(f"{host} did not respond within {_TIMEOUT_S} s", False)
    return Failure(f"the connection to {host} was cut again and again", False)


def _why(reason: object) -> str:
    return (isinstance(reason, OSError) and reason.strerror) or str(reason) or type(reason).__name__


def _range(text: str) -> tuple[int, int]:
    """First byte and whole size of `Content-Range: bytes 5-9/10`."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdecimal() or not total.isdecimal():
        raise http.client.HTTPException("the host sent a range without its position")
    return int(start), int(total)


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise ResourceError(
            f"{part.name[1:-5]}: needs {shown_size(needed)} more, {shown_size(free)} are free; "
            "free space or name a folder on another disk"
        )


def md5_file(path: Path) -> str:
    """MD5 of a file, to compare with what hosts publish (no safeguard against a forger)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def shown_size(count: int) -> str:
    """Bytes for a person.

    >>> shown_size(2_771_732_744), shown_size(1200)
    ('2.8 GB', '1 kB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}" if unit == "GB" else f"{count / factor:.0f} {unit}"
    return f"{count} bytes"
