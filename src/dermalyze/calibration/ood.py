"""Out-of-distribution scores: how unlike an image is to those that a model learned from. Larger is less like them.

Each score is fitted on the training split and kept as a few float32 arrays, which are what is measured and what is served.
"""

# Shapes: N images, C classes, D width of the embedding, K classes seen in training, M remembered embeddings.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermalyze.errors import ModelError, nearest
from dermalyze.metrics.activation import softmax
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.rng import permutation

Arrays = dict[str, npt.NDArray[np.float32]]

NEIGHBOUR, REMEMBERED = 10, 2000
"""k of the nearest neighbours, and how many training embeddings are kept at most: k = 10 belongs to a thin sample (Sun 2022,
table 4: k grows with the share of the training split that is kept)."""
KEPT = 0.95
"""Share of the calibration split that the threshold lets through."""
_TINY = 1e-12
MAX_OOD_BYTES = 256 * 2**20
"""Of the fitted arrays: they are read into memory where the model is served."""


def max_softmax(arrays: Arrays, logits_NC: Floats, embedding_ND: Floats) -> Floats:
    """1 - the largest probability. Hendrycks & Gimpel 2017, arXiv:1610.02136

    >>> max_softmax({}, np.array([[0.0, 0.0], [9.0, -9.0]]), np.zeros((2, 1))).round(3).tolist()
    [0.5, 0.0]
    """
    return np.asarray(1 - softmax(logits_NC).max(axis=1))


def energy(arrays: Arrays, logits_NC: Floats, embedding_ND: Floats) -> Floats:
    """-log sum exp of the logits, at temperature 1. Liu et al. 2020, arXiv:2010.03759

    >>> energy({}, np.array([[0.0, 0.0], [9.0, 0.0]]), np.zeros((2, 1))).round(3).tolist()
    [-0.693, -9.0]
    """
    return np.asarray(-np.logaddexp.reduce(logits_NC, axis=1))


def relative_mahalanobis(arrays: Arrays, logits_NC: Floats, embedding_ND: Floats) -> Floats:
    """Squared distance to the nearest class, less that to all training images: min_k d_k^2 - d_0^2.

    In the coordinates z that `fit_relative_mahalanobis` makes, the covariance within classes is the unit matrix and that of
    all images is diagonal, so that one matrix serves both distances.

    Ren et al. 2021, arXiv:2106.09022
    """
    z_ND = (embedding_ND - arrays["centre"]) @ arrays["basis"].T.astype(np.float64)
    means_KD = arrays["means"].astype(np.float64)
    squares_NK = (z_ND**2).sum(axis=1)[:, None] - 2 * z_ND @ means_KD.T + (means_KD**2).sum(axis=1)
    return np.asarray(squares_NK.min(axis=1) - (z_ND**2 / arrays["spread"]).sum(axis=1))


def knn(arrays: Arrays, logits_NC: Floats, embedding_ND: Floats) -> Floats:
    """Distance on the unit sphere to the k-th nearest remembered embedding. Sun et al. 2022, arXiv:2204.06507"""
    remembered_MD = np.asarray(arrays["remembered"], dtype=np.float32)  # as stored; the product costs half of one in float64
    k, length_M = min(NEIGHBOUR, len(remembered_MD)), np.einsum("md,md->m", remembered_MD, remembered_MD)
    found = np.empty(len(embedding_ND))
    for start in range(0, len(found), 1024):  # 1024 x 2000 distances are 16 MiB
        unit_BD = unit_rows(embedding_ND[start : start + 1024]).astype(np.float32)
        squares_BM = np.einsum("bd,bd->b", unit_BD, unit_BD)[:, None] - 2 * (unit_BD @ remembered_MD.T) + length_M
        found[start : start + 1024] = np.sqrt(np.maximum(0, np.partition(squares_BM, k - 1, axis=1)[:, k - 1]))
    return found


def unit_rows(embedding_ND: npt.NDArray[Any]) -> Floats:
    """Rows of length 1; a row of zeros stays."""
    values = np.asarray(embedding_ND, dtype=np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _TINY))


def fit_nothing(logits_NC: Floats, embedding_ND: Floats, labels_N: Ints, seed: int) -> Arrays:
    """A score without parameters."""
    return {}


def fit_energy(logits_NC: Floats, embedding_ND: Floats, labels_N: Ints, seed: int) -> Arrays:
    """Nothing; refused where the logits are log-probabilities (a recipe that averages views), whose energy is always 0."""
    if np.abs(energy({}, logits_NC, embedding_ND)).max() < 1e-3:
        raise ModelError("the recipe averages probabilities, and the energy of those is always 0")
    return {}


def fit_relative_mahalanobis(logits_NC: Floats, embedding_ND: Floats, labels_N: Ints, seed: int) -> Arrays:
    """Class means, and coordinates in which both covariances are diagonal; see `relative_mahalanobis`.

    Both covariances are shrunk (`shrunk_covariance`), so that more dimensions than images do no harm.
    """
    seen = np.unique(labels_N)
    centre_D = embedding_ND.mean(axis=0)
    means_KD = np.stack([embedding_ND[labels_N == c].mean(axis=0) for c in seen])
    within_DD = shrunk_covariance(embedding_ND - means_KD[np.searchsorted(seen, labels_N)])
    whole_DD = shrunk_covariance(embedding_ND - centre_D)
    try:
        root_DD = np.linalg.cholesky(within_DD)
    except np.linalg.LinAlgError:
        raise ModelError("the training embeddings do not vary within the classes") from None
    half_DD = np.linalg.solve(root_DD, whole_DD)
    spread_D, turned_DD = np.linalg.eigh(np.linalg.solve(root_DD, half_DD.T))
    basis_DD = np.linalg.solve(root_DD.T, turned_DD).T
    arrays = {"centre": centre_D, "basis": basis_DD, "means": (means_KD - centre_D) @ basis_DD.T, "spread": spread_D}
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def fit_knn(logits_NC: Floats, embedding_ND: Floats, labels_N: Ints, seed: int) -> Arrays:
    """A seeded sample of at most `REMEMBERED` training embeddings, on the unit sphere."""
    chosen = np.sort(permutation(seed, 0, len(embedding_ND))[:REMEMBERED])
    return {"remembered": unit_rows(embedding_ND[chosen]).astype(np.float32)}


def shrunk_covariance(centred_ND: Floats) -> Floats:
    """Covariance drawn towards a multiple of the unit matrix, by as much as has the least expected squared error.

    Args:
        centred_ND: N vectors around 0.

    >>> shrunk_covariance(np.array([[1.0, 0.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    >>> bool(np.linalg.eigvalsh(shrunk_covariance(np.random.default_rng(0).normal(size=(5, 20)))).min() > 0)
    True

    Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4
    """
    n, width = centred_ND.shape
    covariance_DD = centred_ND.T @ centred_ND / n
    level = float(np.trace(covariance_DD)) / width
    square = float((covariance_DD**2).sum())
    noise = (float(((centred_ND**2).sum(axis=1) ** 2).sum()) / n - square) / n
    distance = square - width * level**2
    share = 0.0 if distance <= 0 else min(1.0, max(0.0, noise / distance))
    covariance_DD *= 1 - share
    covariance_DD[np.diag_indices(width)] += share * level
    return np.asarray(covariance_DD)


@dataclass(frozen=True)
class OodScore:
    """A row of `OOD_SCORES`: what is learned from the training split, how an image is scored, and the names of the arrays."""

    fit: Callable[[Floats, Floats, Ints, int], Arrays]
    score: Callable[[Arrays, Floats, Floats], Floats]
    arrays: tuple[str, ...] = ()


OOD_SCORES: dict[str, OodScore] = {
    "max_softmax": OodScore(fit_nothing, max_softmax),
    "energy": OodScore(fit_energy, energy),
    "relative_mahalanobis": OodScore(fit_relative_mahalanobis, relative_mahalanobis, ("centre", "basis", "means", "spread")),
    "knn": OodScore(fit_knn, knn, ("remembered",)),
}
"""Scores by name; the keys are the choices of `inference.ood`."""


@dataclass(frozen=True, eq=False)
class Detector:
    """A fitted score.

    Attributes:
        kind: a key of `OOD_SCORES`.
        arrays: what was learned, float32.
    """

    kind: str
    arrays: Arrays

    def __call__(self, logits_NC: npt.NDArray[Any], embedding_ND: npt.NDArray[Any]) -> Floats:
        """(N,) how unlike the training images each image is, larger is more; any finite number."""
        return OOD_SCORES[self.kind].score(self.arrays, logits_NC.astype(np.float64), embedding_ND.astype(np.float64))

    def shapes(self) -> dict[str, list[int]]:
        """Name of each array to its shape, in the order of `to_bytes`."""
        return {name: list(self.arrays[name].shape) for name in OOD_SCORES[self.kind].arrays}

    def to_bytes(self) -> bytes:
        """The arrays one after another, little-endian float32, rows first."""
        return b"".join(self.arrays[name].astype("<f4").tobytes() for name in OOD_SCORES[self.kind].arrays)

    @classmethod
    def from_bytes(cls, kind: Any, shapes: Any, data: bytes, *, classes: int, width: int) -> Detector:
        """Read what `shapes` and `to_bytes` gave.

        Args:
            kind: a key of `OOD_SCORES`.
            shapes: of its arrays.
            data: their numbers.
            classes: of the model; width: of its embedding.

        Raises:
            ModelError: anything that does not fit that model, or is not finite.

        >>> fitted = fit("knn", np.zeros((3, 2)), np.eye(3), np.array([0, 1, 1]))
        >>> again = Detector.from_bytes("knn", fitted.shapes(), fitted.to_bytes(), classes=2, width=3)
        >>> again(np.zeros((1, 2)), np.eye(3)[:1]).round(3).tolist()
        [1.414]
        """
        if kind not in OOD_SCORES:
            raise ModelError(f"calibration: no out-of-distribution score {kind!r}{nearest(str(kind), list(OOD_SCORES))}")
        names = OOD_SCORES[kind].arrays
        sound = isinstance(shapes, dict) and tuple(shapes) == names
        if not sound or not all(_fits(name, shapes[name], classes, width) for name in names):
            raise ModelError("calibration: its out-of-distribution arrays do not fit the model; calibrate again")
        sizes = [int(np.prod(shapes[name])) for name in names]
        if len(data) != 4 * sum(sizes):
            raise ModelError(
                f"calibration: {len(data)} bytes of out-of-distribution arrays, not {4 * sum(sizes)}; calibrate again"
            )
        numbers, ends = np.frombuffer(data, "<f4").astype(np.float32), np.cumsum([0, *sizes])
        arrays = {name: numbers[ends[i] : ends[i + 1]].reshape(shapes[name]) for i, name in enumerate(names)}
        if not np.isfinite(numbers).all() or ("spread" in arrays and not (arrays["spread"] > 0).all()):
            raise ModelError("calibration: its out-of-distribution arrays hold no usable numbers; calibrate again")
        return cls(kind, arrays)


def fit(kind: str, logits_NC: npt.NDArray[Any], embedding_ND: npt.NDArray[Any], labels_N: Ints, *, seed: int = 0) -> Detector:
    """Fit one score on a training split.

    Args:
        kind: a key of `OOD_SCORES`.
        logits_NC: of the training split, by the recipe that is served.
        embedding_ND: of the same images.
        labels_N: class index of each.
        seed: of the sample that `knn` remembers.

    Raises:
        ModelError: no image, or the score cannot be had from these; the message says why.
    """
    if not len(labels_N):
        raise ModelError("no training image")
    arrays = OOD_SCORES[kind].fit(logits_NC.astype(np.float64), embedding_ND.astype(np.float64), labels_N, seed)
    detector = Detector(kind, arrays)
    if len(detector.to_bytes()) > MAX_OOD_BYTES:
        raise ModelError(f"an embedding of width {embedding_ND.shape[1]} makes arrays of over {MAX_OOD_BYTES // 2**20} MiB")
    return detector


def threshold_of(scores_N: Floats, kept: float = KEPT) -> float:
    """The smallest score that at least the share `kept` of a part does not exceed.

    >>> threshold_of(np.arange(1.0, 101.0), 0.95)
    95.0
    """
    keep = max(1, int(np.ceil(kept * len(scores_N) - 1e-9)))
    return float(np.sort(scores_N)[keep - 1])


def _fits(name: str, shape: Any, classes: int, width: int) -> bool:
    """Whether an array's shape is one that this model can have."""
    if not isinstance(shape, list) or not all(type(edge) is int for edge in shape):
        return False
    rows = {"means": range(1, classes + 1), "remembered": range(1, REMEMBERED + 1), "basis": (width,)}
    return (len(shape) == 2 and shape[0] in rows[name] if name in rows else len(shape) == 1) and shape[-1] == width
