"""All steps of one experiment in order. What is finished is skipped, so the same call continues where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dermalyze.artifact.record import parse_record
from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec, load_experiment
from dermalyze.core.atomic import sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ConfigError, InterruptedRunError
from dermalyze.imaging.enhance import require_steps
from dermalyze.stages.init import freeze

STEPS = ("prepare", "audit", "split", "train", "export", "score", "calibrate", "evaluate")
LEAK_STEPS = ("train", "evaluate")
"""Steps that take `accept_leak`."""


@dataclass(frozen=True)
class PipelineResult:
    """What a whole experiment came to.

    Attributes:
        root: the run folder.
        seconds: of each step done in this call; a step that is not named was finished before.
        metrics: the test split's `evaluation_metrics.json`; empty where `evaluate` was not among the steps.
    """

    root: Path
    seconds: dict[str, float]
    metrics: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"run": str(self.root), "seconds": self.seconds, "metrics": self.metrics}

    def lines(self) -> list[str]:
        """The summary for a person."""
        from dermalyze.stages.evaluate import EvaluateResult

        return EvaluateResult(self.metrics, (Run(self.root).report_page_path,)).lines()


def run_experiment(
    config: Path | str | ExperimentSpec,
    root: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    accept_leak: str | None = None,
    steps: Sequence[str] = STEPS,
) -> PipelineResult:
    """Prepare, audit, split, train, export, score, calibrate and evaluate; each step that is finished is skipped.

    Args:
        config: an experiment, or its YAML file.
        root: the run folder; by default a new `outputs/run_YYYYMMDD_HHMMSS`.
        sets: `key=value` assignments on top of the file.
        accept_leak: continue although the data leaks, for this reason, which then stands on every result.
        steps: those of `STEPS` to do, in their order; what comes before them must be in the run.

    Raises:
        ConfigError: the configuration is wrong, names no data or no backbone, or differs from the one the run is frozen on.
        ResourceError: `train.device` is not available here.
        InterruptedRunError: a step was stopped; the same call continues.
        DermalyzeError: whatever a step refuses; what was finished before it stays.
    """
    spec = config if isinstance(config, ExperimentSpec) else load_experiment(Path(config), sets)
    if spec.data.path is None and spec.data.source.kind != "merged":
        raise ConfigError("data.path is not set; name the folder or the archives with --set data.path=FOLDER")
    root = Path(root if root is not None else time.strftime("outputs/run_%Y%m%d_%H%M%S"))
    if not Run(root).describe()["train"]:
        _check_training(spec)
    run = freeze(root, spec)
    spec = run.config()
    say(f"run folder {root}")
    seconds: dict[str, float] = {}
    for number, step in enumerate(steps, start=1):
        if finished(run, spec, step, redone=bool(seconds)):
            say(f"[{number}/{len(steps)}] {step}: finished before")
            continue
        options: dict[str, Any] = {"accept_leak": accept_leak} if step in LEAK_STEPS else {}
        stage: Callable[..., Any] = getattr(import_module(f"dermalyze.stages.{step}"), step)
        started = time.monotonic()
        try:
            stage(run, spec, **options)
        except InterruptedRunError as error:
            told = str(error).partition(";")[0]
            again = f"dermalyze run {config if isinstance(config, Path | str) else 'EXPERIMENT.YAML'} {root}"
            raise InterruptedRunError(f"{told}; the same command continues: {again}") from error
        seconds[step] = time.monotonic() - started
        say(f"[{number}/{len(steps)}] {step}: {duration(seconds[step])}")
    return PipelineResult(root, seconds, read_json(run.evaluation_path) if run.evaluation_path.exists() else {})


def _check_training(spec: ExperimentSpec) -> None:
    """Refuse a backbone, a weight file, a device or a step of preprocessing that is not there now, and not when the data has
    been prepared."""
    from dermalyze.core.runtime import choose_runtime
    from dermalyze.models.backbones import pretrained_cfg_of

    require_steps([step.model_dump() for step in spec.preprocess.steps])
    pretrained_cfg_of(spec.model)
    choose_runtime(device=spec.train.device, threads=spec.train.threads, amp=False, channels_last=False, deterministic=True)


def finished(run: Run, spec: ExperimentSpec, step: str, *, redone: bool) -> bool:
    """Whether a step's result is there and belongs to the results before it, by their hashes.

    Args:
        redone: an earlier step has just been done anew; the audit carries no hash, and is then done anew as well.

    Raises:
        DataError: the manifest is not the one that was split.
        ModelError: a result is damaged.
    """
    if not run.describe()[step]:
        return False
    if step == "audit":
        return not redone
    if step == "split":
        run.certificate()
    if step == "train":
        return bool(read_json(run.best_record_path).get("manifest_sha256") == run.manifest_hash())
    if step == "export":
        made_from = read_json(run.artifact_record_path).get("created_from", {})
        return bool(made_from.get("weights_sha256") == read_json(run.best_record_path).get("weights_sha256"))
    if step == "score":
        return _scored(run, spec.inference.recipe)
    if step == "calibrate":
        return _calibrated(run, spec.inference.recipe)
    if step == "evaluate":
        judged, recipe = read_json(run.evaluation_path).get("provenance", {}), spec.inference.recipe
        made_of = {
            "predictions_sha256": run.predictions_path("test", recipe),
            "calibration_sha256": run.calibration_path(recipe),
        }
        return all(judged.get(key) == sha256_file(path) for key, path in made_of.items())
    return True


def _scored(run: Run, recipe: str) -> bool:
    """Whether every part has its predictions, of this artifact."""
    from dermalyze.scoring.predictions import read_predictions

    scores = parse_record(run.artifact_record_path.read_bytes()).scores_sha256
    paths = [run.predictions_path(part, recipe) for part in PARTS if run.split_path(part).exists()]
    paths.append(run.foreign_path("synthetic", recipe))
    return all(path.exists() and read_predictions(path).meta.get("scores_sha256") == scores for path in paths)


def _calibrated(run: Run, recipe: str) -> bool:
    """Whether the recipe's calibration is there, of these predictions, and in the artifact."""
    path = run.calibration_path(recipe)
    if not path.exists():
        return False
    known, part = read_json(path), "cal" if run.split_path("cal").exists() else "val"
    served = parse_record(run.artifact_record_path.read_bytes()).calibration
    return (
        known.get("predictions_sha256") == sha256_file(run.predictions_path(part, recipe))
        and known.get("synthetic_sha256") == sha256_file(run.foreign_path("synthetic", recipe))
        and known.get("calibration") == served
    )


def duration(seconds: float) -> str:
    """Time as people say it.

    >>> duration(4.26), duration(75)
    ('4.3 s', '1 min 15 s')
    """
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"
