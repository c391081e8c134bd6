"""Draw the training curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_bytes
from dermalyze.core.run import Run, read_json
from dermalyze.report.figures import training_curves
from dermalyze.report.training import kept_epoch, read_history

NAME = "training_curves.png"


@dataclass(frozen=True)
class PlotResult:
    """Where the figure is, and what it shows."""

    path: Path
    epochs: int
    kept_epoch: int
    monitor: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"path": str(self.path), "epochs": self.epochs, "kept_epoch": self.kept_epoch, "monitor": self.monitor}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [
            f"{self.epochs} epochs; the weights of epoch {self.kept_epoch} were kept (by {self.monitor})",
            f"figure: {self.path}",
        ]


def plot(run: Run, spec: ExperimentSpec) -> PlotResult:
    """Write report/training_curves.png: loss, accuracy, macro AUROC and learning rate by epoch, the kept epoch marked.

    Works at any time after the first epoch, also while training continues.

    Raises:
        UsageError: nothing has been trained.
        ModelError: metrics.jsonl or best.json is damaged.
        ResourceError: the report folder cannot be written.
    """
    history = read_history(run)
    kept, monitor = kept_epoch(run)
    leak = read_json(run.best_record_path).get("accepted_leak")
    path = run.report_dir / NAME
    write_bytes(path, training_curves(history, kept, monitor, title=f"Training of {spec.name}", leak=leak))
    return PlotResult(path, len(history["epoch"]), kept, monitor)
