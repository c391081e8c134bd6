"""Conformal sets against plain loops, and their promise on data that is exchangeable by groups."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from dermalyze.calibration.conformal import (
    MARGINAL,
    RAPS_FREE,
    RAPS_PENALTY,
    SCORES,
    ConformalSets,
    calibrate_conformal,
    luck_of,
    one_each,
    quantile,
)
from dermalyze.errors import ModelError
from dermalyze.metrics.activation import softmax

CLASSES = ["a", "b", "c", "d"]


def naive(score, p, luck):
    """One image, class by class, as the papers write it."""
    found = []
    for y in range(len(p)):
        above = [c for c in range(len(p)) if p[c] > p[y] or (p[c] == p[y] and c < y)]
        cumulative = sum(p[c] for c in above) + p[y]
        found.append(
            {
                "lac": 1 - p[y],
                "aps": cumulative,
                "aps_randomised": cumulative - luck * p[y],
                "raps": cumulative + RAPS_PENALTY * max(0, len(above) + 1 - RAPS_FREE),
            }[score]
        )
    return found


@pytest.mark.parametrize("score", SCORES)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.floats(0, 1))
def test_scores_are_the_papers(score, parts, luck):
    p = np.array(parts) / sum(parts)
    np.testing.assert_allclose(SCORES[score](p[None], np.array([luck]))[0], naive(score, p, luck), atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 9), min_size=0, max_size=40), st.sampled_from([0.8, 0.9, 0.95]))
def test_quantile_is_the_smallest_value_that_enough_scores_reach(values, level):
    scores = np.array(values, float)
    found = quantile(scores, level)
    enough = [v for v in sorted(values) if sum(w <= v for w in values) >= (len(values) + 1) * level - 1e-9]
    assert found == (enough[0] if enough else None)


def test_too_few_lesions_say_so_and_let_the_class_into_every_set():
    probs = softmax(np.random.default_rng(0).normal(size=(60, 4)))
    labels = np.array([0] * 30 + [1] * 18 + [2] * 12)
    rule = calibrate_conformal(probs, labels, [str(i) for i in range(60)], CLASSES, score="lac", level=0.95, by_class=True)
    assert [rule.thresholds[name] is None for name in CLASSES] == [False, True, True, True]
    assert rule.groups == {"a": 30, "b": 18, "c": 12, "d": 0}
    assert rule.of(probs, CLASSES)[:, 1:].all()


def test_each_lesion_gives_one_image():
    """Ten photographs of one easy lesion do not lower the threshold."""
    hard, easy = [[0.4, 0.6]] * 20, [[0.99, 0.01]] * 10
    probs, labels = np.array(hard + easy), np.zeros(30, dtype=int)
    groups = [str(i) for i in range(20)] + ["one"] * 10
    rule = calibrate_conformal(probs, labels, groups, ["a", "b"], score="lac", level=0.9, by_class=False)
    assert rule.groups == {MARGINAL: 21}
    assert one_each(groups).tolist() == [*range(20), 20]
    assert rule.thresholds[MARGINAL] == pytest.approx(0.6)


def exchangeable(seed, groups=2400):
    """Lesions of one to three photographs that look alike; a model that is badly calibrated, as the promise does not care."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, size=groups, p=[0.55, 0.25, 0.15, 0.05])
    centres = generator.normal(size=(groups, 4)) + 1.2 * np.eye(4)[labels]
    lesion = np.repeat(np.arange(groups), generator.integers(1, 4, size=groups))
    probs = softmax(3 * (centres[lesion] + 0.3 * generator.normal(size=(len(lesion), 4))))
    return probs, labels[lesion], lesion


@pytest.mark.parametrize("score", SCORES)
def test_promise_over_resplits_of_lesions(score):
    """200 resplits; the count of covered test groups follows a beta-binomial law. LAC and randomised scores are exact, so
    both tails are watched; the others may cover more, so one is."""
    level, calibration, test = 0.9, 400, 300
    probs, labels, lesion = exchangeable(0)
    first = one_each([str(i) for i in lesion])
    probs, labels, luck = probs[first], labels[first], np.random.default_rng(5).random(len(first))
    k = int(np.ceil((calibration + 1) * level))
    law = betabinom(test, k, calibration + 1 - k)
    low, high = law.ppf(0.0005), law.ppf(0.9995)
    outside = 0
    for seed in range(200):
        drawn = np.random.default_rng(seed).permutation(len(labels))
        c, t = drawn[:calibration], drawn[calibration : calibration + test]
        rule = calibrate_conformal(
            probs[c], labels[c], [str(i) for i in c], CLASSES, score=score, level=level, by_class=False, seed=seed
        )
        covered = rule.of(probs[t], CLASSES, luck[t])[np.arange(test), labels[t]].sum()
        outside += covered < low or (covered > high and score in ("lac", "aps_randomised"))
    assert outside <= 2


def test_by_class_keeps_the_promise_for_each_class():
    probs, labels, lesion = exchangeable(1, groups=6000)
    probs = probs * [1, 1, 1, 0.05]  # a model that hardly believes in the rare class
    probs /= probs.sum(axis=1, keepdims=True)
    calibration = lesion < 3000
    rule = calibrate_conformal(
        probs[calibration],
        labels[calibration],
        [str(i) for i in lesion[calibration]],
        CLASSES,
        score="lac",
        level=0.9,
        by_class=True,
    )
    inside = rule.of(probs[~calibration], CLASSES)
    own = labels[~calibration]
    for c in range(4):
        assert inside[own == c, c].mean() == pytest.approx(0.9, abs=0.06)
    marginal = calibrate_conformal(
        probs[calibration],
        labels[calibration],
        [str(i) for i in lesion[calibration]],
        CLASSES,
        score="lac",
        level=0.9,
        by_class=False,
    )
    assert marginal.of(probs[~calibration], CLASSES)[own == 3, 3].mean() < 0.8


def test_calibrating_on_training_rows_is_caught():
    """The control: scores of rows that the model knows by heart are too good, and the promise breaks on others."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 1200)
    logits = 4 * (generator.normal(size=(1200, 4)) + 1.2 * np.eye(4)[labels])  # too sure, as a model that was overfitted is
    logits[:600] += 30 * np.eye(4)[labels[:600]]  # learnt by heart
    probs = softmax(logits)
    groups = [str(i) for i in range(600)]
    for score in ("lac", "aps_randomised"):  # the exact ones
        rule = calibrate_conformal(probs[:600], labels[:600], groups, CLASSES, score=score, level=0.9, by_class=False)
        covered = rule.of(probs[600:], CLASSES, luck_of(groups))[np.arange(600), labels[600:]].mean()
        assert covered < betabinom(600, 541, 60).ppf(0.0005) / 600


def test_luck_belongs_to_the_image():
    ids = [f"ISIC_{i}" for i in range(2000)]
    luck = luck_of(ids)
    assert luck.min() >= 0
    assert luck.max() < 1
    assert luck.mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(luck_of(ids[::-1]), luck[::-1])


@pytest.mark.parametrize("by_class", [False, True])
def test_reads_back(by_class):
    probs, labels, lesion = exchangeable(3, groups=300)
    rule = calibrate_conformal(probs, labels, [str(i) for i in lesion], CLASSES, score="raps", level=0.9, by_class=by_class)
    read = ConformalSets.from_dict(json.loads(json.dumps(rule.as_dict())), CLASSES)
    np.testing.assert_array_equal(read.of(probs, CLASSES), rule.of(probs, CLASSES))


GOOD = {"score": "lac", "level": 0.9, "thresholds": {MARGINAL: 0.5}, "groups": {MARGINAL: 40}}


@pytest.mark.parametrize(
    "values",
    [3, {}, {**GOOD, "score": "lacc"}, {**GOOD, "thresholds": {"a": 0.5}}, {**GOOD, "thresholds": {MARGINAL: "x"}},
     {**GOOD, "thresholds": {MARGINAL: float("nan")}}],
    ids=["number", "empty", "typo", "classes", "text", "nan"],
)  # fmt: skip
def test_damaged_rules_are_refused(values):
    assert ConformalSets.from_dict(GOOD, CLASSES) is not None
    with pytest.raises(ModelError, match="calibration"):
        ConformalSets.from_dict(values, CLASSES)
