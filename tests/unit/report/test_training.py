"""The verdict on a training, from histories made to be each of the four."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dermalyze.core.run import Run
from dermalyze.errors import ModelError, UsageError
from dermalyze.report.training import assess_fit, kept_epoch, read_history
from dermalyze.tasks.baseline import Baseline


def history(epochs=24, *, floor=0.5, speed=4.0, rise=0.0, gap=0.03, skill=0.6):
    """Losses that fall to a floor; the validation loss rises again from the middle; accuracy goes with it."""
    e = np.arange(epochs)
    fall = np.exp(-e / speed)
    val = floor + 1.4 * fall + rise * np.maximum(0, e - epochs // 2)
    train = floor - 0.05 + 1.4 * fall - 0.005 * e
    balanced = 0.25 + 0.75 * skill * (1 - fall)
    accuracy = 0.4 + 0.5 * (1 - fall)
    return {
        "epoch": (e + 1).tolist(), "train_loss": train.tolist(), "val_loss": val.tolist(),
        "train_accuracy": (accuracy + gap).tolist(), "val_accuracy": accuracy.tolist(),
        "val_balanced_accuracy": balanced.tolist(),
    }  # fmt: skip


def judge(h, kept=None):
    return assess_fit(
        h,
        kept or int(np.argmin(h["val_loss"])) + 1,
        Baseline(0.4, "always saying a", "balanced_accuracy", "balanced", 0.25, np.log(4)),
    )


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "good fit", "gap of +0.030"),
        ({"rise": 0.03}, "overfitting", "above its lowest while the training loss kept falling"),
        ({"gap": 0.2}, "overfitting", "gap of +0.200"),
        ({"speed": 30.0}, "underfitting", "still improving"),
        ({"skill": 0.05}, "underfitting", "barely better than chance"),
        ({"epochs": 4}, "too short to tell", "4 epochs"),
    ],
)
def test_verdicts(changes, verdict, words):
    fit = judge(history(**changes))
    assert fit.verdict == verdict
    assert words in fit.reasons[0]


def test_numbers_are_those_of_the_kept_epoch_and_json_ready():
    h = history(rise=0.03)
    fit = judge(h, kept=12)
    assert fit.numbers["val_loss"] == h["val_loss"][11]
    assert fit.numbers["accuracy_gap"] == pytest.approx(0.03)
    assert fit.numbers["chance_balanced_accuracy"] == 0.25
    assert fit.numbers["uniform_guess_loss"] == pytest.approx(np.log(4))
    json.dumps(fit.numbers, allow_nan=False)


def test_undefined_values_do_not_break_it():
    h = history()
    h["val_balanced_accuracy"] = [None] * 24
    fit = judge(h)
    assert fit.numbers["val_balanced_accuracy"] is None
    json.dumps(fit.numbers, allow_nan=False)


def test_history_is_read_as_lists(tmp_path):
    run = Run(tmp_path)
    run.metrics_path.write_text('{"epoch": 1, "val_loss": 1.0}\n{"epoch": 2, "val_loss": null, "val_accuracy": 0.5}\n')
    assert read_history(run) == {"epoch": [1, 2], "val_loss": [1.0, None], "val_accuracy": [None, 0.5]}


@pytest.mark.parametrize("text", ["", "{", '{"epoch": 2}\n', '{"epoch": 1}\n{"epoch": 1}\n', "[]\n"])
def test_damaged_history_is_refused(tmp_path, text):
    run = Run(tmp_path)
    run.metrics_path.write_text(text)
    with pytest.raises(ModelError, match=r"metrics.jsonl: (damaged|contains no epoch)"):
        read_history(run)


def test_no_training_yet(tmp_path):
    with pytest.raises(UsageError, match="run first: dermalyze train"):
        read_history(Run(tmp_path))
    with pytest.raises(UsageError, match="run first: dermalyze train"):
        kept_epoch(Run(tmp_path))


@pytest.mark.parametrize("text", ["{}", '{"epoch": "x", "metric": "val_loss"}', '{"epoch": 1}'])
def test_a_damaged_best_record_is_refused(tmp_path, text):
    run = Run(tmp_path)
    run.checkpoints_dir.mkdir()
    run.best_record_path.write_text(text)
    with pytest.raises(ModelError, match=r"best\.json: names no epoch and metric"):
        kept_epoch(run)
