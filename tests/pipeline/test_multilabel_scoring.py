"""What only needs scores, where an image has any number of labels: recipes, corrupted and other images, eight bits, models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_labels import LABELS, label_spec, paint_set

from dermalyze.core.run import Run, read_json
from dermalyze.metrics import uncertainty
from dermalyze.metrics.activation import sigmoid
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.score import score
from dermalyze.workflows.pipeline import STEPS, run_experiment

FURTHER = ("flips", "tta", "mc_dropout")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Calibrated, with a network whose head has dropout; every recipe is stored."""
    root = tmp_path_factory.mktemp("scoring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        model = {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear", "dropout": 0.4}}
        spec = label_spec(
            paint_set(root / "data", images=144), model=model, train={"epochs": 2, "batch_size": 16, "threads": 1}
        )
        run_experiment(spec, root / "run", steps=STEPS[: STEPS.index("score")])
        made = Run.open(root / "run")
        score(made, made.config(), recipes=FURTHER, passes=5)
        calibrate(made, made.config())
    return made


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Run:
    """A copy, to be changed."""
    shutil.copytree(run.root, tmp_path / "run")
    return Run.open(tmp_path / "run")


def stored(run: Run, part: str, recipe: str = "plain") -> Predictions:
    return read_predictions(run.predictions_path(part, recipe))


def binary_entropy(p: Any) -> Any:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


# -- recipes --------------------------------------------------------------------------------------------------------


def test_further_recipes_answer_with_the_mean_probability_of_each_label(run: Run) -> None:
    for part in ("val", "cal", "test"):
        plain = stored(run, part)
        for recipe, passes in zip(FURTHER, (4, 7, 5), strict=True):
            p = stored(run, part, recipe)
            assert (p.ids, p.groups, p.labels.tolist(), p.meta["task"]) == (
                plain.ids, plain.groups, plain.labels.tolist(), "multilabel",
            )  # fmt: skip
            assert p.samples is not None
            assert p.samples.shape == (len(p), passes, len(LABELS))
            np.testing.assert_allclose(p.probs(), sigmoid(p.samples).mean(axis=1), atol=1e-6)
            assert p.samples.std(axis=1).max() > 1e-3, "passes that do not differ compare nothing"


def test_each_recipe_has_its_own_calibration_and_thresholds(run: Run) -> None:
    """What is called from each threshold has the largest F1 that any threshold gives."""
    served = read_json(run.calibration_path("plain"))["calibration"]
    assert read_json(run.artifact_record_path)["calibration"] == served
    for recipe in FURTHER:
        p, known = stored(run, "cal", recipe), read_json(run.calibration_path(recipe))["calibration"]
        assert known["images"] == len(p)
        assert known["thresholds"] != served["thresholds"]
        answering = p.task.calibrator(known, len(LABELS))
        probs_NC = answering(p.logits.astype(np.float64))
        for c, name in enumerate(LABELS):
            has_N, values = p.labels[:, c] == 1, probs_NC[:, c]

            def f1(threshold: float, has_N: Any = has_N, values: Any = values) -> float:
                called_N = values >= threshold
                return float(2 * (called_N & has_N).sum() / (called_N.sum() + has_N.sum()))

            assert f1(known["thresholds"][name]) == pytest.approx(max(map(f1, values)))
    result = calibrate(run, run.config())
    assert [one.recipe for one in result.further] == sorted(FURTHER)
    text = "\n".join(result.lines())
    assert "recipe mc_dropout, to be compared" in text
    assert "class" not in text


def test_uncertainty_of_the_passes_adds_up_over_labels(run: Run) -> None:
    p = stored(run, "test", "mc_dropout")
    probs_NSC = p.sample_probs()
    assert probs_NSC is not None
    found = {name: uncertainty.summed(of, p.task.choices(probs_NSC)) for name, of in uncertainty.SOURCES.items()}
    total_N = binary_entropy(probs_NSC.mean(axis=1)).sum(axis=1)
    each_N = binary_entropy(probs_NSC).mean(axis=1).sum(axis=1)
    called_NSC, passes = probs_NSC > 0.5, probs_NSC.shape[1]
    minority_NC = np.minimum(called_NSC.sum(axis=1), (~called_NSC).sum(axis=1))
    np.testing.assert_allclose(found["predictive_entropy"], total_N, atol=1e-12)
    np.testing.assert_allclose(found["expected_entropy"], each_N, atol=1e-12)
    np.testing.assert_allclose(found["mutual_information"], total_N - each_N, atol=1e-12)
    np.testing.assert_allclose(found["variance"], 2 * probs_NSC.var(axis=1).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(found["variation_ratio"], (minority_NC / passes).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(p.task.doubt(p.probs()), total_N, atol=1e-6)
