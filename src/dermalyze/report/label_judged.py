"""What a report on images with any number of labels is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.calibration.multilabel import read_thresholds
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ModelError
from dermalyze.metrics.multilabel import LabelScores
from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.base import TASKS

PLAIN = TASKS["multilabel"].calibrator(None, 0)


@dataclass(frozen=True, eq=False)
class JudgedLabels:
    """Stored predictions of labels, and what stands beside them.

    Attributes:
        p: predictions to judge, with the groups that are resampled.
        spec: resamples, level, bins and seed.
        calibrator: stands between the scores and the probabilities.
        thresholds: (C,) from which probability on a label is called.
        fitted: what both were fitted on; None where nothing was.
        picture: small RGB pixels of an image_id, or None where it cannot be read; None: no pictures at all.
    """

    p: Predictions
    spec: EvaluateSpec
    calibrator: Calibrator
    thresholds: Floats
    fitted: Mapping[str, Any] | None = None
    picture: Callable[[str], NDArray[np.uint8] | None] | None = None

    @cached_property
    def scores(self) -> LabelScores:
        """Targets and calibrated probabilities."""
        return LabelScores(self.p.labels, self.calibrator(self.p.logits.astype(np.float64)), self.thresholds)

    @cached_property
    def plain(self) -> LabelScores:
        """The same without a calibrator, called at 0.5."""
        return LabelScores(self.p.labels, self.p.probs(), np.full(len(self.classes), 0.5))

    @property
    def classes(self) -> list[str]:
        """The labels, in the order of the probabilities."""
        return self.p.classes


def gather_labels(
    run: Run, spec: ExperimentSpec, p: Predictions, picture: Callable[[str], NDArray[np.uint8] | None] | None
) -> JudgedLabels:
    """The predictions with the calibration of their recipe; plain probabilities where `calibrate` has not run.

    Raises:
        ModelError: it was fitted on the scores of another model, or is damaged.
    """
    path = run.calibration_path(p.meta["recipe"])
    if not path.exists():
        say(f"{run.root.name}: not calibrated; labels are called at a probability of 0.5 until: dermalyze calibrate {run.root}")
        return JudgedLabels(p, spec.evaluate, PLAIN, read_thresholds(None, p.classes), None, picture)
    known = read_json(path)
    calibration = known.get("calibration")
    if known.get("scores_sha256") != p.meta.get("scores_sha256") or not isinstance(calibration, dict):
        raise ModelError(f"{path.name}: fitted on the scores of another model; run again: dermalyze calibrate {run.root}")
    fitted = {key: calibration.get(key) for key in ("part", "images", "groups", "threshold_rule")}
    fitted |= {"trials": known.get("trials"), "sha256": sha256_file(path)}
    calibrator = p.task.calibrator(calibration, len(p.classes))
    return JudgedLabels(p, spec.evaluate, calibrator, read_thresholds(calibration, p.classes), fitted, picture)
