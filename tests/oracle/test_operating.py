"""Operating points and decision curves against plain loops over every threshold, scikit-learn and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.errors import ConfigError
from dermalyze.metrics.bootstrap import Estimate, group_index, group_weights
from dermalyze.metrics.decision_curve import THRESHOLDS, decision_curve
from dermalyze.metrics.operating_points import (
    CRITERIA,
    at_threshold,
    cheapest,
    choose,
    inverted,
    operating_points,
    point_name,
    questions,
    reach_sensitivity,
    two_classes,
    youden,
)
from dermalyze.metrics.scores import Scores

HOW = {"resamples": 200, "level": 0.95, "seed": 0}
HAM = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


@st.composite
def asked(draw):
    """Positives and scores with both sides there; few different scores, so that ties are the rule."""
    n = draw(st.integers(2, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    positive = generator.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    positive[:2] = [True, False]
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    return positive, generator.integers(0, levels + 1, size=n) / (levels + 1)


def made(n=400, seed=0, skill=1.5, share=0.3):
    """A question with some skill, two images a lesion."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(generator.random(n // 2) < share, 2).astype(int)
    score = 1 / (1 + np.exp(-generator.normal(size=n) - skill * (2 * labels - 1)))
    return Scores(labels, np.stack([1 - score, score], axis=1)), [f"L{i // 2}" for i in range(n)]


def by_hand(positive, score, threshold):
    called = score >= threshold
    return called[positive].mean(), 1 - called[~positive].mean(), (~called & positive).sum(), (called & ~positive).sum()


@settings(deadline=None, max_examples=80)
@given(asked(), st.floats(0.5, 0.99))
def test_sensitivity_is_reached_and_at_no_higher_threshold(case, target):
    positive, score = case
    threshold = reach_sensitivity(positive, score, target)
    assert by_hand(positive, score, threshold)[0] >= target - 1e-9
    assert all(by_hand(positive, score, higher)[0] < target for higher in score[score > threshold])


@settings(deadline=None, max_examples=80)
@given(asked())
def test_youden_is_the_best_of_all_thresholds_and_of_scikit_learns_roc(case):
    positive, score = case
    index = {t: sum(by_hand(positive, score, t)[:2]) - 1 for t in np.unique(score)}
    best = max(index.values())
    threshold = youden(positive, score, 0)
    assert threshold == min(t for t, j in index.items() if j >= best - 1e-12)
    false, true, _ = sk.roc_curve(positive, score, drop_intermediate=False)
    assert index[threshold] == pytest.approx(max((true - false)[1:]), abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(asked(), st.sampled_from([0.2, 1.0, 7.5, 100.0]))
def test_the_cheapest_costs_least(case, weight):
    positive, score = case
    cost = {t: by_hand(positive, score, t)[2] * weight + by_hand(positive, score, t)[3] for t in np.unique(score)}
    threshold = cheapest(positive, score, weight)
    assert threshold == min(t for t, c in cost.items() if c <= min(cost.values()) + 1e-9)


@settings(deadline=None, max_examples=40)
@given(asked())
def test_order_copies_and_rising_changes_of_the_score_change_no_point(case):
    """The threshold is moved as the scores are, so that the same images are called."""
    positive, score = case
    order = np.random.default_rng(0).permutation(len(score))
    for rule in CRITERIA.values():
        threshold = rule(positive, score, 0.8)
        assert rule(positive[order], score[order], 0.8) == threshold
        assert rule(np.tile(positive, 3), np.tile(score, 3), 0.8) == threshold
        assert rule(positive, np.exp(score) - 5, 0.8) == pytest.approx(np.exp(threshold) - 5)


def test_a_dearer_miss_lowers_the_threshold():
    scores, _ = made()
    thresholds = [cheapest(scores.labels == 1, scores.probs[:, 1], cost) for cost in (0.5, 1, 5, 20, 200)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]


def test_figures_at_a_threshold_equal_scikit_learn():
    scores, groups = made()
    found = at_threshold(scores, groups, 0.6, prevalence=0.02, **HOW)
    labels, called = scores.labels, (scores.probs[:, 1] >= 0.6).astype(int)
    sens, spec = sk.recall_score(labels, called), sk.recall_score(1 - labels, 1 - called)
    expected = {
        "sensitivity": sens,
        "specificity": spec,
        "ppv": sk.precision_score(labels, called),
        "npv": sk.precision_score(1 - labels, 1 - called),
        "number_needed": 1 / sk.precision_score(labels, called),
        "ppv_at": sens * 0.02 / (sens * 0.02 + (1 - spec) * 0.98),
        "npv_at": spec * 0.98 / (spec * 0.98 + (1 - sens) * 0.02),
    }
    expected["number_needed_at"] = 1 / expected["ppv_at"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].low < value < found[name].high, name
    assert found["ppv"].n == called.sum()
    assert found["npv"].n == len(called) - called.sum()
    assert found["specificity"].n == (labels == 0).sum()


def test_at_the_prevalence_of_the_set_bayes_gives_what_was_counted():
    scores, groups = made()
    found = at_threshold(scores, groups, 0.5, prevalence=float(scores.labels.mean()), **HOW)
    assert found["ppv_at"].value == pytest.approx(found["ppv"].value)
    assert found["npv_at"].value == pytest.approx(found["npv"].value)


def test_predictive_values_as_published():
    """The liver scans of Altman & Bland 1994 (BMJ 309:102): PPV .88 and NPV .67; at a prevalence of .25 PPV .45 and NPV .95."""
    labels, score = np.repeat([1, 1, 0, 0], [231, 27, 32, 54]), np.repeat([1.0, 0.0, 1.0, 0.0], [231, 27, 32, 54])
    groups = [str(i) for i in range(len(labels))]
    found = at_threshold(Scores(labels, np.stack([1 - score, score], 1)), groups, 0.5, prevalence=0.25, **HOW)
    published = {"ppv": 0.88, "npv": 0.67, "ppv_at": 0.45, "npv_at": 0.95, "sensitivity": 0.90, "specificity": 0.63}
    for name, value in published.items():
        assert found[name].value == pytest.approx(value, abs=0.006), name


def test_nothing_called_and_one_side_absent():
    scores, groups = made(80)
    none = at_threshold(scores, groups, 1.1, prevalence=0.1, **HOW)
    assert none["sensitivity"].value == 0
    assert none["ppv"].value is none["number_needed"].value is None
    assert "not estimable" in none["number_needed_at"].note
    benign = Scores(np.zeros(80, int), scores.probs)
    found = at_threshold(benign, groups, 0.5, prevalence=0.1, **HOW)
    assert found["sensitivity"].note == "not estimable (n = 0)"
    assert found["specificity"].value is not None
    assert found["ppv_at"].value is None


def test_an_inverted_share_turns_its_interval():
    assert inverted(Estimate(0.5, 0.25, 0.8, 9, 9)).high == 4
    open_ended = inverted(Estimate(0.5, 0.0, 0.8, 9, 9))
    assert (open_ended.value, open_ended.low, open_ended.high) == (2, None, None)
    assert "no upper limit" in open_ended.note
    assert inverted(Estimate(0.0, 0.0, 0.0, 9, 9)).value is None


# -- questions and what is stored --------------------------------------------------------------------------------


def test_questions_by_name():
    bad = ("akiec", "bcc", "mel")
    assert questions(HAM, bad, ["mel"]) == {"malignant": bad, "mel": ("mel",)}
    assert questions(HAM, bad, ["nv", "mel"]) == {"malignant": bad, "nv": ("nv",), "mel": ("mel",)}
    assert questions(HAM, [], ["mel"]) == {"mel": ("mel",)}
    assert questions(["mel", "nv"], ["mel"], ["mel"]) == {"malignant": ("mel",)}  # the same question twice is one
    assert questions(["a", "b"], [], []) == {}
    assert questions(["benign", "malignant"], [], ["malignant"]) == {"malignant": ("malignant",)}


def test_a_class_with_the_name_of_another_question_is_refused():
    with pytest.raises(ConfigError, match=r"evaluate\.focus: class 'malignant' has the name of the question"):
        questions(["benign", "early", "malignant"], ["early", "malignant"], ["malignant"])


def test_score_of_a_question_is_the_sum_of_its_classes():
    probs = np.random.default_rng(0).dirichlet(np.ones(7), 50)
    labels = np.random.default_rng(1).integers(7, size=50)
    found = two_classes(Scores(labels, probs), HAM, ("akiec", "bcc", "mel"))
    np.testing.assert_allclose(found.probs[:, 1], probs[:, 0] + probs[:, 1] + probs[:, 4])
    np.testing.assert_array_equal(found.labels, np.isin(labels, [0, 1, 4]))


@pytest.mark.parametrize(
    ("lesions", "sensitivity", "estimable"),
    [(20, 0.95, True), (19, 0.95, False), (19, 0.9, True), (9, 0.8, False), (99, 0.99, False)],
)
def test_a_threshold_needs_lesions_enough(lesions, sensitivity, estimable):
    labels = np.repeat([1, 0], [2 * lesions, 60])
    groups = [f"p{i // 2}" for i in range(2 * lesions)] + [f"n{i}" for i in range(60)]
    score = np.linspace(0.99, 0.01, len(labels))
    points = choose(Scores(labels, np.stack([1 - score, score], 1)), groups, sensitivity=[sensitivity], miss_cost=10)
    assert (points[point_name(sensitivity)].threshold is not None) is estimable
    assert (points["youden"].threshold is not None) is (lesions >= 10)
    if not estimable:
        assert points[point_name(sensitivity)].note.startswith(f"not estimable (n = {2 * lesions}): {lesions} positive groups")


def test_absent_classes_have_no_threshold():
    scores, groups = made(60)
    for label in (0, 1):
        points = choose(Scores(np.full(60, label), scores.probs), groups, sensitivity=[0.95], miss_cost=10)
        assert all(point.threshold is None and "at least" in point.note for point in points.values())
    empty = choose(Scores(np.zeros(0, int), np.zeros((0, 2))), [], sensitivity=[0.95], miss_cost=10)
    assert {point.note for point in empty.values()} >= {"not estimable (n = 0): 0 positive groups, at least 10 needed"}


def test_what_is_stored_names_classes_and_targets():
    probs = np.random.default_rng(0).dirichlet(np.ones(7), 700)
    labels = np.random.default_rng(1).integers(7, size=700)
    stored = operating_points(
        Scores(labels, probs),
        [str(i) for i in range(700)],
        HAM,
        questions(HAM, ("akiec", "bcc", "mel"), ["mel"]),
        sensitivity=[0.9, 0.8],
        miss_cost=4,
    )
    assert stored["malignant"]["classes"] == ["akiec", "bcc", "mel"]
    assert {name: point["target"] for name, point in stored["mel"]["points"].items()} == {
        "sensitivity_90": 0.9, "sensitivity_80": 0.8, "youden": None, "cost": 4,
    }  # fmt: skip
    score = probs[:, [0, 1, 4]].sum(axis=1)
    for name, target in (("sensitivity_90", 0.9), ("sensitivity_80", 0.8)):
        threshold = stored["malignant"]["points"][name]["threshold"]
        assert np.mean(score[np.isin(labels, [0, 1, 4])] >= threshold) == pytest.approx(target, abs=0.01)


# -- decision curves ---------------------------------------------------------------------------------------------


def net_benefit(labels, score, threshold, weights=None):
    weights = np.ones(len(labels)) if weights is None else weights
    called = score >= threshold
    true, false = weights[called & (labels == 1)].sum(), weights[called & (labels == 0)].sum()
    return (true - false * threshold / (1 - threshold)) / weights.sum()


def test_net_benefit_and_its_band_equal_a_plain_loop():
    scores, groups = made(200)
    curve = decision_curve(scores, groups, **HOW)
    labels, score = scores.labels, scores.probs[:, 1]
    np.testing.assert_allclose(curve.model, [net_benefit(labels, score, t) for t in THRESHOLDS], atol=1e-12)
    np.testing.assert_allclose(curve.everyone, [net_benefit(labels, np.ones(200), t) for t in THRESHOLDS], atol=1e-12)
    index, number = group_index(groups)
    weights = np.concatenate(list(group_weights(index, number, 200, 0)), axis=1)
    for k in (0, 20, 49):
        drawn = [net_benefit(labels, score, THRESHOLDS[k], weights[:, r]) for r in range(200)]
        assert (curve.low[k], curve.high[k]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_net_benefit_by_hand():
    """Of 1,000 people 140 are ill; at 10 % 70 of them are called, and 230 others: 70 - 230 / 9 = 44 of 1,000."""
    labels = np.repeat([1, 0], [140, 860])
    score = np.repeat([0.5, 0.01, 0.5, 0.01], [70, 70, 230, 630])
    curve = decision_curve(
        Scores(labels, np.stack([1 - score, score], 1)), [str(i) for i in range(1000)], thresholds_T=np.array([0.1]), **HOW
    )
    assert curve.model[0] == pytest.approx((70 - 230 / 9) / 1000)
    assert curve.everyone[0] == pytest.approx((140 - 860 / 9) / 1000)


def test_perfect_useless_and_absent():
    labels = np.repeat([1, 0], [30, 70])
    groups = [str(i) for i in range(100)]
    perfect = decision_curve(Scores(labels, np.eye(2)[labels]), groups, **HOW)
    np.testing.assert_allclose(perfect.model, 0.3)
    assert perfect.better == (0.01, 0.5)
    everyone = decision_curve(Scores(labels, np.tile([0.0, 1.0], (100, 1))), groups, **HOW)
    np.testing.assert_allclose(everyone.model, everyone.everyone)
    assert everyone.better is None
    assert decision_curve(Scores(np.zeros(100, int), np.eye(2)[labels]), groups, **HOW) is None
    few = decision_curve(Scores(labels, np.eye(2)[labels]), ["a"] * 50 + ["b"] * 50, **HOW)
    assert few.low is None
    assert "not estimable" in few.note
    assert few.as_dict()["thresholds"][0] == 0.01
