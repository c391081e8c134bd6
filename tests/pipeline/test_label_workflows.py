"""Workflows on runs with any number of labels per image: numbers beside an independent calculation, and what a person reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from painted_labels import LABELS, label_spec, paint_set

import dermalyze
from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.splitting import read_part
from dermalyze.tasks.base import TASKS
from dermalyze.workflows.ensemble import copy_data
from dermalyze.workflows.pipeline import STEPS, run_experiment

MULTILABEL = TASKS["multilabel"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two trainings on one split that differ in their seed."""
    root = tmp_path_factory.mktemp("labels")
    spec = label_spec(paint_set(root / "data", images=120), train={"epochs": 5})
    run_experiment(spec, root / "first")
    other = Run.create(root / "second", spec.model_copy(update={"seed": 1}))
    copy_data(Run(root / "first"), other)
    run_experiment(other.config(), other.root, steps=STEPS[STEPS.index("train") :])
    return Run.open(root / "first"), Run.open(root / "second")


def targets_of(run: Run, part: str) -> np.ndarray:
    """(N, C) of a split."""
    return MULTILABEL.targets(read_part(run, part)["label"].tolist(), LABELS)


# -- fit-check and advise --------------------------------------------------------------------------------------------------


def test_fit_check_knows_chance_and_the_constant_answer_of_labels(two: tuple[Run, Run]) -> None:
    run = two[0]
    found = dermalyze.fit_check(run, run.config()).as_dict()
    shares = targets_of(run, "val").mean(axis=0)
    numbers = found["numbers"]
    assert numbers["majority_accuracy"] == pytest.approx(np.maximum(shares, 1 - shares).mean())
    assert numbers["chance_macro_auroc"] == 0.5
    assert numbers["skill"] == pytest.approx(2 * numbers["val_macro_auroc"] - 1)
    assert numbers["uniform_guess_loss"] == pytest.approx(np.log(2))
    assert found["verdict"] in ("overfitting", "underfitting", "good fit")
    text = " ".join(found["reasons"])
    assert f"always giving the more frequent answer for each label: {numbers['majority_accuracy']:.3f}" in text
    assert "class" not in text


def test_missing_targets_are_no_answers_of_the_constant_one() -> None:
    targets = np.array([[1, 0], [1, -1], [0, -1], [-1, -1]])
    assert MULTILABEL.baseline(targets, 2).accuracy == pytest.approx((2 + 1) / 4)
    assert MULTILABEL.imbalance(targets, 2)[0] == 1.0


def test_advice_measures_imbalance_label_by_label(two: tuple[Run, Run]) -> None:
    run = two[0]
    advice = dermalyze.advise(run, run.config(), device="cpu", measure=False)
    targets = targets_of(run, "train")
    times = max((targets[:, c] == 0).sum() / (targets[:, c] == 1).sum() for c in range(len(LABELS)))
    assert f"the rarest label is absent from {times:.0f} training images for each that has it" in advice.notes
    assert advice.counts == dict(zip(LABELS, targets.sum(axis=0).tolist(), strict=True))
    asked = "none" if times < 3 else "weights"
    assert [one.train["imbalance"]["kind"] for one in advice.settings if "imbalance" in one.train] == [asked]
    assert not any("sampling" in note for note in advice.notes)
    pasted = build_experiment(yaml.safe_load(advice.yaml))
    assert pasted.task == run.config().task
    assert pasted.data.source == run.config().data.source
