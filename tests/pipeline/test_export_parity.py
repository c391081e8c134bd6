"""PyTorch, the ONNX graph and the predictor give the same probabilities; `score` stores what the predictor answers."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dermalyze.artifact.artifact import Artifact
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.core.atomic import sha256_file
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.imaging.decode import Preprocessing, decode, normalize, to_size
from dermalyze.metrics.activation import softmax
from dermalyze.models.cam_head import ClosedForm
from dermalyze.scoring.predictions import read_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.stages.export import export
from dermalyze.stages.score import score
from dermalyze.training.checkpoint import load_best

TOLERANCE = 1e-4


CASES: dict[str, dict[str, Any]] = {
    "simple, plain, squash": {},
    "linear, tta, crop": {
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear"}},
        "inference": {"recipe": "tta", "batch_size": 7},
        "preprocess": {"kind": "resize_crop", "size": [48, 40]},
    },
    "simple, plain, steps": {
        "preprocess": {"kind": "squash", "size": [48, 40], "steps": [{"kind": "clahe"}, {"kind": "shades_of_gray"}]},
    },
    "acrnn, flips, pad": {
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 8, 16]}, "head": {"kind": "acrnn"}},
        "inference": {"recipe": "flips", "batch_size": 7},
        "preprocess": {"kind": "pad", "size": [48, 40]},
        "train": {"threads": 1, "cache": "stream"},
    },
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def world(request: pytest.FixtureRequest, new_world: Any) -> Any:
    made = new_world(**CASES[request.param])
    export(made.run, made.spec)
    return made


def torch_probabilities(world: Any, data: bytes) -> np.ndarray:
    """The long way round, from the checkpoint: decode, resize, normalize outside the graph, forward, recipe."""
    model, best = load_best(world.run)
    p = Preprocessing.from_dict(best["preprocessing"])

    def forward(batch: Any) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits, embedding = model.forward_with_embedding(torch.from_numpy(normalize(batch["image"], p)))
        return logits.numpy(), embedding.numpy()

    pixels = to_size(decode(data).pixels, p)[None]
    return softmax(apply_recipe(world.spec.inference.recipe, forward, pixels)[0])[0]


def test_torch_graph_and_predictor_agree(world: Any) -> None:
    predictor = Predictor(world.run.root, threads=1)
    answers = list(predictor.predict_batch(world.images, batch_size=4, scores=True))
    ours = np.array([list(answer["probabilities"].values()) for answer in answers])
    theirs = np.array([torch_probabilities(world, path.read_bytes()) for path in world.images])
    assert np.abs(ours - theirs).max() < TOLERANCE
    assert ours.std(axis=0).max() > 0.01, "the network must tell these images apart, or agreement means nothing"
    one = predictor.predict(world.images[0], scores=True)
    assert np.abs(np.array(list(one["probabilities"].values())) - theirs[0]).max() < TOLERANCE
    assert predictor.classes == ["mel", "my class", "nv"]


def test_the_map_of_the_graph_is_pytorchs(world: Any) -> None:
    artifact = Artifact.open(world.run.artifact_dir, threads=1)
    record = artifact.record.cam
    assert record is not None
    if world.spec.model.head.kind == "acrnn":
        assert (record.kind, artifact.graph.cam_shape) == ("none", None)
        assert "takes the map" in record.reason
        return
    model, best = load_best(world.run)
    p = Preprocessing.from_dict(best["preprocessing"])
    images = np.random.default_rng(5).integers(0, 256, (3, 48, 40, 3), dtype=np.uint8)
    with torch.inference_mode():
        ours = ClosedForm(model).forward_with_cam(torch.from_numpy(normalize(images, p)))[2].numpy()
    theirs = artifact.cam(images)[2]
    assert theirs.shape == (3, 3, record.height, record.width) == (3, 3, 12, 10)
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * (1 + np.abs(ours).max()))
    answer = Predictor(world.run.root, threads=1).predict(world.images[0], explain=True)
    assert answer.cam is not None
    assert answer.cam.std() > 0


def test_any_batch_size(world: Any) -> None:
    artifact = Artifact.open(world.run.artifact_dir, threads=1)
    images = np.random.default_rng(5).integers(0, 256, (6, 48, 40, 3), dtype=np.uint8)
    whole = artifact.run(images)[0]
    for size in (1, 2, 3, 5):
        assert np.allclose(artifact.run(images[:size])[0], whole[:size], atol=1e-4)
    assert artifact.run(images[:0])[0].shape == (0, 3)


def test_score_stores_what_the_predictor_answers(world: Any, tmp_path: Path) -> None:
    result = score(world.run, world.spec)
    assert sum(result.images.values()) == len(world.images)
    predictor = Predictor(world.run.artifact_dir, threads=1)
    root = world.run.root.parent / "data"
    path_of = {row.image_id: root / row.path for row in read_manifest(world.run).itertuples()}
    recipe = world.spec.inference.recipe
    for part in ("train", "val", "cal", "test"):
        stored = read_predictions(world.run.predictions_path(part, recipe))
        assert stored.meta["set"] == part
        assert stored.meta["model_sha256"] == sha256_file(world.run.artifact_dir / "model.onnx")
        assert stored.meta["manifest_sha256"] == world.run.manifest_hash()
        paths = [path_of[image_id] for image_id in stored.ids]
        answered = [list(a["probabilities"].values()) for a in predictor.predict_batch(paths, scores=True)]
        assert np.abs(stored.probs() - np.array(answered)).max() < 1e-6
        assert [stored.classes[label] for label in stored.labels] == [path.parent.name for path in paths]
        assert stored.embedding is not None
        assert stored.embedding.shape == (len(paths), 16)
    again = score(world.run, world.spec)
    assert sorted(again.skipped) == ["cal", "test", "train", "val"]


def test_the_artifact_says_where_it_comes_from(world: Any) -> None:
    record = json.loads((world.run.artifact_dir / "artifact.json").read_text())
    best = json.loads(world.run.best_record_path.read_text())
    assert record["created_from"]["weights_sha256"] == best["weights_sha256"] == record["files"]["model.safetensors"]
    assert record["created_from"]["manifest_sha256"] == world.run.manifest_hash()
    assert {"name": "mel", "description": "Melanoma"} in record["classes"]
    assert {"name": "my class", "description": "my class"} in record["classes"]
    assert record["parity"]["max_probability_difference"] <= TOLERANCE
    assert (world.run.artifact_dir / "model.safetensors").read_bytes() == world.run.best_weights_path.read_bytes()
    assert sorted(p.name for p in world.run.artifact_dir.iterdir()) == ["artifact.json", "model.onnx", "model.safetensors"]
    for path in world.run.artifact_dir.iterdir():
        assert str(world.run.root.parent).encode() not in path.read_bytes(), "no path of this machine"
        assert b"site-packages" not in path.read_bytes(), "no stack trace of the exporter"


def test_export_again_gives_the_same_bytes(world: Any, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(world.run.root, tmp_path / "run")))
    before = {path.name: sha256_file(path) for path in copy.artifact_dir.iterdir()}
    export(copy, world.spec)
    assert {path.name: sha256_file(path) for path in copy.artifact_dir.iterdir()} == before


# -- refusals of `score` ---------------------------------------------------------------------------------------


def test_score_does_a_damaged_or_foreign_part_again(copy_of: Callable[[], Any]) -> None:
    world = copy_of()
    score(world.run, world.spec)
    path = world.run.predictions_path("val", "plain")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    shutil.copy(world.run.predictions_path("test", "plain"), world.run.predictions_path("cal", "plain"))
    result = score(world.run, world.spec)
    assert sorted(result.skipped) == ["test", "train"]
    assert path.read_bytes() == whole


def test_score_refuses_a_changed_image(copy_of: Callable[[], Any]) -> None:
    world = copy_of()
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40)).save(buffer, "PNG")
    world.images[0].write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="changed"):
        score(world.run, world.spec)


def test_score_refuses_an_export_older_than_the_checkpoint(copy_of: Callable[[], Any], save_checkpoint: Any) -> None:
    world = copy_of()
    save_checkpoint(world.run, world.spec, seed=1)
    with pytest.raises(ModelError, match="not of the best checkpoint"):
        score(world.run, world.spec)


def test_score_needs_an_export(copy_of: Callable[[], Any]) -> None:
    world = copy_of()
    shutil.rmtree(world.run.artifact_dir)
    with pytest.raises(UsageError, match="dermalyze export"):
        score(world.run, world.spec)


def test_score_of_a_nan_model_leaves_no_predictions(copy_of: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    world = copy_of()

    def nan(self: Artifact, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        count = len(batch["image"])
        return np.full((count, 3), np.nan, np.float32), np.zeros((count, 16), np.float32)

    monkeypatch.setattr(Artifact, "run", nan)
    with pytest.raises(ModelError, match="NaN"):
        score(world.run, world.spec)
    assert not list(world.run.predictions_dir.glob("*")) if world.run.predictions_dir.exists() else True
