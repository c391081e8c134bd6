"""The vectorised cluster bootstrap against a plain loop over scikit-learn, and what it does where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from dermalyze.errors import ModelError
from dermalyze.metrics import bootstrap
from dermalyze.metrics.bootstrap import estimate, estimates, group_index, group_weights, resample
from dermalyze.metrics.classification import METRICS, PER_CLASS_METRICS, Scores, Tally, tally
from dermalyze.metrics.paired_tests import paired


def lesions(n=240, classes=4, seed=0, skill=1.0, decimals=None):
    """Probabilities with some skill on images grouped 1 to 4 a lesion; rounded, they tie."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), generator.integers(1, 5, size=n))[:n]
    labels = generator.integers(classes, size=n)[groups]
    logits = generator.normal(size=(n, classes)) + skill * np.eye(classes)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if decimals is not None:
        probs = probs.round(decimals) + 1e-3
        probs /= probs.sum(axis=1, keepdims=True)
    return Scores(labels, probs), groups


@pytest.mark.parametrize("decimals", [None, 1])
def test_each_resample_equals_scikit_learn_on_the_rows_drawn(decimals):
    scores, groups = lesions(decimals=decimals)
    index, number = group_index(groups)
    found = resample(scores, groups, {k: METRICS[k] for k in ("macro_auroc", "macro_f1")}, resamples=60, seed=5)
    weights = np.concatenate(list(group_weights(index, number, 60, 5)), axis=1)
    for r in range(60):
        rows = np.repeat(np.arange(len(groups)), weights[:, r].astype(int))
        y, p = scores.labels[rows], scores.probs[rows]
        expected = np.mean([roc_auc_score(y == c, p[:, c]) for c in range(4)])
        assert found["macro_auroc"][r] == pytest.approx(expected, abs=1e-9)
        assert found["macro_f1"][r] == pytest.approx(f1_score(y, p.argmax(1), average="macro"), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 99))
def test_weights_are_the_same_within_a_group_and_draw_as_many_groups_as_there_are(n, groups, seed):
    index, number = group_index(np.random.default_rng(seed).integers(groups, size=n))
    weights = np.concatenate(list(group_weights(index, number, 20, seed)), axis=1)
    assert weights.shape == (n, 20)
    first = np.array([np.flatnonzero(index == g)[0] for g in range(number)])
    assert (weights == weights[first][index]).all()
    assert (weights[first].sum(axis=0) == number).all()


def test_chunks_change_neither_draws_nor_results(monkeypatch):
    scores, groups = lesions(100)
    names = {"macro_auroc": METRICS["macro_auroc"], "recall": PER_CLASS_METRICS["recall"]}
    whole = resample(scores, groups, names, resamples=64, seed=1)
    monkeypatch.setattr(bootstrap, "CHUNK_NUMBERS", 700)
    small = resample(scores, groups, names, resamples=64, seed=1)
    for name in names:
        np.testing.assert_array_equal(whole[name], small[name])


def test_same_seed_same_interval_other_seed_another():
    scores, groups = lesions()

    def low(seed):
        return estimates(scores, groups, {"a": METRICS["accuracy"]}, resamples=300, level=0.95, seed=seed)["a"].low

    assert low(1) == low(1)
    assert low(1) != low(2)


def test_interval_is_wider_over_lesions_than_over_images():
    """Three equal photographs a lesion say no more than one: the interval must not shrink by the square root of 3."""
    scores, _ = lesions(120, skill=1.0)
    thrice = Scores(np.repeat(scores.labels, 3), np.repeat(scores.probs, 3, axis=0))

    def width(s, groups):
        found = estimates(s, groups, {"a": METRICS["accuracy"]}, resamples=2000, level=0.95, seed=0)["a"]
        return found.high - found.low

    single = width(scores, np.arange(120))
    assert width(thrice, np.repeat(np.arange(120), 3)) == pytest.approx(single, rel=0.08)
    assert width(thrice, np.arange(360)) == pytest.approx(single / np.sqrt(3), rel=0.12)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Accuracy of a coin with bias 0.7, seen in 200 sets of 150 lesions: binomial slack on 90 % is 4 standard errors."""
    generator, covered = np.random.default_rng(9), 0
    for _ in range(200):
        right = generator.random(150) < 0.7
        labels = generator.integers(2, size=150)
        called = np.where(right, labels, 1 - labels)
        scores = Scores(labels, np.eye(2)[called] * 0.8 + 0.1)
        found = estimates(scores, np.arange(150), {"a": METRICS["accuracy"]}, resamples=400, level=0.90, seed=0)["a"]
        covered += found.low <= 0.7 <= found.high
    assert abs(covered / 200 - 0.90) < 4 * np.sqrt(0.9 * 0.1 / 200)


def test_shuffled_labels_have_an_auroc_interval_around_one_half():
    scores, groups = lesions(300, skill=3.0)
    order = np.random.default_rng(0).permutation(300)
    shuffled = Scores(scores.labels[order], scores.probs)
    found = estimates(shuffled, np.arange(300), {"a": METRICS["macro_auroc"]}, resamples=500, level=0.95, seed=0)["a"]
    assert found.low < 0.5 < found.high
    real = estimates(scores, groups, {"a": METRICS["macro_auroc"]}, resamples=500, level=0.95, seed=0)["a"]
    assert real.low > 0.9  # and the control can fail


def test_absent_class_is_not_estimable_and_named():
    scores, groups = lesions(120, classes=3)
    wider = Scores(scores.labels, np.hstack([scores.probs * 0.9, np.full((120, 1), 0.1)]))
    table = {"macro_auroc": METRICS["macro_auroc"], "accuracy": METRICS["accuracy"], "recall": PER_CLASS_METRICS["recall"]}
    found = estimates(wider, groups, table, resamples=200, level=0.95, seed=0, names=["a", "b", "c", "vasc"])
    macro = found["macro_auroc"]
    assert (macro.value, macro.low, macro.high) == (None, None, None)
    assert macro.note == "not estimable (n = 120): no image of vasc"
    assert found["accuracy"].low is not None
    assert found["recall"][3].note == "not estimable (n = 0)"
    assert found["recall"][0].value is not None


def test_three_lesions_have_values_but_no_interval():
    scores, _ = lesions(9, classes=2)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])
    found = estimates(
        Scores(labels, scores.probs),
        labels + np.repeat([0, 0, 1], 3),
        {**METRICS, **PER_CLASS_METRICS},
        resamples=100,
        level=0.95,
        seed=0,
    )
    assert found["accuracy"].value is not None
    assert found["accuracy"].low is None
    assert found["accuracy"].note == "interval not estimable: 3 groups, at least 10 needed"
    assert all(e.low is None for e in found["recall"])


def test_a_class_of_two_lesions_has_no_interval_for_its_own_metrics():
    scores, groups = lesions(200, classes=3)
    rare = np.isin(groups, groups[scores.labels == 2][:1]) | np.isin(groups, groups[scores.labels == 2][-1:])
    keep = (scores.labels != 2) | rare
    found = estimates(
        Scores(scores.labels[keep], scores.probs[keep]), groups[keep],
        {"recall": PER_CLASS_METRICS["recall"], "macro_auroc": METRICS["macro_auroc"]}, resamples=400, level=0.95, seed=0,
    )  # fmt: skip
    assert found["recall"][2].groups == 2
    assert found["recall"][2].low is None
    assert found["recall"][1].low is not None
    assert found["macro_auroc"].value is not None
    assert found["macro_auroc"].low is None  # two lesions are missed by more than 5 % of resamples
    assert found["macro_auroc"].undefined > 20
    assert "undefined in" in found["macro_auroc"].note


def test_five_percent_undefined_is_allowed_and_more_is_not():
    values = np.linspace(0, 1, 100)
    values[:5] = np.nan
    assert estimate(0.5, values, n=50, groups=50, level=0.95).low is not None
    values[5] = np.nan
    assert estimate(0.5, values, n=50, groups=50, level=0.95).low is None


def test_basic_interval_reflects_and_stays_above_zero():
    found = estimate(0.03, np.linspace(0.04, 0.08, 101), n=50, groups=50, level=0.95, interval="basic")
    assert found.low == 0.0
    assert found.high == pytest.approx(0.06 - 0.041)


def test_empty_set_is_not_estimable():
    found = estimates(
        Scores(np.zeros(0, int), np.zeros((0, 3))), [], {**METRICS, **PER_CLASS_METRICS}, resamples=100, level=0.95, seed=0
    )
    assert found["accuracy"].note == "not estimable (n = 0)"
    assert all(e.value is None for e in found["auroc"])


def test_a_class_metric_rests_on_the_images_it_is_a_share_of():
    scores, groups = lesions(120, classes=3)
    table = {name: PER_CLASS_METRICS[name] for name in ("recall", "specificity", "precision", "npv", "false_positive_rate")}
    found = estimates(scores, groups, table, resamples=100, level=0.95, seed=0)
    own, called = (scores.labels == 1).sum(), (scores.predicted == 1).sum()
    expected = {
        "recall": own,
        "specificity": 120 - own,
        "precision": called,
        "npv": 120 - called,
        "false_positive_rate": 120 - own,
    }
    assert {name: found[name][1].n for name in table} == expected


def test_groups_must_be_one_an_image():
    with pytest.raises(ModelError, match="3 groups for 4 images"):
        resample(tally([0, 1, 0, 1], np.full((4, 2), 0.5)).scores, ["a", "b", "c"], METRICS, resamples=10, seed=0)


def test_memory_is_bounded(monkeypatch):
    """No weighting wider than the chunk ever reaches a metric."""
    scores, groups = lesions(1000)
    seen = []

    def spy(t: Tally):
        seen.append(t.weights.size)
        return METRICS["accuracy"](t)

    resample(scores, groups, {"a": spy}, resamples=1000, seed=0)
    assert len(seen) > 5
    assert max(seen) <= bootstrap.CHUNK_NUMBERS


# -- shares of 0 and 1, which no resample moves ------------------------------------------------------------------------


def perfect(groups_of_first: int, groups_of_second: int, images: int = 2) -> tuple[Scores, np.ndarray]:
    """Every answer right; some images a group."""
    labels = np.repeat([0, 1], [images * groups_of_first, images * groups_of_second])
    probs = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    return Scores(labels, probs), np.repeat(np.arange(groups_of_first + groups_of_second), images)


def intervals(scores: Scores, groups: np.ndarray) -> dict:
    tables = {**METRICS, **PER_CLASS_METRICS}
    return estimates(scores, groups, tables, resamples=50, level=0.95, seed=0)


@pytest.mark.parametrize(("groups", "level"), [(1, 0.95), (12, 0.95), (14, 0.9), (300, 0.99)])
def test_the_exact_interval_is_scipys(groups: int, level: float) -> None:
    for share in (0.0, 1.0):
        theirs = binomtest(int(share * groups), groups).proportion_ci(level, method="exact")
        assert bootstrap.exact_interval(share, [groups], level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_twelve_of_twelve_is_no_certainty() -> None:
    """Groups count, not images."""
    found = intervals(*perfect(12, 20))
    assert found["recall"][0].value == 1.0
    assert (round(found["recall"][0].low, 3), found["recall"][0].high) == (0.735, 1.0)
    assert found["recall"][0].note == "all alike: exact interval"
    assert round(found["recall"][1].low, 3) == round(0.025 ** (1 / 20), 3)
    assert round(found["accuracy"].low, 3) == round(0.025 ** (1 / 32), 3)
    assert round(found["false_negative_rate"][0].high, 3) == 0.265


@pytest.mark.parametrize("groups", [(12,), (5, 40), (8, 8, 8), (3, 9, 200)])
def test_the_bound_of_a_mean_is_the_lowest_that_a_search_finds(groups: tuple[int, ...]) -> None:
    """Shares that give all right answers with a probability of 2.5 %, tried at random."""
    generator = np.random.default_rng(0)
    n = np.array(groups)
    parts = generator.dirichlet(np.ones(len(n)), size=200_000)  # of log 0.025, for each class
    means = np.exp(np.log(0.025) * parts / n).mean(axis=1)
    assert bootstrap.exact_interval(1.0, groups, 0.95)[0] == pytest.approx(means.min(), abs=2e-3)
    assert bootstrap.exact_interval(1.0, groups, 0.95)[0] <= means.min() + 1e-9


def test_a_mean_over_classes_counts_each_class_and_a_ranking_its_rarer_side() -> None:
    found = intervals(*perfect(12, 20))
    for name in ("balanced_accuracy", "macro_auroc", "macro_f1"):
        assert found[name].low == bootstrap.exact_interval(1.0, [12, 20], 0.95)[0]
        assert 0.735 < found[name].low < 0.9
    assert [round(one.low, 3) for one in found["auroc"]] == [0.735, 0.735]


def test_none_of_fourteen_can_still_be_a_fifth() -> None:
    scores, groups = perfect(14, 30, images=1)
    found = intervals(Scores(scores.labels, np.tile([[0.2, 0.8]], (44, 1))), groups)
    assert (found["recall"][0].low, round(found["recall"][0].high, 3)) == (0.0, 0.232)


def test_what_is_no_share_has_no_interval_there() -> None:
    found = intervals(*perfect(12, 20))
    for one in (found["kappa"], found["mcc"], found["class_kappa"][0]):
        assert (one.value, one.low, one.note) == (1.0, None, "interval not estimable: every resample gives 1")
    assert found["brier"].low is not None  # 0.02, not a value at which all is said


def test_a_difference_of_equals_stays_nought() -> None:
    scores, groups = perfect(12, 20)
    values, differences = paired(
        {"a": scores, "b": scores}, groups, {"accuracy": METRICS["accuracy"]}, resamples=50, level=0.95, seed=0
    )
    assert values["a"]["accuracy"].low == pytest.approx(0.025 ** (1 / 32))
    one = differences["a", "b"]["accuracy"]
    assert (one.estimate.low, one.estimate.high, one.p_value) == (0.0, 0.0, 1.0)
