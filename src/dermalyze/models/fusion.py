"""Fusion of image and metadata: heads that take encoded metadata beside the backbone's features.

Shapes: B images, C classes, D features, M encoded metadata, h x w feature map, N rows, K columns of metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dermalyze.calibration.calibrators import Calibrator, fit_temperature
from dermalyze.config.model import FusionSpec
from dermalyze.errors import UsageError
from dermalyze.imaging.tabular import Encoder, Floats
from dermalyze.models.heads import Head

BRANCH, JOINT, BRANCH_DROPOUT = (128, 64), 512, 0.2  # of the document's network
WEIGHTS = np.linspace(0.0, 2.0, 41)
"""Weights of the late fusion that are tried."""
HIDDEN_SHARE = 0.1
"""What a training row with hidden values counts in the fit of the late fusion, beside the whole one."""


class FusedHead(Head):
    """A head of features and encoded metadata (B, M); without the latter it takes the row of which nothing is known.

    Args:
        blank_M: that row.
    """

    def __init__(self, blank_M: Floats) -> None:
        super().__init__()
        self.register_buffer("blank", torch.from_numpy(blank_M.copy()).view(1, -1))

    def forward(self, features: Tensor, metadata_BM: Tensor | None = None) -> Tensor:
        """Logits (B, C)."""
        blank = self.get_buffer("blank")
        rows_BM = blank.expand(features.shape[0], -1) if metadata_BM is None else metadata_BM
        if rows_BM.shape != (features.shape[0], blank.shape[1]):
            expected = [features.shape[0], blank.shape[1]]
            raise UsageError(f"metadata are {[*rows_BM.shape]}, must be {expected}: a row an image, encoded")
        return self.fuse(features, rows_BM)

    def fuse(self, features: Tensor, metadata_BM: Tensor) -> Tensor:
        """Logits (B, C)."""
        raise NotImplementedError


class Concat(FusedHead):
    """See `concat`."""

    def __init__(self, width: int, classes: int, blank_M: Floats, *, dropout: float) -> None:
        super().__init__(blank_M)
        first, second = BRANCH
        self.branch = nn.Sequential(
            nn.Linear(len(blank_M), first), nn.ReLU(), nn.Dropout(BRANCH_DROPOUT), nn.Linear(first, second), nn.ReLU()
        )
        self.joint = nn.Sequential(nn.Linear(width + second, JOINT), nn.ReLU(), nn.Dropout(dropout), nn.Linear(JOINT, classes))

    def fuse(self, features: Tensor, metadata_BM: Tensor) -> Tensor:
        return cast(Tensor, self.joint(torch.cat([features, self.branch(metadata_BM).to(features.dtype)], dim=1)))


class Film(FusedHead):
    """See `film`."""

    def __init__(self, head: Head, width: int, blank_M: Floats) -> None:
        super().__init__(blank_M)
        self.takes, self.head = head.takes, head
        self.scale_shift = nn.Linear(len(blank_M), 2 * width)
        nn.init.zeros_(self.scale_shift.weight)
        nn.init.zeros_(self.scale_shift.bias)

    def fuse(self, features: Tensor, metadata_BM: Tensor) -> Tensor:
        scale_BD, shift_BD = self.scale_shift(metadata_BM).to(features.dtype).chunk(2, dim=1)
        if features.dim() == 4:
            scale_BD, shift_BD = scale_BD[..., None, None], shift_BD[..., None, None]
        return cast(Tensor, self.head(features * (1 + scale_BD) + shift_BD))


class Late(FusedHead):
    """See `late`. Its layer is 0 while the network learns, and is no parameter: `fit_late` finds it."""

    def __init__(self, head: Head, classes: int, blank_M: Floats) -> None:
        super().__init__(blank_M)
        self.takes, self.head = head.takes, head
        self.register_buffer("weight", torch.zeros(classes, len(blank_M)))
        self.register_buffer("bias", torch.zeros(classes))

    def fuse(self, features: Tensor, metadata_BM: Tensor) -> Tensor:
        logits_BC = cast(Tensor, self.head(features)).float()
        return logits_BC + nn.functional.linear(metadata_BM.float(), self.get_buffer("weight"), self.get_buffer("bias"))

    @contextmanager
    def holding(self, expert: Expert) -> Iterator[None]:
        """The head with a fitted layer in it, for saving; afterwards it is 0 again."""
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        try:
            with torch.no_grad():
                weight.copy_(torch.from_numpy(expert.strength * expert.weight_CM))
                bias.copy_(torch.from_numpy(expert.strength * expert.bias_C))
            yield
        finally:
            weight.zero_()
            bias.zero_()


def concat(head: Callable[[], Head], width: int, classes: int, blank_M: Floats, *, dropout: float) -> FusedHead:
    """The document's network: metadata to 128 and 64, concatenated with the pooled features, 512, dropout, classes.

        metadata (B, M) -> Linear 128, ReLU, dropout .2, Linear 64, ReLU
        [features, metadata] (B, D + 64) -> Linear 512, ReLU, dropout, Linear C

    >>> concat(lambda: Head(), 8, 3, np.zeros(5, np.float32), dropout=0.3).eval()(torch.zeros(2, 8)).shape
    torch.Size([2, 3])
    """
    return Concat(width, classes, blank_M, dropout=dropout)


def film(head: Callable[[], Head], width: int, classes: int, blank_M: Floats) -> FusedHead:
    """Feature-wise linear modulation: metadata scale and shift each feature, and the configured head follows.

        features' = features (1 + g(m)) + b(m);   g, b linear, 0 at the start

    A head that takes the feature map has its channels modulated. One that takes pooled features has these: where the
    pooling is a mean that is the same, and it also fits backbones whose pooled features are no mean of their map.

    Perez et al. 2018, arXiv:1709.07871; a gate of this kind: Pacheco & Krohling 2021,
    doi:10.1109/JBHI.2021.3062002
    """
    return Film(head(), width, blank_M)


def late(head: Callable[[], Head], width: int, classes: int, blank_M: Floats) -> FusedHead:
    """A product of experts: what metadata alone say of the classes, added to the network's log-probabilities.

        log p(c | image, m) = log p(c | image) + w (log p(c | m) - log p(c)) + constant

    p(c | m) is a multinomial logistic regression, so the second term is one linear layer of the encoded metadata. The image
    part is trained as without metadata; see `fit_expert` and `choose_strength`.

    Hinton 2002, doi:10.1162/089976602760128018
    """
    return Late(head(), classes, blank_M)


FUSIONS: dict[str, Callable[..., FusedHead]] = {"concat": concat, "film": film, "late": late}


def build_fusion(spec: FusionSpec, head: Callable[[], Head], width: int, classes: int, blank_M: Floats) -> FusedHead:
    """The fused head of a spec.

    Args:
        spec: kind and fields.
        head: makes the configured head.
        width: features of a pooled image, or channels of the map, whichever is fused.
        classes: C.
        blank_M: the encoded row of which nothing is known.
    """
    return FUSIONS[spec.kind](head, width, classes, blank_M, **spec.model_dump(exclude={"kind", "hide"}))


@dataclass(frozen=True, eq=False)
class Expert:
    """What metadata alone say of the classes, over their shares in the training split.

    Attributes:
        weight_CM, bias_C: of the linear layer whose result is log p(c | m) - log p(c), up to a constant a row.
        strength: the weight w at which it is added to the network's log-probabilities, 0 or more.
        log_loss, log_loss_alone: on the validation split with it and without, each at its best temperature.
    """

    weight_CM: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    strength: float = 0.0
    log_loss: float | None = None
    log_loss_alone: float | None = None

    def evidence(self, metadata_NM: Floats) -> NDArray[np.float64]:
        """(N, C) log p(c | m) - log p(c), up to a constant a row."""
        return np.asarray(metadata_NM.astype(np.float64) @ self.weight_CM.T + self.bias_C)

    def as_dict(self) -> dict[str, Any]:
        """What is told of the fit."""
        return {"strength": self.strength, "val_log_loss": self.log_loss, "val_log_loss_image_alone": self.log_loss_alone}


def fit_expert(encoder: Encoder, metadata_NM: Floats, labels_N: NDArray[np.int64], classes: int) -> Expert:
    """The multinomial logistic regression of the classes on metadata, with scikit-learn's default ridge.

    Beside each row stand copies without one of its values and without all, at a tenth of its weight: so a missing
    value says about nothing, also where the training split has none, instead of whatever the intercept says.

    Args:
        encoder: that made the rows.
        metadata_NM: of the training split.
        labels_N: 0..C-1, each class at least once.
        classes: C.
    """
    from sklearn.linear_model import LogisticRegression

    n, k = len(labels_N), len(encoder.columns)
    patterns_PK = np.unique(np.concatenate([np.zeros((1, k), bool), np.eye(k, dtype=bool), np.ones((1, k), bool)]), axis=0)
    rows = np.concatenate([encoder.hidden(metadata_NM, np.tile(pattern_K, (n, 1))) for pattern_K in patterns_PK])
    counts = np.repeat([HIDDEN_SHARE if pattern_K.any() else 1.0 for pattern_K in patterns_PK], n)
    model = LogisticRegression(max_iter=2000).fit(rows.astype(np.float64), np.tile(labels_N, len(patterns_PK)), counts)
    weight_CM, bias_C = model.coef_, model.intercept_
    if classes == 2:  # scikit-learn gives the difference of the two
        weight_CM, bias_C = np.concatenate([0 * weight_CM, weight_CM]), np.concatenate([0 * bias_C, bias_C])
    log_prior_C = np.log(np.bincount(labels_N, minlength=classes) / n)
    return Expert(weight_CM, bias_C - log_prior_C)


def choose_strength(expert: Expert, metadata_NM: Floats, logits_NC: NDArray[np.float64], labels_N: NDArray[np.int64]) -> Expert:
    """The expert at the weight of `WEIGHTS` with the lowest log loss on the validation split; the smallest of equal ones.

    A network is often more confident than it should be, and the calibration that follows takes that back: so each weight is
    evaluated at its own best temperature.

    Args:
        expert: fitted on the training split.
        metadata_NM, logits_NC, labels_N: of the validation split; the logits are the network's without metadata.
    """
    logits_NC = np.asarray(logits_NC, dtype=np.float64)
    evidence_NC, losses = expert.evidence(metadata_NM), []
    for weight in WEIGHTS:
        fused_NC = logits_NC + weight * evidence_NC
        parameters = fit_temperature(fused_NC, labels_N, np.zeros(logits_NC.shape[1]))
        probs_NC = Calibrator("temperature", parameters)(fused_NC)
        losses.append(float(-np.log(np.maximum(probs_NC[np.arange(len(labels_N)), labels_N], 1e-300)).mean()))
    best = int(np.argmin(losses))
    return Expert(expert.weight_CM, expert.bias_C, float(WEIGHTS[best]), losses[best], losses[0])
