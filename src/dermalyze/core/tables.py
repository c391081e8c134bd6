"""CSV files read without guessing and written without formulas."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermalyze.core.atomic import write_text
from dermalyze.errors import DataError, nearest

MAX_FIELD_CHARS = 131_072
MAX_KEY_CHARS = 255
_UTF16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV file as text: nothing is turned into a number, a date or a missing value.

    Attributes:
        name: of the file, for messages.
        columns: the header.
        rows: one list per row, as long as the header.
        lines: the line each row ends on, for messages; the header is line 1.
        missing: cells that mean missing, beside empty ones and words such as unknown.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    missing: tuple[str, ...] = ()

    def column(self, name: str) -> list[str]:
        """The values of one column, in order of the rows."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def find(self, name: str) -> str | None:
        """The column of that name, else the only one that differs from it in case, spaces, `-` and `_` alone; else None.

        >>> read_table(b"Image ID\\na\\n", "m.csv").find("image_id")
        'Image ID'
        """
        if name in self.columns:
            return name
        alike = [column for column in self.columns if _folded(column) == _folded(name)]
        return alike[0] if len(alike) == 1 else None

    def require(self, names: Sequence[str], remedy: str = "add the column") -> dict[str, str]:
        """Each name's column, found as `find` does.

        Raises:
            DataError: columns are missing; they are named, with those there are.
        """
        found = {name: self.find(name) for name in names}
        missing = [name for name, column in found.items() if column is None]
        if missing:
            hints = "".join(nearest(name, self.columns) for name in missing[:1])
            raise DataError(f"{self.name}: columns {missing} are missing; found {list(self.columns)}{hints}; {remedy}")
        return {name: column for name, column in found.items() if column is not None}


def read_table(data: bytes, name: str) -> Table:
    """Read a CSV: UTF-8 with or without a byte-order mark, Unix or Windows line ends, comma, semicolon or tab.

    Args:
        data: the file.
        name: what to call it in messages.

    Raises:
        DataError: UTF-16, not UTF-8, NUL bytes, a field of more than 131,072 characters, a quote that never closes, a row
            of another length than the header, a column named twice, no header. The line is named.

    >>> table = read_table(b"\\xef\\xbb\\xbfimage_id,label\\r\\na,mel\\r\\n", "m.csv")
    >>> table.columns, table.rows, table.lines
    (('image_id', 'label'), [['a', 'mel']], [2])
    """
    text = _decode(data, name)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows, lines = [], []
    try:
        header = next((row for row in reader if row), [])
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{name} line {reader.line_num}: {len(row)} fields, the header has {len(header)}; quote fields with commas"
                )
            if max(map(len, row)) > MAX_FIELD_CHARS:
                raise csv.Error(f"field larger than field limit ({MAX_FIELD_CHARS})")
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{name} line {reader.line_num}: {error}; correct the file") from None
    columns = tuple(word.strip() or f"column_{i + 1}" for i, word in enumerate(header))
    if not columns:
        raise DataError(f"{name}: is empty; it needs a header and one row per image")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{name}: columns {repeated} are twice in the header; rename or remove one")
    return Table(name, columns, rows, lines)


def _decode(data: bytes, name: str) -> str:
    if data.startswith(_UTF16_OR_32):
        raise DataError(f"{name}: is UTF-16, must be UTF-8; save it as 'CSV UTF-8'")
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise DataError(f"{name} line {line}: a NUL byte (UTF-16, or a damaged file); must be plain UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as 'CSV UTF-8'") from None


def _delimiter(text: str) -> str:
    """Of comma, semicolon and tab the one the header has most of; comma where it has none."""
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def cell_number(text: str) -> float | None:
    """A cell as a number; None where it is empty, NaN where it is text.

    >>> cell_number("1.000e+00"), cell_number(" "), cell_number("yes")
    (1.0, None, nan)
    """
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return math.nan


def key_problem(value: str) -> str | None:
    """What is wrong with an identifier, or None.

    >>> key_problem("ISIC_0024306"), key_problem("a\\nb"), key_problem(" a")
    (None, 'has control characters', 'has spaces around it')
    """
    if not value:
        return "is empty"
    if not value.isprintable():
        return "has control characters"
    if value != value.strip():
        return "has spaces around it"
    if len(value) > MAX_KEY_CHARS:
        return f"has {len(value)} characters, at most {MAX_KEY_CHARS} are allowed"
    return None


def check_keys(values: Iterable[str], lines: Sequence[int], name: str, column: str, *, empty: bool = False) -> None:
    """Refuse identifiers that other programs would cut, split or confuse.

    Args:
        values: one per row.
        lines: the line of each, for the message.
        name: of the file.
        column: of the values.
        empty: allow empty ones.

    Raises:
        DataError: with the first bad line and the number of bad rows.
    """
    bad = [
        (line, value, problem)
        for value, line in zip(values, lines, strict=True)
        if (problem := key_problem(value)) is not None and not (empty and not value)
    ]
    if bad:
        line, value, problem = bad[0]
        shown = value if len(value) <= 40 else value[:40] + "…"
        raise DataError(f"{name} line {line}: {column} {shown!r} {problem} ({len(bad)} such rows); correct it")


def neutralise(value: str) -> str:
    """Text that a spreadsheet shows instead of running: a leading `'` before what could be a formula.

    A negative number stays the number it is. OWASP, "CSV Injection".

    >>> [neutralise(v) for v in ("=1+1", "+1", "-2.5", "-cmd", "@SUM(A1)", "ISIC_1")]
    ["'=1+1", "'+1", '-2.5', "'-cmd", "'@SUM(A1)", 'ISIC_1']
    """
    if value.startswith("-") and _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def restore(value: str) -> str:
    """The text that `neutralise` was given, for a file we wrote ourselves.

    >>> restore(neutralise("=1+1")), restore("'quoted'")
    ('=1+1', "'quoted'")
    """
    plain = value[1:]
    return plain if value.startswith("'") and neutralise(plain) == value else value


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """A CSV with Unix line ends, every text neutralised, missing values empty.

    >>> csv_text(["a", "b"], [["=x", None], [1, 0.5]])
    "a,b\\n'=x,\\n1,0.5\\n"
    """
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\r\n")  # it quotes fields with characters of its own line end alone
    for row in ([*columns], *rows):
        writer.writerow(["" if v is None else neutralise(v) if isinstance(v, str) else v for v in row])
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


class _Lines(list[str]):
    def write(self, line: str) -> None:
        self.append(line)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> None:
    """Write `csv_text` durably and all at once.

    Raises:
        ResourceError: the folder cannot be written.
    """
    write_text(path, csv_text(columns, rows))
