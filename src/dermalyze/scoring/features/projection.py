"""Ways to lay features out in two dimensions."""

# Shapes: N images, D features.

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from dermalyze.errors import MissingExtraError
from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.features.neighbors import unit
from dermalyze.scoring.features.pca import pca

PERPLEXITY = 30.0
NEIGHBOURS = 15
COMPONENTS = 50
"""Principal components that t-SNE and UMAP start from: noise is dropped, and it is much faster."""


def project_pca(features_ND: NDArray[np.floating], seed: int) -> Floats:
    """(N, 2) the two directions of largest variance; nothing is drawn."""
    return pca(unit(features_ND), 2)[0]


def project_tsne(features_ND: NDArray[np.floating], seed: int) -> Floats:
    """(N, 2) t-SNE from the first 50 principal components; N at least 2.

    van der Maaten & Hinton 2008; started from the principal components, Kobak & Berens 2019, doi:10.1038/s41467-019-13056-x
    """
    from sklearn.manifold import TSNE

    start = pca(unit(features_ND), COMPONENTS)[0]
    perplexity = min(PERPLEXITY, max(1.0, (len(start) - 1) / 3))
    spread = start[:, 0].std() or 1.0
    begin = (start[:, :2] / spread * 1e-4).astype(np.float32)
    # one thread: sums in another order would move the points
    model = TSNE(2, perplexity=perplexity, init=begin, learning_rate="auto", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(start.astype(np.float32)), dtype=np.float64)


def project_umap(features_ND: NDArray[np.floating], seed: int) -> Floats:
    """(N, 2) UMAP from the first 50 principal components.

    Raises:
        MissingExtraError: umap-learn is not installed.

    McInnes et al. 2018, arXiv:1802.03426
    """
    try:
        import umap
    except ImportError:
        raise MissingExtraError("a map by umap", "umap") from None
    start = pca(unit(features_ND), COMPONENTS)[0]
    with warnings.catch_warnings():  # it tells that a seed costs its parallel work
        warnings.simplefilter("ignore")
        model = umap.UMAP(n_neighbors=min(NEIGHBOURS, len(start) - 1), random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(start), dtype=np.float64)


PROJECTIONS: Mapping[str, Callable[[NDArray[np.floating], int], Floats]] = {
    "pca": project_pca,
    "tsne": project_tsne,
    "umap": project_umap,
}
PROJECTION_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
