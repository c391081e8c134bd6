"""Zip archives, read in place and never unpacked; the directory is checked before a member is opened."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dermalyze.errors import DataError, ResourceError

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 256 * 2**20
MAX_RATIO = 200
RATIO_FROM_BYTES = 2**20  # a small file of one color shrinks further and harms nobody
_MAX_DIRECTORY_BYTES = 512 * 2**20
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar", ".jar")
_REMEDY = "make the archive again from a trusted copy, or unpack it and give the folder"


class BadMemberError(Exception):
    """A file cannot be read; the message is a reason without a name."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        members: largest number of members.
        member_bytes: largest member, unpacked.
        ratio: largest unpacked / packed of the whole archive, and of each member of 1 MiB or more.
    """

    members: int = MAX_MEMBERS
    member_bytes: int = MAX_MEMBER_BYTES
    ratio: float = MAX_RATIO


def open_archive(path: Path, limits: Limits | None = None) -> zipfile.ZipFile:
    """Check a zip's directory and open it for reading.

    Raises:
        DataError: not a zip, damaged, encrypted, or with members that leave the folder (zip slip), are links or archives,
            overlap, are too many or too large, or shrink so far that they must be a bomb.
        ResourceError: unreadable.
    """
    limits = limits or Limits()
    try:
        size = path.stat().st_size
        _check_directory(path, size, limits)
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError, struct.error, ValueError) as error:
        raise DataError(f"{path.name}: not a readable zip ({error}); fetch it again") from error
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error
    try:
        _check_members(path.name, archive.infolist(), size, limits)
    except DataError:
        archive.close()
        raise
    return archive


def _check_directory(path: Path, size: int, limits: Limits) -> None:
    """Check the number of members before zipfile reads the list into memory."""
    with path.open("rb") as stream:
        stream.seek(max(0, size - 65_557))  # the end record and the longest comment
        tail = stream.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + 22:
            return  # zipfile says what is wrong with it
        members, length = struct.unpack("<H L", tail[at + 10 : at + 16])
        if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64
            stream.seek(struct.unpack("<Q", tail[at - 12 : at - 4])[0])
            record = stream.read(56)
            if len(record) == 56 and record[:4] == b"PK\x06\x06":
                members, length = struct.unpack("<Q Q", record[32:48])
    if members > limits.members or length > _MAX_DIRECTORY_BYTES:
        raise DataError(f"{path.name}: {members} members; at most {limits.members} are allowed; {_REMEDY}")


def _check_members(name: str, members: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    if len(members) > limits.members:
        raise DataError(f"{name}: {len(members)} members; at most {limits.members} are allowed; {_REMEDY}")
    for member in members:
        if (problem := _problem(member, limits)) is not None:
            raise DataError(f"{name}: member '{member.orig_filename}' {problem}; {_REMEDY}")
    packed, unpacked = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    if packed > size:
        raise DataError(f"{name}: its members overlap (archive bomb); {_REMEDY}")
    if unpacked > RATIO_FROM_BYTES and unpacked > limits.ratio * max(1, packed):
        raise DataError(
            f"{name}: unpacks to {unpacked / max(1, packed):.0f} times its size; at most {limits.ratio:g}; {_REMEDY}"
        )


def _problem(member: zipfile.ZipInfo, limits: Limits) -> str | None:
    name = member.orig_filename
    if (problem := name_problem(name.removesuffix("/"))) is not None:
        return problem
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed by a method other than deflate"
    if not member.is_dir() and name.lower().endswith(ARCHIVES):
        return "is an archive within the archive"
    if member.file_size > limits.member_bytes:
        return f"unpacks to {member.file_size} bytes; at most {limits.member_bytes}"
    if member.file_size >= RATIO_FROM_BYTES and member.file_size > limits.ratio * max(1, member.compress_size):
        return f"unpacks to {member.file_size / max(1, member.compress_size):.0f} times its size; at most {limits.ratio:g}"
    return None


def name_problem(name: str) -> str | None:
    """What is wrong with a relative path with forward slashes, or None.

    >>> name_problem("a/b.jpg"), name_problem("../b.jpg"), name_problem("/etc/passwd")
    (None, 'leaves its folder', 'leaves its folder')
    """
    if not name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "has an empty name or control characters in it"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    parts = name.split("/")
    if name[0] == "/" or ".." in parts or (len(name) > 1 and name[1] == ":"):
        return "leaves its folder"
    if "\\" in name:
        return "has a backslash in it; folders are divided by /"
    if any(len(part.encode()) > 255 for part in parts):
        return "has a name of more than 255 bytes"
    return None


def read_member(path: Path, member: str) -> bytes:
    """The bytes of one member; the archive stays open for the next one in this process.

    Raises:
        BadMemberError: no such archive or member, or a damaged one.
        DataError: an archive that `open_archive` refuses.
        OSError: the disk.
    """
    try:
        status = path.stat()
        archive = _opened(path, status.st_size, status.st_mtime_ns, os.getpid())
        return archive.read(member)
    except (FileNotFoundError, KeyError):
        raise BadMemberError("file is missing") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
        raise BadMemberError("damaged in its archive") from error


@lru_cache(maxsize=16)
def _opened(path: Path, size: int, mtime_ns: int, process: int) -> zipfile.ZipFile:
    """A process keeps its own handles (a forked one must not share a file position), and drops them when the file changes."""
    return open_archive(path)
