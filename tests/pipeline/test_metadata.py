"""A model with metadata, from a table to an answer; the label stands half in the image and half in the metadata."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training import another, balanced_accuracy, scored_runs, split_run

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.graph import GRAPH_NAME
from dermalyze.artifact.record import sealed
from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_part
from dermalyze.errors import ConfigError, InterruptedRunError, ModelError, UsageError
from dermalyze.models.fusion import FUSIONS
from dermalyze.scoring.predictions import read_predictions
from dermalyze.serve.predictor.answers import predict
from dermalyze.serve.predictor.inputs import read_inputs
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.stages.evaluate import evaluate_external
from dermalyze.stages.prepare import prepare
from dermalyze.stages.train import train
from dermalyze.training import loop
from dermalyze.training.setup import Training
from dermalyze.workflows.joined_graph import join_graphs, joined_parity

COLUMNS = ("age", "site", "grade")
CLASSES = ("bcc", "mel", "nv")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images: nv is bright, the other two look alike; those differ in site and age. `seen` is a reader's column."""
    root = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        label = CLASSES[i % 3]
        bright = 200 if label == "nv" else 70
        pixels = (bright + rng.normal(0, 25, (20, 24, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        site = {"bcc": "face", "mel": "back"}.get(label, str(rng.choice(["face", "back"])))
        age = round({"bcc": 75, "mel": 45}.get(label, 60) + rng.normal(0, 6))
        row = {"image_id": f"i{i:03}", "path": f"{i}.png", "label": label, "lesion_id": f"l{i}", "age": age, "site": site}
        rows.append({**row, "grade": rng.choice(["I", "II"]), "seen": label, "dx_type": "histo"})
        if i % 17 == 0:
            rows[-1]["age"] = ""
    with (root / "set.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def make_spec(table: Path, fusion: str | None, columns: tuple[str, ...] = COLUMNS, **changes: Any) -> ExperimentSpec:
    metadata = {"columns": columns, "fusion": {"kind": fusion}} if fusion is not None else None
    evaluate_ = changes.pop("evaluate", {"resamples": 100})
    return build_experiment(
        {
            "data": {"source": {"kind": "csv", "file": "set.csv"}, "path": str(table), "workers": 0},
            "preprocess": {"size": [16, 16]},
            "model": {
                "backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": {"kind": "linear"}, "metadata": metadata,
            },
            "train": {
                "epochs": 12, "batch_size": 16, "threads": 1, "optimizer": {"lr": 0.01}, "augment": {"policy": "none"},
                "early_stopping": None, **changes,
            },
            "evaluate": evaluate_,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return split_run(tmp_path_factory.mktemp("base") / "run", make_spec(table, None))


@pytest.fixture(scope="module")
def trained(base: Run, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Run]:
    """One finished run a fusion, and one of images alone."""
    return scored_runs(base, {kind: make_spec(table, kind) for kind in (None, *FUSIONS)}, tmp_path_factory)


@pytest.mark.parametrize("kind", FUSIONS)
def test_metadata_tell_what_the_picture_does_not(kind: str, trained: dict[str | None, Run]) -> None:
    """Images alone cannot tell two of three classes apart."""
    assert balanced_accuracy(trained[None], "plain") < 0.85
    assert balanced_accuracy(trained[kind], "plain") > balanced_accuracy(trained[None], "plain") + 0.1


def test_the_late_fusion_stands_in_the_record(trained: dict[str | None, Run]) -> None:
    best = read_json(trained["late"].best_record_path)
    fitted = best["late_fusion"]
    assert fitted["strength"] > 0
    assert fitted["val_log_loss"] < fitted["val_log_loss_image_alone"]
    record = json.loads((trained["late"].artifact_dir / "artifact.json").read_text())
    assert record["training"]["late_fusion"] == fitted
    assert record["metadata"]["encoder"] == best["metadata"]
    alone = json.loads((trained[None].artifact_dir / "artifact.json").read_text())
    assert (alone["metadata"], alone["training"]["late_fusion"]) == (None, None)


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_encoder_knows_training_rows_alone(kind: str, trained: dict[str | None, Run]) -> None:
    ages = read_part(trained[kind], "train")["age"].dropna()
    age = read_json(trained[kind].best_record_path)["metadata"]["columns"][0]
    assert (age["low"], age["high"], age["mean"]) == (ages.min(), ages.max(), pytest.approx(ages.mean()))


@pytest.mark.parametrize("kind", FUSIONS)
def test_what_is_scored_is_what_is_answered(kind: str, trained: dict[str | None, Run], table: Path, tmp_path: Path) -> None:
    """The scores of the test split, made from the manifest, against answers made from a CSV and from the command's words."""
    run = trained[kind]
    p, test = read_predictions(run.predictions_path("test", "plain")), read_part(run, "test").set_index("image_id")
    answers = list(predict(run.root, [table / "set.csv"], threads=1, scores=True))
    by_id = {answer.image_id: answer for answer in answers}
    probs = p.probs()
    for row, image_id in enumerate(p.ids):
        np.testing.assert_allclose(list(by_id[image_id].probabilities.values()), probs[row], atol=1e-4)
    image_id = p.ids[0]
    known = {name: test.loc[image_id, name] for name in COLUMNS}
    one = Predictor(run.root, threads=1).predict(table / test.loc[image_id, "path"], metadata=known, scores=True)
    np.testing.assert_allclose(list(one.probabilities.values()), probs[0], atol=1e-4)
    mappings = ({"image": item} for item in read_inputs([table / "set.csv"]))
    as_mappings = Predictor(run.root, threads=1).predict_batch(mappings, scores=True)
    assert [answer.probabilities for answer in as_mappings] == [answer.probabilities for answer in answers]
    lacking = [answer for answer in answers if answer.metadata_unknown]
    assert {answer.metadata_unknown for answer in lacking} == {("age",)}
    assert lacking[0].notes == ("metadata: age is missing",)
    assert lacking[0].as_dict()["metadata_unknown"] == ["age"]


def test_missing_unseen_and_refused_at_prediction(trained: dict[str | None, Run], table: Path) -> None:
    predictor, image = Predictor(trained["late"].root, threads=1), table / "0.png"
    nothing = predictor.predict(image)
    assert nothing.metadata_unknown == COLUMNS
    unseen = predictor.predict(image, metadata={"Site": "elbow", "age": None})
    assert unseen.metadata_unknown == COLUMNS
    assert unseen.probabilities == nothing.probabilities
    assert "metadata: site is not among the values of training and counts as unknown" in unseen.notes
    with pytest.raises(UsageError, match="no 'sitee'; did you mean 'site'"):
        predictor.predict(image, metadata={"sitee": "back"})
    with pytest.raises(UsageError, match="age is 'old', must be a number"):
        predictor.predict(image, metadata={"age": "old"})
    alone = Predictor(trained[None].root, threads=1)
    with pytest.raises(UsageError, match="trained on images alone"):
        alone.predict(image, metadata={"age": 5})
    assert alone.predict(image).metadata_unknown is None
    assert next(iter(predict(trained[None].root, [table / "set.csv"], threads=1))).error is None  # its other columns are let be


def test_a_row_of_its_own_counts_before_what_is_said_of_all(
    trained: dict[str | None, Run], table: Path, tmp_path: Path
) -> None:
    shutil.copy(table / "1.png", tmp_path / "1.png")
    (tmp_path / "list.csv").write_text("path,SITE,age\n1.png,back,\n")
    given = {"site": "face", "age": "45", "grade": "I"}
    predictor = Predictor(trained["late"].root, threads=1)
    (from_csv,) = predict(trained["late"].root, [tmp_path / "list.csv"], threads=1, metadata=given)
    expected = predictor.predict(tmp_path / "1.png", metadata={**given, "site": "back"})
    assert from_csv.probabilities == expected.probabilities
    assert from_csv.metadata_unknown == ()


def test_another_set_without_the_columns_is_judged_and_it_is_said(
    trained: dict[str | None, Run], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    lines = ["image_id,path,label,site"]
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(tmp_path / f"n{i}.png")
        lines.append(f"n{i},n{i}.png,{CLASSES[i % 3]},{'face' if i else 'elbow'}")
    (tmp_path / "other.csv").write_text("\n".join(lines))
    run = trained["late"]
    result = evaluate_external(run, run.config(), tmp_path / "other.csv")
    notes = result.metrics["external"]["notes"]
    assert "metadata: age is missing (12 of 12 images)" in notes
    assert "metadata: site is not among the values of training and counts as unknown (1 of 12 images)" in notes
    assert "metadata: age is missing" in capsys.readouterr().err


def test_members_that_take_metadata_join(trained: dict[str | None, Run]) -> None:
    """The joined graph gives the members' mean for the same metadata; `joined_parity` refuses it otherwise."""
    folders = [trained[kind].artifact_dir for kind in ("late", "film")]
    artifacts = [Artifact.open(folder, threads=1) for folder in folders]
    graph = join_graphs([(folder / GRAPH_NAME).read_bytes() for folder in folders])
    assert joined_parity(graph, artifacts, "flips")["max_probability_difference"] < 1e-4


class TestResume:
    @pytest.mark.parametrize("kind", FUSIONS)
    def test_equals_uninterrupted_bit_for_bit(
        self, kind: str, base: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = make_spec(table, kind, epochs=3, ema=0.9, augment={"policy": "conservative", "mixup": 0.2})
        whole, run = another(base, tmp_path / "whole", spec), another(base, tmp_path / "stopped", spec)
        train(whole, spec)
        step = loop.step
        done = []

        def stopping(training: Training, *arguments: Any) -> None:
            done.append(1)
            step(training, *arguments)
            if len(done) == 8:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop, "step", stopping)
        with pytest.raises(InterruptedRunError):
            train(run, spec)
        monkeypatch.setattr(loop, "step", step)
        train(run, spec)
        assert run.best_weights_path.read_bytes() == whole.best_weights_path.read_bytes()
        newest = [one.state_records()[0].with_suffix(".safetensors").read_bytes() for one in (run, whole)]
        assert newest[0] == newest[1]


class TestRefused:
    @pytest.mark.parametrize(("column", "why"), [("dx_type", "reveals the label"), ("label", "names, describes or divides")])
    def test_columns_that_are_no_inputs(self, column: str, why: str, table: Path) -> None:
        with pytest.raises(ConfigError, match=f"'{column}' {why}"):
            make_spec(table, "late", ("age", column))

    def test_the_readers_column(self, table: Path) -> None:
        with pytest.raises(ConfigError, match=r"the reader's answers of evaluate\.reader"):
            make_spec(table, "late", ("age", "seen"), evaluate={"reader": "seen"})

    def test_a_column_twice(self, table: Path) -> None:
        with pytest.raises(ConfigError, match="name a column twice"):
            make_spec(table, "late", ("age", "Age"))

    def test_a_column_that_the_set_has_not(self, base: Run, table: Path, tmp_path: Path) -> None:
        spec = make_spec(table, "late", ("age", "sit"))
        run = Run.create(tmp_path / "run", spec)
        with pytest.raises(ConfigError, match=r"no values of 'sit'; did you mean 'site'\?; it has"):
            prepare(run, spec)
        assert not run.manifest_path.exists()
        with pytest.raises(ConfigError, match="no values of 'sex'"):
            train(another(base, tmp_path / "other", (empty := make_spec(table, "late", ("sex",)))), empty)

    def test_an_artifact_whose_encoder_was_changed(self, trained: dict[str | None, Run], tmp_path: Path) -> None:
        folder = tmp_path / "export"
        shutil.copytree(trained["late"].artifact_dir, folder)
        path = folder / "artifact.json"
        record = json.loads(path.read_text())
        record["metadata"]["encoder"]["columns"][1]["values"].pop()
        path.write_bytes(sealed(record))
        with pytest.raises(ModelError, match="metadata encoder is not the one"):
            Predictor(folder, threads=1)
        path.write_bytes(sealed({**record, "metadata": None}))
        with pytest.raises(ModelError, match="do not fit its preprocessing and metadata"):
            Predictor(folder, threads=1)
        path.write_bytes(sealed({**record, "metadata": None, "inputs": record["inputs"][:1]}))
        with pytest.raises(ModelError, match="input metadata"):
            Predictor(folder, threads=1)
