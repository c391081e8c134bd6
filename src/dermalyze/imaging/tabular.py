"""Metadata of a patient or lesion as numbers: an encoder that is fitted on training rows and travels with the model.

A numeric column becomes its standardized value, the median where it is missing, and an indicator of that; a categorical one
becomes a column per value of the training rows and one, `unknown`, for all else. Pure numpy and JSON: whoever answers encodes
the same way as whoever trained.
"""

# Shapes: N rows, K columns of metadata, M encoded columns.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.errors import DataError, ModelError

Floats = NDArray[np.float32]
Value = str | float | int | None

MISSING = frozenset({"", "unknown", "nan", "na", "n/a", "none", "null", "<na>"})
OUTSIDE = "is outside the"
"""How what is said of a number begins that is known, though not taken as it is."""
MAX_VALUES = 64  # different ones of a categorical column; more are names or free text


@dataclass(frozen=True)
class Numeric:
    """A column of numbers.

    Attributes:
        name: of the column.
        median, mean, std: of the training rows (the standard deviation of them all, 1 where it is 0); the median is in
            for a missing value.
        low, high: their range; what lies outside is taken to its edge.
    """

    name: str
    median: float
    mean: float
    std: float
    low: float
    high: float

    @property
    def width(self) -> int:
        """The value, and whether it is missing."""
        return 2

    def encode(self, value: Value) -> list[float]:
        """The standardized value and the indicator."""
        number = as_number(value)
        taken = self.median if number is None else min(max(number, self.low), self.high)
        return [(taken - self.mean) / self.std, float(number is None)]

    def problem(self, value: Value) -> str | None:
        """What is said of a value that is not taken as it is."""
        number = as_number(value)
        if number is None:
            return "is missing" if is_missing(value) else "is no number and counts as missing"
        if not self.low <= number <= self.high:
            return f"{OUTSIDE} {self.low:g} to {self.high:g} of training and was taken to its edge"
        return None


@dataclass(frozen=True)
class Categorical:
    """A column of words.

    Attributes:
        name: of the column.
        values: those of the training rows, in lower case, sorted.
    """

    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """One per value, and `unknown`."""
        return len(self.values) + 1

    def encode(self, value: Value) -> list[float]:
        """One-hot; the last place is `unknown`."""
        word = as_word(value)
        at = self.values.index(word) if word in self.values else len(self.values)
        return [float(place == at) for place in range(self.width)]

    def problem(self, value: Value) -> str | None:
        """What is said of a value that is not taken as it is."""
        if is_missing(value):
            return "is missing"
        return None if as_word(value) in self.values else "is not among the values of training and counts as unknown"


Column = Numeric | Categorical
KINDS: dict[str, type[Numeric] | type[Categorical]] = {"numeric": Numeric, "categorical": Categorical}


@dataclass(frozen=True)
class Encoder:
    """Columns of metadata to one row of numbers.

    Attributes:
        columns: fitted, in the order of the encoded row.

    >>> encoder = fit_encoder({"age": [40, 60, None], "sex": ["male", "female", "male"]})
    >>> encoder.labels
    ('age', 'age missing', 'sex female', 'sex male', 'sex unknown')
    >>> encoder({"age": [60], "sex": ["Male"]}).tolist(), encoder.blank.tolist()
    ([[1.0, 0.0, 0.0, 1.0, 0.0]], [0.0, 1.0, 0.0, 0.0, 1.0])
    """

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """M."""
        return sum(column.width for column in self.columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each encoded column says."""
        each = []
        for column in self.columns:
            words = ("", " missing") if isinstance(column, Numeric) else (*(f" {v}" for v in column.values), " unknown")
            each += [f"{column.name}{word}" for word in words]
        return tuple(each)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Where each column's numbers are in the row."""
        ends = np.cumsum([column.width for column in self.columns]).tolist()
        return tuple(slice(end - column.width, end) for column, end in zip(self.columns, ends, strict=True))

    @property
    def blank(self) -> Floats:
        """(M,) the row of which nothing is known."""
        return self({name: [None] for name in self.names}).reshape(-1)

    def __call__(self, table: Mapping[str, Sequence[Value]]) -> Floats:
        """(N, M) float32 of rows given as columns; one that the table lacks is missing everywhere."""
        count = max((len(values) for values in table.values()), default=0)
        rows_NM = np.empty((count, self.width), np.float32)
        for column, block in zip(self.columns, self.blocks, strict=True):
            for row, value in enumerate(table.get(column.name, [None] * count)):
                rows_NM[row, block] = column.encode(value)
        return rows_NM

    def problems(self, row: Mapping[str, Value]) -> dict[str, str]:
        """What is said of a row's columns that are missing, unseen or out of range, by column."""
        found = {column.name: column.problem(row.get(column.name)) for column in self.columns}
        return {name: problem for name, problem in found.items() if problem is not None}

    def hidden(self, rows_NM: Floats, hide_NK: NDArray[np.bool_]) -> Floats:
        """The rows with some of their values taken away, as if they had never been known.

        Args:
            rows_NM: encoded.
            hide_NK: which columns of which rows.
        """
        blank_M, shown_NM = self.blank, rows_NM.copy()
        for block, hide_N in zip(self.blocks, hide_NK.T, strict=True):
            shown_NM[hide_N, block] = blank_M[block]
        return shown_NM

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        kinds = {kind: name for name, kind in KINDS.items()}
        rows = [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns]
        return {"columns": [{**row, **({"values": list(row["values"])} if "values" in row else {})} for row in rows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Encoder:
        """Inverse of `as_dict`, of a file that anybody may have written.

        Raises:
            ModelError: it is no encoder.
        """
        try:
            columns = tuple(_column(row) for row in values["columns"])
            names = [column.name for column in columns]
            if set(values) != {"columns"} or not columns or len(set(names)) < len(names):
                raise ValueError("no column, one twice, or unknown keys")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the metadata encoder is damaged ({type(error).__name__}: {error}); export again") from error
        return cls(columns)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Encoder:
        """The encoder of an artifact's record of its metadata.

        Raises:
            ModelError: it is no encoder, or not that of the record's blank row.
        """
        encoder = cls.from_dict(record["encoder"])
        if encoder.width != len(record["blank"]) or not np.allclose(encoder.blank, record["blank"], atol=1e-6):
            raise ModelError("the metadata encoder is not the one that the model was exported with; export again")
        return encoder


def _column(row: Mapping[str, Any]) -> Column:
    fields = {key: value for key, value in row.items() if key != "kind"}
    if not isinstance(fields["name"], str) or not fields["name"]:
        raise ValueError("a column without a name")
    if row["kind"] == "categorical":
        values = fields.pop("values")
        if not (isinstance(values, list) and 1 <= len(values) <= MAX_VALUES and all(isinstance(v, str) for v in values)):
            raise ValueError(f"1 to {MAX_VALUES} texts are values")
        if len(set(values)) < len(values):
            raise ValueError("a value twice")
        return Categorical(values=tuple(values), **fields)
    numbers = [value for key, value in fields.items() if key != "name"]
    if row["kind"] != "numeric" or not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise ValueError("finite numbers are needed")
    column = Numeric(**fields)
    if column.std <= 0 or column.low > column.high:
        raise ValueError("a standard deviation above 0 and an ordered range are needed")
    return column


def fit_encoder(table: Mapping[str, Sequence[Value]]) -> Encoder:
    """The encoder of training rows, given as columns. A column is numeric where each value that is known is a number.

    Raises:
        DataError: a column without any value, or with more different words than a category has.
    """
    return Encoder(tuple(_fit(name, values) for name, values in table.items()))


def _fit(name: str, values: Sequence[Value]) -> Column:
    known = [value for value in values if not is_missing(value)]
    if not known:
        raise DataError(f"metadata column '{name}' has no value in the training split; leave it out of model.metadata.columns")
    numbers = [number for value in known if (number := as_number(value)) is not None]
    if len(numbers) == len(known):
        x = np.array(numbers, dtype=np.float64)
        median, mean, std = float(np.median(x)), float(x.mean()), float(x.std())
        return Numeric(name, median, mean, std or 1.0, float(x.min()), float(x.max()))
    words = tuple(sorted({as_word(value) for value in known}))
    if len(words) > MAX_VALUES:
        raise DataError(
            f"metadata column '{name}' has {len(words)} different values in the training split, at most {MAX_VALUES} make a "
            "category; leave it out of model.metadata.columns, or group its values"
        )
    return Categorical(name, words)


def is_missing(value: Value) -> bool:
    """Whether a value says nothing.

    >>> [is_missing(value) for value in (None, float("nan"), " Unknown", "", 0, "back")]
    [True, True, True, True, False, False]
    """
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip().lower() in MISSING


def as_number(value: Value) -> float | None:
    """A finite number, or None. A text must be written in plain digits: Python also takes "5_5", which is a slip of the hand.

    >>> as_number(" 55 "), as_number("5.5e1"), as_number("inf"), as_number("5_5"), as_number("fifty"), as_number(None)
    (55.0, 55.0, None, None, None, None)
    """
    try:
        if isinstance(value, str) and not (value.isascii() and "_" not in value):
            return None
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def as_word(value: Value) -> str:
    """A category as it is compared: without case and outer spaces."""
    return " ".join(str(value).lower().split())
