"""Say whether a training over- or underfits, with the numbers that say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.splitting import read_part
from dermalyze.errors import ModelError
from dermalyze.report.training import JUDGED_BY, Fit, assess_fit, kept_epoch, read_history
from dermalyze.tasks.base import TASKS


@dataclass(frozen=True)
class FitCheckResult:
    """The verdict, the numbers it rests on, and what limits it."""

    fit: Fit
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """overfitting, underfitting, good fit, or too short to tell."""
        return self.fit.verdict

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.fit.reasons),
            "numbers": self.fit.numbers,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [
            f"verdict: {self.verdict}",
            *(f"- {reason}" for reason in self.fit.reasons),
            *(f"note: {note}" for note in self.notes),
        ]


def fit_check(run: Run, spec: ExperimentSpec) -> FitCheckResult:
    """Assess the history of a run's training; looks at train and validation only, never at the test split.

    Raises:
        UsageError: nothing has been trained, or no split.
        ModelError: metrics.jsonl or best.json is damaged.
    """
    history = read_history(run)
    task, classes = TASKS[spec.task.kind], read_classes(run)
    guess = task.baseline(task.targets(read_part(run, "val")["label"].tolist(), classes), len(classes))
    if absent := [key for key in (*JUDGED_BY, f"val_{guess.metric}") if key not in history]:
        raise ModelError(f"{run.metrics_path.name}: lacks {', '.join(absent)}; train in a new run folder")
    kept, _ = kept_epoch(run)
    return FitCheckResult(assess_fit(history, kept, guess), limits(spec))


def limits(spec: ExperimentSpec) -> tuple[str, ...]:
    """What makes train and validation figures of this experiment less comparable."""
    settings = spec.train
    notes = []
    if settings.augment.policy != "none" or settings.augment.mixup or settings.augment.cutmix:
        notes.append("train figures are measured under augmentation and dropout, so the true gap is larger than the one shown")
    else:
        notes.append("train figures are measured while the weights change and with dropout, so the true gap is larger")
    if settings.augment.mixup or settings.augment.cutmix:
        notes.append("with mixup or cutmix, train accuracy counts blended images and says little")
    if "sampling" in settings.imbalance.kind:
        notes.append("train figures are of a class-balanced draw, validation figures of the classes as they come")
    return tuple(notes)
