"""Conformal sets in the report: by class and by subgroup, against a plain loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dermalyze.calibration.conformal import calibrate_conformal
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.report import conformal as sets
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.scoring.predictions import Predictions

CLASSES = ["mel", "nv", "vasc"]


def predictions(n, seed, part):
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=n)
    logits = generator.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    meta = {"classes": CLASSES, "set": part, "task": "multiclass", "recipe": "plain"}
    return Predictions([f"{part}{k}" for k in range(n)], [f"{part}-g{k}" for k in range(n)], labels, logits, None, meta)


@pytest.fixture(scope="module")
def judged():
    p = predictions(240, 1, "test")
    rows = pd.DataFrame({"sex": ["female", "male", None] * 80, "age": 40.0}, index=p.ids)
    return Evaluation(p, EvaluateSpec(resamples=100), p.answering(), None, predictions(300, 2, "cal"), rows)


@pytest.mark.parametrize("by_class", [False, True])
def test_coverage_and_size_by_class_and_subgroup_are_plain_means(judged, by_class):
    found = sets.build(judged)["conformal"]
    name, reference, p = f"lac {'by class' if by_class else 'marginal'}", judged.reference, judged.p
    rule = calibrate_conformal(
        reference.probs(), reference.labels, reference.groups, CLASSES, score="lac", level=0.9, by_class=by_class, seed=0
    )
    inside = [[bool(one) for one in row] for row in rule.of(p.probs(), CLASSES)]
    covered = np.array([row[label] for row, label in zip(inside, p.labels, strict=True)])
    size = np.array([sum(row) for row in inside])
    for c, label in enumerate(CLASSES):
        of_class = found["rules"][name]["by_class"][label]
        assert of_class["value"] == pytest.approx(covered[p.labels == c].mean())
        assert of_class["size"]["value"] == pytest.approx(size[p.labels == c].mean())
    assert [(one["column"], one["level"], one["images"]) for one in found["by_subgroup"]] == [
        ("sex", "female", 80), ("sex", "male", 80), ("sex", "unknown", 80),
    ]  # fmt: skip
    for one in found["by_subgroup"]:
        among = judged.rows["sex"].fillna("unknown").to_numpy() == one["level"]
        assert one[name]["coverage"]["value"] == pytest.approx(covered[among].mean())
        assert one[name]["size"]["value"] == pytest.approx(size[among].mean())
        assert one[name]["coverage"]["low"] < one[name]["coverage"]["value"] < one[name]["coverage"]["high"]


def test_without_a_calibration_part_there_are_no_sets(judged):
    from dataclasses import replace

    assert sets.build(replace(judged, reference=None)) == {"conformal": None}
    assert sets.view({"conformal": None}) is None
