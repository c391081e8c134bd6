"""Several trainings as one run: the mean of the members, their spread, one graph; and who may not be a member."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dermalyze.artifact.artifact import Artifact, open_export
from dermalyze.cli import app
from dermalyze.config.experiment import ExperimentSpec, dump_experiment
from dermalyze.core.run import Run, read_json
from dermalyze.data.manifest import read_manifest
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.metrics.activation import softmax
from dermalyze.metrics.uncertainty import mutual_information
from dermalyze.scoring.predictions import read_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.export import export
from dermalyze.stages.score import score
from dermalyze.workflows.cleaning import inner_runs
from dermalyze.workflows.ensemble import EnsembleResult, assemble, ensemble

PARTS = ("train", "val", "cal", "test")


def reseeded(run: Run, root: Path, seed: int, save_checkpoint: Callable[..., None], **changes: Any) -> Run:
    """Another training of the same experiment."""
    other = Run(Path(shutil.copytree(run.root, root, ignore=shutil.ignore_patterns("predictions", "export", "calibration"))))
    spec = run.config().model_copy(update={"seed": seed, **changes})
    other.config_path.write_text(dump_experiment(spec))
    save_checkpoint(other, spec, seed=seed)
    finish(other, spec)
    return other


def finish(run: Run, spec: ExperimentSpec) -> None:
    export(run, spec)
    score(run, spec)


@pytest.fixture(scope="module", params=["plain", "flips"])
def members(
    request: pytest.FixtureRequest,
    new_world: Callable[..., Any],
    save_checkpoint: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    config = {"recipe": request.param, "batch_size": 7}
    made = new_world(inference=config, evaluate={"resamples": 100}, split={"fractions": FRACTIONS})
    finish(made.run, made.spec)
    root = tmp_path_factory.mktemp("members")
    return made, [made.run, *(reseeded(made.run, root / f"seed-{seed}", seed, save_checkpoint) for seed in (43, 44))]


FRACTIONS = {"train": 0.4, "val": 0.1, "cal": 0.2, "test": 0.3}


@pytest.fixture(scope="module")
def joined(members: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Run], EnsembleResult]:
    world, runs = members
    out = tmp_path_factory.mktemp("out") / "ensemble"
    return world, runs, ensemble(*(run.root for run in runs), out)


def test_the_answer_is_the_mean_of_the_members_and_they_are_its_passes(joined: Any) -> None:
    _, runs, result = joined
    out = Run.open(result.root)
    recipe = out.config().inference.recipe
    for part in PARTS:
        p = read_predictions(out.predictions_path(part, recipe))
        alone = [read_predictions(run.predictions_path(part, recipe)) for run in runs]
        np.testing.assert_allclose(p.probs(), np.mean([one.probs() for one in alone], axis=0), atol=1e-6)
        for m, one in enumerate(alone):
            np.testing.assert_array_equal(p.samples[:, m], one.logits)
        assert p.meta["members"] == len(runs)
        assert mutual_information(p.sample_probs()).max() > 1e-3, "members that agree in all things teach nothing"


def test_predict_gives_what_was_stored(joined: Any) -> None:
    """The joined graph and the mean of stored members are two ways to one answer, calibrator included."""
    world, _, result = joined
    out = Run.open(result.root)
    p = read_predictions(out.predictions_path("test", out.config().inference.recipe))
    root = world.run.root.parent / "data"
    path_of = {row.image_id: root / row.path for row in read_manifest(out).itertuples()}
    predictor = Predictor(out.root, threads=1)
    assert predictor.answering.calibrator.kind == read_json(out.evaluation_path)["calibration"]["calibrator"]
    answered = [
        list(a["probabilities"].values())
        for a in predictor.predict_batch([path_of[i] for i in p.ids], batch_size=4, scores=True)
    ]
    assert np.abs(np.array(answered) - predictor.answering.calibrator(p.logits.astype(np.float64))).max() < 1e-4
    assert np.std(answered, axis=0).max() > 0.01


def test_it_is_a_run_like_any_other(joined: Any) -> None:
    _, runs, result = joined
    out = Run.open(result.root)
    spec = out.config()
    assert calibrate(out, spec).recipe == spec.inference.recipe
    assert sorted(score(out, spec).skipped) == sorted(PARTS), "what the members gave is not measured again"
    m = read_json(out.evaluation_path)
    [row] = m["uncertainty"]["recipes"]
    assert (row["members"], row["passes"]) == (3, 3)
    assert f"{spec.inference.recipe}, 3 members" in out.report_page_path.read_text()
    assert out.manifest_hash() == runs[0].manifest_hash()
    artifact = open_export(out, spec.inference.recipe)
    assert artifact.record.created_from["members"] == 3
    assert [one["seed"] for one in artifact.record.model["ensemble"]] == [42, 43, 44]
    assert artifact.record.parity["max_probability_difference"] <= 1e-4
    assert [one["seed"] for one in result.members] == [42, 43, 44]
    assert result.together["log_loss"] <= np.mean([one["log_loss"] for one in result.members]), "by Jensen's inequality"
    assert any(line.startswith("together") for line in result.lines())
    for path in (*out.artifact_dir.iterdir(), out.evaluation_path):
        assert str(runs[0].root.parent).encode() not in path.read_bytes()


def test_further_views_of_an_ensemble_can_be_scored_but_no_dropout(joined: Any) -> None:
    _, _, result = joined
    out = Run.open(result.root)
    spec = out.config()
    [tta] = score(out, spec, recipes=["tta"]).further
    assert tta.recipe == "tta"
    with pytest.raises(ModelError, match="needs the checkpoint"):
        score(out, spec, recipes=["mc_dropout"])


def test_graphs_stay_finite_where_members_are_certain_of_different_things(joined: Any) -> None:
    """The log of a mean goes by way of the largest: probabilities of e-100 and less do not become log 0."""
    from dermalyze.workflows.joined_graph import join_graphs

    _, runs, _ = joined
    artifacts = [Artifact.open(run.artifact_dir, threads=1) for run in runs[:2]]
    from dermalyze.artifact.graph import Graph

    data = join_graphs([steep((run.artifact_dir / "model.onnx").read_bytes(), 3000.0) for run in runs[:2]])
    height, width = (artifacts[0].preprocessing[key] for key in ("height", "width"))
    images = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    logits, _ = Graph(data, artifacts[0].inputs, classes=3, threads=1).run({"image": images})
    expected = np.mean([softmax(3000.0 * one.run(images)[0]) for one in artifacts], axis=0)
    assert np.isfinite(logits).all()
    assert logits.min() < -100
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-4)


def test_the_map_of_an_ensemble_is_the_mean_of_its_members(joined: Any) -> None:
    _, runs, result = joined
    together, *members = (Artifact.open(run.artifact_dir, threads=1) for run in (Run.open(result.root), *runs))
    height, width = (together.preprocessing[key] for key in ("height", "width"))
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    assert together.graph.cam_shape == members[0].graph.cam_shape is not None
    expected = np.mean([one.cam(images)[2] for one in members], axis=0)
    np.testing.assert_allclose(together.cam(images)[2], expected, atol=1e-4 * (1 + np.abs(expected).max()))


def steep(graph: bytes, factor: float) -> bytes:
    """The same network with its logits times a factor."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        for k, name in enumerate(node.output):
            if name == "logits":
                node.output[k] = "flat"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    model.graph.node.append(helper.make_node("Mul", ["flat", "factor"], ["logits"]))
    return bytes(model.SerializeToString())


# -- who may not be a member --------------------------------------------------------------------------------------------


def test_too_few_and_twice(members: Any, tmp_path: Path) -> None:
    _, runs = members
    with pytest.raises(UsageError, match="two or more"):
        ensemble(runs[0].root, tmp_path / "out")
    with pytest.raises(UsageError, match="named twice"):
        ensemble(runs[0].root, runs[0].root, tmp_path / "out")
    with pytest.raises(UsageError, match="named twice"):
        ensemble(runs[0].root, runs[1].root, runs[1].root)
    with pytest.raises(UsageError, match="trains its own"):
        ensemble(runs[0].root, tmp_path / "out", config=tmp_path / "e.yaml")
    with pytest.raises(UsageError, match="--set belongs to --config"):
        ensemble(runs[0].root, runs[1].root, tmp_path / "out", sets=["seed=1"])
    copy = Run(Path(shutil.copytree(runs[0].root, tmp_path / "copy")))
    with pytest.raises(ModelError, match="the same network"):
        ensemble(runs[0].root, copy.root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_of_other_data_split_or_settings_are_refused(
    members: Any, tmp_path: Path, new_world: Any, save_checkpoint: Any
) -> None:
    world, runs = members
    recipe = world.spec.inference.recipe
    other = new_world(inference={"recipe": recipe}, split={"fractions": FRACTIONS, "seed": 1})
    finish(other.run, other.spec)
    with pytest.raises(DataError, match=r"has another (manifest|split) than"):
        assemble([runs[0], other.run], tmp_path / "out")
    inference = world.spec.inference.model_copy(update={"recipe": "tta"})
    views = reseeded(runs[0], tmp_path / "views", 50, save_checkpoint, inference=inference)
    with pytest.raises(ModelError, match=r"has another inference\.recipe than"):
        assemble([runs[0], views], tmp_path / "out")
    unscored = Run(Path(shutil.copytree(runs[1].root, tmp_path / "unscored")))
    unscored.predictions_path("test", recipe).unlink()
    with pytest.raises(UsageError, match="run first: dermalyze score"):
        assemble([runs[0], unscored], tmp_path / "unfinished")
    shutil.copy(runs[0].predictions_path("test", recipe), unscored.predictions_path("test", recipe))
    with pytest.raises(ModelError, match="not of its exported model"):
        assemble([runs[0], unscored], tmp_path / "unfinished")
    assert not (tmp_path / "out").exists()


# -- training the members -----------------------------------------------------------------------------------------------

CONFIG = """
name: small
seed: 3
data: {source: {kind: ham10000}, path: data, workers: 1}
preprocess: {size: 32}
model: {backbone: tiny_cnn, head: {kind: linear}}
train:
  epochs: 1
  batch_size: 16
  threads: 1
  schedule: {kind: constant}
  augment: {policy: none}
evaluate: {resamples: 100}
"""


def test_members_are_trained_from_one_file_by_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dermalyze.data.synthetic.synth import synthesize

    monkeypatch.chdir(tmp_path)
    synthesize(Path("data"), lesions=70, seed=7, size_px=(32, 32), difficulty=0.2, balance="even")
    Path("e.yaml").write_text(CONFIG)
    words = ["ensemble", "--config", "e.yaml", "--members", "2", "out"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.stderr
    assert "2 networks, 2 of them to be trained, 1 epochs each" in first.stderr
    assert "for the other 1" in first.stderr
    out = Run.open("out")
    runs = [Run.open(out.member_dir(seed)) for seed in (3, 4)]
    assert {run.manifest_hash() for run in (out, *runs)} == {out.manifest_hash()}
    for part in PARTS:
        assert len({run.split_path(part).read_bytes() for run in (out, *runs)}) == 1
    weights = [run.best_weights_path.read_bytes() for run in runs]
    assert weights[0] != weights[1]
    assert [part.root for part in inner_runs(out)] == [run.root for run in runs], "runs clean knows them"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.stderr
    assert "0 of them to be trained" in again.stderr
    assert [run.best_weights_path.read_bytes() for run in runs] == weights
    assert again.stdout == first.stdout
