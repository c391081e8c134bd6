"""Any collection: sorted into folders by hand, or listed in a CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dermalyze.config.columns import OPTIONAL_IMAGES, image_columns
from dermalyze.config.data import PART_WORDS
from dermalyze.core.archives import name_problem
from dermalyze.core.tables import Table
from dermalyze.data.sources.files import TABLE_SUFFIXES, Files, is_image
from dermalyze.data.sources.reading import (
    OUR_NAMES,
    Listing,
    Row,
    cells,
    label_columns,
    optional_values,
    pseudonym,
    read,
    renamed,
)
from dermalyze.data.store import Entry, ImageStore
from dermalyze.errors import ConfigError, DataError, nearest


def folder(store: ImageStore) -> Listing:
    """One folder per class: any collection of images sorted by hand, loose or in a zip.

    What: `mel/….jpg`, `nv/….jpg`; below a class any depth. With `train/`, `val/` (and `cal/`), `test/` on top of the class
        folders these are taken as the user's own split. Folders that hold everything are looked through.
    Keys: image_id is made from the path (16 hexadecimal digits of its SHA-256), since a file's name may name a patient;
        the manifest keeps the path.
    License, citation: those of the collection.
    Known biases: nothing tells which images show the same lesion or patient, so only equal or similar images can be kept
        together; a split may leak. Use a CSV with lesion_id or patient_id where they are known.
    """
    files = Files(store)
    images = [entry for entry in files.entries if is_image(entry)]
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
    notes = ("the top folders are used as the split",) if split else ()
    others = len(files.entries) - len(images)
    return Listing(
        rows,
        None,
        files.entries,
        (*notes, *files.notes, *([f"{others} files are not images and are left out"] if others else [])),
    )


def csv(
    store: ImageStore, *, file: str | None, columns: Mapping[str, str], extension: str, labels: Sequence[str] | None
) -> Listing:
    """A CSV with one row per image, beside the images, with any column names.

    What: needs a label and image_id or path; `columns` maps our names to the file's. A path is relative to the data folder
        (or unique by its end, also inside a zip: `images.zip!a.jpg`); without one the image is image_id + extension.
        patient_id and lesion_id keep images together in one part of the split. image_2_path names a second image of the
        sample, empty where there is none. Unmapped columns are kept as they are.
        With `labels` these columns of 0 and 1, one per label, replace the column label; an image may have several
        labels or none.
    Keys: without an image_id one is made from the path, as for folders.
    License, citation, biases: those of the collection. Give patient_id or lesion_id where you can: without them
        photographs of one lesion fall on both sides of a split, and the results are too good.
    """
    files = Files(store)
    table = read(store, _csv_table(files, file))
    names = _csv_columns(table, columns, labelled=labels is None)
    sets = None if labels is None else label_columns(table, labels)
    rows = []
    for number, (place, values, extra) in enumerate(cells(table, names, without=labels or ())):
        wanted = values.get("path") or values["image_id"] + extension
        entry, known = _named(files, wanted, f"{place}: path"), optional_values(values, place)
        if values.get("mask_path"):
            mask = files.by_path(values["mask_path"])
            known["mask_path"] = None if mask is None else mask.path
        image_id = values["image_id"] if "image_id" in values else pseudonym(wanted)
        path, several = None if entry is None else entry.path, None if sets is None else sets[number]
        optional = _optional(files, values, place)
        rows.append(Row(place, image_id, values.get("label", ""), path, known, extra, optional, several, wanted))
    notes = (*_spelling(names, columns), *renamed(table, {*names.values(), *(labels or ())}), *files.notes)
    return Listing(rows, None if labels is None else tuple(labels), files.entries, notes)


def _optional(files: Files, values: Mapping[str, str], place: str) -> dict[str, str]:
    """Manifest paths of a row's optional images, by name."""
    optional = {}
    for name in OPTIONAL_IMAGES:
        column = image_columns(name)[0]
        if wanted := values.get(column, "").strip():
            entry = _named(files, wanted, f"{place}: {column}")
            optional[name] = "" if entry is None else entry.path
    return optional


def _named(files: Files, name: str, what: str) -> Entry | None:
    """The image of that name in the data folder; None where there is none.

    Raises:
        DataError: a name that leaves the folder or cannot be one.
    """
    if (problem := name_problem(name.replace("!", "/"))) is not None:
        raise DataError(f"{what} {name!r} {problem}; paths are relative to the data folder")
    return files.image(name)


def _csv_table(files: Files, name: str | None) -> Entry:
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


def _csv_columns(table: Table, columns: Mapping[str, str], *, labelled: bool) -> dict[str, str]:
    """Our name to the file's column; `labelled`: one of them is the label."""
    for ours in columns:
        if ours not in OUR_NAMES:
            hint = nearest(ours, OUR_NAMES)
            raise ConfigError(f"data.source.columns: '{ours}' is none of {', '.join(OUR_NAMES)}{hint}")
    names = {
        ours: table.require([theirs], f"data.source.columns maps {ours} to it")[theirs] for ours, theirs in columns.items()
    }
    for ours in OUR_NAMES:
        if ours not in names and (column := table.find(ours)) is not None and column not in names.values():
            names[ours] = column
    remedy = "map it with data.source.columns, as in {label: dx}"
    if "image_id" not in names and "path" not in names:
        table.require(["image_id"], remedy)
        raise ConfigError(f"data.source.columns: {dict(columns)} leaves no column for image_id or path; map one of them too")
    if not labelled:
        names.pop("label", None)
    elif "label" not in names:
        table.require(["label"], remedy)
    if len(set(names.values())) != len(names):
        raise ConfigError(
            f"data.source.columns: two of our names are mapped to one column ({names}); map each to a separate one"
        )
    return names


def _spelling(names: Mapping[str, str], chosen: Mapping[str, str]) -> list[str]:
    """Notes on columns that were found under another spelling."""
    return [f"column '{c}' is used despite its spelling" for ours, c in names.items() if c != ours and ours not in chosen]


def _common(paths: Sequence[Sequence[str]]) -> int:
    """How many leading folders all paths share."""
    depth = 0
    while paths and all(len(p) > depth for p in paths) and len(Counter(p[depth] for p in paths)) == 1:
        depth += 1
    return depth


ROWS: dict[str, Callable[..., Listing]] = {"folder": folder, "csv": csv}
