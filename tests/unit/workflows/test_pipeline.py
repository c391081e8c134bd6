"""The order of the steps, what is skipped, and continuing after a failure; the steps are fakes that leave their files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dermalyze.artifact.record import NOTHING_YET, parse_record, sealed
from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.atomic import sha256_bytes, sha256_file, write_bytes, write_json
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ConfigError, DataError, InterruptedRunError, ResourceError
from dermalyze.scoring.predictions import Predictions, write_predictions
from dermalyze.stages.init import freeze
from dermalyze.workflows.pipeline import STEPS, run_experiment


class World:
    """Fake stages and what was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.options: dict[str, dict[str, Any]] = {}
        self.fail: str | None = None
        self.weights = "w1"

    def stage(self, name: str) -> Callable[..., None]:
        def stage(run: Run, spec: ExperimentSpec, **options: Any) -> None:
            if self.fail == name:
                raise DataError(f"{name} fails")
            self.calls.append(name)
            self.options[name] = options
            getattr(self, name)(run)

        return stage

    def prepare(self, run: Run) -> None:
        write_bytes(run.manifest_path, b"manifest")

    def audit(self, run: Run) -> None:
        write_json(run.audit_path, {})

    def split(self, run: Run) -> None:
        for part in ("train", "val", "test"):
            write_bytes(run.split_path(part), b"")
        part = {"images": 1, "groups": 1, "classes": {"mel": 1}}
        counts = dict.fromkeys(("train", "val", "test"), part)
        known = {"passed": True, "seed": 1, "counts": counts, "used_for": {}, "checks": []}
        write_json(run.certificate_path, {"manifest_sha256": run.manifest_hash(), **known})

    def train(self, run: Run) -> None:
        weights = sha256_bytes(self.weights.encode())
        write_json(run.best_record_path, {"weights_sha256": weights, "manifest_sha256": run.manifest_hash()})
        write_json(run.history_path, {})

    def export(self, run: Run) -> None:
        weights = sha256_bytes(self.weights.encode())
        record = {
            "schema_version": 2, "name": "fake", "created_from": {"weights_sha256": weights}, "model": {}, "recipe": "plain",
            "classes": [{"name": name, "description": ""} for name in ("a", "b")],
            "preprocessing": {"height": 8, "width": 8, "modality": "dermoscopy"},
            "training": {}, "accepted_leak": None, "disclaimer": "", "licence_note": "", "parity": {},
            "files": dict.fromkeys(("model.onnx", "model.safetensors"), weights), "task": "multiclass", "metadata": None,
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [8, 8, 3], "optional": False}],
            "outputs": [{"name": "logits", "shape": [2]}, {"name": "embedding", "shape": [3]}],
            "cam": {"kind": "none", "reason": "fake", "height": 0, "width": 0}, **NOTHING_YET,
        }  # fmt: skip
        write_bytes(run.artifact_record_path, sealed(record))

    def score(self, run: Run) -> None:
        meta = {
            "classes": ["a", "b"],
            "recipe": "plain",
            "task": "multiclass",
            "scores_sha256": parse_record(run.artifact_record_path.read_bytes()).scores_sha256,
        }
        for part in ("train", "val", "test"):
            one = Predictions(["a"], ["a"], np.zeros(1, np.int64), np.zeros((1, 2), np.float32), None, {**meta, "set": part})
            write_predictions(run.predictions_path(part, "plain"), one)
        write_predictions(run.foreign_path("synthetic", "plain"), one)

    def calibrate(self, run: Run) -> None:
        calibration = {"kind": "none", "parameters": {}, "part": "val"}
        scores = sha256_file(run.predictions_path("val", "plain"))
        synthetic = sha256_file(run.foreign_path("synthetic", "plain"))
        known = {"predictions_sha256": scores, "synthetic_sha256": synthetic, "calibration": calibration}
        write_json(run.calibration_path("plain"), known)
        record = {**read_json(run.artifact_record_path), "calibration": calibration}
        write_bytes(run.artifact_record_path, sealed(record))

    def evaluate(self, run: Run) -> None:
        made_of = {
            "predictions_sha256": run.predictions_path("test", "plain"),
            "calibration_sha256": run.calibration_path("plain"),
        }
        write_json(run.evaluation_path, {"provenance": {key: sha256_file(path) for key, path in made_of.items()}})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    world = World()
    for name in STEPS:
        monkeypatch.setitem(sys.modules, f"dermalyze.stages.{name}", SimpleNamespace(**{name: world.stage(name)}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return world


SPEC = build_experiment({"data": {"path": "data"}, "model": {"backbone": "tiny_cnn", "pretrained": False}})


def test_all_steps_in_order_then_none(world: World) -> None:
    first = run_experiment(SPEC, Path("run"))
    assert world.calls == list(STEPS)
    assert list(first.seconds) == list(STEPS)
    again = run_experiment(SPEC, Path("run"))
    assert world.calls == list(STEPS)
    assert again.seconds == {}
    assert again.metrics == first.metrics


def test_one_line_a_step_on_standard_error(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    run_experiment(SPEC, Path("run"))
    told = capsys.readouterr()
    assert told.out == ""
    assert [re.sub(r" [\d.]+ s$", "", line) for line in told.err.splitlines()[1:]] == [
        f"[{number}/{len(STEPS)}] {step}:" for number, step in enumerate(STEPS, start=1)
    ]


@pytest.mark.parametrize("broken", STEPS)
def test_a_failure_keeps_what_was_done_and_the_next_call_goes_on(world: World, broken: str) -> None:
    world.fail = broken
    with pytest.raises(DataError, match=broken):
        run_experiment(SPEC, Path("run"))
    assert world.calls == list(STEPS[: STEPS.index(broken)])
    world.fail = None
    run_experiment(SPEC, Path("run"))
    assert world.calls == list(STEPS)


def test_new_weights_are_exported_scored_and_measured_again(world: World) -> None:
    run_experiment(SPEC, Path("run"))
    world.calls.clear()
    world.weights = "w2"
    world.train(Run(Path("run")))
    run_experiment(SPEC, Path("run"))
    assert world.calls == ["export", "score", "calibrate", "evaluate"]


def test_a_new_export_is_scored_and_measured_again(world: World) -> None:
    run_experiment(SPEC, Path("run"))
    world.calls.clear()
    record = Run(Path("run")).artifact_record_path
    write_bytes(record, sealed({**read_json(record), "name": "another"}))
    run_experiment(SPEC, Path("run"))
    assert world.calls == ["score", "calibrate", "evaluate"]


def test_a_calibration_that_is_not_the_artifacts_is_made_again(world: World) -> None:
    run_experiment(SPEC, Path("run"))
    world.calls.clear()
    record = Run(Path("run")).artifact_record_path
    write_bytes(record, sealed({**read_json(record), "calibration": None}))
    run_experiment(SPEC, Path("run"))
    assert world.calls == ["calibrate"]


def test_an_unfinished_training_goes_on(world: World) -> None:
    run_experiment(SPEC, Path("run"))
    world.calls.clear()
    Run(Path("run")).history_path.unlink()
    run_experiment(SPEC, Path("run"))
    assert world.calls == ["train"]


def test_a_manifest_changed_after_the_split_is_refused(world: World) -> None:
    run_experiment(SPEC, Path("run"))
    world.calls.clear()
    Run(Path("run")).manifest_path.write_bytes(b"edited")
    with pytest.raises(DataError, match="not the one that was split"):
        run_experiment(SPEC, Path("run"))
    assert world.calls == []


def test_an_accepted_leak_reaches_training_and_evaluation(world: World) -> None:
    run_experiment(SPEC, Path("run"), accept_leak="to show what it does")
    assert {name: options for name, options in world.options.items() if options} == {
        "train": {"accept_leak": "to show what it does"},
        "evaluate": {"accept_leak": "to show what it does"},
    }


def test_without_a_folder_it_makes_one_with_the_time(world: World) -> None:
    root = run_experiment(SPEC).root
    assert re.fullmatch(r"outputs/run_\d{8}_\d{6}", root.as_posix())
    assert Run(root).config_path.exists()


def test_the_run_works_from_any_folder(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_experiment(SPEC, Path("run"))
    assert Run(tmp_path / "run").config().data.path == str(tmp_path / "data")
    monkeypatch.chdir("/")
    run_experiment(Run(tmp_path / "run").config(), tmp_path / "run")
    assert world.calls == list(STEPS)


def test_a_file_and_settings_on_top(world: World, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("train: {epochs: 3}\nmodel: {backbone: tiny_cnn, pretrained: false}\n", encoding="utf-8")
    run_experiment("x.yaml", Path("run"), sets=["data.path=data", "train.epochs=4"])
    assert Run(tmp_path / "run").config().train.epochs == 4


def test_no_data_is_refused_before_anything_is_made(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set data\.path"):
        run_experiment(build_experiment({}), Path("run"))
    assert not (tmp_path / "run").exists()


def test_an_unknown_backbone_is_refused_before_anything_is_made(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest: resnet18"):
        run_experiment(build_experiment({"data": {"path": "data"}, "model": {"backbone": "resnet18x"}}), Path("run"))
    assert not (tmp_path / "run").exists()
    assert world.calls == []


def test_some_steps_alone(world: World) -> None:
    run = freeze(Path("run"), SPEC)
    world.prepare(run)
    run_experiment(SPEC, Path("run"), steps=STEPS[2:])
    assert world.calls == list(STEPS[2:])
    assert not run.audit_path.exists()


def test_a_device_that_is_not_there_is_refused_before_the_first_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    spec = build_experiment({**SPEC.model_dump(mode="json"), "train": {"device": "cuda"}})
    with pytest.raises(ResourceError, match=r"train.device: cuda is not available; available: .*cpu"):
        run_experiment(spec, Path("run"))
    assert world.calls == []
    assert not Path("run").exists()


def test_a_table_that_is_not_there_is_refused_before_it_is_frozen(world: World) -> None:
    source = {"kind": "csv", "file": "labels.csv"}
    spec = build_experiment({**SPEC.model_dump(mode="json"), "data": {"path": "data", "source": source}})
    with pytest.raises(ConfigError, match=r"data.source.file: labels.csv is not in .*data"):
        run_experiment(spec, Path("run"))
    assert not Path("run").exists()
    Path("data/deep").mkdir()
    Path("data/deep/labels.csv").write_text("image_id,label\n")
    run_experiment(spec, Path("run"))
    assert world.calls == list(STEPS)


def test_after_a_stop_the_line_names_the_command_that_was_given(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(run: Run, spec: ExperimentSpec, **options: Any) -> None:
        raise InterruptedRunError("SIGINT: state saved at step 12; resume with: dermalyze train run")

    monkeypatch.setitem(sys.modules, "dermalyze.stages.train", SimpleNamespace(train=stopped))
    Path("e.yaml").write_text("data: {path: data}\nmodel: {backbone: tiny_cnn, pretrained: false}\n")
    with pytest.raises(InterruptedRunError) as stop:
        run_experiment("e.yaml", Path("run"))
    assert str(stop.value) == "SIGINT: state saved at step 12; the same command continues: dermalyze run e.yaml run"
