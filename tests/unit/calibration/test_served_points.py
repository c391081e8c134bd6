"""The operating points a model is served at."""

import copy

import numpy as np
import pytest

from dermalyze.calibration.served_points import served_points
from dermalyze.errors import ModelError, UsageError

CLASSES = ["bcc", "mel", "nv"]


def point(target, threshold, note=""):
    return {"target": target, "threshold": threshold, "positives": 50, "negatives": 90, "positive_groups": 40, "note": note}


STORED = {
    "operating_points": {
        "malignant": {
            "classes": ["bcc", "mel"],
            "points": {
                "sensitivity_95": point(0.95, 0.2), "sensitivity_90": point(0.9, 0.3), "youden": point(None, 0.4),
            },
        },
        "mel": {"classes": ["mel"], "points": {"sensitivity_95": point(0.95, None, "12 positive groups, at least 20 needed")}},
    }
}  # fmt: skip


def share(value):
    return {
        "value": value,
        "low": round(value - 0.05, 2),
        "high": round(value + 0.05, 2),
        "n": 90,
        "groups": 80,
        "undefined": 0,
        "note": "",
    }


MEASURED = {
    "operating": {
        "malignant": {
            "sensitivity_95": {"target": 0.95, "threshold": 0.2, "sensitivity": share(0.93), "specificity": share(0.6)},
            "sensitivity_90": {"target": 0.9, "threshold": 0.3, "sensitivity": share(0.88), "specificity": share(0.7)},
        }
    }
}


def test_the_first_sensitivity_is_served_with_what_was_measured_there():
    malignant, mel = served_points(STORED, MEASURED, CLASSES)
    assert (malignant.target, malignant.threshold) == (0.95, 0.2)
    assert (malignant.sensitivity.value, malignant.specificity.low) == (0.93, 0.55)
    assert (mel.threshold, mel.sensitivity) == (None, None)
    assert "20 needed" in mel.note


def test_a_measured_sensitivity_can_be_chosen():
    (malignant,) = served_points(STORED, MEASURED, CLASSES, 0.9)
    assert (malignant.threshold, malignant.sensitivity.value) == (0.3, 0.88)


@pytest.mark.parametrize(
    ("metrics", "sensitivity", "listed"),
    [(MEASURED, 0.8, "measured: 0.9, 0.95"), (None, 0.9, "measured: none"), (MEASURED, 90, "measured: 0.9, 0.95")],
)
def test_one_that_was_never_measured_is_refused_with_those_that_were(metrics, sensitivity, listed):
    with pytest.raises(UsageError, match=listed):
        served_points(STORED, metrics, CLASSES, sensitivity)


def test_results_of_another_threshold_are_not_shown():
    stored = copy.deepcopy(STORED)
    stored["operating_points"]["malignant"]["points"]["sensitivity_95"]["threshold"] = 0.21
    malignant, _ = served_points(stored, MEASURED, CLASSES)
    assert (malignant.threshold, malignant.sensitivity) == (0.21, None)


def test_a_model_without_operating_points_has_none():
    assert served_points(None, None, CLASSES) == served_points({"operating_points": {}}, None, CLASSES) == ()


def test_scores_are_the_summed_probabilities():
    malignant, mel = served_points(STORED, MEASURED, CLASSES)
    probs = np.array([[0.2, 0.3, 0.5], [0.6, 0.4 + 1e-15, 0.0]])
    assert malignant.scores(probs, CLASSES).tolist() == [0.5, 1.0]
    assert mel.scores(probs, CLASSES)[0] == 0.3


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found["malignant"].update(classes=["melanoma"]),
        lambda found: found["malignant"].update(classes=[]),
        lambda found: found["mel"]["points"]["sensitivity_95"].update(threshold=float("nan")),
        lambda found: found["mel"]["points"]["sensitivity_95"].update(threshold=1.5),
        lambda found: found.update(mel="yes"),
    ],
)
def test_damaged_values_are_refused(damage):
    stored = copy.deepcopy(STORED)
    damage(stored["operating_points"])
    with pytest.raises(ModelError, match=r"operating points: .*calibrate"):
        served_points(stored, MEASURED, CLASSES)
