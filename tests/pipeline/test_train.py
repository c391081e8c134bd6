"""Training on a small synthetic set: exact resume, stopping, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import built, plain_runtime

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.run import Run
from dermalyze.core.runtime import StopRequest, applied
from dermalyze.data.manifest import read_manifest, write_manifest
from dermalyze.data.synthetic.synth import synthesize
from dermalyze.errors import ConfigError, DataError, InterruptedRunError, LeakError, ModelError, ResourceError, UsageError
from dermalyze.models.classifier import Classifier
from dermalyze.stages.prepare import prepare
from dermalyze.stages.split import split
from dermalyze.stages.train import train
from dermalyze.training import loop
from dermalyze.training.checkpoint import load_best
from dermalyze.training.loop import Validation
from dermalyze.training.setup import Training

RICH: dict[str, Any] = {  # everything that carries state through a resume
    "epochs": 3,
    "batch_size": 8,
    "accumulate": 2,
    "ema": 0.9,
    "imbalance": {"kind": "sampling"},
    "loss": {"kind": "label_smoothing"},
    "augment": {"policy": "standard", "mixup": 0.2},
    "schedule": {"kind": "cosine_restarts", "t_0": 2},
    "threads": 1,
}
DROPOUT_HEAD = {"kind": "simple", "dropout": 0.3, "hidden": [16, 8]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "set"
    synthesize(root, lesions=84, seed=3, size_px=(32, 40), balance="even", images_per_lesion=1.0)
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def base(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared and split run to copy from."""
    spec = make_spec(images)
    run = Run.create(tmp_path_factory.mktemp("base") / "run", spec)
    prepare(run, spec)
    split(run, spec)
    return run.root


def make_spec(images: Path, **settings: Any) -> ExperimentSpec:
    head = settings.pop("head", {"kind": "linear"})
    return build_experiment(
        {
            "data": {"path": str(images), "workers": 0},
            "preprocess": {"size": [24, 32]},
            "model": {"backbone": "tiny_cnn", "head": head},
            "train": {"epochs": 2, "batch_size": 16, "threads": 1, **settings},
        }
    )


def fresh(base: Path, root: Path, spec: ExperimentSpec) -> Run:
    run = Run.create(root, spec)
    for name in ("manifest.parquet", "summary.json", "labels.csv"):
        shutil.copy(base / name, root / name)
    shutil.copytree(base / "splits", root / "splits")
    return run


def state_bytes(run: Run) -> list[bytes]:
    """The weights that are exported, and the newest resumable tensors."""
    return [run.best_weights_path.read_bytes(), run.state_records()[0].with_suffix(".safetensors").read_bytes()]


def without_times(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    spec = make_spec(images, head=DROPOUT_HEAD, **RICH)
    run = fresh(base, tmp_path_factory.mktemp("whole") / "run", spec)
    train(run, spec)
    return run


class TestResume:
    @pytest.mark.parametrize("stop_at", [1, 4, 5, 7], ids=lambda step: f"step{step}")
    def test_equals_uninterrupted_bit_for_bit(
        self, stop_at: int, base: Path, images: Path, uninterrupted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = uninterrupted.config()
        run = fresh(base, tmp_path / "run", spec)
        original = loop.step

        def stopping(training: Training, *arguments: Any) -> None:
            original(training, *arguments)
            if training.state.progress.step + 1 == stop_at:
                training.request.signal = "SIGTERM"

        monkeypatch.setattr(loop, "step", stopping)
        with pytest.raises(InterruptedRunError, match="SIGTERM: state saved at step") as caught:
            train(run, spec)
        assert caught.value.exit_code == 75
        assert not run.history_path.exists()
        monkeypatch.setattr(loop, "step", original)
        train(run, spec)
        assert state_bytes(run) == state_bytes(uninterrupted)
        assert without_times(run) == without_times(uninterrupted)

    def test_stop_during_validation(
        self, base: Path, images: Path, uninterrupted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = uninterrupted.config()
        run = fresh(base, tmp_path / "run", spec)
        original = loop.validate

        def stopping(training: Training, epoch: int) -> Validation:
            training.request.signal = "SIGINT" if epoch == 1 else None
            return original(training, epoch)

        monkeypatch.setattr(loop, "validate", stopping)
        with pytest.raises(InterruptedRunError):
            train(run, spec)
        monkeypatch.setattr(loop, "validate", original)
        train(run, spec, resume=run.root)
        assert state_bytes(run) == state_bytes(uninterrupted)

    @pytest.mark.parametrize("kind", ["adamw", "sgd"])
    def test_across_unfreezing_and_new_sizes(
        self, kind: str, base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Four steps an epoch: stopped before, at and after both changes; each part ends where it begins to learn or later."""
        plan = {
            "optimizer": {"kind": kind, "lr": 1e-2},
            "strategy": {"kind": "gradual", "epochs": [1, 2], "stages": 1},
            "progressive": [{"epoch": 0, "scale": 0.75}, {"epoch": 2, "scale": 1}],
            "augment": {"policy": "randaugment", "perspective": 0.2, "cutmix": 0.2},
        }
        spec = make_spec(images, head=DROPOUT_HEAD, **{**RICH, **plan})
        whole, stopped = (fresh(base, tmp_path / name, spec) for name in ("whole", "stopped"))
        train(whole, spec)
        original = loop.step
        seen: list[tuple[int, int]] = []

        def stopping(training: Training, *arguments: Any) -> None:
            original(training, *arguments)
            seen.append((training.state.progress.step, len(training.state.learner.optimizer.state)))
            training.request.signal = "SIGTERM" if training.state.progress.step + 1 in (3, 4, 5, 8, 10) else None

        monkeypatch.setattr(loop, "step", stopping)
        for _ in range(5):
            with pytest.raises(InterruptedRunError):
                train(stopped, spec)
        train(stopped, spec)
        assert state_bytes(stopped) == state_bytes(whole)
        assert without_times(stopped) == without_times(whole)
        assert [step for step, _ in seen] == list(range(12))
        remembered = [count for _, count in seen]
        assert remembered[0] == remembered[3] < remembered[4] == remembered[7] < remembered[8] == remembered[11]

    def test_finished_run_is_not_trained_again(self, uninterrupted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        before = state_bytes(uninterrupted)
        monkeypatch.setattr(loop, "step", None)
        again = train(uninterrupted, uninterrupted.config())
        assert again.epochs == 3
        assert state_bytes(uninterrupted) == before

    @pytest.mark.parametrize("how", ["cut", "flip", "json", "key"])
    def test_damaged_last_falls_back_to_the_one_before(
        self, how: str, uninterrupted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(uninterrupted.root, tmp_path / "run")
        run = Run(tmp_path / "run")
        record = run.state_records()[0]
        tensors = record.with_suffix(".safetensors")
        data = bytearray(tensors.read_bytes())
        if how == "cut":
            tensors.write_bytes(data[:-1])
        elif how == "flip":
            data[-5] ^= 1
            tensors.write_bytes(data)
        elif how == "json":
            record.write_text("{")
        else:
            record.write_text(record.read_text().replace('"progress"', '"progres"'))
        train(run, run.config())
        assert "falling back to the one before" in capsys.readouterr().err
        assert state_bytes(run) == state_bytes(uninterrupted)

    @pytest.mark.parametrize("name", ["best.safetensors", "best.json"])
    def test_finished_run_without_its_best_says_what_to_do(self, uninterrupted: Run, tmp_path: Path, name: str) -> None:
        run = Run(Path(shutil.copytree(uninterrupted.root, tmp_path / "copy")))
        (run.checkpoints_dir / name).write_bytes(b"{}")
        with pytest.raises(ModelError, match="delete the checkpoints folder to train from the start"):
            train(run, run.config())

    def test_resume_that_is_not_there(self, uninterrupted: Run, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--resume nowhere: does not exist"):
            train(uninterrupted, uninterrupted.config(), resume=tmp_path / "nowhere")

    def test_changed_configuration_is_refused(self, uninterrupted: Run, tmp_path: Path) -> None:
        shutil.copytree(uninterrupted.root, tmp_path / "run")
        run = Run(tmp_path / "run")
        run.config_path.write_text(run.config_path.read_text().replace("epochs: 3", "epochs: 4"))
        with pytest.raises(ModelError, match="another configuration") as caught:
            train(run, run.config())
        assert caught.value.exit_code == 4

    def test_other_circumstances_are_said(self, uninterrupted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(uninterrupted.root, tmp_path / "run")
        run = Run(tmp_path / "run")
        record = run.state_records()[0]
        record.write_text(record.read_text().replace('"threads": 1', '"threads": 9'))
        train(run, run.config())
        assert "no longer bit-identical: threads 9 -> 1" in capsys.readouterr().err

    def test_a_checkpoint_of_another_run_is_refused(self, uninterrupted: Run, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images)
        run = fresh(base, tmp_path / "run", spec)
        with pytest.raises(ModelError, match="belongs to another run"):
            train(run, spec, resume=uninterrupted.state_records()[0])


class TestSignals:
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
    def test_saves_exits_75_and_goes_on(self, name: str, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, epochs=400, early_stopping=None)
        run = fresh(base, tmp_path / "run", spec)
        command = [sys.executable, "-c", "from dermalyze.cli import main; main()", "train", str(run.root)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not run.metrics_path.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 75, errors
        assert f"{name}: state saved at step" in errors
        assert "Traceback" not in errors
        _, record = load_state(run)
        assert record["progress"]["step"] > 0
        assert not list(run.root.rglob("*.tmp"))

    def test_before_the_first_step(self, base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
        spec = make_spec(images)
        run = fresh(base, tmp_path / "run", spec)
        request = StopRequest()
        request.signal = "SIGTERM"
        with pytest.raises(InterruptedRunError, match="stopped before the first step"):
            built(run, plain_runtime(), request)
        assert not list((tmp_path / "cache").iterdir())

    def test_two_trainings_of_one_run(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images)
        run = fresh(base, tmp_path / "run", spec)
        with run.lock():
            command = [sys.executable, "-c", "from dermalyze.cli import main; main()", "train", str(run.root)]
            second = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert second.returncode == 2
        assert "another process uses this run" in second.stderr
        assert not run.checkpoints_dir.exists()


def load_state(run: Run) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from dermalyze.training.checkpoint import load_state_pair

    found = load_state_pair(run)
    assert found is not None
    return found


class TestRefusals:
    def test_diverging_loss_stops_before_the_step(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(
            images,
            epochs=3,
            clip_norm=None,
            optimizer={"kind": "sgd", "lr": 1e30},
            schedule={"kind": "constant", "warmup": 0.0},
        )
        run = fresh(base, tmp_path / "run", spec)
        with pytest.raises(DataError, match=r"stopped before the optimizer step; cause: weights or learning rate") as caught:
            train(run, spec)
        assert caught.value.exit_code == 3
        noted = json.loads(run.diverged_path.read_text())
        assert len(noted["image_ids"]) > 1
        assert set(noted["image_ids"]) <= set(read_manifest(run)["image_id"])
        assert not run.history_path.exists()

    def test_input_that_is_not_finite_is_named(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images)
        spec = spec.model_copy(update={"preprocess": spec.preprocess.model_copy(update={"std": (1e-45, 0.5, 0.5)})})
        run = fresh(base, tmp_path / "run", spec)
        with pytest.raises(DataError, match="an input image is not finite"):
            train(run, spec)

    def test_unknown_monitor(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, monitor="val_macro_auc")
        run = fresh(base, tmp_path / "run", spec)
        with pytest.raises(ConfigError, match="did you mean 'val_macro_auroc'"):
            train(run, spec)

    def test_changed_image_is_refused(self, base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
        shutil.copytree(images, tmp_path / "set")
        spec = make_spec(tmp_path / "set")
        run = fresh(base, tmp_path / "run", spec)
        victim = next((tmp_path / "set").rglob("*.jpg"))
        victim.write_bytes(victim.read_bytes() + b"x")
        with pytest.raises(DataError, match="its bytes changed since prepare"):
            train(run, spec)
        assert not list((tmp_path / "cache").glob("*"))

    @pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
    def test_folder_without_permission(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images)
        run = fresh(base, tmp_path / "run", spec)
        (run.root / ".lock").touch()
        run.root.chmod(0o555)
        code = (
            "import os, sys; from pathlib import Path\n"
            "from dermalyze.core.run import Run; from dermalyze.errors import ResourceError\n"
            "run = Run(Path('.'))\n"
            "os.geteuid() or os.setuid(65534)\n"
            "try: run.require_writable()\n"
            "except ResourceError as error: print(error); sys.exit(error.exit_code)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=run.root, capture_output=True, text=True, timeout=60)
        run.root.chmod(0o755)
        assert done.returncode == 5, done.stderr
        assert "Permission denied; give write permission" in done.stdout

    def test_checkpoints_that_cannot_be_written_are_refused_before_the_first_epoch(
        self, base: Path, images: Path, tmp_path: Path
    ) -> None:
        spec = make_spec(images)
        run = fresh(base, tmp_path / "run", spec)
        run.checkpoints_dir.write_text("a file")
        with pytest.raises(ResourceError, match="cannot write"):
            train(run, spec)
        assert not run.metrics_path.exists()

    def test_a_checkpoint_that_cannot_be_written(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images)
        run = fresh(base, tmp_path / "run", spec)
        run.checkpoints_dir.write_text("in the way")
        with pytest.raises(ResourceError):
            train(run, spec)

    def test_leak_needs_a_reason_that_stands_on_the_result(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, epochs=1)
        run = Run.create(tmp_path / "run", spec)
        shutil.copy(base / "summary.json", run.summary_path)
        frame = read_manifest(Run(base))
        frame["lesion_id"] = frame.groupby("label").cumcount().floordiv(4).astype(str) + frame["label"]
        frame["split"] = [("train", "val", "cal", "test")[i % 4] for i in frame.groupby("label").cumcount()]
        sha = write_manifest(run, frame)
        summary = json.loads(run.summary_path.read_text())
        run.summary_path.write_text(json.dumps({**summary, "manifest_sha256": sha}))
        split(run, spec)
        with pytest.raises(LeakError, match="--accept-leak") as caught:
            train(run, spec)
        assert caught.value.exit_code == 3
        assert not run.checkpoints_dir.exists()
        with pytest.raises(UsageError):
            train(run, spec, accept_leak="  ")
        result = train(run, spec, accept_leak="to show what a leak flatters")
        assert result.accepted_leak == "to show what a leak flatters"
        assert load_best(run)[1]["accepted_leak"] == "to show what a leak flatters"
        assert any("LEAK ACCEPTED" in line for line in result.lines())


def measured(patch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
    """Let nothing be trained, and the epochs' validation losses be these."""
    record = {"train_loss": 1.0, "val_accuracy": 0.5, "val_balanced_accuracy": 0.5, "val_macro_auroc": 0.5}
    record |= {"lr": 1.0, "seconds": 1.0, "images_per_s": 1.0}
    none = np.zeros(0, np.int64)

    def validate(training: Training, epoch: int) -> Validation:
        line = {"epoch": epoch + 1, "val_loss": float(losses[epoch]), **record}
        return Validation(line, none, none, np.zeros((0, len(training.classes))))

    patch.setattr(loop, "train_epoch", lambda training, epoch: None)
    patch.setattr(loop, "validate", validate)


class TestLoop:
    def test_learns(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(
            images, epochs=12, optimizer={"kind": "adamw", "lr": 3e-3}, augment={"policy": "none"}, imbalance={"kind": "none"}
        )
        run = fresh(base, tmp_path / "run", spec)
        train(run, spec)
        history = json.loads(run.history_path.read_text())
        assert history["train_loss"][-1] < 0.8 * history["train_loss"][0]
        assert set(history) >= {"train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "val_balanced_accuracy"}
        assert list(run.tensorboard_dir.iterdir())

    def test_stream_and_memory_map_train_the_same_weights(self, base: Path, images: Path, tmp_path: Path) -> None:
        weights = []
        for cache, workers in (("memory_map", 0), ("stream", 0), ("stream", 2)):
            spec = make_spec(images, epochs=1, cache=cache, num_workers=workers)
            run = fresh(base, tmp_path / f"{cache}{workers}", spec)
            train(run, spec)
            weights.append(run.best_weights_path.read_bytes())
        assert weights[0] == weights[1] == weights[2]

    def test_frozen_backbone_stays_as_it_was(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, epochs=1, strategy={"kind": "frozen"})
        run = fresh(base, tmp_path / "run", spec)
        with applied(plain_runtime()):
            start = built(run, plain_runtime()).model.backbone.state_dict()
        before = {name: tensor.clone() for name, tensor in start.items()}
        train(run, spec)
        after = load_best(run)[0].backbone.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_bf16_trains(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, epochs=1, amp=True)
        run = fresh(base, tmp_path / "run", spec)
        assert np.isfinite(train(run, spec).value)
        assert run.state_records()[0].read_text().count('"precision": "bf16"') == 1

    @pytest.mark.slow
    def test_compiled_trains(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, epochs=1, compile=True)
        run = fresh(base, tmp_path / "run", spec)
        assert np.isfinite(train(run, spec).value)

    def test_sizes_of_each_epoch(self, base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = [{"epoch": 1, "scale": 0.75}, {"epoch": 2, "scale": 0.875}, {"epoch": 3, "scale": 1}]
        spec = make_spec(images, epochs=4, progressive=sizes)
        run = fresh(base, tmp_path / "run", spec)
        seen: list[tuple[bool, tuple[int, ...]]] = []
        original = Classifier.forward

        def forward(self: Classifier, inputs: Any) -> torch.Tensor:
            seen.append((self.training, tuple(inputs["image"].shape[2:])))
            return original(self, inputs)

        monkeypatch.setattr(Classifier, "forward", forward)
        train(run, spec)
        trained = list(dict.fromkeys(size for training, size in seen if training))
        assert trained == [(24, 32), (18, 24), (21, 28)]
        assert [size for training, size in seen if training][-1] == (24, 32)
        assert {size for training, size in seen if not training} == {(24, 32)}

    def test_a_size_the_network_cannot_take_is_refused_at_the_start(self, base: Path, images: Path, tmp_path: Path) -> None:
        spec = make_spec(images, progressive=[{"epoch": 0, "scale": 0.11}, {"epoch": 1, "scale": 1}])
        run = fresh(base, tmp_path / "run", spec)
        with pytest.raises(ModelError, match=r"train.progressive: this network does not take 3x4 px"):
            train(run, spec)

    def test_patience_waits_for_what_is_planned(
        self, base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing improves after the first epoch; the last change comes after six, and patience is 2."""
        spec = make_spec(
            images, epochs=12, strategy={"kind": "gradual", "epochs": [1, 6]}, early_stopping={"patience": 2},
            schedule={"kind": "cosine"},
        )  # fmt: skip
        run = fresh(base, tmp_path / "run", spec)
        measured(monkeypatch, [1.0] * 12)
        result = train(run, spec)
        assert (result.epochs, result.best_epoch) == (9, 1)

    @pytest.mark.parametrize(
        ("schedule", "losses", "epochs", "best"),
        [
            # plain: the best is epoch 2, three without improvement stop it
            ({"kind": "cosine"}, [3, 1, 2, 2, 2, 2, 2, 2], 5, 2),
            # a restart at 4 raises the loss; counting from the cycle's own best continues to find epoch 8
            ({"kind": "cosine_restarts", "t_0": 4}, [4, 3, 2, 1, 5, 4, 3, 0.5], 8, 8),
            # without improvement within a cycle it stops there
            ({"kind": "cosine_restarts", "t_0": 4}, [4, 3, 2, 1, 2, 3, 3, 3], 8, 4),
        ],
    )
    def test_early_stopping_across_restarts(
        self, schedule: dict[str, Any], losses: list[float], epochs: int, best: int,
        base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        spec = make_spec(images, epochs=8, schedule=schedule, early_stopping={"patience": 3})
        run = fresh(base, tmp_path / "run", spec)
        measured(monkeypatch, losses)
        result = train(run, spec)
        assert (result.epochs, result.best_epoch) == (epochs, best)
