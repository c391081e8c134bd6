"""Many features in two dimensions by principal components, and how much of what is near stays near."""

# Shapes: N images, D features.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.features.neighbors import cosine_distances


def pca(features_ND: NDArray[np.floating], dimensions: int) -> tuple[Floats, Floats]:
    """Principal components: the directions of largest variance, the largest first.

    The sign of each is such that its largest loading (by size) is positive, so that the same features give the same image.

    Args:
        features_ND: N at least 2.
        dimensions: at most min(N, D); columns of zeros stand where there are fewer.

    Returns:
        coordinates (N, dimensions), and the share of the variance of each, 0..1.

    >>> pca(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), 1)
    (array([[-2.],
           [ 0.],
           [ 2.]]), array([1.]))

    Pearson 1901, doi:10.1080/14786440109462720
    """
    centred = np.asarray(features_ND, np.float64) - np.asarray(features_ND, np.float64).mean(axis=0)
    small = min(centred.shape)
    if centred.shape[0] > centred.shape[1]:  # the covariance is the smaller problem
        variance, directions = np.linalg.eigh(centred.T @ centred)
        variance, loadings = variance[::-1][:small].clip(min=0), directions[:, ::-1].T[:small]
    else:
        _, spread, loadings = np.linalg.svd(centred, full_matrices=False)
        variance = spread**2
    kept = loadings[:dimensions]
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)])
    found = np.zeros((len(centred), dimensions))
    found[:, : len(kept)] = centred @ (kept * np.where(signs == 0, 1, signs)[:, None]).T
    shares = np.zeros(dimensions)
    total = variance.sum()
    if total > 0:
        shares[: len(kept)] = variance[:dimensions] / total
    return found, shares


def kept_neighbours(features_ND: NDArray[np.floating], map_N2: Floats, k: int) -> float:
    """Share of each image's k nearest on the map that are among its k nearest by features (cosine), 0..1.

    By chance it is k / (N - 1). It says how far a map's neighbourhoods may be believed, and nothing of larger distances.

    Args:
        k: 1..N-1.

    >>> ring = np.array([[np.cos(a), np.sin(a)] for a in np.arange(8.0)])
    >>> kept_neighbours(ring, ring, 2)
    1.0
    """
    hits = 0
    squared = (map_N2**2).sum(axis=1)
    for rows, far in cosine_distances(features_ND, features_ND):
        flat = squared[rows, None] + squared - 2 * map_N2[rows] @ map_N2.T
        own = np.arange(rows.start, rows.stop)
        for distances in (far, flat):
            distances[own - rows.start, own] = np.inf
        near, shown = (np.argpartition(distances, k - 1, axis=1)[:, :k] for distances in (far, flat))
        hits += int((near[:, :, None] == shown[:, None, :]).sum())
    return hits / (len(map_N2) * k)
