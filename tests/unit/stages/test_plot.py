"""The training curves of a run."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run
from dermalyze.errors import UsageError
from dermalyze.stages.plot import plot


def trained(tmp_path, epochs=6, leak=None):
    run = Run(tmp_path)
    lines = [
        {"epoch": e, "train_loss": 2 / e, "train_accuracy": 0.5, "val_loss": 2.1 / e, "val_accuracy": 0.4,
         "val_balanced_accuracy": 0.3, "val_macro_auroc": None if e == 1 else 0.8, "lr": 0.001, "seconds": 1.0}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.checkpoints_dir.mkdir()
    run.best_record_path.write_text(json.dumps({"epoch": epochs, "metric": "val_loss", "accepted_leak": leak}))
    return run


def test_figure_is_written_and_described(tmp_path):
    run = trained(tmp_path)
    result = plot(run, ExperimentSpec())
    assert result.path == run.report_dir / "training_curves.png"
    assert Image.open(io.BytesIO(result.path.read_bytes())).size[0] > 1000
    assert result.as_dict()["kept_epoch"] == 6
    assert result.lines()[0] == "6 epochs; the weights of epoch 6 were kept (by val_loss)"


def test_one_epoch_is_enough_and_a_leak_is_stamped(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = plot(trained(tmp_path / "a", 1), ExperimentSpec()).path.read_bytes()
    stamped = plot(trained(tmp_path / "b", 1, "because"), ExperimentSpec()).path.read_bytes()
    assert Image.open(io.BytesIO(stamped)).size[1] > Image.open(io.BytesIO(plain)).size[1]


def test_before_training(tmp_path):
    with pytest.raises(UsageError, match=r"metrics\.jsonl is missing; run first: dermalyze train"):
        plot(Run(tmp_path), ExperimentSpec())
    assert not list(tmp_path.iterdir())
