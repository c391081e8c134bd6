"""Missing labels: in the manifest's text, in calibrators and in thresholds they are as if the row had not been there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermalyze.calibration.multilabel import best_thresholds
from dermalyze.metrics.activation import sigmoid
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.multilabel import joined, multi_hot, parted

TASK = TASKS["multilabel"]
RNG = np.random.default_rng(2)
N = 300
Z = RNG.normal(-1, 2, (N, 2))
Y = (RNG.random((N, 2)) < sigmoid(0.6 * Z - 0.5)).astype(np.int64)
GAPS = RNG.random((N, 2)) < [0.0, 0.4]
PARTLY = np.where(GAPS, -1, Y)
NO_SHIFT = np.zeros(2)


@given(st.lists(st.sampled_from([1, 0, -1]), min_size=3, max_size=3))
def test_text_and_targets_tell_the_same(targets: list[int]) -> None:
    marks = {1: "", -1: "?"}
    labels = [marks[target] + name for target, name in zip(targets, "abc", strict=True) if target != 0]
    text = joined(labels)
    assert parted(text) == labels
    assert multi_hot([text], list("abc")).tolist() == [targets]


def test_a_calibrator_is_fitted_on_the_targets_that_are_there() -> None:
    fitted = TASK.fit_calibrator("platt", Z, PARTLY, NO_SHIFT).parameters
    rows = ~GAPS[:, 1]
    alone = TASK.fit_calibrator("platt", Z[rows], Y[rows], NO_SHIFT).parameters
    whole = TASK.fit_calibrator("platt", Z, Y, NO_SHIFT).parameters
    for key in ("scale", "bias"):
        assert fitted[key] == [pytest.approx(whole[key][0]), pytest.approx(alone[key][1])]
    assert fitted["scale"][1] != pytest.approx(whole["scale"][1], rel=1e-6)


def test_thresholds_are_found_on_the_targets_that_are_there() -> None:
    rows, probs = ~GAPS[:, 1], sigmoid(Z)
    for rule in ("f1", "youden"):
        found = best_thresholds(probs, PARTLY, ["a", "b"], rule)  # type: ignore[arg-type]
        assert found["a"] == best_thresholds(probs, Y, ["a", "b"], rule)["a"]  # type: ignore[arg-type]
        assert found["b"] == best_thresholds(probs[rows], Y[rows], ["a", "b"], rule)["b"]  # type: ignore[arg-type]


def test_a_trial_is_the_mean_over_the_pairs_that_are_there() -> None:
    trials = TASK.cross_validate(Z, PARTLY, [str(n) for n in range(N)], NO_SHIFT)
    there = PARTLY >= 0
    own = np.where(Y == 1, sigmoid(Z), 1 - sigmoid(Z))
    assert trials[0].log_loss == pytest.approx(-np.log(own[there]).mean())
