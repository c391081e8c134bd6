"""Class shares where a model is used, against those where it was calibrated; `calibrators.reprior` takes both."""

# Shapes: C classes.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dermalyze.errors import UsageError
from dermalyze.metrics.ranking import Floats


def class_shares(
    prevalence: Mapping[str, float], calibration: Mapping[str, Any] | None, classes: Sequence[str]
) -> tuple[Floats, Floats]:
    """(C,) shares of the classes where the probabilities were calibrated, and where they are to be used.

    Args:
        prevalence: share of each class, 0 to 1, summing to 1.
        calibration: what `calibrate` stored; None: nothing was.
        classes: of the model.

    Raises:
        UsageError: the model is not calibrated, or the shares do not name each class or do not sum to 1.

    >>> class_shares({"mel": 0.02, "nv": 0.98}, {"shares": {"mel": 0.2, "nv": 0.8}}, ["mel", "nv"])[1].tolist()
    [0.02, 0.98]
    """
    known = (calibration or {}).get("shares")
    if not isinstance(known, dict) or known.keys() != set(classes) or not all(share > 0 for share in known.values()):
        raise UsageError(
            "prevalence: this model is not calibrated, so its probabilities belong to no population; calibrate it first"
        )
    values = [prevalence.get(name) for name in classes]
    sound = all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in values)
    if prevalence.keys() != set(classes) or not sound or abs(sum(v or 0 for v in values) - 1) > 1e-3:
        raise UsageError(f"prevalence: {dict(prevalence)} must give each of {', '.join(classes)} a share, and sum to 1")
    return np.array([known[name] for name in classes]), np.array(values, dtype=np.float64)
