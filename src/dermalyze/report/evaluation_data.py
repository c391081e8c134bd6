"""What a report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.metrics import bootstrap
from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.ood_results import Beyond
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import Task

if TYPE_CHECKING:
    import pandas as pd

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Stored predictions, and what stands beside them.

    Attributes:
        p: predictions to judge, with the groups that are resampled.
        spec: resamples, level, bins and seed.
        answering: how scores become answers.
        fitted: what its calibrator was fitted on and beside which others; None where none was fitted.
        reference: predictions of the part from which thresholds come; None: no thresholds.
        rows: what is known of the images (age, sex, site, ...), one row a prediction in their order; None: nothing.
        train: the same of the training part, from which bands come and with which another set is compared; None: unknown.
        home: predictions of the run's own test part, where another set is judged; else None.
        recalibrate: share of the groups that a calibrator of the new site is fitted on; None: none is.
        calibration: which calibrator that is to be, as `inference.calibration` says.
        training_shift: (C,) log of the classes' shares in training over those it weighed them by; None: unknown.
        picture: small RGB pixels of an image_id, or None where it cannot be read; None: no pictures at all.
        others: predictions of the same images by further recipes, and how each of them answers.
        beyond: the served rule, and what the model made of foreign and corrupted pictures; None where it is not calibrated.
    """

    p: Predictions
    spec: EvaluateSpec
    answering: Answering
    fitted: dict[str, Any] | None = None
    reference: Predictions | None = None
    rows: pd.DataFrame | None = None
    train: pd.DataFrame | None = None
    home: Predictions | None = None
    recalibrate: float | None = None
    picture: Callable[[str], NDArray[np.uint8] | None] | None = None
    others: tuple[tuple[Predictions, Answering], ...] = ()
    beyond: Beyond | None = None
    calibration: str = "auto"
    training_shift: Floats | None = None

    @cached_property
    def scores(self) -> Any:
        """Targets and calibrated probabilities, `Scores` or those of another task."""
        return scores_of(self.p, self.answering)

    @cached_property
    def known(self) -> Any:
        """The same of the part from which thresholds come; None without one, or of no image."""
        return scores_of(self.reference, self.answering) if self.reference is not None and len(self.reference) else None

    @property
    def calibrator(self) -> Calibrator:
        """Stands between the scores and the probabilities."""
        return self.answering.calibrator

    @property
    def task(self) -> Task:
        """What is answered."""
        return self.answering.task

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return self.p.classes

    def share_estimates(self, shares: Mapping[str, tuple[Floats, NDArray[np.bool_] | None]]) -> dict[str, bootstrap.Estimate]:
        """Means of figures an image, with the intervals of this report; see `metrics.bootstrap.share_estimates`."""
        spec = self.spec
        return bootstrap.share_estimates(
            self.scores, self.p.groups, shares, resamples=spec.resamples, level=spec.level, seed=spec.seed
        )


def scores_of(p: Predictions, answering: Answering) -> Any:
    """Targets and calibrated probabilities of stored predictions, ready to be measured.

    Probabilities that a file gave for classes are stored as their logarithms and taken back one by one, not through a softmax:
    equal ones stay equal, and ranks with them.
    """
    if p.meta.get("scores") == "probabilities" and p.task.has("one_class"):
        return p.task.scores(p.labels, np.exp(p.logits.astype(np.float64)))
    return answering.scores(p.labels, p.logits)
