"""Metadata in training: inputs of a batch, inputs of validation, and the late fusion of each best epoch."""

# Shapes: N rows of the manifest, B images, M encoded metadata, C classes.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermalyze.config.model import FusionSpec, LateFusion
from dermalyze.imaging.tabular import Encoder, Floats
from dermalyze.models.classifier import Classifier
from dermalyze.models.fusion import Expert, Late, choose_strength, fit_expert
from dermalyze.rng import METADATA, uniforms

Rows = NDArray[np.int64]


class Metadata:
    """What a network is given of each image beside its pixels; nothing, for a network of images alone.

    Args:
        fitted: the encoder and all rows encoded (N, M), or None.
        fusion: `model.metadata.fusion`, or None.
        seed: of the values that are hidden.
        rows, labels: of the training split: places among the N, and classes 0..C-1.
        classes: C.
    """

    def __init__(
        self,
        fitted: tuple[Encoder, Floats] | None,
        fusion: FusionSpec | None,
        *,
        seed: int,
        rows: Rows,
        labels: Rows,
        classes: int,
    ) -> None:
        self.encoder: Encoder | None = fitted[0] if fitted is not None else None
        self.encoded_NM: Floats = fitted[1] if fitted is not None else np.zeros((0, 0), np.float32)
        self.fusion, self.seed = fusion, seed
        self.expert: Expert | None = None
        if self.encoder is not None and isinstance(fusion, LateFusion):
            self.expert = fit_expert(self.encoder, self.encoded_NM[rows], labels, classes)

    def training_rows(self, epoch: int, positions_B: Rows, rows_B: Rows) -> Tensor:
        """Rows (B, M) of training images, some values hidden by draw position; (B, 0) where the network learns from none."""
        if self.encoder is None or self.fusion is None or isinstance(self.fusion, LateFusion):
            return torch.zeros(len(rows_B), 0)
        drawn_BK = uniforms(self.seed, epoch, positions_B, len(self.encoder.columns), stream=METADATA)
        return torch.from_numpy(self.encoder.hidden(self.encoded_NM[rows_B], drawn_BK < self.fusion.hide))

    def rows(self, rows_B: Rows) -> Tensor | None:
        """Rows (B, M) as they are; None for a network of images alone."""
        return None if self.encoder is None else torch.from_numpy(self.encoded_NM[rows_B])

    @contextmanager
    def with_late_fusion(
        self, model: Classifier, rows: Rows, logits_NC: NDArray[np.float64], labels: Rows
    ) -> Iterator[dict[str, Any]]:
        """The network as it is to be saved, its late fusion weighed on the validation split; what the record says of it.

        Args:
            model: as it gave the logits.
            rows, logits_NC, labels: of the validation split, images alone.
        """
        about = {"metadata": self.encoder.as_dict() if self.encoder is not None else None, "late_fusion": None}
        if self.expert is None or not isinstance(model.head, Late):
            yield about
            return
        expert = choose_strength(self.expert, self.encoded_NM[rows], logits_NC, labels)
        with model.head.holding(expert):
            yield {**about, "late_fusion": expert.as_dict()}
