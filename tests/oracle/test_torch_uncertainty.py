"""Risk, uncertainty and calibration against torch-uncertainty on the same arrays; where definitions differ, how they do.

torch-uncertainty counts in float32, so agreement is to about 1e-5.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from dermalyze.models import torch_guard

torch_guard.install()  # before torch_uncertainty, which imports torchvision
torch_uncertainty = pytest.importorskip("torch_uncertainty")

import torch  # noqa: E402
from torch_uncertainty.metrics.classification import (  # noqa: E402
    AUGRC,
    AURC,
    AdaptiveCalibrationError,
    CalibrationError,
    CovAtxRisk,
    Disagreement,
    Entropy,
    MutualInformation,
    RiskAtxCov,
    VariationRatio,
)

from dermalyze.metrics import (  # noqa: E402
    calibration_error,
    selective,
    uncertainty,
)
from dermalyze.metrics.classification import Scores, tally  # noqa: E402


def case(n: int = 300, classes: int = 4, seed: int = 0, absent: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) in float32 without ties of confidence, and labels; of `absent` there is no image."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.7), size=n).astype(np.float32)
    labels = np.array([rng.choice(classes, p=p / p.sum()) for p in probs.astype(float)])
    if absent is not None:
        labels[labels == absent] = (absent + 1) % classes
    assert len(np.unique(probs.max(axis=1))) == n
    return probs, labels


def theirs(metric: object, *arrays: np.ndarray) -> np.ndarray:
    metric.update(*map(torch.from_numpy, arrays))
    return metric.compute().numpy()


def confidence_of(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return probs.max(axis=1).astype(float), (probs.argmax(axis=1) != labels).astype(float)


CASES = [{"seed": 0}, {"seed": 1, "absent": 2}, {"seed": 2, "n": 7}, {"seed": 3, "classes": 2}]


@pytest.mark.parametrize("kind", CASES)
def test_areas_under_risk_curves_differ_by_the_rule_of_integration_alone(kind: dict[str, int]) -> None:
    """Ours is the mean over the N coverages (Geifman 2019; Traub 2024 over the same grid). Theirs is the trapezoid between
    coverages 1/N and 1 divided by that length, so that the two ends count half and the sum has N - 1 steps."""
    probs, labels = case(**kind)
    confidence, wrong = confidence_of(probs, labels)
    n = len(labels)
    coverage, risk = selective.risk_coverage(confidence, wrong)
    for metric, ours, curve in (
        (AURC(), selective.aurc(confidence, wrong), risk),
        (AUGRC(), selective.augrc(confidence, wrong), risk * coverage),
    ):
        assert ours == pytest.approx(curve.mean())
        trapezoid = (n * ours - (curve[0] + curve[-1]) / 2) / (n - 1)
        assert theirs(metric, probs, labels) == pytest.approx(trapezoid, abs=1e-5)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 1.0])
def test_risk_at_a_coverage_and_coverage_at_a_risk(kind: dict[str, int], share: float) -> None:
    probs, labels = case(**kind)
    confidence, wrong = confidence_of(probs, labels)
    coverage, risk = selective.risk_coverage(confidence, wrong)
    answered = confidence >= selective.threshold_for(confidence, share)
    at = theirs(RiskAtxCov(share), probs, labels)
    assert at == pytest.approx(wrong[answered].mean(), abs=1e-5)
    assert at == pytest.approx(risk[answered.sum() - 1], abs=1e-5)
    allowed = float(risk[len(risk) // 2]) + 1e-4  # no risk of the curve is so near that float32 decides
    reached = coverage[risk <= allowed]
    assert theirs(CovAtxRisk(allowed), probs, labels) == pytest.approx(reached.max(), abs=1e-5)


def test_equal_confidences_share_their_errors_here_and_follow_the_file_there() -> None:
    """Ours gives the mean over all orders of equals, whichever order they come in; theirs is that of one order."""
    probs = np.tile(np.array([[0.8, 0.2]], np.float32), (6, 1))
    labels = np.array([0, 1, 0, 0, 1, 0])
    confidence, wrong = confidence_of(probs, labels)
    found = [float(theirs(AURC(), probs, labels[order])) for order in (np.argsort(-labels), np.argsort(labels))]
    ours = {selective.aurc(confidence, wrong[order]) for order in (np.argsort(-labels), np.argsort(labels))}
    assert len(ours) == 1
    assert ours.pop() == pytest.approx(wrong.mean())
    assert max(found) - min(found) > 0.1


def passes(n: int = 60, s: int = 5, c: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(c, 0.6), size=(n, s)).astype(np.float32)


@pytest.mark.parametrize("shape", [{}, {"s": 2, "c": 2, "seed": 1}, {"s": 20, "c": 7, "seed": 2}])
def test_uncertainties_of_several_passes(shape: dict[str, int]) -> None:
    probs = passes(**shape)
    exact = probs.astype(float)
    for metric, ours in (
        (MutualInformation(reduction="none"), uncertainty.mutual_information(exact)),
        (Disagreement(reduction="none"), uncertainty.disagreement(exact)),
        (Entropy(reduction="none"), uncertainty.expected_entropy(exact)),  # theirs of (N, S, C): the mean of the passes'
    ):
        np.testing.assert_allclose(theirs(metric, probs), ours, atol=1e-5)
    mean = exact.mean(axis=1)
    found = theirs(Entropy(reduction="none"), mean.astype(np.float32))
    np.testing.assert_allclose(found, uncertainty.predictive_entropy(exact), atol=1e-5)


def test_the_variation_ratio_is_against_the_most_named_class_here_and_the_mean_answer_there() -> None:
    """Freeman's ratio counts the votes against the class that most passes name; theirs against the class of the highest mean
    probability. They agree wherever the two are one class, and theirs is never smaller."""
    probs = passes(n=400, seed=4)
    metric = VariationRatio(probabilistic=False, reduction="none")
    metric.update(torch.from_numpy(probs.transpose(1, 0, 2).copy()))  # theirs takes (S, N, C)
    found, ours = metric.compute().numpy(), uncertainty.variation_ratio(probs.astype(float))
    votes = np.stack([(probs.argmax(axis=2) == c).mean(axis=1) for c in range(4)], axis=1)
    leader = probs.mean(axis=1).argmax(axis=1)
    one = votes[np.arange(400), leader] == votes.max(axis=1)
    assert 0 < (~one).sum() < 400
    np.testing.assert_allclose(found[one], ours[one], atol=1e-6)
    assert (found[~one] > ours[~one]).all()


def test_equal_passes_are_of_one_mind() -> None:
    probs = np.repeat(passes(s=1), 5, axis=1)
    np.testing.assert_allclose(theirs(MutualInformation(reduction="none"), probs), 0, atol=1e-6)
    assert (uncertainty.mutual_information(probs.astype(float)) == 0).all()
    assert (theirs(Disagreement(reduction="none"), probs) == uncertainty.disagreement(probs.astype(float))).all()


@pytest.mark.parametrize("kind", CASES)
def test_calibration_errors_with_equal_width_and_equal_mass(kind: dict[str, int]) -> None:
    """Equal mass: theirs cuts the sorted row into parts whose sizes differ by one at most, ours at quantiles; the two are the
    same where the bins divide the images."""
    probs, labels = case(**{**kind, "n": 300 if kind.get("n") is None else 10})
    exact = probs.astype(float) / probs.astype(float).sum(axis=1, keepdims=True)
    classes = probs.shape[1]
    width = theirs(CalibrationError("multiclass", num_bins=10, num_classes=classes), probs, labels)
    assert width == pytest.approx(float(calibration_error.ece(tally(labels, exact), 10)[0]), abs=1e-4)
    found = theirs(AdaptiveCalibrationError("multiclass", num_bins=10, num_classes=classes), probs, labels)
    errors = calibration_error.calibration_errors(Scores(labels, exact), np.arange(len(labels)), counts=(10,), simulations=100)
    ours = next(one.value for one in errors if one.binning == "equal mass")
    assert found == pytest.approx(ours, abs=1e-4)


def test_equal_confidences_fall_into_one_bin_here_and_may_be_cut_apart_there() -> None:
    """Half the images are right and all are equally sure: the error of that one bin is |.5 - .9|. Theirs cuts them into bins by
    their order, which then have errors of their own."""
    probs = np.tile(np.array([[0.9, 0.1]], np.float32), (40, 1))
    labels = np.repeat([0, 1], 20)
    exact = np.tile([[0.9, 0.1]], (40, 1))
    errors = calibration_error.calibration_errors(Scores(labels, exact), np.arange(40), counts=(10,), simulations=100)
    assert next(one.value for one in errors if one.binning == "equal mass") == pytest.approx(0.4)
    found = theirs(AdaptiveCalibrationError("multiclass", num_bins=10, num_classes=2), probs, labels)
    assert found == pytest.approx(0.5, abs=1e-5)  # ten bins, five of .1 (all right) and five of .9 (all wrong)
