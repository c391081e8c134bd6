"""Metadata of manifest rows as the model takes them."""

# Shapes: N rows, M encoded columns.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dermalyze.artifact.artifact import Artifact
from dermalyze.config.columns import why_no_input
from dermalyze.config.model import ModelSpec
from dermalyze.errors import ConfigError, nearest
from dermalyze.imaging.tabular import Encoder, Floats, Value, fit_encoder


def require_columns(frame: pd.DataFrame, spec: ModelSpec) -> None:
    """Refuse metadata that the set does not have.

    Raises:
        ConfigError: with the nearest column, and those there are.
    """
    columns = spec.metadata.columns if spec.metadata is not None else ()
    known = [str(name) for name in frame.columns if why_no_input(str(name)) is None and not frame[name].isna().all()]
    for column in columns:
        if column not in known:
            raise ConfigError(
                f"model.metadata.columns: the data set has no values of '{column}'{nearest(column, known)}; it has {known}"
            )


def fit_rows(frame: pd.DataFrame, spec: ModelSpec, train: Any) -> tuple[Encoder, Floats] | None:
    """The encoder, fitted on training rows alone, and (N, M) all rows encoded; None where the model takes no metadata.

    Args:
        frame: manifest rows.
        spec: its `metadata` names the columns.
        train: positions of the training rows.

    Raises:
        ConfigError: a column that the set does not have.
        DataError: a column that is empty in the training split, or no category.
    """
    if spec.metadata is None:
        return None
    require_columns(frame, spec)
    table = table_of(frame, spec.metadata.columns)
    encoder = fit_encoder({name: [values[row] for row in train] for name, values in table.items()})
    return encoder, encoder(table)


def encode_rows(encoder: Encoder | None, frame: pd.DataFrame) -> Floats | None:
    """(N, M) rows as an artifact's encoder has them; columns that the frame lacks are missing in each. None without encoder."""
    return None if encoder is None else encoder(table_of(frame, encoder.names))


def encoder_of(artifact: Artifact) -> Encoder | None:
    """What encodes the metadata that a model takes; None where it takes none.

    Raises:
        ModelError: it is damaged, or not as wide as the model's input.
    """
    return Encoder.from_record(artifact.record.metadata.model_dump()) if artifact.record.metadata is not None else None


def remarks(encoder: Encoder | None, frame: pd.DataFrame) -> list[str]:
    """One line for each column of which rows are missing, unseen or out of range.

    >>> encoder = fit_encoder({"sex": ["male", "female"]})
    >>> remarks(encoder, pd.DataFrame({"sex": ["male", None]}))
    ['metadata: sex is missing (1 of 2 images)']
    """
    if encoder is None:
        return []
    table = table_of(frame, encoder.names)
    counts: dict[tuple[str, str], int] = {}
    for i in range(len(frame)):
        for name, problem in encoder.problems({name: values[i] for name, values in table.items()}).items():
            counts[name, problem] = counts.get((name, problem), 0) + 1
    return [f"metadata: {name} {problem} ({n} of {len(frame)} images)" for (name, problem), n in counts.items()]


def table_of(frame: pd.DataFrame, columns: Sequence[str]) -> Mapping[str, list[Value]]:
    """Columns as lists of plain values; one that the frame lacks is None in each row."""
    empty = np.full(len(frame), None)
    return {name: (frame[name].astype(object) if name in frame else pd.Series(empty)).tolist() for name in columns}
