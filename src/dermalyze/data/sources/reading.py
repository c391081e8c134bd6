"""What every source needs: rows, and tables with their columns."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dermalyze.config.columns import OPTIONAL_IMAGES, image_columns
from dermalyze.config.data import PART_WORDS, PARTS
from dermalyze.core.run import OWN_NAMES
from dermalyze.core.tables import Table, cell_number, check_keys, read_table
from dermalyze.data.sources.files import Files
from dermalyze.data.store import Entry, ImageStore, ReadError
from dermalyze.errors import DataError, nearest

OUR_NAMES = (
    "image_id", "path", "label", "patient_id", "lesion_id", "age", "sex", "site", "source", "split", "mask_path",
    *(image_columns(name)[0] for name in OPTIONAL_IMAGES),
)  # fmt: skip
MISSING_FILE = "image file is missing"
_UNKNOWN = ("", "unknown", "nan", "na", "n/a", "none", "null")
_MAX_AGE_YEARS = 130.0
_TEXTS = ("patient_id", "lesion_id", "sex", "site", "source")
_MAY_BE_MISSING = (*_TEXTS, "age")
_PLACEHOLDERS = (
    "0", "00", "000", "-1", "99", "999", "9999", "x", "xx", "xxx", "no", "tbd", "missing", "empty", "anonymous", "anon",
    "patient", "lesion", "unspecified", "undefined", "default", "test", "false", "not available", "not known",
)  # fmt: skip
_FEW = 3


@dataclass(frozen=True)
class Row:
    """One image as its source tells of it.

    Attributes:
        where: file and line, or the folder, for messages.
        image_id: the user's own key.
        label: as in the source, unchanged; "" where `labels` stands.
        path: manifest path of the image; None where there is no such file.
        known: of `OUR_NAMES`, what else the source tells; None where it is missing.
        extra: the user's further columns.
        images: manifest paths of the sample's optional images, by name; empty where there is no such file.
        labels: of an image that may have several or none, where the source has a column for each; else None.
        wanted: the file that was looked for.
    """

    where: str
    image_id: str
    label: str
    path: str | None
    known: Mapping[str, str | float | None] = field(default_factory=dict)
    extra: Mapping[str, str | None] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    wanted: str = ""


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        rows: one per image, in the source's order.
        classes: the source's own classes, in order; None: whatever labels there are.
        files: every file of the data set.
        notes: what a person should know of how the source was read; no file names.
    """

    rows: Sequence[Row]
    classes: tuple[str, ...] | None
    files: Sequence[Entry]
    notes: tuple[str, ...] = ()


def pseudonym(path: str) -> str:
    """An image_id that does not show the file's name: 16 hexadecimal digits of the path's SHA-256.

    >>> pseudonym("mel/DOE_JOHN.jpg")
    '00de69bf3b793f7b'
    """
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def read(store: ImageStore, entry: Entry) -> Table:
    """Read a table of the data set.

    Raises:
        DataError: unreadable, or no good table.
    """
    try:
        return replace(read_table(store.read(entry.path), entry.name), missing=store.missing_values)
    except ReadError as error:
        raise DataError(f"{entry.name}: {error.reason}; fetch it again") from error


def need_table(store: ImageStore, files: Files, *names: str) -> Table:
    """Read the table of the first of these names that is there.

    Raises:
        DataError: none is there, or it cannot be read.
    """
    entry = files.table(*names)
    if entry is None:
        raise DataError(
            f"data.path: no {' or '.join(f'{name}.csv' for name in names)} among its {len(files.entries)} files; "
            "put it beside the images, or set another data.source.kind (folder and csv read any collection)"
        )
    return read(store, entry)


def take(
    table: Table, needed: Mapping[str, str], optional: Mapping[str, str], remedy: str, *, without: Collection[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Find a source's columns in its table, in any case of letters.

    Args:
        table: the source's.
        needed: the column's official name to ours.
        optional: the same, for columns that may be missing; where two mean one of ours, the first that is there counts.
        remedy: what to do where a needed one is missing.
        without: columns that are not kept as the user's further ones.

    Returns:
        our name to the table's column, and notes on spelling and renaming.

    Raises:
        DataError: a needed column is missing.
    """
    found = table.require(list(needed), remedy)
    names = {ours: found[theirs] for theirs, ours in needed.items()}
    for theirs, ours in optional.items():
        if ours not in names and (column := table.find(theirs)) is not None:
            names[ours] = found[theirs] = column
    spelt = [
        f"column '{column}' is used as '{theirs}' despite its spelling" for theirs, column in found.items() if column != theirs
    ]
    return names, [*spelt, *renamed(table, {*names.values(), *without})]


def renamed(table: Table, used: Collection[str]) -> list[str]:
    """Notes on further columns that get another name, since theirs is ours."""
    return [
        f"column '{c}' is kept as '{_free(c)}', since the name is ours"
        for c in table.columns
        if c not in used and _free(c) != c
    ]


Cells = tuple[str, dict[str, str], dict[str, str | None]]
"""(file and line, our name to text, further columns) of a row."""


def cells(table: Table, names: Mapping[str, str], *, without: Collection[str] = ()) -> list[Cells]:
    """The rows of a table, with the identifiers checked.

    Args:
        table: as read.
        names: our name to the table's column.
        without: columns that are neither ours nor kept.

    Raises:
        DataError: an identifier that other programs would cut, split or confuse.
    """
    for ours in ("image_id", "patient_id", "lesion_id"):
        if ours in names:
            check_keys(table.column(names[ours]), table.lines, table.name, names[ours], empty=ours != "image_id")
    missing = {value.strip().lower() for value in table.missing}

    def cell(text: str) -> str:
        return "" if text.strip().lower() in missing else text

    at = {ours: table.columns.index(column) for ours, column in names.items()}
    used = {*names.values(), *without}
    further = [(i, _free(name)) for i, name in enumerate(table.columns) if name not in used]
    return [
        (
            f"{table.name} line {line}",
            {ours: cell(row[i]) if ours in _MAY_BE_MISSING else row[i] for ours, i in at.items()},
            {name: cell(row[i]) or None for i, name in further},
        )
        for row, line in zip(table.rows, table.lines, strict=True)
    ]


def cells_by_id(table: Table, names: Mapping[str, str]) -> dict[str, Cells]:
    """The rows of a second table by image_id.

    Raises:
        DataError: an image stands there twice.
    """
    found: dict[str, Cells] = {}
    for row in cells(table, names):
        first = found.setdefault(row[1]["image_id"], row)
        if first is not row:
            raise DataError(f"{row[0]}: image '{row[1]['image_id']}' is repeated, first at {first[0]}; keep one row per image")
    return found


def one_hot(table: Table, classes: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The class of each row of a one-hot ground truth.

    Args:
        table: one column per class, 1 for the image's own and 0 elsewhere, as any number is written (1.0, 1.000e+00).
        classes: the columns.

    Returns:
        the class of each row, and each class's column in the table.

    Raises:
        DataError: a column is missing, or a row is not one-hot; with its line.

    >>> one_hot(read_table(b"image,MEL,NV\\na,0.0,1.0\\n", "t.csv"), ["MEL", "NV"])[0]
    ['NV']
    """
    columns = table.require(classes, "this is not the one-hot ground truth")
    at = [table.columns.index(column) for column in columns.values()]
    labels = []
    for row, line in zip(table.rows, table.lines, strict=True):
        values = [row[i].strip() for i in at]
        numbers = [cell_number(value) for value in values]
        ones = [name for name, number in zip(classes, numbers, strict=True) if number == 1]
        if len(ones) != 1 or numbers.count(0) != len(classes) - 1:
            shown = ", ".join(f"{name} {v!r}" for name, v, number in zip(classes, values, numbers, strict=True) if number != 0)
            raise DataError(
                f"{table.name} line {line}: is not one-hot ({shown or 'all 0'}); exactly one of {', '.join(classes)} must be 1 "
                "and the others 0: correct the row or fetch the file again"
            )
        labels.append(ones[0])
    return labels, columns


def label_columns(table: Table, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The labels of each row of a table with a column per label: 1 where an image has it, 0 where not (however the number is
    written), empty or -1 where nobody knows (then with a question mark before it).

    Args:
        columns: the labels, each the name of its column as it is in the header.

    Raises:
        DataError: a column is missing or named twice, or a cell says anything else; with its line.

    >>> label_columns(read_table(b"image,edema,mass\\na,1,0\\nb,0,\\n", "t.csv"), ["edema", "mass"])
    [('edema',), ('?mass',)]
    """
    if missing := [name for name in columns if name not in table.columns]:
        hint = nearest(missing[0], table.columns)
        raise DataError(f"{table.name}: label columns {missing} are missing; found {list(table.columns)}{hint}; correct labels")
    if len(set(columns)) != len(columns):
        raise DataError(f"data.source.labels: {list(columns)} name one twice; keep one")
    at, found = [(name, table.columns.index(name)) for name in columns], []
    for row, line in zip(table.rows, table.lines, strict=True):
        for name, i in at:
            if cell_number(row[i]) not in _TARGET_MARKS:
                raise DataError(
                    f"{table.name} line {line}: label column '{name}' is {row[i]!r}, must be 1, 0, or empty or -1 where nobody "
                    "knows; correct the cell"
                )
        marks = {name: _TARGET_MARKS[cell_number(row[i])] for name, i in at}
        found.append(tuple(mark + name for name, mark in marks.items() if mark is not None))
    return found


_TARGET_MARKS = {1.0: "", 0.0: None, None: "?", -1.0: "?"}
"""What stands before the label of a cell; None: the label does not stand there at all."""


def _free(name: str) -> str:
    """A user's column under a name that is not one of ours."""
    return f"{name}_user" if name in OWN_NAMES else name


def optional_values(values: Mapping[str, str], place: str) -> dict[str, str | float | None]:
    """The optional values with 'unknown' and its like as None, age as a number and the user's split in our words."""
    known: dict[str, str | float | None] = {}
    for name in _TEXTS:
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


def refuse_placeholders(rows: Sequence[Row]) -> None:
    """Ask whether an id that joins images is one: a value without letter and digit, or a usual placeholder on several times as
    many images as any other.

    Raises:
        DataError: it looks like a missing value.
    """
    for column in ("patient_id", "lesion_id"):
        counts = Counter(str(value) for row in rows if (value := row.known.get(column)) is not None)
        ranked = counts.most_common(2)
        most = ranked[0][1] if ranked else 0
        others = ranked[1][1] if len(ranked) > 1 else 0
        for value, count in counts.items():
            blank = count > 1 and not any(map(str.isalnum, value))
            usual = value.lower() in _PLACEHOLDERS and count == most and count > _FEW * max(1, others)
            if blank or usual:
                raise DataError(
                    f"{column} {value!r} stands for {count} of {len(rows)} images, which would be one group: is it missing? "
                    f"then set data.missing_values=[{value!r}]; if it is an id, data.missing_values=[]"
                )


def code_notes(rows: Sequence[Row]) -> list[str]:
    """A note on numbers where words are expected: in sex, of which a reader does not know what they mean."""
    counts = Counter(value for row in rows if isinstance(value := row.known.get("sex"), str) and value.lstrip("-+").isdecimal())
    told = ", ".join(f"{value!r} ({count} images)" for value, count in counts.most_common())
    return [f"sex is a number: {told}; each counts as a category of its own: write female, male or nothing"] if told else []


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
