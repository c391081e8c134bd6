"""The operating points that a model is served at, with what was measured at them."""

# Shapes: N images, C classes.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dermalyze.errors import ModelError, UsageError
from dermalyze.metrics.operating_points import point_name
from dermalyze.metrics.ranking import Floats


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Measured(_Values):
    """A share on the test split with its interval."""

    value: float | None = Field(ge=0, le=1)
    low: float | None
    high: float | None
    n: int
    groups: int


class _Point(_Values):
    target: float | None
    threshold: float | None = Field(ge=0, le=1)
    note: str


class _Question(_Values):
    classes: tuple[str, ...] = Field(min_length=1)
    points: dict[str, _Point]


class _MeasuredPoint(_Values):
    threshold: float
    sensitivity: Measured
    specificity: Measured


class ServedPoint(_Values):
    """One yes-or-no question about every image: are these classes together probable enough to have it looked at?

    Attributes:
        name: of the question: `malignant`, or a class.
        classes: that mean yes.
        target: sensitivity that the threshold was chosen for on the calibration split.
        threshold: the least summed probability that means yes; None: it could not be chosen, and `note` gives the reason.
        sensitivity, specificity: measured on the test split at this threshold; None: not measured.
    """

    name: str
    classes: tuple[str, ...]
    target: float
    threshold: float | None
    note: str
    sensitivity: Measured | None
    specificity: Measured | None

    def scores(self, probs_NC: Floats, classes: Sequence[str]) -> Floats:
        """(N,) summed probability of the classes that mean yes, 0 to 1."""
        return np.asarray(np.clip(probs_NC[:, [classes.index(name) for name in self.classes]].sum(axis=1), 0, 1))


def served_points(
    calibration: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    classes: Sequence[str],
    sensitivity: float | None = None,
) -> tuple[ServedPoint, ...]:
    """The operating point of each question of a model.

    Args:
        calibration: what `calibrate` stored.
        metrics: what `evaluate` stored in the artifact; None: nothing was measured.
        classes: of the model.
        sensitivity: which of its points; None: the first.

    Raises:
        UsageError: a sensitivity that the model has no measured point for.
        ModelError: the stored values are damaged.

    >>> point = {"target": 0.95, "threshold": 0.2, "note": ""}
    >>> stored = {"operating_points": {"malignant": {"classes": ["mel"], "points": {"sensitivity_95": point}}}}
    >>> [(one.name, one.threshold) for one in served_points(stored, None, ["mel", "nv"])]
    [('malignant', 0.2)]
    """
    try:
        questions = TypeAdapter(dict[str, _Question]).validate_python((calibration or {}).get("operating_points") or {})
        measured = TypeAdapter(dict[str, dict[str, _MeasuredPoint]]).validate_python((metrics or {}).get("operating") or {})
    except ValidationError as error:
        raise ModelError(f"operating points: damaged ({error.errors()[0]['msg']}); calibrate and evaluate again") from None
    if strange := {name for one in questions.values() for name in one.classes} - set(classes):
        raise ModelError(f"operating points: name {sorted(strange)}, no classes of the model; calibrate again")
    asked, found = None if sensitivity is None else point_name(sensitivity), []
    for name, question in questions.items():
        targets = {key: point for key, point in question.points.items() if point.target and key == point_name(point.target)}
        key = asked or next(iter(targets), "")
        if key not in targets:
            continue
        point, at = targets[key], measured.get(name, {}).get(key)
        if at is not None and not math.isclose(at.threshold, point.threshold or -1, rel_tol=1e-6):
            at = None  # measured at another threshold
        shares = {"sensitivity": at and at.sensitivity, "specificity": at and at.specificity}
        found.append(ServedPoint(name=name, classes=question.classes, **point.model_dump(), **shares))
    if asked is not None and not any(one.sensitivity for one in found):
        confirmed = {key.removeprefix("sensitivity_") for points in measured.values() for key in points} - {"youden", "cost"}
        raise UsageError(
            f"sensitivity {sensitivity:g}: this model has no operating point that was measured for it; measured: "
            f"{', '.join(f'{float(one) / 100:g}' for one in sorted(confirmed)) or 'none'}. Name one of these, or set "
            "evaluate.sensitivity and run calibrate, export and evaluate again"
        )
    return tuple(found)
