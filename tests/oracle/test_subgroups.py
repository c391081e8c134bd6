"""Subgroups against a plain loop: the same resamples, each measured by scikit-learn; and what must hold of any set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score

from dermalyze.metrics.bootstrap import group_index, group_weights
from dermalyze.metrics.classification import Scores
from dermalyze.metrics.subgroups import comparisons, divide, holm, subgroups

SETTINGS = {"resamples": 40, "level": 0.9, "seed": 3}
MALIGNANT, FOCUS = (0, 2), 2


def made(seed=0, lesions=160, classes=3, effect=0.0):
    """Labels, probabilities, lesions and a column whose level "b" is evaluated worse by `effect`."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=lesions)
    level = rng.choice(["a", "b", "c", None], size=lesions, p=[0.4, 0.3, 0.2, 0.1])
    lesion = np.repeat(np.arange(lesions), rng.integers(1, 4, lesions))
    logits = rng.normal(size=(len(lesion), classes)) + 1.5 * np.eye(classes)[label[lesion]]
    logits[(level[lesion] == "b")] *= 1 - effect
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values = [None if v is None else str(v) for v in level[lesion]]
    return Scores(label[lesion], probs), [str(n) for n in lesion], values


def by_hand(scores, weights, rows):
    y, p, w = scores.labels[rows], scores.probs[rows], weights[rows]
    hit, own, positive = p.argmax(axis=1) == y, y == FOCUS, np.isin(y, MALIGNANT)
    return {
        "accuracy": accuracy_score(y, p.argmax(axis=1), sample_weight=w),
        "balanced_accuracy": balanced_accuracy_score(y, p.argmax(axis=1), sample_weight=w),
        "sensitivity": np.average(hit[own], weights=w[own]),
        "macro_auroc": np.mean([roc_auc_score(y == c, p[:, c], sample_weight=w) for c in range(p.shape[1])]),
        "malignant_auroc": roc_auc_score(positive, p[:, list(MALIGNANT)].sum(axis=1), sample_weight=w),
        "overconfidence": np.average(p.max(axis=1) - hit, weights=w),
        "log_loss": log_loss(y, p, sample_weight=w, labels=range(p.shape[1])),
        "referred": np.average(p.max(axis=1) < 0.5, weights=w),
    }


def judged(scores, groups, values, **options):
    return subgroups(
        scores, groups, [divide("column", values)], focus=FOCUS, malignant=MALIGNANT,
        answered_N=scores.probs.max(axis=1) >= 0.5, **{**SETTINGS, **options},
    )  # fmt: skip


def test_values_gaps_and_intervals_are_those_of_a_loop():
    scores, groups, values = made()
    index, n_groups = group_index(groups)
    weights = np.concatenate(list(group_weights(index, n_groups, 8, SETTINGS["seed"])), axis=1)
    levels = np.array(["unknown" if v is None else v for v in values])
    for one in judged(scores, groups, values, resamples=8):
        own, rest = np.flatnonzero(levels == one.level), np.flatnonzero(levels != one.level)
        whole = np.ones(len(levels))
        here, there = by_hand(scores, whole, own), by_hand(scores, whole, rest)
        drawn = [(by_hand(scores, w, own), by_hand(scores, w, rest)) for w in weights.T]
        assert (one.n, one.groups) == (len(own), len(set(np.array(groups)[own])))
        for name, found in one.values.items():
            if found.value is None:
                continue
            assert found.value == pytest.approx(here[name])
            if name not in ("accuracy", "sensitivity", "referred") or 0 < found.value < 1:
                expected = np.quantile([a[name] for a, _ in drawn], [0.05, 0.95])
                assert (found.low, found.high) == pytest.approx(tuple(expected))
        assert "macro_auroc" not in one.gaps
        for name, gap in one.gaps.items():
            if gap.value is None:
                continue
            assert gap.value == pytest.approx(here[name] - there[name])
            differences = [a[name] - b[name] for a, b in drawn]
            assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(differences, [0.05, 0.95])))
    assert {one.level for one in judged(scores, groups, values, resamples=8)} == {"a", "b", "c", "unknown"}


def test_missing_values_are_a_group_of_their_own_and_none_is_lost():
    scores, groups, values = made()
    values = [None] * (9 * len(values) // 10) + values[9 * len(values) // 10 :]
    found = judged(scores, groups, values)
    assert found[-1].level == "unknown"
    assert sum(one.n for one in found) == len(values)
    assert found[-1].values["accuracy"].low is not None


def test_a_small_group_is_suppressed_whole():
    scores, groups, _ = made()
    few = set(dict.fromkeys(groups[:9]))
    small = ["x" if group in few else "y" for group in groups]
    assert len(few) < 10
    one, other = judged(scores, groups, small)
    assert one.level == "x"
    assert all(e.value is None and e.low is None for e in (*one.values.values(), *one.gaps.values()))
    assert one.values["accuracy"].note == f"not estimable (n = {one.n})"
    assert not one.p_values
    assert other.values["accuracy"].value is not None
    assert other.gaps["accuracy"].value is None, "no gap to a rest of so few"


def test_a_share_of_all_alike_has_an_interval_and_no_gap():
    labels = np.tile([0, 1, 2], 40)
    probs = np.full((120, 3), 0.1)
    called = labels.copy()
    called[60::7] = (called[60::7] + 1) % 3
    probs[np.arange(120), called] = 0.8
    column = ["first"] * 60 + ["second"] * 60
    first, second = judged(Scores(labels, probs), [str(i) for i in range(120)], column)
    assert first.values["accuracy"].value == 1.0
    assert first.values["accuracy"].low < 0.96
    assert second.values["accuracy"].value < 1.0
    assert first.gaps["accuracy"].low is None
    assert "accuracy" not in first.p_values


def test_a_planted_gap_is_found_and_chance_is_not():
    scores, groups, values = made(seed=1, lesions=500, effect=0.9)
    worse = {one.level: one for one in judged(scores, groups, values, resamples=100)}["b"]
    assert worse.gaps["log_loss"].low > 0
    assert worse.adjusted["log_loss"] < 0.01
    false = 0
    for seed in range(20):
        scores, groups, values = made(seed=seed, lesions=150)
        false += any(p < 0.05 for one in judged(scores, groups, values, resamples=100) for p in one.adjusted.values())
    assert false <= 4  # 5 % expected of 20 families; more than 4 in 20 has probability 0.003


def test_two_levels_are_one_comparison():
    scores, groups, _ = made()
    half = ["a" if int(group) % 2 else "b" for group in groups]
    a, b = judged(scores, groups, half)
    assert comparisons([a, b]) == len(a.p_values) == len(b.p_values)
    for name in a.p_values:
        assert a.gaps[name].value == pytest.approx(-b.gaps[name].value)
        assert a.p_values[name] == pytest.approx(b.p_values[name])
        assert a.adjusted[name] == b.adjusted[name]


@given(st.lists(st.floats(0, 1), max_size=30))
@settings(max_examples=60, deadline=None)
def test_holm_by_its_definition(p_values):
    """The adjusted p-value is the least level at which the step-down procedure rejects."""
    found = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    for level in (0.01, 0.05, 0.3):
        rejected, order = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        for step, i in enumerate(order):
            if p_values[i] * (len(order) - step) > level:
                break
            rejected.add(i)
        assert rejected == {i for i, q in enumerate(found) if q <= level}


def test_order_of_images_is_nothing():
    scores, groups, values = made()
    order = np.random.default_rng(5).permutation(len(groups))
    shuffled = judged(Scores(scores.labels[order], scores.probs[order]), [groups[i] for i in order], [values[i] for i in order])
    for one, other in zip(judged(scores, groups, values), shuffled, strict=True):
        for name in one.values:
            assert one.values[name].value == pytest.approx(other.values[name].value)
