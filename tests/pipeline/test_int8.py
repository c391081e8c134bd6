"""Eight bits: written only where the gate lets them through, and then an artifact like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dermalyze.artifact.artifact import Artifact
from dermalyze.cli import app
from dermalyze.errors import ModelError, UsageError
from dermalyze.scoring import quantize_gate as module
from dermalyze.scoring.predictions import Predictions
from dermalyze.scoring.quantize_gate import Gate, compare_precisions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.export import export
from dermalyze.stages.score import score


@pytest.fixture(scope="module")
def world(new_world: Any) -> Any:
    made = new_world(
        split={"fractions": {"train": 0.3, "val": 0.1, "cal": 0.5, "test": 0.1}},
        inference={"recipe": "flips", "calibration": "vector", "ood": "none"},
        model={"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16, 16]}, "head": {"kind": "linear"}},
    )
    export(made.run, made.spec)
    with pytest.raises(UsageError, match="dermalyze calibrate"):
        export(made.run, made.spec, precision="int8")
    score(made.run, made.spec)
    calibrate(made.run, made.spec)
    return made


def test_refused_with_the_figures_and_nothing_written(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LOSS_CHANGE", -1.0)
    before = sorted(path.name for path in world.run.root.iterdir())
    with pytest.raises(ModelError, match=r"log loss goes from [\d.]+ to [\d.]+ .*nothing was written") as caught:
        export(world.run, world.spec, precision="int8")
    assert caught.value.exit_code == 4
    assert sorted(path.name for path in world.run.root.iterdir()) == before


def test_what_passes_is_an_artifact_of_its_own(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits are widened: what random weights lose is not the matter here."""
    for name, limit in (("LEAST_AGREEMENT", 0.0), ("MOST_AUROC_CHANGE", 1.0), ("MOST_LOSS_CHANGE", 1.0)):
        monkeypatch.setattr(module, name, limit)
    full = Artifact.open(world.run.artifact_dir, threads=1)
    result = export(world.run, world.spec, precision="int8")
    small = Artifact.open(world.run.precision_dir("int8"), threads=1)
    assert result.as_dict()["method"].startswith("static QDQ")
    assert small.model_sha256 != full.model_sha256
    assert small.record.scores_sha256 != full.record.scores_sha256
    assert small.record.model["precision"]["of_model_sha256"] == full.model_sha256
    assert (small.record.cam.kind, small.graph.cam_shape) == ("none", None)  # type: ignore[union-attr]
    ours, theirs = small.record.calibration, full.record.calibration
    assert ours is not None
    assert theirs is not None
    assert (ours["kind"], ours["images"], ours["part"]) == ("vector", theirs["images"], "cal")
    assert ours["parameters"] != theirs["parameters"], "fitted on its own scores"
    assert verify(world.run.precision_dir("int8"), threads=1).passed
    import onnx

    kinds = [node.op_type for node in onnx.load(world.run.precision_dir("int8") / "model.onnx").graph.node]
    assert "QuantizeLinear" in kinds
    assert kinds.count("DequantizeLinear") > 3
    one, other = (Predictor(folder, threads=1) for folder in (world.run.artifact_dir, world.run.precision_dir("int8")))
    pairs = [(one.predict(path, scores=True), other.predict(path, scores=True)) for path in world.images[:6]]
    assert max(abs(a.probabilities["nv"] - b.probabilities["nv"]) for a, b in pairs) < 0.2
    assert any(a.probabilities != b.probabilities for a, b in pairs)
    assert any("in int8 (" in line for line in result.lines())
    json.dumps(result.as_dict())
    assert Artifact.open(world.run.artifact_dir, threads=1).sha256 == full.sha256, "the full one is left as it is"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sixteen_bits_pass_the_same_gate_with_a_calibration_of_their_own(
    world: Any, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    monkeypatch.setattr(module, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(ModelError, match=f"{precision}: refused on"):
        export(world.run, world.spec, precision=precision)
    monkeypatch.undo()
    result = export(world.run, world.spec, precision=precision)  # the true limits: sixteen bits change next to nothing
    folder = world.run.precision_dir(precision)
    full, small = Artifact.open(world.run.artifact_dir, threads=1), Artifact.open(folder, threads=1)
    assert small.record.model["precision"]["kind"] == precision
    assert small.record.scores_sha256 != full.record.scores_sha256
    assert small.record.calibration["parameters"] != full.record.calibration["parameters"]
    assert verify(folder, threads=1).passed
    kinds = {weight.data_type for weight in onnx.load(folder / "model.onnx").graph.initializer}
    wanted = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    assert wanted in kinds
    assert onnx.TensorProto.FLOAT not in kinds or precision == "fp16"
    one, other = Predictor(world.run.artifact_dir, threads=1), Predictor(folder, threads=1)
    pairs = [(one.predict(path, scores=True), other.predict(path, scores=True)) for path in world.images[:6]]
    assert 0 < max(abs(a.probabilities["nv"] - b.probabilities["nv"]) for a, b in pairs) < 0.02
    assert result.lines()[0].startswith(f"exported model.onnx in {precision} (")


def test_one_precision_at_a_time(world: Any) -> None:
    done = CliRunner().invoke(app, ["export", str(world.run.root), "--fp16", "--bf16"])
    assert done.exit_code == 2
    assert "--fp16 and --bf16 are both set; export once with each" in done.output


META = {"classes": ["a", "b", "c"], "set": "cal", "task": "multiclass", "recipe": "plain"}


def stored(logits: np.ndarray, labels: np.ndarray) -> Predictions:
    ids = [f"i{k}" for k in range(len(labels))]
    return Predictions(ids, [f"g{k // 2}" for k in range(len(labels))], labels, logits.astype(np.float32), None, META)


def test_the_gate() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    logits = rng.normal(size=(600, 3)) + 2 * np.eye(3)[labels]
    gate = np.arange(600) % 4 < 2
    full, shift = stored(logits, labels), np.zeros(3)
    same = compare_precisions(full, full, gate, "temperature", shift)
    assert (same.agreement, same.problems, same.images, same.groups) == (1.0, [], 300, 150)
    colder = compare_precisions(full, replace(full, logits=full.logits * 3), gate, "temperature", shift)
    assert colder.problems == [], "a temperature of its own takes that back"
    noisy = compare_precisions(full, stored(logits + rng.normal(size=(600, 3)), labels), gate, "temperature", shift)
    assert len(noisy.problems) == 3
    assert noisy.agreement < 0.99
    swapped = logits.copy()
    swapped[~gate] = swapped[~gate][:, ::-1]
    assert compare_precisions(full, stored(swapped, labels), gate, "none", shift).agreement == 1.0, (
        "only the gate's half is looked at"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"agreement": 0.989}, "agrees for 98.9% (at least 99%)"),
        ({"macro_auroc": (0.9, 0.897)}, "macro AUROC goes from 0.9000 to 0.8970"),
        ({"macro_auroc": (0.9, 0.903)}, "macro AUROC"),
        ({"log_loss": (0.5, 0.503)}, "log loss goes from"),
        ({"macro_auroc": (None, None)}, "not estimable on 40 images"),
        ({"agreement": float("nan")}, "agrees for nan"),
        ({"log_loss": (0.5, float("nan"))}, "log loss"),
    ],
)
def test_each_limit(change: dict[str, Any], said: str) -> None:
    good = Gate(40, 30, 0.99, (0.9, 0.8981), (0.5, 0.5019))
    assert good.problems == []
    [problem] = replace(good, **change).problems
    assert said in problem
