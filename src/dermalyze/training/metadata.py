"""Metadata in training: which rows the network learns from, and the late fusion of each best epoch."""

# Shapes: N rows of the manifest, M encoded metadata, C classes.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.config.model import FusionSpec, LateFusion
from dermalyze.imaging.tabular import Encoder, Floats
from dermalyze.models.classifier import Classifier
from dermalyze.models.fusion import Expert, Late, choose_strength, fit_expert

Rows = NDArray[np.int64]


class Metadata:
    """What a network is given of each sample beside its images; nothing, for a network of images alone.

    Args:
        fitted: the encoder and all rows encoded (N, M), or None.
        fusion: `model.metadata.fusion`, or None.
        rows, labels: of the training split: places among the N, and classes 0..C-1.
        classes: C.
    """

    def __init__(
        self,
        fitted: tuple[Encoder, Floats] | None,
        fusion: FusionSpec | None,
        *,
        rows: Rows,
        labels: Rows,
        classes: int,
    ) -> None:
        self.encoder: Encoder | None = fitted[0] if fitted is not None else None
        self.encoded_NM: Floats = fitted[1] if fitted is not None else np.zeros((0, 0), np.float32)
        self.fusion = fusion
        self.expert: Expert | None = None
        if self.encoder is not None and isinstance(fusion, LateFusion):
            self.expert = fit_expert(self.encoder, self.encoded_NM[rows], labels, classes)

    @property
    def learned_NM(self) -> Floats | None:
        """The rows that the network itself learns from; None where it learns from images alone, as in late fusion."""
        return None if self.encoder is None or self.expert is not None else self.encoded_NM

    @contextmanager
    def with_late_fusion(
        self, model: Classifier, rows: Rows, logits_NC: NDArray[np.float64], labels: Rows
    ) -> Iterator[dict[str, Any]]:
        """The network as it is to be saved, its late fusion weighted on the validation split; what the record says of it.

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
