"""Small trainings inside a run: the run's own network with fewer epochs, on its images dealt out or painted otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.atomic import sha256_bytes, write_bytes, write_json
from dermalyze.core.run import Run, differences, read_json
from dermalyze.data.manifest import manifest_bytes, write_manifest
from dermalyze.errors import ConfigError, InterruptedRunError, UsageError
from dermalyze.stages.init import freeze
from dermalyze.workflows.pipeline import run_experiment

CHANGEABLE = ("preprocess", "model", "train", "inference", "evaluate", "seed")
"""First words of settings that may differ from the run's; data and split are what the comparison is about."""


def settings_of_fits(spec: ExperimentSpec, epochs: int, sets: Sequence[str], name: str) -> ExperimentSpec:
    """The run's experiment with fewer epochs, no early stopping and the plain recipe, then `sets`.

    Args:
        name: what asks for it, for messages.

    Raises:
        UsageError: fewer than 1 epoch, or settings of data or split.
        ConfigError: settings that are none.

    >>> settings_of_fits(ExperimentSpec(), 3, ["preprocess.size=[96,128]"], "leakage").preprocess.size
    (96, 128)
    """
    if epochs < 1:
        raise UsageError(f"--epochs is {epochs}, must be 1 or more")
    for key in (assignment.partition("=")[0].strip() for assignment in sets):
        if key.partition(".")[0] not in CHANGEABLE:
            raise UsageError(f"--set {key}: cannot differ from the run's; allowed are settings of {', '.join(CHANGEABLE)}")
    values = spec.model_dump(mode="json")
    values["train"] |= {"epochs": epochs, "early_stopping": None}
    values["inference"] |= {"recipe": "plain"}
    return build_experiment(values, name, sets)


def begin(run: Run, root: Path, spec: ExperimentSpec, manifest: pd.DataFrame, name: str) -> Run:
    """A run inside the run: frozen, and prepared by writing a manifest with the parts in its `split` column.

    Args:
        run: the outer one, for classes and labels.
        root: the folder of the inner one.
        spec: the inner one's experiment.
        manifest: the inner one's, made from the outer one's.
        name: the command, for messages.

    Raises:
        UsageError: it was begun with other settings, or on another manifest.
    """
    again = f"give the same as before, or delete {root.parent.name} in the run's folder"
    try:
        sub = freeze(root, spec)
    except ConfigError:
        if not Run(root).config_path.exists():
            raise
        changed = [key for key in differences(Run(root).config(), spec) if key != "name"]
        raise UsageError(f"{name} was begun with other settings ({', '.join(changed)}); {again}") from None
    if not sub.manifest_path.exists():
        write_json(sub.summary_path, read_json(run.summary_path))
        for own, there in ((sub.labels_path, run.labels_path), (sub.looks_path, run.looks_path)):
            if there.exists():
                write_bytes(own, there.read_bytes())
        write_manifest(sub, manifest)
    elif sub.manifest_hash() != sha256_bytes(manifest_bytes(manifest)):
        raise UsageError(f"{name} was begun on another manifest, split or seed; {again}")
    return sub


def fit(sub: Run, *, accept_leak: str | None, steps: Sequence[str], again: str) -> None:
    """Train an inner run as far as `steps` say; what is finished is skipped.

    Args:
        again: the command that continues after an interruption.

    Raises:
        InterruptedRunError: a signal came.
        DermalyzeError: whatever a step refuses.
    """
    try:
        run_experiment(sub.config(), sub.root, accept_leak=accept_leak, steps=steps)
    except InterruptedRunError as error:
        told = str(error).partition(";")[0]
        raise InterruptedRunError(f"{told}; continue with the same command: {again}") from error


def guess(run: Run, spec: ExperimentSpec, images: int, fits: int) -> str:
    """How long the trainings will take, by the speed of the run's own, where that has been trained."""
    if not run.history_path.exists():
        return "; the first ten steps of each tell how long it takes"
    history = read_json(run.history_path)
    rate = float(np.median(history["images_per_s"]))
    then, now = (read_size(s.preprocess.size) for s in (run.config(), spec))
    rate *= then / now if then and now else 1.0
    return f"; about {fits * spec.train.epochs * images / max(rate, 1e-9) / 60:.0f} min by the speed of the run's own training"


def read_size(size: int | tuple[int, int] | None) -> int | None:
    """Pixels of an input size, None where the backbone decides.

    >>> read_size((96, 128)), read_size(64)
    (12288, 4096)
    """
    return None if size is None else size * size if isinstance(size, int) else size[0] * size[1]
