"""The input of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.config.data import DataSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.data.sources.cards import focus_of, malignant_of
from dermalyze.metrics import bootstrap
from dermalyze.metrics.ranking import Floats
from dermalyze.metrics.scores import Scores
from dermalyze.scoring.ood_results import OodResults
from dermalyze.scoring.predictions import Predictions
from dermalyze.scoring.score_kind import ONE_VS_REST
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import Task

if TYPE_CHECKING:
    import pandas as pd

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Stored predictions and everything else that a report uses.

    Attributes:
        p: predictions to evaluate, with the groups that are resampled.
        spec: resamples, level, bins and seed.
        answering: how scores become predictions.
        fitted: what its calibrator was fitted on and which others were tried; None if none was fitted.
        reference: predictions of the split from which thresholds come; None: no thresholds.
        rows: metadata of the images (age, sex, site, ...), one row per prediction in their order; None: no metadata.
        train: metadata of the training split, for the bounds of subgroups and the comparison of an external set; None: unknown.
        home: predictions of the run's own test split if an external set is evaluated; else None.
        recalibrate: share of the groups on which a calibrator of the new site is fitted; None: none is fitted.
        calibration: kind of that calibrator, as in `inference.calibration`.
        training_shift: (C,) log of the class shares in training over those by which training weighted them; None: unknown.
        thumbnail: small RGB pixels of an image_id, or None if it cannot be read; None: no images at all.
        others: predictions of the same images by further recipes, and how the scores of each become predictions.
        beyond: the served rule, and predictions of out-of-distribution and corrupted images; None if it is not calibrated.
        data: of the model's run; its source's card names the classes of `evaluate.malignant` and `evaluate.focus`.
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
    thumbnail: Callable[[str], NDArray[np.uint8] | None] | None = None
    others: tuple[tuple[Predictions, Answering], ...] = ()
    beyond: OodResults | None = None
    calibration: str = "auto"
    training_shift: Floats | None = None
    data: DataSpec | None = None

    @cached_property
    def scores(self) -> Any:
        """Targets and calibrated probabilities, `Scores` or those of another task."""
        return scores_of(self.p, self.answering)

    @cached_property
    def known(self) -> Any:
        """The same for the split from which thresholds come; None if there is none or it has no image."""
        return scores_of(self.reference, self.answering) if self.reference is not None and len(self.reference) else None

    @property
    def calibrator(self) -> Calibrator:
        """Turns scores into probabilities."""
        return self.answering.calibrator

    @property
    def task(self) -> Task:
        """The task of the predictions."""
        return self.answering.task

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return self.p.classes

    @cached_property
    def malignant(self) -> tuple[str, ...]:
        """The classes of `evaluate.malignant`; none of a task without one class per image.

        Raises:
            ConfigError: they do not fit the classes.
        """
        return malignant_of(self.spec, self.classes, self.data) if self.task.has("one_class") else ()

    @cached_property
    def focus(self) -> tuple[str, ...]:
        """The classes of `evaluate.focus`.

        Raises:
            ConfigError: they do not fit the classes.
        """
        return focus_of(self.spec, self.classes, self.data)

    def share_estimates(self, shares: Mapping[str, tuple[Floats, NDArray[np.bool_] | None]]) -> dict[str, bootstrap.Estimate]:
        """Means of per-image values with the intervals of this report; see `metrics.bootstrap.share_estimates`."""
        spec = self.spec
        return bootstrap.share_estimates(
            self.scores, self.p.groups, shares, resamples=spec.resamples, level=spec.level, seed=spec.seed
        )


def scores_of(p: Predictions, answering: Answering) -> Any:
    """Targets and calibrated probabilities of stored predictions, ready to be measured.

    Imported class probabilities are stored as their logarithms and exponentiated one by one, without a softmax: equal
    probabilities stay equal, and so do their ranks.
    """
    given = p.meta.get("scores")
    if given in ("probabilities", ONE_VS_REST) and p.task.has("one_class"):
        return Scores(p.labels, np.exp(p.logits.astype(np.float64)), ranks_only=given == ONE_VS_REST)
    return answering.scores(p.labels, p.logits)
