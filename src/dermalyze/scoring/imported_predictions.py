"""Predictions that somebody else made: a CSV of probabilities or logits, or what `score --model` stored; checked, matched."""

# Shapes: N rows, C classes.

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.data import PARTS
from dermalyze.core.atomic import resource_errors
from dermalyze.core.run import MANIFEST_COLUMNS
from dermalyze.core.tables import Table, check_keys, neutralise, read_table, restore
from dermalyze.data.grouping import groups
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.metrics.classification import SMALLEST_PROBABILITY
from dermalyze.scoring.external_set import set_name
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.scoring.score_kind import ONE_VS_REST, SCORE_KINDS, SINGLE, Kind, checked_kind
from dermalyze.tasks.base import TASKS, Task

ID_COLUMNS = ("image_id", "image", "image_name", "isic_id")
"""Names of the column with the image's id; the first that is there."""
KNOWN = ("patient_id", "lesion_id", "age", "sex", "site", "source")
"""Columns of a CSV of its own that the report may use."""
NO_CLASSES = {*MANIFEST_COLUMNS, *ID_COLUMNS, "group", "index", "predicted_class", "confidence"}
RECIPE = "given"
HASH_DIGITS = 12
"""Of an image's SHA-256 in a file of `dermalyze predict`."""
BY = "-by-"
"""Between the part and the model in the name of a file that `score --model` stores."""


@dataclass(frozen=True, eq=False)
class ImportedPredictions:
    """Predictions from elsewhere.

    Attributes:
        name: of the file, safe as a file name.
        sha256: of the file; of the model, where that is known.
        ids: image_id of each row, unique.
        classes: in the order of the columns of `values`.
        values: (N, C) float64, finite.
        kind: see `score_kind.Kind`.
        table: further columns of a CSV as text, null where empty.
        model: what is known of the model.
        manifest_sha256: of the run that they were made for, where that is known.
        task: what they answer.
        refused: ids of rows without a prediction, since the model refused the image.
        hashed: `ids` and `refused` are the first digits of the SHA-256 of each image's file.
    """

    name: str
    sha256: str
    ids: list[str]
    classes: list[str]
    values: NDArray[np.float64]
    kind: Kind
    table: pd.DataFrame
    model: str = "a model of which nothing but its predictions is known here"
    manifest_sha256: str | None = None
    task: Task = TASKS["multiclass"]
    refused: tuple[str, ...] = ()
    hashed: bool = False

    def logits(self) -> NDArray[np.float64]:
        """(N, C) logits, or those that give the probabilities; of one-vs-rest scores their logarithms."""
        if self.kind == ONE_VS_REST:
            return np.log(np.maximum(self.values, SMALLEST_PROBABILITY))
        return self.values if self.kind == "logits" else self.task.logits(self.values)

    def predictions(self, rows: NDArray[np.int64], labels: NDArray[np.int64], group: list[str], **meta: Any) -> Predictions:
        """Some of the rows as predictions to evaluate."""
        known = {
            "classes": self.classes, "recipe": RECIPE, "task": self.task.kind, "scores": self.kind, "model_sha256": None,
            "accepted_leak": None, "predictions_file_sha256": self.sha256,
        }  # fmt: skip
        return Predictions(
            [self.ids[i] for i in rows], group, labels, self.logits()[rows].astype(np.float32), None, {**known, **meta}
        )


def read_imported(
    path: Path, classes: Sequence[str] | None, scores: str | None = None, task: Task = TASKS["multiclass"]
) -> ImportedPredictions:
    """Read a CSV, or the files of one model that `score --model` stored.

    A CSV has a column `image_id` (or `image`, `image_name`, `isic_id`) and one column a class, by its name or, as
    `dermalyze predict --format csv` writes, by `p_` and its name. What that command writes is taken as it is: images by their
    file names or hashes, refused images without probabilities.

    Args:
        path: the CSV, or one of the stored files; its siblings of the other parts are read too.
        classes: of the run; None: the file's own, which are all columns that no manifest has.
        scores: of `SCORE_KINDS`; None: as `score_kind.kind_of` tells.
        task: what they answer; probabilities of labels need not sum to 1.

    Raises:
        UsageError: not there, or another word for the scores.
        DataError: columns missing, an id twice or odd, text for a number.
        ModelError: NaN or infinite values, probabilities outside 0..1 or rounded, other classes.
    """
    if scores not in (None, *SCORE_KINDS):
        raise UsageError(f"--scores {scores}: must be one of {', '.join(SCORE_KINDS)}")
    if not path.is_file():
        raise UsageError(f"{path.name}: no such file; give a CSV with image_id and one column a class")
    with resource_errors(path.name):
        data = path.read_bytes()
    if path.suffix.lower() == ".parquet":
        return _read_stored(path, task)
    table = read_table(data, path.name)
    id_column, hashed = _id_column(table)
    ids = _ids(table, id_column)
    columns = _class_columns(table, classes)
    table, ids, refused = _without_refused(table, ids, list(columns.values()))
    values = np.array([_numbers(table, column) for column in columns.values()]).T.reshape(len(ids), len(columns))
    kind = checked_kind(values, table, scores, task)
    others = [name for name in table.columns if name not in (*columns.values(), id_column, "image_id")]
    rest = pd.DataFrame({name: [value.strip() or None for value in table.column(name)] for name in others}, dtype=object)
    rest = rest.assign(image_id=ids)
    return ImportedPredictions(
        set_name(path),
        hashlib.sha256(data).hexdigest(),
        ids,
        list(columns),
        values,
        kind,
        rest,
        task=task,
        refused=refused,
        hashed=hashed,
    )


def match(
    given: ImportedPredictions, frame: pd.DataFrame, parts: pd.Series, classes: list[str], *, partial: bool
) -> tuple[Predictions, Predictions | None, list[str]]:
    """The rows of a run's test split, those of its calibration split (or validation), and notes on the others.

    Args:
        given: predictions for the run's classes.
        frame: usable manifest rows with `group`.
        parts: the part of each.
        classes: of the run.
        partial: continue although test images have no row.

    Raises:
        DataError: rows of images that the run does not have, or test images without a row.
    """
    known = set(frame["image_id"])
    if given.hashed:
        named = dict(zip(frame["sha256"].str[:HASH_DIGITS], frame["image_id"], strict=True))
        ids = [named.get(one, one) for one in given.ids]
        given = replace(given, ids=ids, refused=tuple(named.get(one, one) for one in given.refused), hashed=False)
    row_of = {image_id: i for i, image_id in enumerate(given.ids)}
    strangers = [image_id for image_id in (*given.ids, *given.refused) if image_id not in known]
    if strangers:
        raise DataError(
            f"{given.name}: {len(strangers)} of {len(given.ids)} rows are of images that the run does not have; first: "
            f"{strangers[0]!r}; take them out, or evaluate the file without a run (with a label column)"
        )
    notes = [SINGLE] if given.kind == ONE_VS_REST else []

    def taken(part: str) -> Predictions | None:
        rows = frame[(parts == part) & frame["image_id"].isin(row_of)]
        if rows.empty:
            return None
        at = np.array([row_of[image_id] for image_id in rows["image_id"]], dtype=np.int64)
        labels = given.task.targets(rows["label"].astype(str).tolist(), classes)
        return given.predictions(at, labels, rows["group"].astype(str).tolist(), set=part)

    test, total = taken("test"), int((parts == "test").sum())
    refused = int(((parts == "test") & frame["image_id"].isin(given.refused)).sum())
    missing = total - refused - (len(test) if test is not None else 0)
    if test is None or (missing and not partial):
        absent = next(iter(frame.loc[(parts == "test") & ~frame["image_id"].isin([*row_of, *given.refused]), "image_id"]), None)
        if absent is None:
            raise DataError(f"{given.name}: the model refused all {refused} test images; nothing is left to evaluate")
        raise DataError(
            f"{given.name}: {missing} of {total} test images have no row; first: {absent!r}; leaving some out flatters: add"
            + (" them, or evaluate the others alone: --partial" if test is not None else " them")
        )
    if refused:
        notes.append(refusals(refused, total))
    if missing:
        notes.append(
            f"{missing} of {total} test images have no row and are left out; if they are the hard ones, this flatters."
        )
    part = "cal" if (parts == "cal").any() else "val"
    reference = taken(part)
    if reference is not None and len(reference) < int((parts == part).sum()):
        reference = None  # of some images: nobody knows which
    used = len(test) + (len(reference) if reference is not None else 0)
    if used < len(given.ids):
        notes.append(f"{len(given.ids) - used} rows of other parts are not used.")
    if reference is not None:
        notes.append(f"Thresholds come from its {len(reference)} rows of the part {part}.")
    return test, reference, notes


def refusals(refused: int, total: int) -> str:
    """What a report has to say of refused images.

    >>> refusals(3, 60)
    'The model refused 3 of 60 images (coverage 95.0 %); the metrics are of the others, and would be lower with these.'
    """
    return (
        f"The model refused {refused} of {total} images (coverage {100 * (1 - refused / total):.1f} %); the metrics are of the "
        "others, and would be lower with these."
    )


def standing_alone(given: ImportedPredictions) -> tuple[Predictions, pd.DataFrame, list[str]]:
    """All rows under the labels of the file itself, grouped by its patient_id, lesion_id or group, where it has them.

    An image's class is in a column label. Its labels stand there too, with | between them, or, where the predictions are in
    columns p_NAME, as 1, 0 or nothing (nobody knows) in columns NAME.

    Raises:
        DataError: no label column, or labels that are no classes.
    """
    columns = {str(name): given.table[name].tolist() for name in given.table}
    try:
        labels = given.task.targets(given.task.label_texts(columns, given.classes), given.classes)
    except DataError as error:
        raise DataError(f"{given.name}: {error}") from None
    frame = given.table.rename(columns={"group": "cluster_id"})
    named = [name for name in ("patient_id", "lesion_id", "cluster_id") if name in frame]
    group = groups(frame[["image_id", *named]]).astype(str).tolist()
    notes = (
        [] if named else ["No lesion_id, patient_id or group: each image counts as a group, so intervals may be too narrow."]
    )
    notes += [SINGLE] if given.kind == ONE_VS_REST else []
    if given.refused:
        notes.append(refusals(len(given.refused), len(given.refused) + len(given.ids)))
    rows = frame[["image_id", *(name for name in KNOWN if name in frame)]].set_index("image_id")
    if "age" in rows:
        rows["age"] = pd.to_numeric(rows["age"], errors="coerce")
    every = np.arange(len(given.ids), dtype=np.int64)
    return given.predictions(every, labels, group, set=given.name), rows, notes


def _read_stored(path: Path, task: Task) -> ImportedPredictions:
    part, by, name = path.stem.partition(BY)
    if not by or part not in PARTS:
        raise UsageError(f"{path.name}: not a file that 'dermalyze score RUN --model' stored; give that, or a CSV")
    stored = [read_predictions(file) for part in PARTS if (file := path.with_name(f"{part}{BY}{name}.parquet")).exists()]
    first = stored[0]
    if any(p.meta.get("model_sha256") != first.meta.get("model_sha256") for p in stored):
        raise ModelError(
            f"{path.name}: the files of {name} are of different models; run again: dermalyze score RUN --model FILE"
        )
    if first.task is not task:
        raise ModelError(f"{path.name}: of task {first.task.kind}, and the run's is {task.kind}")
    logits = np.concatenate([p.logits for p in stored]).astype(np.float64)
    kind: Kind = first.meta.get("scores", "logits")
    values = logits if kind == "logits" else np.exp(logits) if task.has("one_class") else task.probabilities(logits)
    ids = [image_id for p in stored for image_id in p.ids]
    table = pd.DataFrame({"image_id": ids}, dtype=object)
    sha256 = str(first.meta.get("model_sha256"))
    model, manifest = str(first.meta.get("model", "an ONNX graph")), first.meta.get("manifest_sha256")
    return ImportedPredictions(name, sha256, ids, first.classes, values, kind, table, model, manifest, task)


def _id_column(table: Table) -> tuple[str, bool]:
    """The column that names the images, and whether it holds hashes.

    In what `dermalyze predict` or the web page writes, `image_id` is empty where no CSV named the images; then it is their
    files, else their hashes.

    Raises:
        DataError: there is none.
    """
    if table.find("disclaimer") is None:
        found = next((found for name in ID_COLUMNS if (found := table.find(name)) is not None), None)
        if found is None:
            raise DataError(f"{table.name}: has columns {list(table.columns)}, needs image_id (or {', '.join(ID_COLUMNS[1:])})")
        return found, False
    for name in ("image_id", "file", "image"):
        if (found := table.find(name)) is not None and any(value.strip() for value in table.column(found)):
            return found, name == "image"
    raise DataError(f"{table.name}: names no image; write it again without --no-names")


def _without_refused(table: Table, ids: list[str], columns: list[str]) -> tuple[Table, list[str], tuple[str, ...]]:
    """The rows with a prediction, and the ids of those that `dermalyze predict` left empty since the model refused them.

    Raises:
        DataError: an image that could not be read, or no row is left.
    """
    decision, error = table.find("decision") or table.find("outcome"), table.find("error")
    if decision is None:
        return table, ids, ()
    empty = [not any(row) for row in zip(*([value.strip() for value in table.column(c)] for c in columns), strict=True)]
    if error is not None:
        failed = [image_id for image_id, text in zip(ids, table.column(error), strict=True) if text.strip()]
        if failed:
            raise DataError(
                f"{table.name}: {len(failed)} of {len(ids)} rows hold an error and no prediction; first: {failed[0]!r}; "
                "remove these images or rows"
            )
    refer = [word == "refer" and gone for word, gone in zip(table.column(decision), empty, strict=True)]
    kept = [i for i, gone in enumerate(refer) if not gone]
    if not kept:
        raise DataError(f"{table.name}: the model refused all {len(ids)} images; nothing is left to evaluate")
    answered = Table(table.name, table.columns, [table.rows[i] for i in kept], [table.lines[i] for i in kept])
    return answered, [ids[i] for i in kept], tuple(image_id for image_id, gone in zip(ids, refer, strict=True) if gone)


def _ids(table: Table, column: str) -> list[str]:
    values = table.column(column)
    check_keys(values, table.lines, table.name, column)
    for value, line in zip(values, table.lines, strict=True):
        if neutralise(value) != value:
            raise DataError(f"{table.name} line {line}: {column} {value!r} is a formula to a spreadsheet; put ' before it")
    ids = [restore(value) for value in values]
    if column == "file":  # as dermalyze predict writes it
        ids = [PurePath(value.rpartition("!")[2]).stem for value in ids]
    twice = [image_id for image_id, n in Counter(ids).items() if n > 1]
    if twice:
        raise DataError(f"{table.name}: {column} {twice[0]!r} and {len(twice) - 1} others are in more than one row; keep one")
    if not ids:
        raise DataError(f"{table.name}: has no rows; at least 1 is needed")
    return ids


def _class_columns(table: Table, classes: Sequence[str] | None) -> dict[str, str]:
    """Class to its column."""
    if classes is None:
        marked = {name.removeprefix("p_"): name for name in table.columns if name.startswith("p_")}
        found = marked or {name: name for name in table.columns if name not in NO_CLASSES}
        if len(found) < 2:
            raise DataError(f"{table.name}: has columns {list(table.columns)}; two or more classes, a column each, are needed")
        return found
    columns = {name: table.find(f"p_{name}") or table.find(name) for name in classes}
    missing = [name for name, column in columns.items() if column is None]
    if missing:
        raise ModelError(
            f"{table.name}: no column for the classes {missing}; it has {list(table.columns)}, the run's classes are "
            f"{list(classes)}"
        )
    return {name: column for name, column in columns.items() if column is not None}


def _numbers(table: Table, column: str) -> list[float]:
    values, bad = [], 0
    for text, line in zip(table.column(column), table.lines, strict=True):
        try:
            values.append(float(text))
        except ValueError:
            if text.strip():
                raise DataError(
                    f"{table.name} line {line}: {column} {text[:40]!r} is no number (with a decimal point); correct it, or, "
                    "where it is no class, call the columns of the classes p_NAME"
                ) from None
            values.append(math.nan)
        bad += not math.isfinite(values[-1])
    if bad:
        raise ModelError(f"{table.name}: {bad} of {len(values)} values of {column} are empty, NaN or infinite; fix the model")
    return values
