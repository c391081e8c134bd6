"""Every row of TASKS: shapes, pooling, calibrators that go through a record, metrics that can be resampled."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dermalyze.calibration.recipes import Samples
from dermalyze.config.task import MulticlassTask, MultilabelTask
from dermalyze.errors import ModelError, UsageError
from dermalyze.metrics.bootstrap import Estimate, estimates
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import TASKS

CLASSES = ["a", "b", "c"]
SPECS = {"multiclass": MulticlassTask(), "multilabel": MultilabelTask()}
TEXTS = {"multiclass": ["a", "b", "c", "b"], "multilabel": ["a|c", "(none)", "b|?c", "b"]}
N = 240
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (N, 3)).astype(np.float32)
GROUPS = [f"g{n // 2}" for n in range(N)]


def targets_of(kind: str) -> np.ndarray:
    """Targets that go with `LOGITS`; of several labels some are missing."""
    noisy = LOGITS + RNG.normal(0, 1, (N, 3))
    if kind == "multiclass":
        return noisy.argmax(axis=1)
    return np.where(RNG.random((N, 3)) < 0.1, -1, noisy > 0).astype(np.int64)


@pytest.fixture(params=TASKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_names_are_told_everywhere_alike(kind: str) -> None:
    assert TASKS[kind].kind == SPECS[kind].kind == kind


def test_targets_of_the_manifests_texts(kind: str) -> None:
    task = TASKS[kind]
    targets = task.targets(TEXTS[kind], CLASSES)
    task.check_targets(targets, 4, 3)
    members = task.membership(targets, 3)
    assert members.shape == (4, 3)
    assert members.dtype == bool
    assert members.sum(axis=0).tolist() == [1, 2, 1]
    assert task.names(TEXTS[kind]) == CLASSES
    assert task.texts(targets, CLASSES) == TEXTS[kind]
    np.testing.assert_array_equal(task.observed(targets, 3) & members, members)
    assert task.right(targets, members).all()
    np.testing.assert_array_equal(task.right(targets, ~members), False)
    task.check_targets(task.unlabelled(2, 3), 2, 3)
    with pytest.raises(ModelError, match=r"no class for labels \['d'\]"):
        task.targets(["d"], CLASSES)


def test_bad_targets_are_refused(kind: str) -> None:
    task = TASKS[kind]
    targets = task.targets(TEXTS[kind], CLASSES)
    for images, classes, broken in ((5, 3, targets), (4, 3, targets + 5), (4, 3, targets - 5)):
        with pytest.raises(ModelError, match="labels"):
            task.check_targets(broken, images, classes)


def test_questions_have_one_answer_each_and_are_joined_again(kind: str) -> None:
    task, targets = TASKS[kind], targets_of(kind)
    choices = task.questions(targets, 3)
    for choice in choices:
        assert choice.targets.shape == (N,)
        assert -1 <= choice.targets.min() <= choice.targets.max() < choice.options
    certain = [np.eye(choice.options)[choice.targets] for choice in choices]
    known = task.observed(targets, 3)
    np.testing.assert_array_equal(task.joined(certain)[known], task.membership(targets, 3)[known])
    probs = task.probabilities(LOGITS)
    np.testing.assert_allclose(task.probabilities(task.logits(probs)), probs)


def test_shares_are_those_of_known_targets(kind: str) -> None:
    task, targets = TASKS[kind], targets_of(kind)
    asked = (targets >= 0).sum(axis=0)
    np.testing.assert_allclose(task.shares(targets, 3), task.membership(targets, 3).sum(axis=0) / asked)


def test_one_pass_is_its_own_answer_and_several_have_the_mean_probability(kind: str) -> None:
    task = TASKS[kind]
    samples: Samples = RNG.normal(0, 3, (20, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(task.pool(samples[:, :1]), samples[:, 0])
    each = np.stack([task.probabilities(samples[:, s]) for s in range(4)])
    np.testing.assert_allclose(task.probabilities(task.pool(samples)), each.mean(axis=0), atol=1e-6)


def test_calibrators_go_through_a_record(kind: str) -> None:
    task, targets = TASKS[kind], targets_of(kind)
    trials = task.cross_validate(LOGITS.astype(float), targets, GROUPS, np.zeros(3))
    assert task.choose_calibrator("auto", trials) in {trial.kind for trial in trials}
    np.testing.assert_allclose(task.calibrator(None, 3)(LOGITS), task.probabilities(LOGITS))
    for trial in trials:
        assert task.choose_calibrator(trial.kind, trials) == trial.kind
        fitted = task.fit_calibrator(trial.kind, LOGITS.astype(float), targets, np.zeros(3))
        decision = task.fit_decision(fitted(LOGITS), targets, CLASSES, SPECS[kind])
        record = json.loads(json.dumps({**fitted.as_dict(), **decision}))
        answering = Answering.read(kind, CLASSES, "plain", record)
        np.testing.assert_array_equal(answering.probabilities(LOGITS), fitted(LOGITS))
        assert answering.called(LOGITS).shape == (N, 3)
        assert answering.plain.calibrator.kind == "none"
    with pytest.raises(ModelError, match="calibrate again"):
        task.calibrator({"kind": "no such", "parameters": {}}, 3)


def test_every_metric_has_an_estimate(kind: str) -> None:
    task, targets = TASKS[kind], targets_of(kind)
    scores = task.scores(targets, task.probabilities(LOGITS))
    overall, each = task.overall_metrics(10), task.class_metrics(10)
    found = estimates(
        scores, GROUPS, {**overall, **each}, resamples=50, level=0.9, seed=0, names=CLASSES, basic=task.basic
    )  # fmt: skip
    for name in overall:
        one = found[name]
        assert isinstance(one, Estimate)
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.high
    for name in each:
        rows = found[name]
        assert isinstance(rows, list)
        assert len(rows) == 3
    assert {*task.headline, *task.brief} <= set(overall)
    assert task.brief_of_class in each
    assert task.basic <= set(overall) | set(each)
    assert {name.removeprefix("val_") for name in task.monitors} - {"loss"} <= set(task.measure(targets, scores.probs))  # type: ignore[attr-defined]
    assert task.methods(10)


def test_what_a_task_lacks_is_refused_in_a_line(kind: str) -> None:
    task = TASKS[kind]
    task.require(*task.capabilities, what="evaluate")
    with pytest.raises(UsageError, match=f"evaluate: needs flight, which task {kind} lacks") as caught:
        task.require(*sorted(task.capabilities), "flight", what="evaluate")
    assert "\n" not in str(caught.value)
