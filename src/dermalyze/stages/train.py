"""Train the run's network; a second call resumes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run, read_json
from dermalyze.core.runtime import applied, out_of_memory, stop_on_signals
from dermalyze.data.splitting import require_no_leak
from dermalyze.errors import ConfigError, ModelError, ResourceError, UsageError, nearest
from dermalyze.tasks.base import TASKS
from dermalyze.training.loop import fit
from dermalyze.training.micro_batches import OUT_OF_MEMORY
from dermalyze.training.setup import TrainingSpecs, build_training, settle_runtime


@dataclass(frozen=True)
class TrainResult:
    """Result of a training.

    Attributes:
        epochs: epochs trained.
        best_epoch: epoch of the best weights, from 1.
        monitor: the metric that chose it.
        value: its value then.
        stopped: "epochs" (all done) or "early".
        seconds: time spent in training, all sessions.
        micro_batch: images per pass; fewer than `train.batch_size` where memory ran out.
        quarantined: images that could no longer be read while training streamed them.
        accepted_leak: the reason a leaking split was accepted for, or None.
    """

    epochs: int
    best_epoch: int
    monitor: str
    value: float
    stopped: str
    seconds: float
    micro_batch: int
    quarantined: int
    accepted_leak: str | None

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def lines(self) -> list[str]:
        how = "stopped early" if self.stopped == "early" else "all epochs done"
        line = f"trained {self.epochs} epochs in {self.seconds / 60:.1f} min ({how}); "
        lines = [line + f"best epoch {self.best_epoch}: {self.monitor} {self.value:.4f}"]
        if self.quarantined:
            lines.append(f"{self.quarantined} images could no longer be read and were left out")
        return lines + ([f"LEAK ACCEPTED: {self.accepted_leak}"] if self.accepted_leak else [])


def train(run: Run, spec: ExperimentSpec, *, resume: Path | None = None, accept_leak: str | None = None) -> TrainResult:
    """Train the run's network; after an interruption the same call resumes exactly there.

    Args:
        run: a run that has been prepared and split.
        spec: its experiment.
        resume: the run's folder or one of its checkpoints, for those who want to name it; it must be this run's.
        accept_leak: reason to accept a leaking split; every result then shows it.

    Raises:
        LeakError: the split leaks and no reason is given.
        UsageError: `resume` is not there, or another process works in the run.
        ConfigError: unknown metric to monitor.
        DataError: the loss or a gradient is not finite, or too many images changed or vanished.
        ModelError: weights or checkpoints are refused.
        ResourceError: the folder cannot be written, no disk, no memory, no such device, a decoder killed twice.
        InterruptedRunError: a signal came; the state is saved.
    """
    monitors = TASKS[spec.task.kind].monitors
    if spec.train.monitor not in monitors:
        hint = nearest(spec.train.monitor, list(monitors))
        raise ConfigError(f"train.monitor: '{spec.train.monitor}' is not one of {', '.join(monitors)}{hint}")
    with run.lock():
        reason = require_no_leak(run, accept_leak)
        if resume is not None and not resume.exists():
            raise UsageError(f"--resume {resume.name}: does not exist; leave the option out to resume from the newest state")
        if resume is not None and run.root.resolve() not in (resume.resolve(), *resume.resolve().parents):
            raise ModelError(f"--resume {resume.name}: belongs to another run; continue it with: dermalyze train ITS_RUN")
        run.require_writable(run.checkpoints_dir)
        run.sweep()
        specs = training_specs(spec)
        runtime = settle_runtime(run, specs)
        with applied(runtime), stop_on_signals() as request:
            try:
                training = build_training(run, specs, runtime, request, accepted_leak=reason)
                fit(training)
            except (MemoryError, RuntimeError, OSError) as error:
                if not out_of_memory(error):
                    raise
                raise ResourceError(f"out of memory: {str(error)[:200]}; {OUT_OF_MEMORY}") from error
    state, done = training.state, training.state.progress
    best = read_json(run.best_record_path)
    return TrainResult(
        len(done.history), best["epoch"], spec.train.monitor, best["value"], str(done.stopped), done.seconds,
        state.micro.size, len(state.quarantine.known), done.accepted_leak,
    )  # fmt: skip


def training_specs(spec: ExperimentSpec) -> TrainingSpecs:
    """What a training takes of an experiment."""
    return TrainingSpecs(
        spec.seed, spec.task.kind, spec.data, spec.preprocess, spec.model, spec.train, spec.model_dump(mode="json")
    )
