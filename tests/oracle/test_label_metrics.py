"""Metrics of labels against scikit-learn, weighted and not, with ties; what is undefined is never a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

from dermalyze.errors import ModelError
from dermalyze.metrics.bootstrap import estimates, group_index, group_weights, not_estimable, resample
from dermalyze.metrics.multilabel import LABEL_METRICS, PER_LABEL_METRICS, LabelScores, ece, measure_labels

RNG = np.random.default_rng(3)
N, C = 240, 5
Y = (RNG.random((N, C)) < [0.5, 0.3, 0.1, 0.05, 0.7]).astype(int)
P = np.clip(0.35 * Y + 0.65 * RNG.random((N, C)), 0, 1).round(2)  # with ties
CUT = np.array([0.5, 0.4, 0.3, 0.6, 0.55])
CALLED = P >= CUT
WEIGHTS = RNG.integers(0, 4, (N, 3)).astype(float)


def specificity(y: Any, called: Any, w: Any) -> float:
    return float(sk.recall_score(1 - y, 1 - called, sample_weight=w))


OF_LABELS = {
    "auroc": lambda y, p, called, w: sk.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, called, w: sk.average_precision_score(y, p, sample_weight=w),
    "f1": lambda y, p, called, w: sk.f1_score(y, called, sample_weight=w),
    "recall": lambda y, p, called, w: sk.recall_score(y, called, sample_weight=w),
    "specificity": lambda y, p, called, w: specificity(y, called.astype(int), w),
    "precision": lambda y, p, called, w: sk.precision_score(y, called, sample_weight=w),
    "brier": lambda y, p, called, w: sk.brier_score_loss(y, p, sample_weight=w),
}
OF_ALL = {
    "micro_auroc": lambda w: sk.roc_auc_score(Y, P, average="micro", sample_weight=w),
    "micro_average_precision": lambda w: sk.average_precision_score(Y, P, average="micro", sample_weight=w),
    "micro_f1": lambda w: sk.f1_score(Y, CALLED, average="micro", sample_weight=w),
    "subset_accuracy": lambda w: sk.accuracy_score(Y, CALLED, sample_weight=w),
    "hamming_loss": lambda w: sk.hamming_loss(Y, CALLED, sample_weight=w),
    "ranking_average_precision": lambda w: sk.label_ranking_average_precision_score(Y, P, sample_weight=w),
    "log_loss": lambda w: np.mean([sk.log_loss(Y[:, c], P[:, c], sample_weight=w, labels=[0, 1]) for c in range(C)]),
}


@pytest.mark.parametrize("name", OF_LABELS)
def test_a_label(name: str) -> None:
    found = PER_LABEL_METRICS[name](LabelScores(Y, P, CUT).under(WEIGHTS))
    for r in range(3):
        expected = [OF_LABELS[name](Y[:, c], P[:, c], CALLED[:, c], WEIGHTS[:, r]) for c in range(C)]
        np.testing.assert_allclose(found[r], expected, rtol=1e-12)


@pytest.mark.parametrize("name", OF_ALL)
def test_all_labels(name: str) -> None:
    found = LABEL_METRICS[name](LabelScores(Y, P, CUT).under(WEIGHTS))
    np.testing.assert_allclose(found, [OF_ALL[name](WEIGHTS[:, r]) for r in range(3)], rtol=1e-12)


def test_macro_is_the_mean() -> None:
    whole = LabelScores(Y, P, CUT).under(np.ones((N, 1)))
    for name in ("auroc", "average_precision", "f1", "recall", "specificity", "precision", "brier"):
        assert LABEL_METRICS[f"macro_{name}"](whole)[0] == pytest.approx(PER_LABEL_METRICS[name](whole)[0].mean(), rel=1e-12)


def test_every_metric_has_an_oracle() -> None:
    assert set(PER_LABEL_METRICS) == {*OF_LABELS, "ece"}
    assert {name for name in LABEL_METRICS if not name.startswith("macro_")} == set(OF_ALL)


def test_ece_of_a_label() -> None:
    expected = []
    for c in range(C):
        inside = [(P[:, c] > k / 10) & (P[:, c] <= (k + 1) / 10) if k else P[:, c] <= 0.1 for k in range(10)]
        expected.append(sum(rows.sum() * abs(P[rows, c].mean() - Y[rows, c].mean()) for rows in inside if rows.any()) / N)
    np.testing.assert_allclose(ece(LabelScores(Y, P, CUT).under(np.ones((N, 1))), 10)[0], expected, rtol=1e-9)


def test_a_resample_is_a_weighting() -> None:
    """Twice an image is the image of weight two, for every metric."""
    twice = np.concatenate([np.arange(N), np.arange(0, N, 3)])
    weights = np.bincount(twice, minlength=N).astype(float)[:, None]
    for metric in {**LABEL_METRICS, **PER_LABEL_METRICS}.values():
        weighed = metric(LabelScores(Y, P, CUT).under(weights))
        np.testing.assert_allclose(
            weighed, metric(LabelScores(Y[twice], P[twice], CUT).under(np.ones((len(twice), 1)))), rtol=1e-12
        )


def test_what_is_undefined_is_none() -> None:
    y = Y.copy()
    y[:, 3] = 0
    found = measure_labels(y, P, CUT)
    assert found["macro_auroc"] is None
    assert found["macro_f1"] is None
    assert found["subset_accuracy"] is not None
    asked = {"macro_auroc": LABEL_METRICS["macro_auroc"], "auroc": PER_LABEL_METRICS["auroc"]}
    names = list("abcde")
    told = estimates(LabelScores(y, P, CUT), np.arange(N), asked, resamples=100, level=0.9, seed=0, names=names)
    assert told["macro_auroc"].note == f"not estimable (n = {N}): no image with d"  # type: ignore[union-attr]
    lone = told["auroc"][3]  # type: ignore[index]
    assert (lone.value, lone.low, lone.note) == (None, None, "not estimable (n = 0)")
    assert told["auroc"][0].low < told["auroc"][0].value < told["auroc"][0].high  # type: ignore[index]


def test_groups_are_drawn_whole() -> None:
    """Many photographs of few patients are worth no more than these: the interval is that of one photograph each."""
    asked = {"auroc": PER_LABEL_METRICS["auroc"]}
    options: dict[str, Any] = {"resamples": 400, "level": 0.95, "seed": 0, "names": list("abcde")}
    one = estimates(LabelScores(Y, P, CUT), np.arange(N), asked, **options)["auroc"]
    rows = np.repeat(np.arange(N), 5)
    many = estimates(LabelScores(Y[rows], P[rows], CUT), rows, asked, **options)["auroc"]
    for few, several in zip(one, many, strict=True):  # type: ignore[call-overload]
        assert (several.low, several.high) == pytest.approx((few.low, few.high))


@pytest.mark.parametrize(
    ("targets", "probs", "said"),
    [
        ([[2, 0]], [[0.1, 0.2]], "1, 0 or -1"),
        ([[1, 0]], [[np.nan, 0.2]], "NaN"),
        ([[1, 0]], [[1.2, 0.2]], "outside"),
        ([1, 0], [[0.1, 0.2]], "shapes|must be"),
    ],
)
def test_bad_scores(targets: Any, probs: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        LabelScores(np.array(targets), np.array(probs), np.array([0.5, 0.5]))


# -- missing targets -----------------------------------------------------------------------------------------------

GAPS = np.random.default_rng(11).random((N, C)) < [0.0, 0.2, 0.5, 0.1, 0.8]
PARTLY = np.where(GAPS, -1, Y)
OF_PAIRS = {
    "micro_auroc": lambda y, p, called, w: sk.roc_auc_score(y, p, sample_weight=w),
    "micro_average_precision": lambda y, p, called, w: sk.average_precision_score(y, p, sample_weight=w),
    "micro_f1": lambda y, p, called, w: sk.f1_score(y, called, sample_weight=w),
    "hamming_loss": lambda y, p, called, w: sk.zero_one_loss(y, called, sample_weight=w),
    "log_loss": lambda y, p, called, w: sk.log_loss(y, p, sample_weight=w),
}


@pytest.mark.parametrize("name", PER_LABEL_METRICS)
def test_a_missing_target_drops_its_image_for_its_label_alone(name: str) -> None:
    found = PER_LABEL_METRICS[name](LabelScores(PARTLY, P, CUT).under(WEIGHTS))
    for c in range(C):
        rows = ~GAPS[:, c]
        alone = LabelScores(Y[rows], P[rows], CUT).under(WEIGHTS[rows])
        np.testing.assert_allclose(found[:, c], PER_LABEL_METRICS[name](alone)[:, c], rtol=1e-12)
        if name in OF_LABELS:
            expected = [OF_LABELS[name](Y[rows, c], P[rows, c], CALLED[rows, c], WEIGHTS[rows, r]) for r in range(3)]
            np.testing.assert_allclose(found[:, c], expected, rtol=1e-12)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_pairs_with_a_missing_target_are_dropped(name: str) -> None:
    found = LABEL_METRICS[name](LabelScores(PARTLY, P, CUT).under(WEIGHTS))
    there = ~GAPS
    for r in range(3):
        weights = np.repeat(WEIGHTS[:, [r]], C, axis=1)[there]
        assert found[r] == pytest.approx(OF_PAIRS[name](Y[there], P[there], CALLED[there], weights), rel=1e-12)


def test_images_are_judged_by_the_labels_that_were_looked_for() -> None:
    targets, probs = (
        np.array([[1, -1, 0], [-1, -1, -1], [1, 0, 1]]),
        np.array([[0.9, 0.9, 0.1], [0.9, 0.9, 0.9], [0.4, 0.6, 0.7]]),
    )
    t = LabelScores(targets, probs, np.full(3, 0.5)).under(np.array([[1.0], [5.0], [3.0]]))
    assert LABEL_METRICS["subset_accuracy"](t).tolist() == [1 / 4]  # the image without any target has no weight
    ranked = sk.label_ranking_average_precision_score([[1, 0, 1]], probs[2:])
    assert LABEL_METRICS["ranking_average_precision"](t)[0] == pytest.approx((1 + 3 * ranked) / 4)


def test_intervals_with_missing_targets_are_those_of_the_rows_that_are_there() -> None:
    """Brute force: each resample is a data set of its own, in which an image without the target does not stand."""
    groups, r = np.arange(N) // 2, 40
    asked = {name: PER_LABEL_METRICS[name] for name in ("auroc", "f1", "specificity", "brier", "ece")}
    options: dict[str, Any] = {"resamples": r, "seed": 4}
    resampled = resample(LabelScores(PARTLY, P, CUT), groups, asked, **options)
    index, count = group_index(groups)
    drawn = np.concatenate([*group_weights(index, count, r, 4)], axis=1).astype(int)
    for k in range(r):
        for c in range(C):
            rows = np.repeat(np.arange(N), drawn[:, k] * ~GAPS[:, c])
            alone = LabelScores(Y[rows], P[rows], CUT).under(np.ones((len(rows), 1)))
            for name, metric in asked.items():
                assert resampled[name][k, c] == pytest.approx(metric(alone)[0, c], rel=1e-9)
    told = estimates(LabelScores(PARTLY, P, CUT), groups, asked, level=0.9, names=list("abcde"), **options)
    for c in range(C):
        there, has = ~GAPS[:, c], (Y[:, c] == 1) & ~GAPS[:, c]
        lacks, auroc = there & ~has, told["auroc"][c]  # type: ignore[index]
        assert (auroc.n, auroc.groups) == (has.sum(), len(set(groups[has])))
        assert told["specificity"][c].n == lacks.sum()  # type: ignore[index]
        assert told["brier"][c].n == there.sum()  # type: ignore[index]
        assert [auroc.low, auroc.high] == pytest.approx(np.quantile(resampled["auroc"][:, c], [0.05, 0.95]))


def test_a_label_that_few_groups_were_asked_for_has_no_interval() -> None:
    targets = Y.copy()
    targets[8:, 4] = -1
    asked = {"brier": PER_LABEL_METRICS["brier"], "recall": PER_LABEL_METRICS["recall"]}
    told = estimates(LabelScores(targets, P, CUT), np.arange(N), asked, resamples=50, level=0.9, seed=0)
    for name in asked:
        assert told[name][0].low is not None  # type: ignore[index]
        lone = told[name][4]  # type: ignore[index]
        assert lone.low is None
        assert "at least 10 needed" in lone.note


def test_a_label_of_which_every_target_is_missing_is_undefined_and_named() -> None:
    targets = Y.copy()
    targets[:, 1] = -1
    asked = {
        "macro_auroc": LABEL_METRICS["macro_auroc"],
        "auroc": PER_LABEL_METRICS["auroc"],
        "brier": PER_LABEL_METRICS["brier"],
    }
    told = estimates(LabelScores(targets, P, CUT), np.arange(N), asked, resamples=50, level=0.9, seed=0, names=list("abcde"))
    assert told["macro_auroc"].note == f"not estimable (n = {N}): no image with b; no image without b"  # type: ignore[union-attr]
    assert [told[name][1].note for name in ("auroc", "brier")] == [not_estimable(0)] * 2  # type: ignore[index]


# -- counts of pixels can join ---------------------------------------------------------------------------------------


class Overlap:
    """True positives, false positives and false negatives of masks (N, 1, 3): all that a bootstrap of Dice needs."""

    classes = 1

    def __init__(self, counts: Any) -> None:
        self.counts = counts

    def __len__(self) -> int:
        return len(self.counts)

    def under(self, weights: Any) -> Any:
        return np.einsum("nck,nr->rck", self.counts, weights)

    def rests_on(self, metric: str | None, c: int | None) -> Any:
        return np.ones(len(self), dtype=bool) if c is None or metric is None else self.counts[:, c, [0, 2]].any(axis=1)

    def why_undefined(self, names: Any) -> str:
        return "no mask"


def test_the_same_bootstrap_serves_counts_of_pixels() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (60, 1, 3)).astype(float)
    dice = {"dice": lambda t: 2 * t[..., 0] / (2 * t[..., 0] + t[..., 1] + t[..., 2])}
    told = estimates(Overlap(counts), np.arange(60), dice, resamples=200, level=0.9, seed=0)["dice"][0]  # type: ignore[index]
    whole = counts.sum(axis=0)[0]
    assert told.value == pytest.approx(2 * whole[0] / (2 * whole[0] + whole[1] + whole[2]))
    assert told.low < told.value < told.high
