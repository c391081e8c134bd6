"""The verdict on a run's training, and what it says about its own limits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dermalyze.config.experiment import build_experiment
from dermalyze.errors import ModelError, UsageError
from dermalyze.stages.fit_check import fit_check, limits


def write_history(run, *, rise):
    lines = []
    for e in range(1, 21):
        fall = float(np.exp(-e / 3))
        lines.append(
            {"epoch": e, "train_loss": 0.5 + fall - 0.01 * e, "val_loss": 0.6 + fall + rise * max(0, e - 10),
             "train_accuracy": 0.8, "val_accuracy": 0.78, "val_balanced_accuracy": 0.7, "lr": 0.1}
        )  # fmt: skip
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.checkpoints_dir.mkdir(exist_ok=True)
    run.best_record_path.write_text(json.dumps({"epoch": 10, "metric": "val_loss"}))


@pytest.mark.parametrize(("rise", "verdict"), [(0.0, "good fit"), (0.05, "overfitting")])
def test_verdict_of_a_run(judged, rise, verdict):
    run, spec = judged({"mel": 20, "nv": 60})
    write_history(run, rise=rise)
    result = fit_check(run, spec)
    assert result.verdict == verdict
    assert result.lines()[0] == f"verdict: {verdict}"
    found = result.as_dict()
    json.dumps(found, allow_nan=False)
    counts = run.certificate()["counts"]["val"]["classes"]
    assert found["numbers"]["majority_accuracy"] == pytest.approx(max(counts.values()) / sum(counts.values()))
    assert "train figures are measured under augmentation" in found["notes"][0]


def test_limits_name_what_makes_figures_incomparable():
    spec = build_experiment({"train": {"augment": {"mixup": 0.2}, "imbalance": {"kind": "sampling"}}})
    notes = " ".join(limits(spec))
    assert "counts blended images" in notes
    assert "class-balanced draw" in notes
    plain = build_experiment({"train": {"imbalance": {"kind": "none"}, "augment": {"policy": "none"}}})
    assert len(limits(plain)) == 1


def test_before_training(judged):
    run, spec = judged({"mel": 20, "nv": 60})
    with pytest.raises(UsageError, match="run first: dermalyze train"):
        fit_check(run, spec)


def test_a_history_without_its_figures_is_refused(judged):
    run, spec = judged({"mel": 20, "nv": 60})
    run.metrics_path.write_text('{"epoch": 1}\n')
    with pytest.raises(ModelError, match=r"metrics\.jsonl: lacks train_loss, val_loss"):
        fit_check(run, spec)
