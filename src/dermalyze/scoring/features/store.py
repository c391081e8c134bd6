"""Features of a run's images: the trained network's, which `score` stores, or a pretrained one's, which `embed` stores."""

# Shapes: N images, D features.

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.data import PARTS
from dermalyze.core.atomic import replacing
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_division
from dermalyze.errors import DataError, ModelError, UsageError, nearest
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.multilabel import names_of

OWN = "own"
"""The name of the features of the run's own network."""
_META_KEY = b"dermalyze.features"


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the images of every part.

    Attributes:
        name: `own`, or the name under which `embed` stored them.
        frame: N manifest rows with `group` and `part`.
        values: (N, D) float32, finite.
        called: (N,) class, or labels as the manifest holds them, that the run's model gives each image; "" where there
            are no predictions of it.
        right: (N,) whether that is right, in every label; False where there are no predictions.
        accepted_leak: the reason with which the run's training continued although data leaks, or None.
        meta: where they come from.
    """

    name: str
    frame: pd.DataFrame
    values: NDArray[np.float32]
    called: NDArray[np.str_]
    right: NDArray[np.bool_]
    accepted_leak: str | None
    meta: dict[str, Any]

    @property
    def what(self) -> str:
        """Words for the features."""
        return "the run's own features" if self.name == OWN else f"features of {self.name}, not trained on these images"

    def rows(self, keep_N: NDArray[np.bool_]) -> Features:
        """Some of the images."""
        return Features(
            self.name, self.frame[keep_N].reset_index(drop=True), self.values[keep_N], self.called[keep_N],
            self.right[keep_N], self.accepted_leak, self.meta,
        )  # fmt: skip


def write_features(path: Path, ids: list[str], values_ND: NDArray[np.float32], meta: dict[str, Any]) -> None:
    """Write one Parquet file, durably and all at once.

    Raises:
        ModelError: NaN or infinite features.
        ResourceError: the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not np.isfinite(values_ND).all():
        raise ModelError(f"{path.name}: the network gave NaN or infinite features; choose another one")
    rows = pa.FixedSizeListArray.from_arrays(pa.array(values_ND.reshape(-1), pa.float32()), values_ND.shape[1])
    table = pa.table({"image_id": pa.array(ids, pa.string()), "features": rows})
    table = table.replace_schema_metadata({_META_KEY: json.dumps(meta, sort_keys=True).encode()})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_stored(path: Path) -> tuple[list[str], NDArray[np.float32], dict[str, Any]]:
    """Ids, features (N, D) and meta of one file.

    Raises:
        ModelError: damaged, or not a file of features.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, use_threads=False, page_checksum_verification=True)
        meta = json.loads((table.schema.metadata or {})[_META_KEY])
        rows = table["features"].combine_chunks()
        values = np.asarray(rows.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(rows), rows.type.list_size)
        ids = [str(image_id) for image_id in table["image_id"].to_pylist()]
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name}: damaged or no file of features ({type(error).__name__}); run embed again") from error
    if not isinstance(meta, dict) or not np.isfinite(values).all() or len(set(ids)) != len(ids):
        raise ModelError(f"{path.name}: NaN, repeated ids or no header; run embed again")
    return ids, values, meta


def read_features(run: Run, recipe: str, name: str = OWN) -> Features:
    """Features of every image that a part holds.

    Args:
        run: split, with predictions of every part; for other features than its own, after `embed`.
        recipe: the experiment's inference recipe.
        name: `own`, or one of those that `embed` stored.

    Raises:
        UsageError: nothing of that name is stored, or `score` has not run.
        DataError: manifest or split changed since.
        ModelError: a file is damaged, or holds no features.
    """
    frame, parts = read_division(run)
    frame = frame.assign(part=parts).loc[lambda rows: rows["part"].isin(PARTS)].reset_index(drop=True)
    at = {image_id: row for row, image_id in enumerate(frame["image_id"].astype(str))}
    called, right, leak, values, meta = _own(run, recipe, at, wanted=name == OWN)
    if name != OWN:
        stored = run.stored_features()
        if name not in stored:
            known = ", ".join([OWN, *stored])
            raise UsageError(
                f"features {name!r} are not stored{nearest(name, [OWN, *stored])}; there are {known}; "
                f"make others with: dermalyze embed {run.root} --backbone NAME"
            )
        ids, found, meta = read_stored(run.features_path(name))
        if meta.get("manifest_sha256") != run.manifest_hash() or not set(at) <= set(ids):
            raise DataError(f"{run.root.name}: the features {name} are of another manifest; run embed again")
        row_of = {image_id: row for row, image_id in enumerate(ids)}
        values = found[[row_of[image_id] for image_id in at]]
    assert values is not None
    return Features(name, frame, values, called, right, leak, meta)


def _own(
    run: Run, recipe: str, at: dict[str, int], *, wanted: bool
) -> tuple[NDArray[np.str_], NDArray[np.bool_], str | None, NDArray[np.float32] | None, dict[str, Any]]:
    """What is called, whether it is right, accepted leak, embeddings (where wanted) and meta from each part's predictions."""
    called, right = np.full(len(at), "", dtype=object), np.zeros(len(at), dtype=bool)
    values: NDArray[np.float32] | None = None
    leak, meta, seen = None, dict[str, Any](), 0
    for part in (part for part in PARTS if run.split_path(part).exists()):
        path = run.predictions_path(part, recipe)
        if not path.exists() and not wanted:
            continue
        p = read_predictions(run.require(path, "score"))
        if p.meta.get("manifest_sha256") != run.manifest_hash() or not set(p.ids) <= set(at):
            raise DataError(f"{path.name}: of another manifest or split; run again: dermalyze score {run.root}")
        if meta and p.meta.get("model_sha256") != meta.get("model_sha256"):
            raise ModelError(f"{path.name}: the parts are of different models; run again: dermalyze score {run.root}")
        rows = [at[image_id] for image_id in p.ids]
        called_NC = called_of(run, p)
        called[rows] = [names_of(called_C, p.classes) for called_C in called_NC]
        right[rows] = p.task.right(p.labels, called_NC)
        leak, meta, seen = p.meta.get("accepted_leak") or leak, p.meta, seen + len(p)
        if wanted:
            if p.embedding is None:
                raise ModelError(f"{path.name}: holds no features; run again: dermalyze score {run.root}")
            values = np.zeros((len(at), p.embedding.shape[1]), np.float32) if values is None else values
            values[rows] = p.embedding
    if wanted and seen != len(at):
        raise DataError(f"{run.root.name}: predictions of {seen} of {len(at)} images; run again: dermalyze score {run.root}")
    return called.astype(str), right, leak, values, meta


def called_of(run: Run, p: Predictions) -> NDArray[np.bool_]:
    """(N, C) what the run's model calls: with the thresholds of the recipe's calibration where the task has some.

    Raises:
        ModelError: the calibration was fitted on the scores of another model, or is damaged.
    """
    path = run.calibration_path(p.meta["recipe"])
    if not p.task.has("thresholds") or not path.exists():
        return p.task.called(p.probs(), None)
    stored = read_json(path)
    if stored.get("scores_sha256") != p.meta.get("scores_sha256") or not isinstance(stored.get("calibration"), dict):
        raise ModelError(f"{path.name}: fitted on the scores of another model; run again: dermalyze calibrate {run.root}")
    return Answering.read(p.task.kind, p.classes, p.meta["recipe"], stored["calibration"]).called(p.logits)
