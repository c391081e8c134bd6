"""The main job on some hundred real HAM10000 images with the real ImageNet weights; skipped where they are not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_part
from dermalyze.data.store import ImageStore
from dermalyze.imaging.decode import decode, to_size
from dermalyze.scoring.predictions import read_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify
from dermalyze.workflows.pipeline import run_experiment

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    ham, weights = shared / "data" / "ham10000", shared / "weights" / "mobilenetv2_035_imagenet.safetensors"
    if not (ham / "HAM10000_metadata.csv").exists() or not weights.exists():
        pytest.skip("the real HAM10000 or the ImageNet weights are not beside the repository (../shared)")
    root = tmp_path_factory.mktemp("real")
    table = pd.read_csv(ham / "HAM10000_metadata.csv", dtype=str)
    lesions = table.drop_duplicates("lesion_id").groupby("dx").head(70)["lesion_id"]
    table[table["lesion_id"].isin(set(lesions))].to_csv(root / "HAM10000_metadata.csv", index=False)
    archives = [str(path) for path in sorted(ham.glob("HAM10000_images_part_*.zip"))]
    spec = build_experiment(
        {
            "data": {"source": {"kind": "ham10000"}, "path": [*archives, str(root / "HAM10000_metadata.csv")]},
            "preprocess": {"size": [96, 128]},
            "model": {
                "backbone": "mobilenetv2_035",
                "kwargs": {"pad_type": "same", "bn_eps": 1e-3},
                "weights": str(weights),
                "head": {"kind": "linear"},
            },
            "train": {
                "epochs": 4,
                "batch_size": 32,
                "threads": 1,
                "optimizer": {"lr": 2e-3},
                "schedule": {"kind": "one_cycle"},
            },
            "inference": {"recipe": "flips"},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        run_experiment(spec, root / "run")
    return Run.open(root / "run")


def test_better_than_chance_by_its_interval_and_not_too_good(run: Run) -> None:
    metrics = json.loads(run.evaluation_path.read_text())["metrics"]
    assert metrics["balanced_accuracy"]["low"] > 1 / 7
    assert metrics["macro_auroc"]["low"] > 0.6
    assert metrics["macro_auroc"]["value"] < 0.99  # a leak, until shown otherwise


def test_no_lesion_and_no_picture_in_two_parts(run: Run) -> None:
    frame = read_manifest(run).set_index("image_id")
    seen: dict[str, str] = {}
    for part in ("train", "val", "cal", "test"):
        rows = frame.loc[read_part(run, part)["image_id"]]
        for key in {*rows["lesion_id"], *rows["sha256"], *rows["pixel_sha256"]}:
            assert seen.setdefault(key, part) == part
    assert len(seen) > 800


def test_what_answers_is_what_was_measured(run: Run) -> None:
    stored = read_predictions(run.predictions_path("test", "flips"))
    part = read_part(run, "test").set_index("image_id").loc[stored.ids]
    store = ImageStore.open(run.config().data)
    predictor = Predictor(run.root)
    answers = list(predictor.predict_batch((store.read(path) for path in part["path"]), batch_size=7, scores=True))
    given = np.array([[answer.probabilities[name] for name in stored.classes] for answer in answers])
    np.testing.assert_allclose(given, predictor.answering.calibrator(stored.logits), atol=1e-4)
    measured = json.loads(run.evaluation_path.read_text())
    own = given[np.arange(len(given)), stored.labels]
    assert measured["calibration"]["calibrator"] == predictor.answering.calibrator.kind
    assert measured["metrics"]["log_loss"]["value"] == pytest.approx(-np.log(own).mean(), abs=1e-3)


def test_imagenet_weights_were_taken(run: Run) -> None:
    record = json.loads(run.best_record_path.read_text())
    assert record["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert record["model"]["weights"].endswith("mobilenetv2_035_imagenet.safetensors")


def test_the_artifact_proves_and_explains_itself(run: Run) -> None:
    """Its own evaluation and reference answers go along; maps of real images sum to the logits but for one bias a class."""
    assert verify(run.root).passed
    predictor = Predictor(run.root)
    measured = json.loads(run.evaluation_path.read_text())["metrics"]
    assert predictor.artifact.metrics is not None
    carried = {row["name"]: row["value"] for row in predictor.artifact.metrics["headline"]}
    assert carried["accuracy"] == measured["accuracy"]["value"]
    assert "not-for-diagnosis" in predictor.artifact.card
    store, part = ImageStore.open(run.config().data), read_part(run, "test")
    pixels = np.stack([to_size(decode(store.read(path)).image, predictor.preprocessing) for path in part["path"][:8]])
    logits, _, cam = predictor.artifact.cam(pixels)
    bias = logits - cam.mean(axis=(2, 3))
    np.testing.assert_allclose(bias, np.tile(bias[:1], (len(bias), 1)), atol=1e-3)
    assert cam.std(axis=(2, 3)).min() > 0
