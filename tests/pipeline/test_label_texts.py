"""Whatever text a label is, it goes through every step: digits, numbers, words that mean nothing elsewhere, other scripts."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from squares import experiment, paint

from dermalyze import Predictor, audit, calibrate, evaluate, export, prepare, score, split, train
from dermalyze.core.run import Run
from dermalyze.serve.predictor.output import write
from dermalyze.stages.evaluate import evaluate_predictions

LABELS = {
    "digits": ("0", "1"),
    "numbers": ("1e3", "-0.5"),
    "words of programs": ("nan", "null"),
    "truth": ("True", "False"),
    "one letter and blanks": ("a", "b c d"),
    "other scripts": ("痣", "меланома"),
}


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("squares") / "set", marked=False)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_label_of_any_text_goes_through_every_step(painted: Path, tmp_path: Path, labels: tuple[str, str]) -> None:
    names = dict(zip(("mel", "nv"), labels, strict=True))
    rows = list(csv.DictReader((painted / "set.csv").open(encoding="utf-8")))
    shutil.copytree(painted / "images", tmp_path / "set" / "images")
    with (tmp_path / "set" / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": names[row["label"]]} for row in rows)
    spec = experiment(tmp_path / "set")
    if "nan" in labels:  # which mean that a label is missing, unless they are named
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"classes": sorted(labels)})})
    run = Run.create(tmp_path / "run", spec)
    for step in (prepare, audit, split, train, export, score, calibrate, evaluate):
        step(run, spec)
    measured = json.loads(run.evaluation_path.read_text())
    assert list(measured["per_class"]) == sorted(labels)
    predictor = Predictor(run.root, threads=1)
    assert predictor.classes == sorted(labels)
    answers = list(predictor.predict_batch([painted / rows[i]["path"] for i in (0, 1)], scores=True))
    assert all(answer.predicted_class in labels for answer in answers)
    ids = [row["image_id"] for row in csv.DictReader(run.split_path("test").open(encoding="utf-8"))]
    paths = {row["image_id"]: painted / row["path"] for row in rows}
    answers = list(predictor.predict_batch([str(paths[i]) for i in ids], scores=True))
    with (tmp_path / "mine.csv").open("w", encoding="utf-8", newline="") as stream:
        write(answers, stream, classes=predictor.classes, format="csv")
    named = list(csv.reader((tmp_path / "mine.csv").open(encoding="utf-8")))
    again = evaluate_predictions(run, spec, tmp_path / "mine.csv").metrics
    assert named[0].count(f"p_{labels[0]}") == 1
    assert again["metrics"]["accuracy"]["value"] == measured["metrics"]["accuracy"]["value"]
