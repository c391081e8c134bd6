"""Platt's scaling against scipy's minimiser, thresholds against all there are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.optimize import minimize

from dermalyze.calibration.calibrators import SMALLEST_SCALE, Calibrator
from dermalyze.calibration.multilabel import (
    BIAS_RIDGE,
    LABEL_CALIBRATORS,
    SCALE_RIDGE,
    best_thresholds,
    read_thresholds,
)
from dermalyze.errors import DataError, ModelError
from dermalyze.metrics.activation import sigmoid
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.multilabel import multi_hot, pool_labels

RNG = np.random.default_rng(5)
N = 400
TASK, UNSHIFTED = TASKS["multilabel"], np.zeros(2)
TRUE = RNG.normal(-1.5, 2.0, (N, 2))
Y = (RNG.random((N, 2)) < sigmoid(TRUE)).astype(np.int64)
Z = (TRUE - np.array([-4.6, 0.0])) / np.array([1.0, 0.4])  # shifted as by a weight of 99, and overconfident


@pytest.mark.parametrize("c", [0, 1])
def test_platt_is_the_minimum(c: int) -> None:
    def loss(theta: np.ndarray) -> float:
        z = theta[0] * Z[:, c] + theta[1]
        prior = SCALE_RIDGE / 2 * (theta[0] - 1) ** 2 + BIAS_RIDGE / 2 * theta[1] ** 2
        return float((np.logaddexp(0, z) - Y[:, c] * z).sum() + prior)

    expected = minimize(loss, np.array([1.0, 0.0]), tol=1e-10).x
    fitted = TASK.fit_calibrator("platt", Z, Y, UNSHIFTED).parameters
    assert (fitted["scale"][c], fitted["bias"][c]) == pytest.approx(expected, abs=1e-4)


def test_platt_undoes_shift_and_scale_and_keeps_the_order() -> None:
    fitted = TASK.fit_calibrator("platt", Z, Y, UNSHIFTED)
    assert fitted.parameters["bias"][0] == pytest.approx(-4.6, abs=0.6)
    assert fitted.parameters["scale"][1] == pytest.approx(0.4, abs=0.1)
    probs = fitted(Z)
    for c in range(2):
        assert sk.roc_auc_score(Y[:, c], probs[:, c]) == pytest.approx(sk.roc_auc_score(Y[:, c], Z[:, c]))
        assert probs[:, c].mean() == pytest.approx(Y[:, c].mean(), abs=0.01)


def test_a_worthless_label_is_not_turned_round() -> None:
    """Scores that rank the wrong way round are called chance, not the opposite; a perfect ranking stays finite."""
    wrong = TASK.fit_calibrator("platt", -4 * (2 * Y - 1.0), Y, UNSHIFTED)
    assert wrong.parameters["scale"] == [SMALLEST_SCALE] * 2
    perfect = TASK.fit_calibrator("platt", 4 * (2 * Y - 1.0), Y, UNSHIFTED)
    assert np.isfinite(perfect.parameters["scale"] + perfect.parameters["bias"]).all()
    lone = TASK.fit_calibrator("platt", Z, np.zeros_like(Y), UNSHIFTED)
    assert lone(Z).max() < 0.05


def test_the_choice() -> None:
    groups = [f"g{n // 2}" for n in range(N)]
    trials = TASK.cross_validate(Z, Y, groups, UNSHIFTED)
    assert [trial.kind for trial in trials] == list(LABEL_CALIBRATORS)
    assert TASK.choose_calibrator("auto", trials) == "platt"
    assert trials[0].log_loss == pytest.approx(np.mean([sk.log_loss(Y[:, c], sigmoid(Z)[:, c]) for c in range(2)]))
    assert TASK.choose_calibrator("auto", TASK.cross_validate(TRUE, Y, groups, UNSHIFTED)) == "none"


@pytest.mark.parametrize("rule", ["f1", "youden"])
def test_thresholds_are_the_best_there_are(rule: str) -> None:
    probs = sigmoid(TRUE).round(2)  # with ties
    found = best_thresholds(probs, Y, ["a", "b"], rule)  # type: ignore[arg-type]

    def value(c: int, cut: float) -> float:
        called = probs[:, c] >= cut
        if rule == "f1":
            return float(sk.f1_score(Y[:, c], called))
        return float(sk.recall_score(Y[:, c], called) + sk.recall_score(1 - Y[:, c], 1 - called) - 1)

    for c, cut in enumerate(found.values()):
        assert value(c, cut) == pytest.approx(max(value(c, t) for t in np.unique(probs[:, c])))
        assert np.abs(probs[:, c] - cut).min() > 1e-3, "no probability lies on the threshold, where rounding would decide"


def test_a_label_that_no_image_has() -> None:
    with pytest.raises(DataError, match=r"label 'b' stands on 0 of the 400"):
        best_thresholds(sigmoid(TRUE), Y * np.array([1, 0]), ["a", "b"], "f1")


def test_it_goes_through_json() -> None:
    fitted = TASK.fit_calibrator("platt", Z, Y, UNSHIFTED)
    again = TASK.calibrator(json.loads(json.dumps(fitted.as_dict())), 2)
    np.testing.assert_array_equal(again(Z), fitted(Z))
    known = {"thresholds": {"b": 0.25, "a": 0.5}}
    assert read_thresholds(known, ["a", "b"]).tolist() == [0.5, 0.25]
    assert read_thresholds(None, ["a", "b"]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "temperature", "parameters": {"temperature": 1.0}},
        {"kind": "platt", "parameters": {"scale": [1.0], "bias": [0.0, 0.0]}},
        {"kind": "platt", "parameters": {"scale": [1.0, 0.0], "bias": [0.0, 0.0]}},
        {"kind": "platt", "parameters": {"scale": [1.0, float("nan")], "bias": [0.0, 0.0]}},
        {"kind": "platt", "parameters": None},
        {"kind": "none", "parameters": {"scale": []}},
        {},
    ],
)
def test_a_damaged_calibration(values: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="calibrate again"):
        Calibrator.from_dict(values, 2, LABEL_CALIBRATORS)


@pytest.mark.parametrize("known", [{}, {"thresholds": {"a": 0.5}}, {"thresholds": {"a": 0.5, "b": "x"}}])
def test_damaged_thresholds(known: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="calibrate again"):
        read_thresholds(known, ["a", "b"])


def test_several_passes_are_the_mean_probability() -> None:
    samples = RNG.normal(0, 30, (50, 4, 3)).astype(np.float32)  # far out as well
    np.testing.assert_allclose(sigmoid(pool_labels(samples)), sigmoid(samples).mean(axis=1), atol=2e-7)
    np.testing.assert_array_equal(pool_labels(samples[:, :1]), samples[:, 0])


def test_unknown_labels_are_refused() -> None:
    with pytest.raises(ModelError, match="no class for labels"):
        multi_hot(["a|c"], ["a", "b"])
