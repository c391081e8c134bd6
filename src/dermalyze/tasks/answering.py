"""What answers: a network's classes, task, recipe, calibrator and thresholds, which are of use only together."""

# Shapes: B or N images, C classes.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.calibration.recipes import Forward, apply_recipe
from dermalyze.imaging.samples import Array, Batch
from dermalyze.metrics.bootstrap import TargetScores
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.tasks.base import TASKS, Task


@dataclass(frozen=True, eq=False)
class Answering:
    """How scores become answers.

    Attributes:
        task: what is answered.
        classes: their names, in the order of the scores.
        recipe: passes whose mean the answer is; a key of `RECIPES`, mc_dropout or given.
        calibrator: from scores to probabilities.
        thresholds: (C,) from which probability on each is called; None where the most probable class is.
    """

    task: Task
    classes: list[str]
    recipe: str
    calibrator: Calibrator
    thresholds: Floats | None = None

    @classmethod
    def read(cls, task: str, classes: list[str], recipe: str, calibration: Mapping[str, Any] | None) -> Answering:
        """With what a calibration's record says; None: plain probabilities.

        Raises:
            ModelError: the record is damaged.

        >>> Answering.read("multilabel", ["a", "b"], "plain", None).called(np.array([[3.0, -3.0]])).tolist()
        [[True, False]]
        """
        row = TASKS[task]
        return cls(row, classes, recipe, row.calibrator(calibration, len(classes)), row.thresholds(calibration, classes))

    @property
    def plain(self) -> Answering:
        """The same without a calibration."""
        return Answering.read(self.task.kind, self.classes, self.recipe, None)

    def with_calibrator(self, calibrator: Calibrator) -> Answering:
        """The same with another calibrator."""
        return replace(self, calibrator=calibrator)

    def __call__(self, forward: Forward, batch: Batch | Array) -> Floats:
        """(B, C) probabilities of a batch by the recipe."""
        return self.probabilities(apply_recipe(self.recipe, forward, batch, self.task.pool)[0])

    def probabilities(self, logits_NC: NDArray[np.floating[Any]]) -> Floats:
        """(N, C) calibrated, float64."""
        return self.calibrator(logits_NC.astype(np.float64))

    def called(self, logits_NC: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """(N, C) what is called."""
        return self.task.called(self.probabilities(logits_NC), self.thresholds)

    def scores(self, targets: Ints, logits_NC: NDArray[np.floating[Any]]) -> TargetScores:
        """Targets and calibrated probabilities, ready to be measured."""
        return self.task.scores(targets, self.probabilities(logits_NC), self.thresholds)
