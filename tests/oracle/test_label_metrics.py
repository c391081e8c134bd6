"""Metrics of labels against scikit-learn, weighted and not, with ties; what is undefined is never a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

from dermalyze.errors import ModelError
from dermalyze.metrics.multilabel import LABEL_METRICS, PER_LABEL_METRICS, LabelScores, ece, measure_labels
from dermalyze.metrics.multilabel_bootstrap import label_estimates

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
    told = label_estimates(LabelScores(y, P, CUT), np.arange(N), asked, resamples=100, level=0.9, seed=0, names=names)
    assert told["macro_auroc"].note == f"not estimable (n = {N}): no image with d"  # type: ignore[union-attr]
    lone = told["auroc"][3]  # type: ignore[index]
    assert (lone.value, lone.low, lone.note) == (None, None, "not estimable (n = 0)")
    assert told["auroc"][0].low < told["auroc"][0].value < told["auroc"][0].high  # type: ignore[index]


def test_groups_are_drawn_whole() -> None:
    """Many photographs of few patients are worth no more than these: the interval is that of one photograph each."""
    asked = {"auroc": PER_LABEL_METRICS["auroc"]}
    options: dict[str, Any] = {"resamples": 400, "level": 0.95, "seed": 0, "names": list("abcde")}
    one = label_estimates(LabelScores(Y, P, CUT), np.arange(N), asked, **options)["auroc"]
    rows = np.repeat(np.arange(N), 5)
    many = label_estimates(LabelScores(Y[rows], P[rows], CUT), rows, asked, **options)["auroc"]
    for few, several in zip(one, many, strict=True):  # type: ignore[call-overload]
        assert (several.low, several.high) == pytest.approx((few.low, few.high))


@pytest.mark.parametrize(
    ("targets", "probs", "said"),
    [
        ([[2, 0]], [[0.1, 0.2]], "0 or 1"),
        ([[1, 0]], [[np.nan, 0.2]], "NaN"),
        ([[1, 0]], [[1.2, 0.2]], "outside"),
        ([1, 0], [[0.1, 0.2]], "shapes|must be"),
    ],
)
def test_bad_scores(targets: Any, probs: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        LabelScores(np.array(targets), np.array(probs), np.array([0.5, 0.5]))
