"""All steps of one experiment in order. What is finished is skipped, so the same call goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dermalyze.config.experiment import ExperimentSpec, load_experiment
from dermalyze.core.errors import ConfigError
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run, read_json
from dermalyze.stages.init import freeze

STEPS = ("prepare", "audit", "split", "train", "export", "probe", "evaluate")
LEAK_STEPS = ("train", "evaluate")
"""Steps that take `accept_leak`."""


@dataclass(frozen=True)
class PipelineResult:
    """What a whole experiment came to.

    Attributes:
        root: the run folder.
        seconds: of each step done in this call; a step that is not named was finished before.
        metrics: the test part's `evaluation_metrics.json`.
    """

    root: Path
    seconds: dict[str, float]
    metrics: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"run": str(self.root), "seconds": self.seconds, "metrics": self.metrics}

    def lines(self) -> list[str]:
        """The summary for a person."""
        return [*summary(self.metrics), f"report               {Run(self.root).report_dir / 'report.html'}", DISCLAIMER]


def run_experiment(
    config: Path | str | ExperimentSpec,
    root: Path | None = None,
    *,
    sets: Sequence[str] = (),
    accept_leak: str | None = None,
) -> PipelineResult:
    """Prepare, audit, split, train, export, probe and evaluate; each step that is finished is skipped.

    Args:
        config: an experiment, or its YAML file.
        root: the run folder; by default a new `outputs/run_YYYYMMDD_HHMMSS`.
        sets: `key=value` assignments on top of the file.
        accept_leak: go on although the data leaks, for this reason, which then stands on every result.

    Raises:
        ConfigError: the configuration is wrong, names no data, or differs from the one the run is frozen on.
        DermalyzeError: whatever a step refuses; what was finished before it stays.
    """
    spec = config if isinstance(config, ExperimentSpec) else load_experiment(Path(config), sets)
    if spec.data.path is None:
        raise ConfigError("data.path is not set; name the folder or the archives with --set data.path=FOLDER")
    root = root if root is not None else Path("outputs") / time.strftime("run_%Y%m%d_%H%M%S")
    run = freeze(root, spec)
    spec = run.config()
    say(f"run folder {root}")
    seconds: dict[str, float] = {}
    for number, step in enumerate(STEPS, start=1):
        if finished(run, spec, step, redone=bool(seconds)):
            say(f"[{number}/{len(STEPS)}] {step}: finished before")
            continue
        options: dict[str, Any] = {"accept_leak": accept_leak} if step in LEAK_STEPS else {}
        stage: Callable[..., Any] = getattr(import_module(f"dermalyze.stages.{step}"), step)
        started = time.monotonic()
        stage(run, spec, **options)
        seconds[step] = time.monotonic() - started
        say(f"[{number}/{len(STEPS)}] {step}: {duration(seconds[step])}")
    return PipelineResult(root, seconds, read_json(run.report_dir / "evaluation_metrics.json"))


def finished(run: Run, spec: ExperimentSpec, step: str, *, redone: bool) -> bool:
    """Whether a step's result is there and belongs to the results before it (by their hashes).

    Args:
        redone: an earlier step has just been done anew; then what is cheap and carries no hash is done anew as well.

    Raises:
        DataError: the manifest is not the one that was split.
    """
    there = run.describe()
    if step == "probe":
        return not redone and all(run.predictions_path(part, spec.inference.recipe).exists() for part in parts(run))
    if not there[step]:
        return False
    if step == "split":
        run.certificate()
    if step == "train":
        return bool(read_json(run.best_record_path).get("manifest_sha256") == run.manifest_hash())
    if step == "export":
        made_from = read_json(run.artefact_dir / "artefact.json").get("created_from", {})
        return bool(made_from.get("weights_sha256") == read_json(run.best_record_path).get("weights_sha256"))
    return not (redone and step in ("audit", "evaluate"))


def parts(run: Run) -> list[str]:
    """Parts that the split made."""
    return [part for part in ("train", "val", "cal", "test") if run.split_path(part).exists()]


def duration(seconds: float) -> str:
    """Time as people say it.

    >>> duration(4.26), duration(75)
    ('4.3 s', '1 min 15 s')
    """
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"
