"""Recalibration on a part of a new site: by the calibrator that was asked for, beside none and a correction of the shares."""

from __future__ import annotations

import numpy as np
import pytest

from dermalyze.calibration.calibrators import fit
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.metrics.activation import softmax
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.recalibration import build, divide_groups, view
from dermalyze.scoring.predictions import Predictions

CLASSES = ["mel", "nv"]
SPEC = EvaluateSpec(resamples=100)


def site(n: int, share: float, *, sharp: float, seed: int, name: str = "site") -> Predictions:
    """Scores that are `sharp` times what they should be, of a population in which `share` are melanoma."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) > share).astype(np.int64)
    evidence = rng.normal(np.where(labels == 0, 1.0, -1.0), 1.0)  # its log odds are 2 * evidence at even shares
    logits = sharp * np.stack([evidence, -evidence], axis=1)
    meta = {"classes": CLASSES, "set": name, "task": "multiclass", "recipe": "plain"}
    return Predictions([f"{name}{i}" for i in range(n)], [f"g{i}" for i in range(n)], labels, logits, None, meta)


def judged(calibration: str, shift: np.ndarray | None = None, *, sharp: float = 4.0, share: float = 0.1) -> Evaluation:
    known = site(600, 0.5, sharp=sharp, seed=1, name="cal")
    before = fit("temperature", known.logits, known.labels, np.zeros(2))
    answering = known.answering(before.as_dict())
    return Evaluation(
        site(800, share, sharp=sharp, seed=2), SPEC, answering, reference=known, recalibrate=0.5, calibration=calibration,
        training_shift=shift,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "temperature", "prior_temperature", "vector", "isotonic"])
def test_the_calibrator_that_is_asked_for_is_fitted(kind: str) -> None:
    r = build(judged(kind))["recalibration"]
    assert (r["asked"], r["kind"]) == (kind, kind)
    assert list(r["methods"]) == ["none", "prior", "refit"]
    if kind == "none":
        assert r["methods"]["refit"] == r["methods"]["none"]


@pytest.mark.parametrize(("asked", "allowed"), [("auto", {"none", "temperature"}), ("any", {"prior_temperature", "vector"})])
def test_a_choice_left_open_is_made_on_the_new_site(asked: str, allowed: set[str]) -> None:
    j = judged(asked)
    found = build(j)
    assert found["recalibration"]["kind"] in allowed
    shown = view({"task": "multiclass", **found})
    assert shown is not None
    assert shown["left_open"]
    assert len(shown["methods"]) == 3


def test_refit_is_what_a_fit_on_the_chosen_groups_gives_on_the_others() -> None:
    j = judged("vector")
    chosen = divide_groups(j.p.groups, 0.5, SPEC.seed)
    direct = fit("vector", j.p.logits[chosen], j.p.labels[chosen], np.zeros(2))(j.p.logits[~chosen])
    loss = -np.log(direct[np.arange((~chosen).sum()), j.p.labels[~chosen]]).mean()
    found = build(j)["recalibration"]["methods"]["refit"]["log_loss"]
    assert found["after"]["value"] == pytest.approx(loss)
    plain = softmax(j.p.logits[~chosen])
    none = build(j)["recalibration"]["methods"]["none"]["log_loss"]["after"]["value"]
    assert none == pytest.approx(-np.log(plain[np.arange(len(plain)), j.p.labels[~chosen]]).mean(), rel=1e-4)


def test_other_shares_are_gained_by_the_prior_and_by_a_calibrator_that_knows_them() -> None:
    """One melanoma in ten, where the model was made with one in two: a temperature alone cannot say so."""
    gains = {}
    for kind in ("temperature", "prior_temperature", "vector"):
        methods = build(judged(kind))["recalibration"]["methods"]
        gains[kind] = methods["refit"]["log_loss"]["difference"]["high"]
        assert methods["prior"]["log_loss"]["difference"]["high"] < 0
    assert gains["prior_temperature"] < 0
    assert gains["vector"] < 0
    assert gains["temperature"] > gains["prior_temperature"]


def test_what_training_weighed_is_undone_with_the_site_s_shares() -> None:
    shift = np.log([0.2, 0.8]) - np.log([0.5, 0.5])
    plain, weighed = (build(judged("prior_temperature", s))["recalibration"]["parameters"]["shift"] for s in (None, shift))
    np.testing.assert_allclose(np.subtract(weighed, plain), shift)


def test_without_a_reference_there_is_no_prior() -> None:
    j = judged("temperature")
    alone = Evaluation(j.p, SPEC, j.p.answering(), recalibrate=0.5, calibration="temperature")
    assert list(build(alone)["recalibration"]["methods"]) == ["refit"], "and no other softmax than the one there was"
