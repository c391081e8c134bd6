"""Whatever a person names becomes a stream of images: files, folders, archives, CSVs, standard input.

Nothing is unpacked to disk and no address is fetched. One bad file becomes one item with an error; the rest continue.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dermalyze.config.columns import OPTIONAL_IMAGES, image_columns
from dermalyze.core.tables import read_table
from dermalyze.errors import DataError

MAX_FILE_BYTES = 64 * 2**20
MAX_ARCHIVE_MEMBERS = 1_000_000
MAX_DIRECTORY_BYTES = 256 * 2**20  # of an archive's list of members; a million of them take about 100 MiB
MAX_RATIO = 200  # bytes out a byte in; a JPEG or PNG hardly shrinks
MAX_LINE = 8192
STDIN = "stdin"
IMAGE_SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
        ".jxl", ".jp2", ".dcm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
    )
)  # fmt: skip
"""Of files in folders and archives that are answered for; some only with the reason why they are not read."""


@dataclass(frozen=True)
class Item:
    """One thing to answer for: bytes, or the reason why there are none.

    Attributes:
        name: what the user calls it: a file, `ARCHIVE!MEMBER`, the path in a CSV's row, or `stdin`; no output but the command
            line's shows it.
        data: the file's content.
        error: why it is not an image, one line without a path.
        image_id: the user's own key, from a CSV.
        columns: the further columns of its row there, by name.
        images: reads the sample's optional images, by name, where the row names some.
    """

    name: str
    data: bytes | None = None
    error: str | None = None
    image_id: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Callable[[], Item]] = field(default_factory=dict)


def read_inputs(arguments: Iterable[str | Path], *, stdin: BinaryIO | None = None) -> Iterator[Item]:
    """Items of every argument, in order; names within a folder are sorted.

    Args:
        arguments: files; folders (searched to the bottom, images told by content); zip archives; CSVs (`*.csv`) with a
            `path` column, relative to the CSV, and perhaps `image_2_path`, `image_id` and metadata; `-` for standard input: an
            image, a zip archive, or a list of such arguments, one per line.
        stdin: standard input; default: the process's own.

    >>> [item.error for item in read_inputs(["no/such/file.jpg"])]
    ['no such file']
    """
    for argument in arguments:
        if str(argument) == "-":
            yield from _from_stdin(stdin or (sys.stdin.buffer if sys.stdin is not None else io.BytesIO()))  # None: it is closed
        else:
            yield from _from_argument(str(argument))


def read_file(path: str | Path) -> Item:
    """One image file, named by a person.

    >>> read_file("no/such/file.jpg").error
    'no such file'
    """
    return _item(str(path), lambda: _read_file(Path(path)))


def has_image_signature(head: bytes) -> bool:
    """Whether the first 16 bytes are those of an image format, readable here or not.

    >>> has_image_signature(b"RIFF\\x00\\x00\\x00\\x00WEBPVP8 "), has_image_signature(b"%PDF-1.7 ...")
    (True, False)
    """
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"MM\x00*", b"GIF87a", b"GIF89a", b"\0\0\0\x0cJXL ")
    boxes = tuple(b"ftyp" + brand for brand in (b"avif", b"heic", b"heix", b"mif1"))
    return head.startswith(starts) or head[:4] + head[8:12] == b"RIFFWEBP" or head[4:12] in boxes


def _from_argument(argument: str) -> Iterator[Item]:
    try:
        if not argument:  # pathlib takes it for the working folder
            raise DataError("an empty name")
        path = Path(argument)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            yield from _from_folder(path)
        elif path.suffix.lower() == ".csv":
            yield from _from_csv(path)
        else:
            with _opened(path) as stream:
                if stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
                    yield from _from_zip(stream, argument)
                    return
            yield _item(argument, lambda: _read_file(path))
    except (OSError, ValueError, DataError) as error:
        yield Item(argument, error=_reason(error))


def _from_folder(root: Path) -> Iterator[Item]:
    """Images by content, and whatever is named like one: a broken image has to be seen. Other files are left out."""
    real_root = root.resolve()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if name.startswith("."):
                continue
            try:
                wanted = path.suffix.lower() in IMAGE_SUFFIXES or has_image_signature(_head(_inside(path, real_root)))
            except (OSError, ValueError, DataError):
                wanted = path.is_symlink()
            if wanted:
                yield _item(str(path), lambda path=path: _read_file(_inside(path, real_root)))  # type: ignore[misc]


def _from_csv(path: Path) -> Iterator[Item]:
    """Rows of a CSV; a row whose file cannot be read is an item with an error."""
    root = path.parent.resolve()
    table = read_table(_read_file(path), "the CSV")
    place = table.require(["path"], "give each image's file, relative to the CSV")["path"]
    column = table.find("image_id")
    beside = {name: table.find(image_columns(name)[0]) for name in OPTIONAL_IMAGES}
    for cells in table.rows:
        row = dict(zip(table.columns, cells, strict=True))
        name, key = row.pop(place), row.pop(column).strip() if column is not None else ""
        item = _item(name, lambda name=name: _read_file(_below(root, name.strip())), key or None)  # type: ignore[misc]
        others = {which: row[place].strip() for which, place in beside.items() if place is not None and row[place].strip()}
        images = {which: partial(_item, other, partial(_read_below, root, other)) for which, other in others.items()}
        yield replace(item, columns=row, images=images)


def _from_zip(stream: BinaryIO, name: str) -> Iterator[Item]:
    """Members of an archive, read in memory one at a time; other files than images are left out."""
    check_directory(stream)
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
        raise DataError(f"a damaged zip archive ({error})") from error
    with archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if member.is_dir() or path.name.startswith(".") or path.parts[:1] == ("__MACOSX",):
                continue
            label = f"{name}!{member.filename}"
            named = path.suffix.lower() in IMAGE_SUFFIXES
            item = _item(label, lambda member=member: _read_member(archive, member))  # type: ignore[misc]
            if named or item.error is not None or has_image_signature(item.data or b""):
                yield item


def check_directory(stream: BinaryIO) -> None:
    """Refuse an archive by the size of its list of members, before zipfile reads that list into memory."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 65_557))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    record = tail[at : at + 22] if at >= 0 else b""
    if len(record) < 22:
        raise DataError("a damaged zip archive (its end is missing)")
    members, length = int.from_bytes(record[10:12], "little"), int.from_bytes(record[12:16], "little")
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64: the real numbers are in another record
        stream.seek(min(int.from_bytes(tail[at - 12 : at - 4], "little"), size))
        record = stream.read(56)
        members, length = int.from_bytes(record[32:40], "little"), int.from_bytes(record[40:48], "little")
    stream.seek(0)
    if members > MAX_ARCHIVE_MEMBERS or length > MAX_DIRECTORY_BYTES:
        raise DataError(f"the archive lists {members} members; at most {MAX_ARCHIVE_MEMBERS} are read: split it")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    parts = member.filename.replace("\\", "/").split("/")
    if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise DataError("the archive names a path outside itself")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError("a link in an archive; links are not followed")
    if member.flag_bits & 0x1:
        raise DataError("encrypted in the archive; unpack it first")
    if member.file_size > MAX_FILE_BYTES:
        raise DataError(_too_large(member.file_size))
    if member.file_size > 2**20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        raise DataError(f"unpacks to over {MAX_RATIO} times its size: a bomb, not an image")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError("packed by a method that is not read; only stored and deflated members are")
    try:
        with archive.open(member) as stream:
            return _checked(stream.read(MAX_FILE_BYTES + 1))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        raise DataError("damaged in the archive") from error


def _from_stdin(stream: BinaryIO) -> Iterator[Item]:
    head = stream.read(16)
    if has_image_signature(head) or head[:2] == b"PK":
        data = head + stream.read(MAX_FILE_BYTES + 1 - len(head))
        if head[:2] == b"PK" and len(data) <= MAX_FILE_BYTES:
            try:
                yield from _from_zip(io.BytesIO(data), STDIN)
            except DataError as error:
                yield Item(STDIN, error=str(error))
        else:
            yield _item(STDIN, lambda: _checked(data))
        return
    rest = head
    while chunk := rest + stream.readline(MAX_LINE):
        line, _, rest = chunk.partition(b"\n")
        if len(line) >= MAX_LINE:
            yield Item(
                STDIN, error=f"standard input is no image, and a line of it is over {MAX_LINE} bytes: not a list of files"
            )
            return
        if name := os.fsdecode(line.rstrip(b"\r")).strip():
            if name == "-":
                yield Item(name, error="standard input cannot name itself")
            else:
                yield from _from_argument(name)


def _item(name: str, read: Callable[[], bytes], image_id: str | None = None) -> Item:
    try:
        return Item(name, data=read(), image_id=image_id)
    except (OSError, ValueError, DataError) as error:
        return Item(name, error=_reason(error), image_id=image_id)


def _below(root: Path, name: str) -> Path:
    """A relative path under `root`; absolute paths, `..` and links that leave it are refused."""
    if not name:
        raise DataError("the row names no path")
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise DataError("the row's path leaves the CSV's folder; paths are relative to it")
    return _inside(root / name, root)


def _read_below(root: Path, name: str) -> bytes:
    return _read_file(_below(root, name))


def _inside(path: Path, real_root: Path) -> Path:
    try:
        real = path.resolve()
    except RuntimeError as error:  # what Python before 3.13 says to links that go in a circle
        raise DataError("a link that leads back to itself") from error
    if not real.is_relative_to(real_root):
        raise DataError("a link that leaves the folder; name the file itself to read it")
    return real


def _opened(path: Path) -> BinaryIO:
    """Open a regular file; a pipe or device is refused before it can block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError("not a plain file")
    return path.open("rb")


def _head(path: Path) -> bytes:
    with _opened(path) as stream:
        return stream.read(16)


def _read_file(path: Path) -> bytes:
    with _opened(path) as stream:
        return _checked(stream.read(MAX_FILE_BYTES + 1))


def _checked(data: bytes) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise DataError(_too_large(len(data)))
    return data


def _too_large(size: int) -> str:
    return f"over {MAX_FILE_BYTES // 2**20} MiB, the largest file that is read"


def _reason(error: Exception) -> str:
    """Why, without the path that the system's own message would show."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or type(error).__name__})"
    return str(error) if isinstance(error, DataError) else "not a file name"
