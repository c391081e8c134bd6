"""Where image bytes come from: folders and zips under the data root, addressed by the manifest's relative paths."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dermalyze.config.data import DataSpec, MergedSource
from dermalyze.core.archives import MAX_MEMBER_BYTES, BadMemberError, name_problem, open_archive, read_member
from dermalyze.errors import ConfigError, DataError

_SKIPPED = frozenset({
    "__macosx", "network trash folder", "temporary items", "icon\r",  # macOS
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler",  # Windows
    "system volume information",
    "@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin",  # Synology
    "@recycle", "@recently-snapshot", "@__thumb",  # QNAP
    "lost+found", "__pycache__",
})  # fmt: skip
"""Folders and files that systems, network storage and programs make by themselves, in lower case."""
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")


class ReadError(DataError):
    """One file cannot be read; `reason` says why without naming it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}; put the file back as it was")
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """A file of the data set.

    Attributes:
        path: as in the manifest: `a/b.jpg`, or `archive.zip!a/b.jpg`.
        size: bytes, unpacked.
        stamp: changes when the content does: modification time, or a member's CRC-32.
    """

    path: str
    size: int
    stamp: str

    @property
    def inner(self) -> str:
        """The path without the archive's."""
        return split_path(self.path)[1] or self.path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.inner.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.name.rpartition(".")[0] or self.name


@dataclass(frozen=True)
class ImageStore:
    """Reads files of a data set by relative path, and nothing outside it. Goes to worker processes as it is.

    Attributes:
        mounts: (first part of a path, file or folder there); one folder alone is mounted at "".
        follow_links: accept symbolic links that leave the data folder.
        missing_values: cells of its tables that mean missing, `data.missing_values`.
    """

    mounts: tuple[tuple[str, Path], ...]
    follow_links: bool = False
    missing_values: tuple[str, ...] = ()

    @classmethod
    def open(cls, spec: DataSpec) -> ImageStore:
        """Mount `spec.path`: a folder, a zip, or a list of both; of merged sources each path below the source's name.

        Raises:
            ConfigError: no path, or two of the same name.
            DataError: it is not there, or an archive that is not a zip.
        """
        missing = tuple(spec.missing_values or ())
        if isinstance(spec.source, MergedSource):
            mounts = []
            for part in spec.source.sources:
                if not part.path:
                    raise ConfigError(f"data.source.sources: source '{part.title}' has no path; name its folder or archives")
                one = cls.open(DataSpec(path=part.path, follow_links=spec.follow_links))
                mounts += [(f"{part.title}/{mount}".rstrip("/"), root) for mount, root in one.mounts]
            return cls(tuple(mounts), spec.follow_links, missing)
        if not spec.path:
            raise ConfigError("data.path: is not set; name the folder or the archives with --data or --set data.path=FOLDER")
        paths = [Path(p) for p in ([spec.path] if isinstance(spec.path, str) else spec.path)]
        for path in paths:
            if not path.exists():
                raise DataError(
                    f"data.path: {path} does not exist; relative paths start from the working folder; if the images of a run "
                    "were moved, write their new place into its config.yaml"
                )
            if path.is_file() and path.name.lower().endswith(_TARS):
                raise DataError(
                    f"{path.name}: tar, 7z and rar archives are not read; unpack it and give the folder, or use zip"
                )
        real = [path.resolve() for path in paths]
        if len(real) == 1 and real[0].is_dir():
            return cls((("", real[0]),), spec.follow_links, missing)
        names = [path.absolute().name for path in paths]
        if len(set(names)) != len(names):
            raise ConfigError(f"data.path: two entries have the same name ({', '.join(sorted(names))}); rename one")
        return cls(tuple(zip(names, real, strict=True)), spec.follow_links, missing)

    def within(self, name: str) -> ImageStore:
        """The store of one merged source, its paths without the source's name."""
        mounts = [
            (mount.removeprefix(name).lstrip("/"), root) for mount, root in self.mounts if f"{mount}/".startswith(f"{name}/")
        ]
        return ImageStore(tuple(mounts), self.follow_links, self.missing_values)

    def read(self, path: str) -> bytes:
        """The bytes of one file, at most 256 MiB.

        Raises:
            ReadError: missing, not a regular file, too large, or damaged in its archive.
            DataError: outside the data folder, or in an archive that is refused.
        """
        outer, member = split_path(path)
        file = self._locate(outer)
        try:
            return read_member(file, member) if member else _read_file(file)
        except (BadMemberError, OSError) as error:
            raise ReadError(path, (isinstance(error, OSError) and error.strerror) or str(error)) from error

    def entries(self) -> list[Entry]:
        """Every file and every member of every zip, by path; hidden ones are left out.

        Raises:
            DataError: an unsafe zip, a link that leaves the folder, a name that is not UTF-8 or has control characters.
        """
        found: list[Entry] = []
        for mount, root in self.mounts:
            if root.is_dir():
                for name, file in self._walk(root, mount):
                    found.extend(_file_entries(name, file))
            else:
                found.extend(_file_entries(mount, root))
        return sorted(found, key=lambda entry: entry.path)

    def left_out(self) -> dict[str, int]:
        """Names of the folders and files of systems that `entries` leaves out in the folders, and how often each is there."""
        names: Counter[str] = Counter()
        for _, root in self.mounts:
            for folder, folders, files in os.walk(root, topdown=True):
                found = [name for name in (*folders, *files) if _of_system(name)]
                folders[:] = [name for name in folders if not _of_system(name)]
                names.update(name for name in found if not name.startswith(".") or Path(folder, name).is_dir())
        return dict(names)

    def unread(self) -> list[str]:
        """Endings of archives in the folders that are not read (tar, 7z, rar), each once."""
        names = [name.lower() for mount, root in self.mounts if root.is_dir() for name, _ in self._walk(root, mount)]
        return sorted({ending for name in names for ending in _TARS if name.endswith(ending)})

    def _locate(self, path: str) -> Path:
        if (problem := name_problem(path)) is not None:
            raise DataError(f"path '{path}' {problem}; paths are relative to the data folder")
        for mount, root in self.mounts:
            if mount and path != mount and not path.startswith(mount + "/"):
                continue
            file = root / path.removeprefix(mount).lstrip("/") if path != mount else root
            if not self.follow_links and file != root:
                self._require_inside(file, root, path)
            return file
        raise DataError(f"path '{path}' is in none of the entries of data.path; run prepare in a new run folder")

    def _require_inside(self, file: Path, root: Path, shown: str) -> None:
        if not _inside(Path(os.path.realpath(file)), root):
            raise DataError(
                f"'{shown}' is a symbolic link that leaves the data folder; copy the file, or set data.follow_links: true"
            )

    def _walk(self, root: Path, mount: str) -> list[tuple[str, Path]]:
        """(path, file) of every regular file below `root`; of links to folders only those that leave, each once."""
        found: list[tuple[str, Path]] = []
        todo, seen = [(mount, root)], {os.path.realpath(root)}
        while todo:
            prefix, folder = todo.pop()
            for entry in sorted(_scan(folder), key=lambda entry: entry.name):
                if _of_system(entry.name):
                    continue
                path = f"{prefix}/{entry.name}".lstrip("/")
                if (problem := name_problem(entry.name)) is not None:
                    raise DataError(f"{path!r} {problem}; rename it")
                file = Path(entry.path)
                if entry.is_symlink() and not self.follow_links:
                    self._require_inside(file, root, path)
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError as error:  # links in a circle
                    raise DataError(f"{path!r} cannot be read: {error.strerror}; remove it or point it elsewhere") from error
                if is_folder:
                    real = os.path.realpath(file)
                    if real not in seen and not (entry.is_symlink() and _inside(Path(real), root)):
                        seen.add(real)
                        todo.append((path, file))
                elif is_file:
                    found.append((path, file))
        return found


def split_path(path: str) -> tuple[str, str]:
    """A manifest path as (file, member of the zip or "").

    >>> split_path("part_1.zip!a/b.jpg"), split_path("a/b!.jpg")
    (('part_1.zip', 'a/b.jpg'), ('a/b!.jpg', ''))
    """
    found = re.search(r"\.zip!", path, re.IGNORECASE)
    return (path, "") if found is None else (path[: found.end() - 1], path[found.end() :])


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder.name}: cannot be listed: {error.strerror}; give read permission") from error


def _file_entries(path: str, file: Path) -> list[Entry]:
    if path.lower().endswith(".zip"):
        with open_archive(file) as archive:
            return [
                Entry(f"{path}!{member.filename}", member.file_size, f"{member.CRC:08x}")
                for member in archive.infolist()
                if not member.is_dir() and not _hidden(member.filename)
            ]
    status = file.stat()
    return [Entry(path, status.st_size, str(status.st_mtime_ns))]


def _hidden(member: str) -> bool:
    return any(map(_of_system, member.split("/")))


def _of_system(name: str) -> bool:
    """Whether a file or folder is hidden, made by a system, or an editor's copy.

    >>> [name for name in ("a.jpg", "@eaDir", ".DS_Store", "THUMBS.DB", "a.jpg~", "~$notes.xlsx", "eadir") if _of_system(name)]
    ['@eaDir', '.DS_Store', 'THUMBS.DB', 'a.jpg~', '~$notes.xlsx']
    """
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in _SKIPPED


def _inside(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def _read_file(file: Path) -> bytes:
    try:
        status = file.stat()
    except FileNotFoundError:
        raise BadMemberError("file is missing") from None
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        raise BadMemberError("not a regular file")
    if status.st_size > MAX_MEMBER_BYTES:
        raise BadMemberError(f"file of more than {MAX_MEMBER_BYTES // 2**20} MiB")
    return file.read_bytes()
