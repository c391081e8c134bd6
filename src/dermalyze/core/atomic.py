"""Durable writes: temporary name, flush, rename, flush of the folder. A reader sees the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dermalyze.errors import ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the largest file allowed


@contextlib.contextmanager
def resource_errors(what: str) -> Iterator[None]:
    """Turn the operating system's errors about disk, memory and permission into `ResourceError`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            remedy = "free space on that disk and run the same command again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "give write permission or choose another folder"
        elif error.errno in (
            errno.EIO,
            errno.EEXIST,
            errno.ENOENT,
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.ENAMETOOLONG,
        ):
            remedy = "check the disk and the path"
        else:
            raise
        raise ResourceError(f"cannot write {what}: {error.strerror}; {remedy}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` durably, on failure it is removed.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("hello")
    >>> target.read_text()
    'hello'
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with resource_errors(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))  # the user's umask holds, unlike with mkstemp
    try:
        with resource_errors(path.name):
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what has to be said
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut (no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, pattern: str = ".*.tmp") -> None:
    """Remove what writers that were killed left in `folder`; only for who alone writes such files."""
    with resource_errors(folder.name):
        for stub in folder.glob(pattern):
            if stub.is_file():
                stub.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process alone, until it is closed; False where another holds it (POSIX; elsewhere True)."""
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def size_text(count: float) -> str:
    """Bytes as people say them.

    >>> size_text(307_200), size_text(45 * 2**20)
    ('0.3 MiB', '45 MiB')
    """
    return f"{count / 2**20:.{1 if count < 10 * 2**20 else 0}f} MiB"


def require_space(folder: Path, needed: int, what: str, remedy: str) -> None:
    """Fail early if the disk cannot hold the result.

    Raises:
        ResourceError: fewer than `needed` bytes are free where `folder` is.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(f"{what} need {size_text(needed)}, {size_text(free)} are free; {remedy}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` durably and all at once."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` with Unix line ends to `path` durably and all at once."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order; NaN and infinity are refused (ValueError)."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes.

    >>> json_bytes({"a": 1})
    b'{\\n  "a": 1\\n}\\n'
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def publish(files: Mapping[str, bytes | Path], target: Path, *, check: Callable[[Path], object]) -> None:
    """Write a folder durably and all at once, beside its place first.

    Args:
        files: name to content, or to a file to copy.
        target: the folder to make or replace.
        check: raises where the new folder is not good; then the old one stays.

    Raises:
        ResourceError: no space, no permission.
    """
    with resource_errors(target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".tmp", dir=target.parent))
        try:
            for name, content in files.items():
                with (staging / name).open("xb") as stream:
                    if isinstance(content, Path):
                        with content.open("rb") as source:
                            shutil.copyfileobj(source, stream)
                    else:
                        stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            staging.chmod(0o755)
            sync_folder(staging)
            check(staging)
            if target.exists():
                before = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".tmp", dir=target.parent))
                target.rename(before / target.name)
                staging.rename(target)
                shutil.rmtree(before, ignore_errors=True)
            else:
                staging.rename(target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes as 64 hexadecimal digits.

    >>> sha256_bytes(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()
