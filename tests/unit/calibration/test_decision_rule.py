"""The rule: its order, its reasons, and the shares that come of it."""

from __future__ import annotations

import numpy as np
import pytest

from dermalyze.calibration.conformal import ConformalSets
from dermalyze.calibration.decision_rule import (
    DECISIONS,
    NO_CLASS,
    OOD,
    OUTCOMES,
    SET,
    UNCERTAIN,
    Limit,
    Rule,
    decision_shares,
    threshold_band,
)
from dermalyze.errors import ModelError
from dermalyze.metrics.selective import Referral

CLASSES = ["mel", "nv", "vasc"]
LIMIT, REFERRAL = Limit("knn", 1.0, 0.95), Referral("max_probability", 0.8, 0.5)
SETS = ConformalSets("lac", 0.9, {"mel": 0.9, "nv": 0.3, "vasc": 0.3}, dict.fromkeys(CLASSES, 40))


def outcomes(rule, probs, foreign=None):
    found = rule.outcomes(np.array(probs, float), CLASSES, None if foreign is None else np.array(foreign))
    return [OUTCOMES[i] for i in found]


def test_without_parts_everything_is_answered():
    assert outcomes(Rule(), [[0.4, 0.3, 0.3]]) == ["answer"]
    assert Rule.from_dict(None, CLASSES) == Rule() == Rule.from_dict({"kind": "none"}, CLASSES)


def test_foreign_comes_before_unsure_and_unsure_before_the_set():
    rule = Rule(LIMIT, REFERRAL, SETS)
    sure, unsure = [0.02, 0.96, 0.02], [0.4, 0.4, 0.2]
    assert outcomes(rule, [sure, sure, unsure, unsure], [0.9, 1.1, 0.9, 1.1]) == ["answer", "foreign", "unsure", "foreign"]
    assert outcomes(Rule(LIMIT), [sure], [1.0]) == ["answer"]  # the threshold itself passes
    assert outcomes(Rule(None, REFERRAL), [[0.5, 0.3, 0.2]]) == ["answer"]


def test_a_set_of_several_of_none_and_of_another_class():
    rule = Rule(sets=SETS)
    assert outcomes(rule, [[0.2, 0.75, 0.05]]) == ["set"]  # nv and mel
    assert outcomes(rule, [[0.15, 0.55, 0.3]]) == ["set"]  # mel alone, and nv is more probable: no bare answer
    assert outcomes(rule, [[0.05, 0.9, 0.05]]) == ["answer"]
    assert outcomes(rule, [[0.05, 0.5, 0.45]]) == ["no_class"]


def test_every_outcome_but_the_answer_has_its_reason():
    rule, probs = Rule(LIMIT, REFERRAL, SETS), np.array([0.2, 0.75, 0.05])
    assert rule.reason(0, probs, CLASSES, 0.5) is None
    assert "unlike the training images: score 1.5 is above 1" in rule.reason(OOD, probs, CLASSES, 1.5)
    assert "not confident enough" in rule.reason(UNCERTAIN, np.array([0.4, 0.3, 0.3]), CLASSES, 0.5)
    assert "no class fits" in rule.reason(NO_CLASS, probs, CLASSES, 0.5)
    assert rule.reason(SET, probs, CLASSES, 0.5).endswith("nv, mel")
    assert DECISIONS[SET] == "set"
    assert {DECISIONS[i] for i in (OOD, UNCERTAIN, NO_CLASS)} == {"refer"}


def test_a_limit_without_scores_is_an_error_and_not_an_answer():
    with pytest.raises(ModelError, match="no out-of-distribution score"):
        outcomes(Rule(LIMIT), [[1, 0, 0]])


@pytest.mark.parametrize(
    "values",
    [
        {},
        "knn",
        {"kind": "x", "threshold": 1.0, "kept": 0.95},
        {"kind": "knn", "threshold": float("nan"), "kept": 0.95},
        {"kind": "knn", "threshold": True, "kept": 0.95},
        {"kind": "knn", "kept": 0.95},
    ],
)
def test_a_damaged_limit_is_refused(values):
    with pytest.raises(ModelError, match="threshold is damaged"):
        Rule.from_dict({"ood": values}, CLASSES)


def test_shares_are_counted_right():
    outcome = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    hit = np.array([1, 0, 1, 0, 1, 0, 0, 1], bool)
    covered = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    shares = decision_shares(outcome, hit, covered)
    mean = {name: value[among].mean() if among is not None else value.mean() for name, (value, among) in shares.items()}
    assert mean["answer"] + mean["set"] + mean["refer"] == pytest.approx(1)
    assert mean["foreign"] + mean["unsure"] + mean["no_class"] == pytest.approx(mean["refer"])
    assert mean["error"] == pytest.approx(1 / 3)
    assert mean["wrong_answered"] == pytest.approx(1 / 8)
    assert mean["set_error"] == pytest.approx(1 / 2)
    assert mean["error_all"] == pytest.approx(1 / 2)
    assert "set_error" not in decision_shares(outcome, hit, None)


@pytest.mark.parametrize(("known", "judged", "passed"), [(746, 1120, 0.95), (40, 25, 0.9), (1, 7, 0.5), (300, 10, 1.0)])
def test_the_band_of_a_threshold_is_the_beta_binomial_law(known: int, judged: int, passed: float) -> None:
    from scipy.stats import betabinom

    k = int(np.ceil(passed * known - 1e-9))
    law = betabinom(judged, known - k + 1, k)
    low, high = threshold_band(known, judged, passed, 0.9)
    assert (low * judged, high * judged) == pytest.approx((law.ppf(0.05), law.ppf(0.95)))


def test_the_band_of_a_threshold_holds_what_chance_makes() -> None:
    """Thresholds and shares of simulated sets: 95 % of the shares are to lie within."""
    rng = np.random.default_rng(0)
    known, judged = 60, 80
    low, high = threshold_band(known, judged, 0.9)
    inside = 0
    for _ in range(2000):
        threshold = np.sort(rng.random(known))[int(np.ceil(0.9 * known)) - 1]
        inside += low <= (rng.random(judged) > threshold).mean() <= high
    assert 0.94 <= inside / 2000 <= 0.98
