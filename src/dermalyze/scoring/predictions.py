"""Stored predictions: one Parquet file per set and recipe. `score` writes them, and all evaluation reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.core.atomic import replacing
from dermalyze.errors import ModelError
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import TASKS, Task

# Shapes: N images, S passes, C classes, D width of the embedding.

FORMAT_VERSION = 4
META_KEYS = ("classes", "set", "recipe", "task")
_FORMAT_KEY, _META_KEY = b"dermalyze.predictions", b"dermalyze.meta"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of one inference recipe on one set of labelled images, checked when made.

    Args:
        ids: image_id of each row, unique.
        groups: what must never be torn apart (patient, lesion), one per row.
        labels: (N,) int64 class index, 0..C-1, in the order of `meta["classes"]`; of task multilabel (N, C) 1, 0, or
            -1 where missing.
        logits: (N, C) float32, finite; their softmax is the probability, of task multilabel their sigmoid.
        embedding: (N, D) float32, finite, or None.
        meta: JSON values; at least `classes` (list of names), `set`, `recipe` and `task`; also `model_sha256`,
            `manifest_sha256` and `accepted_leak` (a reason, or None).
        samples: (N, S, C) float32, finite: logits of each of the S passes whose mean probability the answer is, or None
            where there was one pass, or nothing is known of them.

    Raises:
        ModelError: lengths differ, a logit is NaN or infinite, a label is outside the classes, an id is given twice.

    >>> meta = {"classes": ["mel", "nv"], "set": "test", "recipe": "plain", "task": "multiclass"}
    >>> one = Predictions(["a"], ["L1"], np.array([1]), np.zeros((1, 2)), None, meta)
    >>> one.classes, len(one), one.probs()
    (['mel', 'nv'], 1, array([[0.5, 0.5]]))
    """

    ids: list[str]
    groups: list[str]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32] | None
    meta: dict[str, Any]
    samples: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "logits", np.ascontiguousarray(self.logits, dtype=np.float32))
        if self.embedding is not None:
            object.__setattr__(self, "embedding", np.ascontiguousarray(self.embedding, dtype=np.float32))
        if self.samples is not None:
            object.__setattr__(self, "samples", np.ascontiguousarray(self.samples, dtype=np.float32))
        _check(self)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the logits."""
        return list(self.meta["classes"])

    @property
    def task(self) -> Task:
        """What the labels are."""
        return TASKS[self.meta["task"]]

    def answering(self, calibration: Mapping[str, Any] | None = None) -> Answering:
        """How they become answers, by a calibration's record or plainly.

        Raises:
            ModelError: the record is damaged.
        """
        return Answering.read(self.task.kind, self.classes, self.meta["recipe"], calibration)

    def probs(self) -> npt.NDArray[np.float64]:
        """(N, C) probabilities in float64: the softmax of the logits, each row summing to 1; of labels the sigmoid."""
        return self.task.probabilities(self.logits)

    def sample_probs(self) -> npt.NDArray[np.float64] | None:
        """(N, S, C) probabilities of each pass, in float64; None without samples."""
        if self.samples is None:
            return None
        return self.task.probabilities(self.samples.reshape(-1, len(self.classes))).reshape(self.samples.shape)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write one file, durably and all at once; the same predictions give the same bytes.

    Raises:
        ResourceError: the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "image_id": pa.array(predictions.ids, pa.string()),
        "group": pa.array(predictions.groups, pa.string()),
        "label": _rows(predictions.labels) if predictions.labels.ndim == 2 else pa.array(predictions.labels, pa.int64()),
        "logits": _rows(predictions.logits),
    }
    if predictions.embedding is not None:
        columns["embedding"] = _rows(predictions.embedding)
    if predictions.samples is not None:
        n, s, c = predictions.samples.shape
        columns["samples"] = pa.FixedSizeListArray.from_arrays(_rows(predictions.samples.reshape(n * s, c)), s)
    meta = json.dumps(predictions.meta, sort_keys=True, allow_nan=False)
    version = str(FORMAT_VERSION).encode()
    table = pa.table(columns).replace_schema_metadata({_FORMAT_KEY: version, _META_KEY: meta.encode()})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_predictions(path: Path) -> Predictions:
    """Read and check one file.

    Raises:
        ModelError: damaged, not a file of predictions, of another format, NaN or infinite logits, labels outside the classes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedy = "run score again"
    try:
        table = pq.read_table(path, use_threads=False, page_checksum_verification=True)
        stored = table.schema.metadata or {}
        version, meta = int(stored[_FORMAT_KEY]), json.loads(stored[_META_KEY])
    except KeyError:
        raise ModelError(f"{path.name}: not a file of predictions (its header is missing); {remedy}") from None
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: damaged or not a Parquet file: {type(error).__name__}; {remedy}") from error
    if version != FORMAT_VERSION:
        raise ModelError(f"{path.name}: format version {version}; this dermalyze reads {FORMAT_VERSION}; {remedy}")
    missing = [name for name in ("image_id", "group", "label", "logits") if name not in table.column_names]
    if missing or not isinstance(meta, dict):
        raise ModelError(f"{path.name}: columns {missing} or the header's meta are missing; {remedy}")
    try:
        return Predictions(
            ids=_texts(table["image_id"]),
            groups=_texts(table["group"]),
            labels=_label_rows(table["label"]) if meta.get("task") == "multilabel" else _whole_numbers(table["label"]),
            logits=_matrix(table["logits"]),
            embedding=_matrix(table["embedding"]) if "embedding" in table.column_names else None,
            meta=meta,
            samples=_passes(table["samples"]) if "samples" in table.column_names else None,
        )
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from None
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path.name}: a column has the wrong type or holds nulls ({type(error).__name__}); {remedy}"
        ) from error


def _check(p: Predictions) -> None:
    missing = [key for key in META_KEYS if key not in p.meta]
    if missing:
        raise ModelError(f"predictions: meta lacks {missing}; it must name {list(META_KEYS)}")
    classes = p.meta["classes"]
    named = isinstance(classes, list) and len(classes) >= 2 and all(isinstance(name, str) for name in classes)
    if not named or len(set(classes)) != len(classes):
        raise ModelError(f"predictions: classes {classes!r} must be two or more different names")
    if p.meta["task"] not in TASKS:
        raise ModelError(f"predictions: task {p.meta['task']!r} is not one of {', '.join(TASKS)}")
    n = len(p.ids)
    if p.logits.shape != (n, len(classes)):
        raise ModelError(f"predictions: logits have shape {p.logits.shape}, must be ({n}, {len(classes)}) for {n} images")
    if len(p.groups) != n:
        raise ModelError(f"predictions: {n} ids and {len(p.groups)} groups; the numbers must be equal")
    try:
        p.task.check_targets(p.labels, n, len(classes))
    except ModelError as error:
        raise ModelError(f"predictions: {error}") from None
    if p.embedding is not None and (p.embedding.ndim != 2 or len(p.embedding) != n):
        raise ModelError(f"predictions: embedding has shape {p.embedding.shape}, must be ({n}, D)")
    samples = p.samples
    if samples is not None and (samples.ndim != 3 or samples.shape[0] != n or samples.shape[2] != len(classes)):
        raise ModelError(f"predictions: samples have shape {samples.shape}, must be ({n}, S, {len(classes)})")
    if samples is not None and samples.shape[1] < 2:
        raise ModelError("predictions: samples of a single pass are its logits; leave them out")
    for name, values in (("logits", p.logits), ("embedding", p.embedding), ("samples", samples)):
        if values is not None and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).reshape(n, -1).any(axis=1).sum())
            raise ModelError(f"predictions: {bad} of {n} rows have NaN or infinite {name}; the model or its export is faulty")
    if len(set(p.ids)) != n:
        raise ModelError(f"predictions: {n - len(set(p.ids))} image ids are given more than once; each may stand once")


def _rows(values_ND: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> Any:
    import pyarrow as pa

    kind = pa.int64() if values_ND.dtype == np.int64 else pa.float32()
    return pa.FixedSizeListArray.from_arrays(pa.array(values_ND.reshape(-1), kind), values_ND.shape[1])


def _matrix(column: Any) -> npt.NDArray[np.float32]:
    rows = column.combine_chunks()
    if column.null_count or str(rows.type.value_type) != "float":
        raise ValueError("null or not float32")
    return np.asarray(rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), rows.type.list_size), dtype=np.float32)


def _label_rows(column: Any) -> npt.NDArray[np.int64]:
    rows = column.combine_chunks()
    if column.null_count or str(rows.type.value_type) != "int64":
        raise ValueError("null or not int64")
    return np.asarray(rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), rows.type.list_size), dtype=np.int64)


def _passes(column: Any) -> npt.NDArray[np.float32]:
    rows = column.combine_chunks()
    passes = rows.flatten()
    if column.null_count or passes.null_count or str(passes.type.value_type) != "float":
        raise ValueError("null or not float32")
    values = passes.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values.reshape(len(rows), rows.type.list_size, passes.type.list_size), dtype=np.float32)


def _whole_numbers(column: Any) -> npt.NDArray[np.int64]:
    if column.null_count or str(column.type) != "int64":
        raise ValueError("null or not int64")
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False), dtype=np.int64)


def _texts(column: Any) -> list[str]:
    if column.null_count or str(column.type) != "string":
        raise ValueError("null or not text")
    return [str(value) for value in column.to_pylist()]
