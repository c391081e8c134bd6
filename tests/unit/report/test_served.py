"""What an artifact carries of its own evaluation: put there by `evaluate`, and gone when its answers change."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from stored_run import store_predictions

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.record import parse_record
from dermalyze.report.served import into_artifact
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.evaluate import evaluate

COUNTS = {"mel": 12, "nv": 16, "vasc": 12}


@pytest.fixture
def exported(judged: Any, make_artifact: Any) -> Any:
    run, spec = judged(COUNTS, config={"evaluate": {"resamples": 100}, "inference": {"calibration": "temperature"}})
    make_artifact("export", classes=tuple(sorted(COUNTS)), recipe=spec.inference.recipe).rename(run.artifact_dir)
    scores = parse_record(run.artifact_record_path.read_bytes()).scores_sha256
    store_predictions(run, spec, scores_sha256=scores)
    return run, spec


def test_evaluation_goes_along_and_does_not_outlive_its_answers(exported: Any) -> None:
    run, spec = exported
    calibrate(run, spec)
    before = Artifact.open(run.artifact_dir, threads=1)
    assert (before.card, before.metrics) == ("", None)
    result = evaluate(run, spec)
    carried = Artifact.open(run.artifact_dir, threads=1)
    assert carried.record.scores_sha256 == before.record.scores_sha256, "stored scores stay valid"
    assert carried.card == (run.report_dir / "model_card.md").read_text(encoding="utf-8")
    assert carried.metrics is not None
    named = {row["name"]: row for row in carried.metrics["headline"]}
    accuracy = result.metrics["metrics"]["accuracy"]
    assert {key: named["accuracy"][key] for key in accuracy} == accuracy
    assert carried.metrics["reliability"]["bins"] == result.metrics["calibration"]["bins"]
    assert set(carried.metrics["per_class"]) == set(COUNTS)
    text = json.dumps(carried.metrics)
    worst = [row["image_id"] for row in result.metrics["largest_errors"]["all"]["worst"]]
    assert worst
    assert not any(name in text for name in worst), "nothing of single images"

    again = {path.name: path.read_bytes() for path in run.artifact_dir.iterdir()}
    evaluate(run, spec)
    calibrate(run, spec)
    assert {path.name: path.read_bytes() for path in run.artifact_dir.iterdir()} == again, "the same once more changes nothing"

    calibrate(run, spec.model_copy(update={"inference": spec.inference.model_copy(update={"calibration": "none"})}))
    other = Artifact.open(run.artifact_dir, threads=1)
    assert (other.card, other.metrics, other.record.evaluation_files) == ("", None, {})


def test_scores_of_another_model_and_a_run_without_export(exported: Any) -> None:
    run, spec = exported
    calibrate(run, spec)
    metrics = evaluate(run, spec).metrics
    before = {path.name: path.read_bytes() for path in run.artifact_dir.iterdir()}
    assert not into_artifact(run, metrics, "0" * 64)
    assert not into_artifact(run, {**metrics, "recipe": "tta"}, Artifact.open(run.artifact_dir).record.scores_sha256)
    assert {path.name: path.read_bytes() for path in run.artifact_dir.iterdir()} == before
    shutil.rmtree(run.artifact_dir)
    assert not into_artifact(run, metrics, "0" * 64)
