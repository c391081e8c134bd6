"""Calibration as it is measured: expected calibration error, what chance alone would make of it, the reliability diagram."""

# Shapes: N images, B bins, R weightings.

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.metrics.classification import Scores, Tally, defined
from dermalyze.metrics.ranking import Floats, Ints

ECE_BINS = 15


def confidence_bins(confidence_N: Floats, bins: int) -> Ints:
    """Equal-width bin of each confidence: (0, 1/B], (1/B, 2/B], ..; 0 falls into the first.

    >>> confidence_bins(np.array([0.0, 0.5, 0.51, 1.0]), 2)
    array([0, 0, 1, 1])
    """
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, bins - 1)


def ece(t: Tally, bins: int = ECE_BINS) -> Floats:
    """(R,) expected calibration error of the predicted class's probability over `bins` equal-width bins.

        ECE = sum over bins of n_b / n * |accuracy_b - mean confidence_b|

    Noise raises it: a perfectly calibrated model has ECE above 0 on a finite set.

    >>> from dermalyze.metrics.classification import tally
    >>> ece(tally([0, 1], [[0.8, 0.2], [0.8, 0.2]])).round(3)
    array([0.3])

    Guo et al. 2017, arXiv:1706.04599
    """
    scores = t.scores
    if not len(scores.labels) or scores.ranks_only:
        return np.full(t.weights.shape[1], np.nan)
    confidence = scores.probs.max(axis=1)
    bin_N = confidence_bins(confidence, bins)
    order = np.argsort(bin_N, kind="stable")
    starts = np.unique(bin_N[order], return_index=True)[1]
    excess_N1 = (confidence - (scores.predicted == scores.labels))[:, None]
    gaps = np.abs(np.add.reduceat((excess_N1 * t.weights)[order], starts, axis=0)).sum(axis=0)
    return np.asarray(np.divide(gaps, t.total, out=np.full(gaps.shape, np.nan), where=t.total > 0))


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram; `confidence` and `accuracy` (with its interval) are None where it is empty."""

    lower: float
    upper: float
    n: int
    groups: int
    confidence: float | None
    accuracy: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(vars(self))


def reliability(
    scores: Scores, group_N: npt.NDArray[Any], *, bins: int = ECE_BINS, level: float = 0.95
) -> list[ReliabilityBin]:
    """Mean confidence and accuracy in each bin of the predicted class's probability.

    The interval is Wilson's, with the number of different groups as its sample size: photographs of one group
    are not independent, and this takes them as one.

    >>> scores = Scores(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]))
    >>> reliability(scores, np.array(["a", "b"]), bins=2)[1].accuracy
    0.5
    """
    confidence, hit = scores.probs.max(axis=1) if len(scores.labels) else np.zeros(0), scores.predicted == scores.labels
    bin_N, edges, rows = confidence_bins(confidence, bins), np.linspace(0, 1, bins + 1), []
    for b in range(bins):
        inside = bin_N == b
        n, groups = int(inside.sum()), len(np.unique(group_N[inside]))
        mean, share = (float(confidence[inside].mean()), float(hit[inside].mean())) if n else (np.nan, np.nan)
        low, high = wilson(share, groups, level) if n else (None, None)
        rows.append(ReliabilityBin(float(edges[b]), float(edges[b + 1]), n, groups, defined(mean), defined(share), low, high))
    return rows


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share seen in `n` independent cases (n at least 1); never outside 0..1, never of width 0.

    >>> tuple(round(x, 3) for x in wilson(1.0, 10))
    (0.722, 1.0)

    Wilson 1927, doi:10.1080/01621459.1927.10502953
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, spread = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, float((centre - spread) / scale)), min(1.0, float((centre + spread) / scale))


# -- what a perfectly calibrated model would show ---------------------------------------------------------------------------


def mass_bins(confidence_N: Floats, bins: int) -> Ints:
    """Equal-mass bin of each confidence: about N / B in each, equal values together.

    >>> mass_bins(np.array([0.3, 0.9, 0.4, 0.8]), 2)
    array([0, 1, 0, 1])
    """
    edges = np.quantile(confidence_N, np.linspace(0, 1, bins + 1)[1:-1]) if len(confidence_N) else np.zeros(0)
    return np.asarray(np.searchsorted(edges, confidence_N, side="left"), dtype=np.int64)


BINNINGS = {"equal width": confidence_bins, "equal mass": mass_bins}
SIMULATIONS = 2000


@dataclass(frozen=True)
class CalibrationError:
    """An expected calibration error beside what a perfectly calibrated model would have on a set like this one.

    Attributes:
        binning: a key of `BINNINGS`; bins: how many.
        value: the error of this model; None for an empty set.
        largest: of all bins, the gap between confidence and share right (the maximum calibration error).
        perfect: mean error of the perfectly calibrated model; high: what it exceeds once in twenty times.
        p_value: how often it would have an error as large as this; small means that the model is not calibrated.
    """

    binning: str
    bins: int
    value: float | None
    largest: float | None
    perfect: float | None
    high: float | None
    p_value: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(vars(self))


def calibration_errors(
    scores: Scores,
    group_N: npt.NDArray[Any],
    *,
    counts: tuple[int, ...] = (10, 15),
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> list[CalibrationError]:
    """ECE with each binning and number of bins, and how a perfectly calibrated model would fare.

    A simulated answer is right with the probability that was given for it. Photographs of one group share their luck,
    so that many of them do not pass for many groups.

    >>> errors = calibration_errors(Scores(np.array([0] * 40), np.tile([[0.6, 0.4]], (40, 1))), np.arange(40))
    >>> round(errors[0].value, 3), errors[0].p_value < 0.01
    (0.4, True)

    Bröcker & Smith 2007, doi:10.1175/WAF993.1; Vaicenavicius et al. 2019, arXiv:1902.06977
    """
    found = []
    confidence, hit = scores.probs.max(axis=1) if len(scores.labels) else np.zeros(0), scores.predicted == scores.labels
    number_N = np.unique(group_N, return_inverse=True)[1]
    for binning, assign in BINNINGS.items():
        for bins in counts:
            if not len(confidence):
                found.append(CalibrationError(binning, bins, None, None, None, None, None))
                continue
            bin_N = assign(confidence, bins)
            gap_B1, size_B = _gaps(bin_N, (confidence - hit)[:, None])
            value = float(np.abs(gap_B1[:, 0]).sum() / len(confidence))
            simulated = np.concatenate(
                [
                    _simulated(confidence, number_N, bin_N, part, seed + i)
                    for i, part in enumerate(_chunks(simulations, len(bin_N)))
                ]
            )
            found.append(
                CalibrationError(
                    binning, bins, value, float(np.abs(gap_B1[:, 0] / size_B).max()), float(simulated.mean()),
                    float(np.quantile(simulated, 0.95)), float((1 + (simulated >= value).sum()) / (1 + simulations)),
                )
            )  # fmt: skip
    return found


def _gaps(bin_N: Ints, excess_NS: Floats) -> tuple[Floats, Floats]:
    """Summed confidence minus hits in each bin that is not empty, and how many images it holds."""
    order = np.argsort(bin_N, kind="stable")
    _, starts, size_B = np.unique(bin_N[order], return_index=True, return_counts=True)
    return np.asarray(np.add.reduceat(excess_NS[order], starts, axis=0)), size_B.astype(float)


def _simulated(confidence_N: Floats, number_N: Ints, bin_N: Ints, simulations: int, seed: int) -> Floats:
    luck_GS = np.random.default_rng(seed).random((int(number_N.max()) + 1, simulations), dtype=np.float32)
    excess_NS = confidence_N[:, None] - (luck_GS[number_N] < confidence_N[:, None])
    return np.asarray(np.abs(_gaps(bin_N, excess_NS)[0]).sum(axis=0) / len(confidence_N))


def _chunks(simulations: int, images: int) -> list[int]:
    size = max(1, (1 << 22) // max(1, images))
    return [min(size, simulations - start) for start in range(0, simulations, size)]


def classwise_ece(scores: Scores, bins: int = ECE_BINS) -> float | None:
    """Mean over classes of the calibration error of that class's probability, equal-width bins; None for an empty set.

    Kull et al. 2019, arXiv:1910.12656
    """
    if not len(scores.labels):
        return None
    errors = []
    for c in range(scores.classes):
        p = scores.probs[:, c]
        gap_B1, _ = _gaps(confidence_bins(p, bins), (p - (scores.labels == c))[:, None])
        errors.append(np.abs(gap_B1).sum() / len(p))
    return float(np.mean(errors))


def brier_decomposition(scores: Scores, bins: int = ECE_BINS) -> dict[str, float] | None:
    """The Brier score as reliability - resolution + uncertainty + within, summed over classes, equal-mass bins.

    `within` is what the bins hide (spread of the probabilities inside a bin); with it the parts add up exactly.

    Murphy 1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; Stephenson et al. 2008, doi:10.1175/2007WAF2006116.1
    """
    if not len(scores.labels):
        return None
    reliability = resolution = uncertainty = total = 0.0
    for c in range(scores.classes):
        p, y = scores.probs[:, c], (scores.labels == c).astype(float)
        bin_N = np.unique(mass_bins(p, bins), return_inverse=True)[1]
        n_B = np.bincount(bin_N)
        mean_B, share_B = np.bincount(bin_N, p) / n_B, np.bincount(bin_N, y) / n_B
        reliability += float((n_B * (mean_B - share_B) ** 2).sum() / len(p))
        resolution += float((n_B * (share_B - y.mean()) ** 2).sum() / len(p))
        uncertainty += float(y.mean() * (1 - y.mean()))
        total += float(np.square(p - y).mean())
    within = total - (reliability - resolution + uncertainty)
    return {"reliability": reliability, "resolution": resolution, "uncertainty": uncertainty, "within": within}
