"""A set, a run and a network so small that a whole training takes a second; what tests of its faults share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.run import Run
from dermalyze.core.runtime import Runtime, StopRequest, choose_runtime
from dermalyze.metrics.classification import measure
from dermalyze.scoring.predictions import read_predictions
from dermalyze.stages.train import training_specs
from dermalyze.training.setup import Training, build_training

RICH: dict[str, Any] = {  # everything that carries state from step to step
    "epochs": 3, "batch_size": 4, "accumulate": 2, "ema": 0.9, "imbalance": {"kind": "sampling"}, "threads": 1,
    "augment": {"policy": "conservative", "mixup": 0.2}, "checkpoint_minutes": 1e-6,
}  # fmt: skip
HEAD = {"kind": "simple", "dropout": 0.3, "hidden": [16, 8]}


def tiny_spec(images: Path, **changes: Any) -> ExperimentSpec:
    """An experiment on `images`; `data` and `model` change those, the rest changes `train`."""
    data, model = changes.pop("data", {}), changes.pop("model", {})
    return build_experiment(
        {
            "data": {"path": str(images), "workers": 0, **data},
            "preprocess": {"size": [16, 16]},
            "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": HEAD, **model},
            "train": {**RICH, **changes},
        }
    )


def tiny_set(root: Path) -> Path:
    """42 images of seven classes."""
    from dermalyze.data.synthetic.synth import synthesize

    synthesize(root, lesions=42, seed=3, size_px=(32, 32), balance="even", images_per_lesion=1.0)
    return root


def tiny_run(root: Path, images: Path, **changes: Any) -> Run:
    """Prepared and split; `changes` as of `tiny_spec`."""
    return split_run(root, tiny_spec(images, **changes))


def split_run(root: Path, spec: ExperimentSpec) -> Run:
    """Prepared and split."""
    from dermalyze.stages.prepare import prepare
    from dermalyze.stages.split import split

    run = Run.create(root, spec)
    prepare(run, spec)
    split(run, spec)
    return run


def plain_runtime() -> Runtime:
    """One thread of the CPU, fp32, deterministic."""
    return choose_runtime(device="cpu", threads=1, amp=False, channels_last=True, deterministic=True)


def built(run: Run, runtime: Runtime, request: StopRequest | None = None) -> Training:
    """A training of the run's own experiment that has not begun."""
    return build_training(run, training_specs(run.config()), runtime, request or StopRequest())


def scored_run(base: Run, root: Path, spec: ExperimentSpec) -> Run:
    """A run with the same data and split, trained, exported and scored."""
    from dermalyze.stages.export import export
    from dermalyze.stages.score import score
    from dermalyze.stages.train import train

    run = another(base, root, spec)
    train(run, spec)
    export(run, spec)
    score(run, spec)
    return run


def scored_runs(
    base: Run, specs: Mapping[str | None, ExperimentSpec], temporary: pytest.TempPathFactory
) -> dict[str | None, Run]:
    """A scored run per spec, with the same data and split, and one cache for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(temporary.getbasetemp() / "cache"))
        return {kind: scored_run(base, temporary.mktemp(str(kind)) / "run", spec) for kind, spec in specs.items()}


def balanced_accuracy(run: Run, recipe: str) -> float:
    """Of the test split, from the stored predictions."""
    p = read_predictions(run.predictions_path("test", recipe))
    return float(measure(p.labels, p.probs())["balanced_accuracy"] or 0.0)


def another(base: Run, root: Path, spec: ExperimentSpec) -> Run:
    """A run with the same data and split, not trained."""
    run = Run.create(root, spec)
    for path in (base.manifest_path, base.summary_path, base.labels_path):
        shutil.copy(path, root / path.name)
    shutil.copytree(base.splits_dir, run.splits_dir)
    return run


def outcome(run: Run) -> dict[str, Any]:
    """What may not depend on what went wrong: the bytes of the weights and of the last state, and the numbers."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    times = ("seconds", "images_per_s")
    history = json.loads(run.history_path.read_text())
    best = json.loads(run.best_record_path.read_text())
    return {
        "best weights": run.best_weights_path.read_bytes(),
        "best record": {key: value for key, value in best.items() if key != "run_id"},
        "last state": run.state_records()[0].with_suffix(".safetensors").read_bytes(),
        "metrics": [{key: value for key, value in line.items() if key not in times} for line in lines],
        "history": {key: value for key, value in history.items() if key not in times},
    }


def stubs(run: Run) -> list[Path]:
    """Half-written files."""
    return [path for path in run.root.rglob("*") if path.suffix in (".tmp", ".part") or path == run.next_best_path]
