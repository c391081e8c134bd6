"""The files of a data set, found by path, by name and by stem."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from difflib import get_close_matches

from dermalyze.data.store import Entry, ImageStore
from dermalyze.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif", ".tif", ".tiff", ".heic", ".heif", ".dcm")
_UNREAD = ("jxl", "jp2", "gif", "pdf", "psd", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2")
"""Endings of kinds that are not read; a note counts them."""
TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
_TABLE_ENDINGS = (".csv", "", ".tab", ".tsv", ".txt")


class Files:
    """The files of a data set by path, by name and by stem; `stems` are those of its images."""

    def __init__(self, store: ImageStore) -> None:
        self.entries = store.entries()
        self._by_path = {entry.path: entry for entry in self.entries}
        self._by_name: dict[str, list[Entry]] = defaultdict(list)
        self._by_key: dict[str, list[Entry]] = defaultdict(list)
        self.stems: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self._by_name[entry.name].append(entry)
            if is_image(entry):
                self.stems[entry.stem].append(entry)
                self._by_key[_key(entry.name)].append(entry)
        self._twice, self._respelled = 0, 0
        self._unread, self._left_out = store.unread(), store.left_out()

    @property
    def notes(self) -> list[str]:
        """What a person should know of the files, without their names."""
        twice = f"{self._twice} images exist twice, as loose files or in an archive; the first is used"
        other = f"{self._respelled} images were found under another letter case or file ending than the table gives"
        unread = f"archives in the folder are not read ({', '.join(self._unread)}); unpack them if needed"
        named = ", ".join(f"{name} ({count})" for name, count in sorted(self._left_out.items()))
        system = f"left out, made by the system or an editor: {named}"
        kinds = Counter(suffix for entry in self.entries if (suffix := entry.name.lower().rpartition(".")[2]) in _UNREAD)
        told = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
        foreign = f"left out, since such files are not read: {told}; save the images as JPEG or PNG"
        said = {twice: self._twice, other: self._respelled, unread: self._unread, system: self._left_out, foreign: kinds}
        return [note for note, there in said.items() if there]

    def by_stem(self, stem: str) -> Entry | None:
        """The image of that name without ending, wherever it lies."""
        return self._one(self.stems.get(stem, []))

    def by_path(self, path: str) -> Entry | None:
        """The file at that path, or the only one whose path ends so."""
        if path in self._by_path:
            return self._by_path[path]
        named = self._by_name.get(path.rpartition("/")[2], [])
        return self._one([entry for entry in named if _ends(entry.path, path)])

    def image(self, name: str) -> Entry | None:
        """The image of that path, or of that name with or without its ending; else the only one that differs from it in
        letter case or ending alone.

        A name that holds an ending twice (`a.jpg.jpg`, an image_id with its ending and another added) is meant once.
        """
        found = self.by_path(name) or (self.by_stem(name) if "/" not in name else None)
        if found is not None:
            return found
        key = _key(name)
        alike = [entry for entry in self._by_key.get(key.rpartition("/")[2], []) if _ends(_key(entry.path), key)]
        if len({entry.size for entry in alike}) != 1:
            return None
        self._respelled += 1
        return self._one(alike)

    def table(self, *names: str) -> Entry | None:
        """The table of the first of these names (without ending, in any case) that is there.

        Raises:
            DataError: several files of that name and of different size.
        """
        for wanted in (f"{name}{ending}".lower() for name in names for ending in _TABLE_ENDINGS):
            if found := [entry for entry in self.entries if entry.name.lower() == wanted]:
                if len({entry.size for entry in found}) > 1:
                    raise DataError(
                        f"{found[0].name}: is there {len(found)} times with different content "
                        f"({found[0].path}, {found[1].path}); keep one, or give data.path one of the folders"
                    )
                return min(found, key=lambda entry: ("!" in entry.path, entry.path))
        return None

    def strangers(self, ids: Collection[str]) -> list[str]:
        """A note on images whose name, without ending, is none of `ids`."""
        keys = {_key(image_id) for image_id in ids}
        count = sum(_key(stem).removesuffix("_segmentation") not in keys and _key(stem) not in keys for stem in self.stems)
        return [f"{count} image files have no row in the metadata and are left out"] if count else []

    def _one(self, found: Sequence[Entry]) -> Entry | None:
        """Of several copies a loose one; copies of different size are different images."""
        if len({entry.size for entry in found}) > 1:
            raise DataError(
                f"'{found[0].name}' is there {len(found)} times with different content "
                f"({found[0].path}, {found[1].path}); keep one"
            )
        self._twice += len(found) > 1
        return min(found, key=lambda entry: ("!" in entry.path, entry.path), default=None)


def nearest_image(files: Sequence[Entry], name: str) -> str:
    """The path of the image whose name is most like that; "" where none is.

    >>> nearest_image([Entry("a/scan_01.jpg", 1, "")], "scan_1.jpg")
    'a/scan_01.jpg'
    """
    paths = {_key(entry.name): entry.path for entry in files if is_image(entry)}
    alike = get_close_matches(_key(name).rpartition("/")[2], list(paths), n=1, cutoff=0.5)
    return paths[alike[0]] if alike else ""


def is_image(entry: Entry) -> bool:
    """Whether a file has the ending of an image."""
    return entry.name.lower().endswith(IMAGE_SUFFIXES)


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith((f"/{end}", f"!{end}"))


def _key(path: str) -> str:
    """A path without endings of images, in lower case.

    >>> _key("a/B.JPG"), _key("b.jpg.png"), _key("scan.1")
    ('a/b', 'b', 'scan.1')
    """
    key = path.casefold()
    while key.endswith(IMAGE_SUFFIXES):
        key = key.rpartition(".")[0]
    return key
