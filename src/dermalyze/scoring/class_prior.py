"""Class shares as training saw them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermalyze.config.train import TrainSpec
from dermalyze.core.run import Run
from dermalyze.data.manifest import source_codes
from dermalyze.data.splitting import read_part
from dermalyze.tasks.base import Task
from dermalyze.training.imbalance import effective_shares, source_counts


def prior_shift(run: Run, task: Task, train: TrainSpec, classes: list[str]) -> NDArray[np.float64]:
    """(C,) log of the share of each class in the training split over the share that training weighed it by; 0 where the task
    has no such shares, which sum to 1."""
    if not task.has("class_prior"):
        return np.zeros(len(classes))
    frame = read_part(run, "train")
    labels = np.array([classes.index(name) for name in frame["label"]])
    counts_C = np.bincount(labels, minlength=len(classes))
    seen_C = source_counts(labels, source_codes(frame["source"]), len(classes)) if train.balance_sources else counts_C
    shift_C = np.log(counts_C / counts_C.sum() / effective_shares(train.imbalance, seen_C, classes))
    return np.asarray(shift_C, dtype=np.float64)
