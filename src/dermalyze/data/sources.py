"""Data sets as they are found: one function a kind of source, each with its dataset card."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dermalyze.config.classes import HAM10000_CLASSES
from dermalyze.config.data import PART_WORDS, PARTS
from dermalyze.core.errors import ConfigError, DataError, nearest
from dermalyze.core.run import MANIFEST_COLUMNS
from dermalyze.data.archives import name_problem
from dermalyze.data.store import Entry, ImageStore, ReadError
from dermalyze.data.tables import Table, check_keys, read_table

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
OUR_NAMES = (
    "image_id", "path", "label", "patient_id", "lesion_id", "age", "sex", "site", "source", "split", "mask_path",
)  # fmt: skip
MISSING_FILE = "image file is missing"
_UNKNOWN = ("", "unknown", "nan", "na", "n/a", "none", "null")
_MAX_AGE_YEARS = 130.0


@dataclass(frozen=True)
class Row:
    """One image as its source tells of it.

    Attributes:
        where: file and line, or the folder, for messages.
        image_id: the user's own key.
        label: as in the source, unchanged.
        path: manifest path of the image; None where there is no such file.
        known: of `OUR_NAMES`, what else the source tells; None where it is missing.
        extra: the user's further columns.
    """

    where: str
    image_id: str
    label: str
    path: str | None
    known: Mapping[str, str | float | None] = field(default_factory=dict)
    extra: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        rows: one an image, in the source's order.
        classes: the source's own classes, in order; None: whatever labels there are.
        files: every file of the data set.
        notes: what a person should know of how the source was read; no file names.
    """

    rows: Sequence[Row]
    classes: tuple[str, ...] | None
    files: Sequence[Entry]
    notes: tuple[str, ...] = ()


def ham10000(store: ImageStore) -> Listing:
    """HAM10000, "Human Against Machine with 10000 training images".

    What: 10,015 dermoscopic images (600 x 450 px) of 7,470 pigmented lesions; several photographs of a lesion are common.
        nv 6705, mel 1113, bkl 1099, bcc 514, akiec 327, vasc 142, df 115. Expert lesion masks exist for all.
    Layout: `HAM10000_images_part_1.zip` and `_part_2.zip` as downloaded, or unpacked, or both;
        `HAM10000_metadata.csv` (or `.tab`, or no ending) with lesion_id, image_id, dx, dx_type, age, sex, localization
        and, in later editions, dataset; `HAM10000_segmentations_lesion_tschandl.zip` if masks are wanted. A column `split`
        that somebody added is taken as the user's own split.
    Source: Harvard Dataverse, doi:10.7910/DVN/DBW86T.
    Licence: CC BY-NC 4.0.
    Citation: Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Sci Data 5, 180161 (2018), doi:10.1038/sdata.2018.161;
        masks: Tschandl et al., Nat Med 26, 1229 (2020).
    Known biases: two clinics (Vienna, Queensland), almost only light skin, referral and surgical populations, so that
        malignant lesions are over-represented; benign ones without histology were chosen for being benign. `dx_type` tells
        how the label was found and gives it away; so, in part, does `dataset`. Markings, rulers and dark corners come with
        some classes more than with others. No amelanotic melanoma, no rare tumours, no inflammatory disease.
    """
    files = _Files(store)
    table = _read(store, _ham10000_metadata(files))
    names = table.require(("image_id", "lesion_id", "dx"), "this is not the HAM10000 metadata")
    renamed = {"age": "age", "sex": "sex", "localization": "site", "dataset": "source", "split": "split"}
    names |= {ours: column for theirs, ours in renamed.items() if (column := table.find(theirs)) is not None}
    names["label"] = names.pop("dx")
    rows = []
    for place, values, extra in _cells(table, names):
        image_id = values["image_id"]
        known = _known(values, place)
        mask = files.by_stem(f"{image_id}_segmentation")
        image = files.by_stem(image_id)
        known["mask_path"] = None if mask is None else mask.path
        rows.append(Row(place, image_id, values["label"], None if image is None else image.path, known, extra))
    ids = {row.image_id for row in rows}
    strangers = sum(stem not in ids and stem.removesuffix("_segmentation") not in ids for stem in files.stems)
    notes = [f"{strangers} image files have no row in the metadata and are left out"] if strangers else []
    return Listing(rows, tuple(HAM10000_CLASSES), files.entries, (*_said(table, names), *files.notes, *notes))


def folder(store: ImageStore) -> Listing:
    """One folder a class: any collection of images sorted by hand, loose or in a zip.

    What: `mel/….jpg`, `nv/….jpg`; below a class any depth. With `train/`, `val/` (and `cal/`), `test/` on top of the class
        folders these are taken as the user's own split. Folders that hold everything are looked through.
    Keys: image_id is made from the path (16 hexadecimal digits of its SHA-256), since a file's name may name a patient;
        the manifest keeps the path.
    Licence, citation: those of the collection.
    Known biases: nothing tells which images show the same lesion or patient, so only equal or similar pictures can be kept
        together; a split may leak. Use a CSV with lesion_id or patient_id where they are known.
    """
    files = _Files(store)
    images = [entry for entry in files.entries if _is_image(entry)]
    parts = {entry.path: entry.inner.split("/")[:-1] for entry in images}
    depth = _common(list(parts.values()))
    parts = {path: folders[depth:] for path, folders in parts.items()}
    tops = {folders[0].lower() if folders else "" for folders in parts.values()}
    split = "train" in {PART_WORDS.get(top) for top in tops} and all(top in PART_WORDS for top in tops)
    rows = []
    for entry in images:
        folders = parts[entry.path]
        if len(folders) <= split:
            raise DataError(
                f"{entry.path}: lies in no class folder; put each image into a folder named as its class"
                if depth == 0 or tops != {""}
                else f"all {len(images)} images lie in one folder; at least 2 class folders are needed"
            )
        known = {"split": PART_WORDS[folders[0].lower()]} if split else {}
        rows.append(Row(entry.path, pseudonym(entry.path), folders[split], entry.path, known))
    notes = ("the top folders are taken as the split",) if split else ()
    others = len(files.entries) - len(images)
    return Listing(rows, None, files.entries, (*notes, *([f"{others} files are no images and are left out"] if others else [])))


def csv(store: ImageStore, *, file: str | None, columns: Mapping[str, str], extension: str) -> Listing:
    """A CSV with one row an image, beside the images, with any column names.

    What: needs a label and image_id or path; `columns` maps our names to the file's. A path is relative to the data folder
        (or unique by its end, also inside a zip: `images.zip!a.jpg`); without one the image is image_id + extension.
        patient_id and lesion_id keep images together in one part of the split. Unmapped columns are kept as they are.
    Keys: without an image_id one is made from the path, as for folders.
    Licence, citation, biases: those of the collection. Give patient_id or lesion_id where you can: without them
        photographs of one lesion fall on both sides of a split, and the results are too good.
    """
    files = _Files(store)
    table = _read(store, _csv_table(files, file))
    names = _csv_columns(table, columns)
    rows = []
    for place, values, extra in _cells(table, names):
        wanted = values.get("path") or values["image_id"] + extension
        if (problem := name_problem(wanted.replace("!", "/"))) is not None:
            raise DataError(f"{place}: path {wanted!r} {problem}; paths are relative to the data folder")
        entry, known = files.by_path(wanted), _known(values, place)
        if values.get("mask_path"):
            mask = files.by_path(values["mask_path"])
            known["mask_path"] = None if mask is None else mask.path
        image_id = values["image_id"] if "image_id" in values else pseudonym(wanted)
        rows.append(Row(place, image_id, values["label"], None if entry is None else entry.path, known, extra))
    return Listing(rows, None, files.entries, (*_said(table, names), *files.notes))


SOURCES: dict[str, Callable[..., Listing]] = {"ham10000": ham10000, "folder": folder, "csv": csv}


def pseudonym(path: str) -> str:
    """An image_id that does not show the file's name: 16 hexadecimal digits of the path's SHA-256.

    >>> pseudonym("mel/DOE_JOHN.jpg")
    '00de69bf3b793f7b'
    """
    return hashlib.sha256(path.encode()).hexdigest()[:16]


class _Files:
    """The files of a data set by path, by name and by stem."""

    def __init__(self, store: ImageStore) -> None:
        self.entries = store.entries()
        self._by_path = {entry.path: entry for entry in self.entries}
        self._by_name: dict[str, list[Entry]] = defaultdict(list)
        self.stems: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self._by_name[entry.name].append(entry)
            if _is_image(entry):
                self.stems[entry.stem].append(entry)
        self._twice = 0
        self._unread = store.unread()

    @property
    def notes(self) -> list[str]:
        twice = f"{self._twice} images are there twice, as loose files or in an archive; the first is read"
        unread = f"archives that are not read lie in the folder ({', '.join(self._unread)}); unpack them if they are needed"
        return ([twice] if self._twice else []) + ([unread] if self._unread else [])

    def by_stem(self, stem: str) -> Entry | None:
        """The image of that name without ending, wherever it lies."""
        return self._one(self.stems.get(stem, []))

    def by_path(self, path: str) -> Entry | None:
        """The file at that path, or the only one whose path ends so."""
        if path in self._by_path:
            return self._by_path[path]
        named = self._by_name.get(path.rpartition("/")[2], [])
        return self._one([entry for entry in named if entry.path.endswith((f"/{path}", f"!{path}"))])

    def _one(self, found: Sequence[Entry]) -> Entry | None:
        """Of several copies a loose one; copies of different size are different images."""
        if len({entry.size for entry in found}) > 1:
            raise DataError(
                f"'{found[0].name}' is there {len(found)} times with different content "
                f"({found[0].path}, {found[1].path}); keep one"
            )
        self._twice += len(found) > 1
        return min(found, key=lambda entry: ("!" in entry.path, entry.path), default=None)


def _is_image(entry: Entry) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES)


def _read(store: ImageStore, entry: Entry) -> Table:
    try:
        return read_table(store.read(entry.path), entry.name)
    except ReadError as error:
        raise DataError(f"{entry.name}: {error.reason}; fetch it again") from error


def _ham10000_metadata(files: _Files) -> Entry:
    wanted = [f"ham10000_metadata{ending}" for ending in (".csv", "", ".tab", ".tsv", ".txt")]
    found = sorted((e for e in files.entries if e.name.lower() in wanted), key=lambda e: (wanted.index(e.name.lower()), e.path))
    if not found:
        raise DataError(
            f"data.path: no HAM10000_metadata.csv among its {len(files.entries)} files; "
            "put it beside the images, or set data.source.kind to folder or csv"
        )
    return found[0]


def _csv_table(files: _Files, name: str | None) -> Entry:
    tables = [entry for entry in files.entries if entry.name.lower().endswith(TABLE_SUFFIXES)]
    if name is not None:
        entry = files.by_path(name)
        if entry is None:
            raise DataError(f"data.source.file: {name} is not in the data folder; found {[t.path for t in tables][:5]}")
        return entry
    top = [entry for entry in tables if "/" not in entry.path and "!" not in entry.path] or tables
    if len(top) != 1:
        raise DataError(
            f"data.path: {len(top)} tables in the data folder ({[t.path for t in top][:5]}); "
            "it needs one, or name it with --set data.source.file=NAME.csv"
        )
    return top[0]


def _csv_columns(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    """Our name to the file's column."""
    for ours in columns:
        if ours not in OUR_NAMES:
            hint = nearest(ours, OUR_NAMES)
            raise ConfigError(f"data.source.columns: '{ours}' is none of {', '.join(OUR_NAMES)}{hint}")
    names = {ours: column for ours in OUR_NAMES if ours not in columns and (column := table.find(ours)) is not None}
    for ours, theirs in columns.items():
        names[ours] = table.require([theirs], f"data.source.columns maps {ours} to it")[theirs]
    remedy = "map it with data.source.columns, as in {label: dx}"
    if "image_id" not in names and "path" not in names:
        table.require(["image_id"], remedy)
    if "label" not in names:
        table.require(["label"], remedy)
    if len(set(names.values())) != len(names):
        raise ConfigError(f"data.source.columns: two of our names are mapped to one column ({names}); map each to its own")
    return names


def _cells(table: Table, names: Mapping[str, str]) -> list[tuple[str, dict[str, str], dict[str, str | None]]]:
    """(file and line, our name to text, further columns) of each row, with the identifiers checked."""
    for ours in ("image_id", "patient_id", "lesion_id"):
        if ours in names:
            check_keys(table.column(names[ours]), table.lines, table.name, names[ours], empty=ours != "image_id")
    at = {ours: table.columns.index(column) for ours, column in names.items()}
    further = [(i, _free(name)) for i, name in enumerate(table.columns) if name not in names.values()]
    return [
        (
            f"{table.name} line {line}",
            {ours: row[i] for ours, i in at.items()},
            {name: row[i] or None for i, name in further},
        )
        for row, line in zip(table.rows, table.lines, strict=True)
    ]


def _free(name: str) -> str:
    """A user's column under a name that is not one of ours."""
    return f"{name}_user" if name in MANIFEST_COLUMNS else name


def _said(table: Table, names: Mapping[str, str]) -> list[str]:
    """Notes on columns that were taken under another spelling, or renamed."""
    alike = [
        column for ours, column in names.items() if column != ours and column.lower() in (*OUR_NAMES, "dx", "localization")
    ]
    spelt = [f"column '{c}' is taken in spite of its spelling" for c in alike if c != c.lower()]
    moved = [c for c in table.columns if c not in names.values() and _free(c) != c]
    return spelt + [f"column '{c}' is kept as '{_free(c)}', since the name is ours" for c in moved]


def _known(values: Mapping[str, str], place: str) -> dict[str, str | float | None]:
    """The optional values with 'unknown' and its like as None, age as a number and the user's split in our words."""
    known: dict[str, str | float | None] = {}
    for name in ("patient_id", "lesion_id", "sex", "site", "source"):
        if name in values:
            text = values[name].strip()
            known[name] = None if text.lower() in _UNKNOWN else text
    if "age" in values:
        known["age"] = _age(values["age"].strip(), place)
    if "split" in values:
        text = values["split"].strip().lower()
        if text and text not in PART_WORDS:
            raise DataError(f"{place}: split '{text}' is none of {', '.join(PARTS)}{nearest(text, PARTS)}; or leave it empty")
        known["split"] = PART_WORDS[text] if text else None
    return known


def _age(text: str, place: str) -> float | None:
    if text.lower() in _UNKNOWN:
        return None
    try:
        years = float(text)
    except ValueError:
        years = math.nan
    if not 0 <= years <= _MAX_AGE_YEARS:
        raise DataError(
            f"{place}: age '{text}' is not a number of years from 0 to {_MAX_AGE_YEARS:g}; correct it or leave it empty"
        )
    return years


def _common(paths: Sequence[Sequence[str]]) -> int:
    """How many leading folders all paths share."""
    depth = 0
    while paths and all(len(p) > depth for p in paths) and len(Counter(p[depth] for p in paths)) == 1:
        depth += 1
    return depth
