"""The manifest: one row per image, in a Parquet file whose bytes depend on its content alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dermalyze.core.atomic import sha256_bytes, write_bytes, write_json
from dermalyze.core.run import MANIFEST_COLUMNS, Run, read_json
from dermalyze.errors import DataError, ResourceError
from dermalyze.tasks.base import TASKS, Task

_INTEGERS, _FLOATS = ("width", "height"), ("age",)


def manifest_bytes(frame: pd.DataFrame) -> bytes:
    """The manifest file: rows by image_id, `MANIFEST_COLUMNS` first (null where the frame has none), then the user's columns.

    Args:
        frame: `image_id` unique; width and height whole numbers (px), age a number (years), all else text; missing is null.

    Raises:
        DataError: an image_id is missing or given twice.

    >>> one = pd.DataFrame({"image_id": ["a", "b"], "label": ["mel", None]})
    >>> manifest_bytes(one) == manifest_bytes(one[::-1])
    True
    """
    missing, repeated = int(frame["image_id"].isna().sum()), int(frame["image_id"].duplicated().sum())
    if missing or repeated:
        raise DataError(f"manifest: {missing} rows have no image_id and {repeated} repeat one; each image has its own")
    ordered = frame.sort_values("image_id", kind="stable")
    names = [*MANIFEST_COLUMNS, *(str(name) for name in frame.columns if name not in MANIFEST_COLUMNS)]
    # without metadata of pandas or Arrow, which would add versions to the bytes
    table = pa.table({name: _column(ordered, name) for name in names})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, store_schema=False)
    return sink.getvalue()


def _column(frame: pd.DataFrame, name: str) -> pa.Array:
    kind = pa.int32() if name in _INTEGERS else pa.float64() if name in _FLOATS else pa.string()
    if name not in frame:
        return pa.nulls(len(frame), kind)
    values = frame[name]
    if kind == pa.string():
        values = values.astype(object).map(str, na_action="ignore")
    else:
        values = values.astype("Int32" if kind == pa.int32() else "Float64")
    return pa.array(values.to_numpy(dtype=object, na_value=None), kind, from_pandas=True)


def write_manifest(run: Run, frame: pd.DataFrame) -> str:
    """Write the manifest durably, and its SHA-256 into the run's summary where there is one.

    The manifest is missing while the two are changed, so that a crash between them asks for `prepare` again.

    Returns:
        SHA-256 of the file.

    Raises:
        DataError: an image_id is missing or given twice.
        ResourceError: the run cannot be written.
    """
    data = manifest_bytes(frame)
    digest = sha256_bytes(data)
    if run.summary_path.exists():
        summary = read_json(run.summary_path)
        if summary.get("manifest_sha256") != digest:
            run.manifest_path.unlink(missing_ok=True)
            write_json(run.summary_path, {**summary, "manifest_sha256": digest})
    write_bytes(run.manifest_path, data)
    return digest


def read_manifest(run: Run) -> pd.DataFrame:
    """The manifest, in order of image_id: width and height Int32, age float, everything else text; missing is null.

    Raises:
        UsageError: `prepare` has not run.
        DataError: the file is damaged, or not the one that `prepare` wrote.
        ResourceError: unreadable.
    """
    path = run.require(run.manifest_path, "prepare")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error
    expected = read_json(run.summary_path).get("manifest_sha256") if run.summary_path.exists() else None
    if expected is not None and sha256_bytes(data) != expected:
        raise DataError(
            f"{path.name}: was changed after prepare (its SHA-256 is not the {str(expected)[:12]}… of summary.json); "
            "correct the source and run prepare in a new run folder"
        )
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: damaged ({type(error).__name__}); run prepare in a new run folder") from error
    absent = [name for name in MANIFEST_COLUMNS if name not in table.column_names]
    if absent:
        raise DataError(f"{path.name}: columns {absent} are missing; run prepare in a new run folder")
    try:
        frame = table.to_pandas().astype({**dict.fromkeys(_INTEGERS, "Int32"), **dict.fromkeys(_FLOATS, "float64")})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{path.name}: a column is of another type ({type(error).__name__}); run prepare in a new run folder"
        ) from error
    if frame["image_id"].isna().any() or frame["image_id"].duplicated().any():
        raise DataError(f"{path.name}: rows without an image_id, or with one twice; run prepare in a new run folder")
    return frame


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not quarantined; the index stays."""
    return frame[frame["quarantine_reason"].isna()]


def read_classes(run: Run) -> list[str]:
    """Class names in the order of the model's outputs.

    Raises:
        UsageError: `prepare` has not run.
        DataError: the summary names no classes.
    """
    classes: Any = read_json(run.require(run.summary_path, "prepare")).get("classes")
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{run.summary_path.name}: has no classes; run prepare in a new run folder")
    return [str(name) for name in classes]


def read_task(run: Run) -> Task:
    """The task that the set was prepared for.

    Raises:
        UsageError: `prepare` has not run.
        DataError: the summary names no known one.
    """
    kind = read_json(run.require(run.summary_path, "prepare")).get("task")
    if kind not in TASKS:
        raise DataError(f"{run.summary_path.name}: has no supported task; run prepare in a new run folder")
    return TASKS[kind]


def source_codes(sources: pd.Series) -> NDArray[np.int64]:
    """Index of each training image's source, in alphabetical order.

    Raises:
        DataError: an image without a source, or fewer than two sources.
    """
    missing, names = int(sources.isna().sum()), sorted(set(sources.dropna().astype(str)))
    if missing or len(names) < 2:
        raise DataError(
            f"train.balance_sources: {len(names)} sources in the training split, {missing} images without one; at least 2 are "
            "needed and every image must have one: merge sources with data.source.kind merged, or leave balance_sources out"
        )
    return np.array([names.index(name) for name in sources.astype(str)], dtype=np.int64)
