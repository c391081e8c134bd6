"""A pretrained backbone as a source of features."""

# Shapes: B images, H height, W width, D features.

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dermalyze.config.model import ModelSpec
from dermalyze.models.backbones import create_backbone


class Embedder:
    """The weights that a spec names, before any training: images to features, in fp32.

    Args:
        spec: with `weights` or `pretrained`.
        device: where it computes, as torch names it.

    Raises:
        ConfigError: unknown backbone or kwargs.
        ModelError: weights are refused or cannot be reached.

    Attributes:
        size: (height, width) that the backbone expects, px; mean, std: of RGB in 0..1, that it expects.
        width: D.
    """

    def __init__(self, spec: ModelSpec, *, device: str = "cpu") -> None:
        self._backbone = create_backbone(spec, load_weights=True).eval().to(device)
        self._device = device
        self.size, self.mean, self.std = self._backbone.default_size, self._backbone.mean, self._backbone.std
        self.width = self._backbone.width

    def __call__(self, images_B3HW: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, D) pooled features of normalized images (B, 3, H, W)."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self._backbone.embed(torch.from_numpy(images_B3HW).to(self._device)).cpu().numpy()
        return found
