"""Metrics against scikit-learn and torchmetrics, on sets with ties, absent classes and weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.errors import ModelError
from dermalyze.metrics.agreement import kappa_of, mcc_of
from dermalyze.metrics.classification import (
    METRICS,
    PER_CLASS_METRICS,
    Scores,
    Tally,
    measure,
    partial_auroc,
    pr_curve,
    roc_curve,
    tally,
)
from dermalyze.metrics.ranking import partial_auroc_of, rank


@st.composite
def classified(draw, present=False):
    """Labels and probabilities of 2 to 5 classes; few different scores, so that ties are the rule."""
    classes = draw(st.integers(2, 5))
    n = draw(st.integers(classes, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.integers(classes, size=n)
    if present:
        labels[:classes] = np.arange(classes)
    levels = draw(st.sampled_from([1, 2, 3, 1000]))
    raw = generator.integers(1, levels + 1, size=(n, classes)).astype(float)
    return labels, raw / raw.sum(axis=1, keepdims=True), generator


def agreement(labels, calls, weights):
    """Cohen's kappa and Matthews' correlation, NaN where scikit-learn warns or gives 0 for want of a second class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = len(set(labels[weights > 0])) > 1
        kappa = sk.cohen_kappa_score(labels, calls, sample_weight=weights) if known else np.nan
        both = known and len(set(calls[weights > 0])) > 1
        return kappa, sk.matthews_corrcoef(labels, calls, sample_weight=weights) if both else np.nan


def duel(labels, scores, i, j, weights):
    rows = np.isin(labels, (i, j)) & (weights > 0)
    if len(set(labels[rows])) < 2:
        return np.nan
    return sk.roc_auc_score(labels[rows] == i, scores[rows], sample_weight=weights[rows])


def isic_2024(positive, score, weights, floor):
    """The score as that challenge defines it: scikit-learn's partial area of the mirrored problem, its scaling taken back."""
    if not 0 < weights[positive].sum() < weights.sum():
        return np.nan
    limit = 1 - floor
    scaled = sk.roc_auc_score(~positive, -score, max_fpr=limit, sample_weight=weights)
    least = limit**2 / 2
    return least + (limit - least) * (2 * scaled - 1)


def reference(labels, probs, weights=None):
    """What scikit-learn says, NaN where a value is not defined."""
    classes, predicted, every = probs.shape[1], probs.argmax(axis=1), range(probs.shape[1])
    weights = np.ones(len(labels)) if weights is None else weights
    support = np.array([weights[labels == c].sum() for c in every])
    called = np.array([weights[predicted == c].sum() for c in every])
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=np.nan, sample_weight=weights
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f1 = sk.f1_score(labels, predicted, labels=every, average=None, zero_division=0, sample_weight=weights)
        auroc = np.array([
            sk.roc_auc_score(labels == c, probs[:, c], sample_weight=weights) if 0 < support[c] < weights.sum() else np.nan
            for c in every
        ])  # fmt: skip
        ap = np.array([
            sk.average_precision_score(labels == c, probs[:, c], sample_weight=weights) if support[c] else np.nan for c in every
        ])  # fmt: skip
    precision = np.where((called > 0) & (support > 0), precision, np.nan)
    recall, f1 = np.where(support > 0, recall, np.nan), np.where(support > 0, f1, np.nan)
    onehot = np.eye(classes)[labels]
    kappa, mcc = agreement(labels, predicted, weights)
    each_agreement = np.array([agreement(labels == c, predicted == c, weights) for c in every])
    pairs = [duel(labels, probs[:, i], i, j, weights) for i in every for j in every if i != j]
    others = weights.sum() - support
    false_positive = np.array([weights[(predicted == c) & (labels != c)].sum() for c in every])
    missed = np.array([weights[(predicted != c) & (labels == c)].sum() for c in every])
    uncalled = weights.sum() - called
    with np.errstate(invalid="ignore", divide="ignore"):
        npv = np.where(support > 0, (others - false_positive) / uncalled, np.nan)
        fpr, fnr = false_positive / others, missed / support
    backwards = probs[:, ::-1]  # scikit-learn takes the last of equals first
    top = {
        k: np.average(np.argsort(backwards, axis=1, kind="stable")[:, ::-1][:, :k] == classes - 1 - labels[:, None],
                      axis=0, weights=weights).sum()
        for k in (2, 3)
    }  # fmt: skip
    share = support / weights.sum()
    mean = {
        "accuracy": sk.accuracy_score(labels, predicted, sample_weight=weights),
        "balanced_accuracy": recall.mean(),
        "macro_precision": precision.mean(),
        "macro_recall": recall.mean(),
        "macro_f1": f1.mean(),
        "weighted_precision": (share * precision)[share > 0].sum(),
        "weighted_recall": (share * recall)[share > 0].sum(),
        "weighted_f1": (share * f1)[share > 0].sum(),
        "kappa": kappa,
        "mcc": mcc,
        "top_2_accuracy": top[2],
        "top_3_accuracy": top[3],
        "macro_auroc": auroc.mean(),
        "macro_auroc_ovo": np.mean(pairs),
        "macro_average_precision": ap.mean(),
        "log_loss": sk.log_loss(labels, probs, labels=every, sample_weight=weights),
        "brier": np.average(((probs - onehot) ** 2).sum(axis=1), weights=weights),
    }
    each = {
        "precision": precision, "recall": recall, "f1": f1, "auroc": auroc, "average_precision": ap, "npv": npv,
        "false_positive_rate": fpr, "false_negative_rate": fnr, "specificity": 1 - fpr,
        "class_kappa": each_agreement[:, 0], "class_mcc": each_agreement[:, 1],
        "partial_auroc": np.array([isic_2024(labels == c, probs[:, c], weights, 0.8) for c in every]),
    }  # fmt: skip
    assert each.keys() == PER_CLASS_METRICS.keys()
    return mean, each


@settings(deadline=None, max_examples=80)
@given(classified())
def test_every_metric_equals_scikit_learn(case):
    labels, probs, _ = case
    t = tally(labels, probs)
    mean, each = reference(labels, probs)
    assert mean.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        np.testing.assert_allclose(metric(t)[0], mean[name], atol=1e-9, err_msg=name)
    for name, expected in each.items():
        np.testing.assert_allclose(PER_CLASS_METRICS[name](t)[0], expected, atol=1e-9, err_msg=name)


@settings(deadline=None, max_examples=25)
@given(classified())
def test_weights_are_repetitions_and_equal_scikit_learns_sample_weight(case):
    """Four weightings at once; each equals the set with its rows repeated, and scikit-learn's weighted value."""
    labels, probs, generator = case
    weights = generator.integers(0, 4, size=(len(labels), 4)).astype(float)
    weights[0] = 1  # never empty
    t = tally(labels, probs, weights)
    for r in range(4):
        repeated = np.repeat(np.arange(len(labels)), weights[:, r].astype(int))
        again = tally(labels[repeated], probs[repeated])
        mean, each = reference(labels, probs, weights[:, r])
        for name, metric in METRICS.items():
            np.testing.assert_allclose(metric(t)[r], mean[name], atol=1e-9, err_msg=name)
            np.testing.assert_allclose(metric(t)[r], metric(again)[0], atol=1e-9, err_msg=name)
        for name, metric in PER_CLASS_METRICS.items():
            np.testing.assert_allclose(metric(t)[r], metric(again)[0], atol=1e-9, err_msg=name)
            np.testing.assert_allclose(metric(t)[r], each[name], atol=1e-9, err_msg=name)


@settings(deadline=None, max_examples=60)
@given(classified(present=True))
def test_confusion_and_specificity_equal_scikit_learn(case):
    labels, probs, _ = case
    t, every = tally(labels, probs), range(probs.shape[1])
    np.testing.assert_array_equal(t.confusion[0], sk.confusion_matrix(labels, probs.argmax(axis=1), labels=every))
    for c in every:
        expected = sk.recall_score(labels != c, probs.argmax(axis=1) != c)
        np.testing.assert_allclose(PER_CLASS_METRICS["specificity"](t)[0, c], expected, atol=1e-12)


def test_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch")
    from dermalyze.models import torch_guard

    torch_guard.install()
    tm = pytest.importorskip("torchmetrics.functional.classification")
    generator = np.random.default_rng(3)
    labels, raw = generator.integers(7, size=400), generator.gamma(0.5, size=(400, 7))
    raw[np.arange(400), labels] += 0.5
    probs = raw / raw.sum(axis=1, keepdims=True)
    ours, p, y = measure(labels, probs), torch.tensor(probs), torch.tensor(labels)
    pairs = {
        "accuracy": tm.multiclass_accuracy(p, y, 7, average="micro"),
        "balanced_accuracy": tm.multiclass_accuracy(p, y, 7, average="macro"),
        "macro_f1": tm.multiclass_f1_score(p, y, 7, average="macro"),
        "weighted_f1": tm.multiclass_f1_score(p, y, 7, average="weighted"),
        "macro_precision": tm.multiclass_precision(p, y, 7, average="macro"),
        "macro_auroc": tm.multiclass_auroc(p, y, 7, average="macro"),
        "macro_average_precision": tm.multiclass_average_precision(p, y, 7, average="macro"),
        "kappa": tm.multiclass_cohen_kappa(p, y, 7),
        "mcc": tm.multiclass_matthews_corrcoef(p, y, 7),
        "top_2_accuracy": tm.multiclass_accuracy(p, y, 7, average="micro", top_k=2),
        "top_3_accuracy": tm.multiclass_accuracy(p, y, 7, average="micro", top_k=3),
    }
    for name, theirs in pairs.items():
        assert ours[name] == pytest.approx(float(theirs), abs=1e-5), name


@settings(deadline=None, max_examples=60)
@given(classified(present=True))
def test_roc_curve_is_scikit_learns_and_its_area_is_the_auroc(case):
    labels, probs, _ = case
    aurocs = PER_CLASS_METRICS["auroc"](tally(labels, probs))[0]
    for c in range(probs.shape[1]):
        false, true = roc_curve(labels, probs, c)
        theirs_false, theirs_true, _ = sk.roc_curve(labels == c, probs[:, c], drop_intermediate=False)
        np.testing.assert_allclose(false, theirs_false)
        np.testing.assert_allclose(true, theirs_true)
        assert np.trapezoid(true, false) == pytest.approx(aurocs[c], abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(classified(), st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.95]))
def test_partial_auroc_is_the_area_above_the_floor(case, floor):
    """At floor 0 the whole AUROC; else ISIC 2024's score."""
    labels, probs, _ = case
    t, ones = tally(labels, probs), np.ones(len(labels))
    found = partial_auroc(t, floor=floor)[0]
    if floor == 0:
        np.testing.assert_allclose(found, PER_CLASS_METRICS["auroc"](t)[0], atol=1e-9)
    else:
        expected = [isic_2024(labels == c, probs[:, c], ones, floor) for c in range(probs.shape[1])]
        np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.nanmax(found, initial=0) <= 1 - floor + 1e-9


@settings(deadline=None, max_examples=40)
@given(classified(present=True))
def test_pairwise_auroc_is_scikit_learns(case):
    labels, probs, _ = case
    if probs.shape[1] > 2:  # with two classes scikit-learn takes one column
        expected = sk.roc_auc_score(labels, probs, multi_class="ovo", average="macro", labels=range(probs.shape[1]))
        assert METRICS["macro_auroc_ovo"](tally(labels, probs))[0] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(classified(present=True))
def test_what_changes_nothing(case):
    """The order of images, every image twice, and, for what rests on ranks alone, any rising change of a class's scores."""
    labels, probs, generator = case
    t, order = tally(labels, probs), generator.permutation(len(labels))
    shuffled, twice = tally(labels[order], probs[order]), tally(np.tile(labels, 2), np.tile(probs, (2, 1)))
    for name, metric in {**METRICS, **PER_CLASS_METRICS}.items():
        np.testing.assert_allclose(metric(shuffled)[0], metric(t)[0], atol=1e-9, err_msg=name)
        np.testing.assert_allclose(metric(twice)[0], metric(t)[0], atol=1e-9, err_msg=name)
    ranked = rank(labels == 0, probs[:, 0]), rank(labels == 0, np.exp(3 * probs[:, 0]) - 7)
    for floor in (0.5, 0.8):
        areas = [partial_auroc_of(ranking, np.ones((len(labels), 1)), floor)[0] for ranking in ranked]
        assert areas[0] == pytest.approx(areas[1], abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=40)
@given(classified(present=True))
def test_precision_recall_curve_is_scikit_learns_and_its_area_the_average_precision(case):
    labels, probs, _ = case
    for c in range(probs.shape[1]):
        recall, precision = pr_curve(labels, probs, c)
        theirs_precision, theirs_recall, _ = sk.precision_recall_curve(labels == c, probs[:, c])
        np.testing.assert_allclose(recall, theirs_recall[-2::-1])
        np.testing.assert_allclose(precision, theirs_precision[-2::-1])
        area = PER_CLASS_METRICS["average_precision"](tally(labels, probs))[0, c]
        assert np.sum(np.diff(recall, prepend=0) * precision) == pytest.approx(area, abs=1e-9)


def test_agreement_as_published():
    """Cohen's own table of two psychiatrists (1960, table 1, 200 cases): kappa .492; it needs no truth."""
    table = np.array([[0.44, 0.07, 0.09], [0.05, 0.20, 0.05], [0.01, 0.03, 0.06]]) * 200
    assert float(kappa_of(table)) == pytest.approx(0.492, abs=5e-4)
    assert float(kappa_of(table.T)) == pytest.approx(float(kappa_of(table)))
    assert np.isnan(mcc_of(np.array([[5.0, 0.0], [3.0, 0.0]])))
    assert float(kappa_of(np.array([[5.0, 0.0], [3.0, 0.0]]))) == 0
    assert np.isnan(kappa_of(np.array([[5.0, 3.0], [0.0, 0.0]])))


def test_constant_probabilities_give_auroc_of_one_half():
    labels = np.array([0, 1, 1, 2, 2, 2])
    t = tally(labels, np.full((6, 3), 1 / 3))
    np.testing.assert_array_equal(PER_CLASS_METRICS["auroc"](t)[0], [0.5, 0.5, 0.5])
    assert METRICS["log_loss"](t)[0] == pytest.approx(np.log(3))


def test_undefined_is_none_never_zero():
    """Class 2 is absent, class 1 is never predicted."""
    found = measure([0, 0, 1], [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1]])
    absent = {"balanced_accuracy", "macro_recall", "macro_f1", "macro_precision", "weighted_precision", "macro_auroc"}
    assert {name for name, value in found.items() if value is None} == absent | {
        "macro_average_precision", "macro_auroc_ovo", "mcc"
    }  # fmt: skip
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["weighted_f1"] == pytest.approx(2 / 3 * 0.8)  # the class never predicted has an F1 of 0


def test_an_empty_set_has_no_value_at_all():
    assert set(measure(np.zeros(0, int), np.zeros((0, 4))).values()) == {None}


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        ([[np.nan, 0.5], [0.5, 0.5]], "1 of 2 rows have NaN"),
        ([[0.5, 0.4], [0.5, 0.5]], "1 of 2 rows do not sum to 1"),
        ([[1.5, -0.5], [0.5, 0.5]], "1 of 2 rows are outside 0..1"),
        ([[1.0], [1.0]], "C at least 2"),
    ],
)
def test_probabilities_that_are_none_are_refused(probs, words):
    with pytest.raises(ModelError, match=words) as error:
        Scores(np.array([0, 1]), np.array(probs))
    assert error.value.exit_code == 4


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(ModelError, match=r"must be 0\.\.1"):
        tally([0, 2], [[0.5, 0.5], [0.5, 0.5]])


def test_input_is_not_changed():
    labels, weights = np.array([0, 1, 0, 1]), np.ones((4, 3))
    probs = np.array([[0.5, 0.5], [0.4, 0.6], [0.9, 0.1], [0.9, 0.1]])
    before, t = probs.copy(), Tally(Scores(labels, probs), weights)
    for metric in (*METRICS.values(), *PER_CLASS_METRICS.values()):
        metric(t)
    assert (probs == before).all()
    assert (weights == 1).all()
