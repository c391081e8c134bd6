"""Changing what an artifact says of itself: its calibration, its evaluation. The model stays; all at once, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.record import RECORD_NAME, check_record, sealed
from dermalyze.core.atomic import publish, resource_errors, sha256_bytes, write_bytes
from dermalyze.errors import ModelError


def rewrite(folder: Path, values: Mapping[str, Any], changed: Mapping[str, bytes] | None = None) -> None:
    """Replace the record of an artifact, and files of it; files that the record no longer names go.

    An evaluation that belongs to other answers (another calibration) is left out.

    Args:
        folder: of the artifact.
        values: the new content of `artifact.json`.
        changed: name to content, of files that are new or other than before.

    Raises:
        ModelError: the new artifact would be refused; the old one stays.
        ResourceError: no space, no permission.
    """
    values = without_stale_evaluation(values)
    changed = changed or {}
    named = {*values["files"], *values["calibration_files"], *values["evaluation_files"]}
    present = {path.name for path in folder.iterdir()} - {RECORD_NAME}
    if not changed and named == present:
        check_record(values)
        write_bytes(folder / RECORD_NAME, sealed(values))
        return
    files: dict[str, bytes | Path] = {name: changed.get(name, folder / name) for name in sorted(named)}
    publish({**files, RECORD_NAME: sealed(values)}, folder, check=Artifact.open)


def without_stale_evaluation(values: Mapping[str, Any]) -> dict[str, Any]:
    """The record without an evaluation that is of other answers than the model now gives."""
    fresh = values["evaluated_answers_sha256"] == check_record(values).answers_sha256
    return dict(values) if fresh else {**values, "evaluation_files": {}, "evaluated_answers_sha256": None}


def with_evaluation(values: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The record with an evaluation of the answers that it describes."""
    record = check_record(values)
    hashes = {name: sha256_bytes(data) for name, data in files.items()}
    return {**values, "evaluated_answers_sha256": record.answers_sha256, "evaluation_files": hashes}


def earlier_evaluation(folder: Path, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record and files of a new export with the evaluation of the one before, where that gave the very same answers.

    Args:
        folder: of the artifact that is there, or not.
        values: the new record.
    """
    try:
        with resource_errors(folder.name):
            before = json.loads((folder / RECORD_NAME).read_bytes()) if (folder / RECORD_NAME).exists() else {}
            hashes = dict(before.get("evaluation_files") or {})
            files = {name: (folder / name).read_bytes() for name in hashes}
        same = before.get("evaluated_answers_sha256") == check_record(values).answers_sha256
    except (OSError, ValueError, TypeError, AttributeError, ModelError):
        return dict(values), {}
    if not hashes or not same or any(sha256_bytes(data) != hashes[name] for name, data in files.items()):
        return dict(values), {}
    return with_evaluation(values, files), files
