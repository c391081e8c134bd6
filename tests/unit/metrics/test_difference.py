"""Differences of metrics against a plain loop over resamples with scikit-learn, and what shared lesions do to them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from dermalyze.metrics.classification import METRICS, Scores
from dermalyze.metrics.difference import Scored, class_mix, compare

SETTINGS = {"resamples": 1500, "level": 0.9, "seed": 3}


def scored(seed: int, groups: list[str], classes: int = 3) -> Scored:
    rng = np.random.default_rng(seed)
    labels = np.array([int(group[1:]) % classes for group in groups])
    logits = rng.normal(size=(len(groups), classes)) + 1.2 * np.eye(classes)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scored(Scores(labels, probs), groups)


def test_against_a_loop_with_scikit_learn() -> None:
    a = scored(0, [f"g{i % 40}" for i in range(70)])
    b = scored(1, [f"g{20 + i % 35}" for i in range(60)])
    names = ("balanced_accuracy", "log_loss")
    found = compare(a, b, {name: METRICS[name] for name in names}, **SETTINGS)  # type: ignore[arg-type]

    def measure(side: Scored, rows: np.ndarray) -> tuple[float, float]:
        labels, probs = side.scores.labels[rows], side.scores.probs[rows]
        return balanced_accuracy_score(labels, probs.argmax(axis=1)), log_loss(labels, probs, labels=[0, 1, 2])

    every = sorted({*a.groups, *b.groups})
    rows_of = {id(s): {g: np.flatnonzero(np.array(s.groups) == g) for g in every} for s in (a, b)}
    rng = np.random.default_rng(99)
    differences = []
    for _ in range(1500):
        drawn = rng.choice(every, len(every))
        taken = [measure(s, np.concatenate([rows_of[id(s)][g] for g in drawn])) for s in (a, b)]
        differences.append(np.subtract(*taken))
    for k, name in enumerate(names):
        whole = [measure(s, np.arange(len(s.groups)))[k] for s in (a, b)]
        estimates = found[name]
        assert estimates["a"].value == pytest.approx(whole[0])
        assert estimates["b"].value == pytest.approx(whole[1])
        assert estimates["difference"].value == pytest.approx(whole[0] - whole[1])
        low, high = np.quantile(np.array(differences)[:, k], [0.05, 0.95])
        width = high - low
        assert estimates["difference"].low == pytest.approx(low, abs=0.1 * width)
        assert estimates["difference"].high == pytest.approx(high, abs=0.1 * width)


def test_what_both_sides_share_cancels() -> None:
    a = scored(0, [f"g{i}" for i in range(60)])
    same = compare(a, a, {"accuracy": METRICS["accuracy"]}, **SETTINGS)["accuracy"]["difference"]  # type: ignore[arg-type]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    apart = Scored(a.scores, [f"h{i}" for i in range(60)])
    other = compare(a, apart, {"accuracy": METRICS["accuracy"]}, **SETTINGS)["accuracy"]["difference"]  # type: ignore[arg-type]
    assert other.value == 0
    assert other.low is not None
    assert other.low < -0.05


def test_a_difference_is_no_better_founded_than_its_smaller_side() -> None:
    few = compare(scored(0, [f"g{i}" for i in range(60)]), scored(1, [f"g{i % 6}" for i in range(60)]), METRICS, **SETTINGS)  # type: ignore[arg-type]
    assert few["accuracy"]["a"].low is not None
    assert few["accuracy"]["b"].low is None
    assert few["accuracy"]["difference"].low is None
    assert few["accuracy"]["difference"].groups == 6


def test_an_empty_side_is_not_estimable() -> None:
    empty = Scored(Scores(np.zeros(0, np.int64), np.zeros((0, 3))), [])
    found = compare(scored(0, [f"g{i}" for i in range(30)]), empty, METRICS, **SETTINGS)  # type: ignore[arg-type]
    assert found["accuracy"]["b"].note == "not estimable (n = 0)"
    assert found["log_loss"]["difference"].value is None


def test_class_mix_is_direct_standardisation() -> None:
    labels, like = np.array([0] * 8 + [1] * 2), np.array([0] * 3 + [1] * 6 + [2])
    weights = class_mix(labels, like)
    right = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1, 0], float)
    by_hand = (0.3 * 0.5 + 0.6 * 0.5) / 0.9  # class 2 is absent, so its share cannot be given
    assert (right * weights).sum() / weights.sum() == pytest.approx(by_hand)


def test_weights_reach_the_metrics() -> None:
    side = scored(0, [f"g{i}" for i in range(40)])
    weights = np.linspace(0.5, 2, 40)
    found = compare(Scored(side.scores, side.groups, weights), side, {"accuracy": METRICS["accuracy"]}, **SETTINGS)  # type: ignore[arg-type]
    right = side.scores.predicted == side.scores.labels
    assert found["accuracy"]["a"].value == pytest.approx(np.average(right, weights=weights))
    assert found["accuracy"]["b"].value == pytest.approx(right.mean())
