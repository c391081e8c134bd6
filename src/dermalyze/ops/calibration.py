"""Calibration as it is measured: expected calibration error and the reliability diagram."""

# Shapes: N images, B bins, R weightings.

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.ops.metrics import Scores, Tally, defined
from dermalyze.ops.ranking import Floats, Ints

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

    >>> from dermalyze.ops.metrics import tally
    >>> ece(tally([0, 1], [[0.8, 0.2], [0.8, 0.2]])).round(3)
    array([0.3])

    Guo et al. 2017, arXiv:1706.04599
    """
    scores = t.scores
    if not len(scores.labels):
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

    The interval is Wilson's, with the number of different groups (lesions) as its sample size: photographs of one lesion
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
