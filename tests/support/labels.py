"""What the record of a small artifact of task multilabel says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHEST_LABELS = ("edema", "effusion", "mass", "nodule")


def label_record(thresholds: Sequence[float], labels: Sequence[str] = CHEST_LABELS) -> dict[str, Any]:
    """Arguments of `write_artifact`: labels, a calibration by Platt and these thresholds."""
    n = len(labels)
    parameters = {"scale": [1.0 + 0.1 * i for i in range(n)], "bias": [0.05 * i - 0.1 for i in range(n)]}
    calibration = {
        "kind": "platt", "parameters": parameters, "thresholds": dict(zip(labels, map(float, thresholds), strict=True)),
    }  # fmt: skip
    return {"task": "multilabel", "classes": tuple(labels), "calibration": calibration}
