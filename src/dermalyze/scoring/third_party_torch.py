"""A classifier of timm that somebody else trained: safetensors weights, and a sidecar that says what network they are of."""

# Shapes: B images, H height, W width, C classes.

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dermalyze.config.model import ModelSpec
from dermalyze.core.runtime import applied, choose_runtime
from dermalyze.errors import ModelError
from dermalyze.models.backbones import create_classifier
from dermalyze.models.weights import load_state, read_sidecar


class TimmClassifier:
    """As `dermalyze.artifact.third_party.ThirdPartyGraph`, for a graph that takes pixels and normalizes them itself.

    Args:
        path: a safetensors file of the whole network, classifier included, and its sidecar beside it (docs/reference/cli.md).
        classes: C.
        threads: CPU threads; None: one per core.

    Attributes:
        size: (height, width) that the sidecar names, px.

    Raises:
        ModelError: the weights or the sidecar are refused, or are of a network of other classes.
        ConfigError: timm has no such network.
    """

    normalized = False

    def __init__(self, path: Path, *, classes: int, threads: int | None = None) -> None:
        sidecar = read_sidecar(path)
        self.name, self.classes, self.size = path.name, classes, sidecar.size
        self._net = create_classifier(ModelSpec(backbone=sidecar.backbone, kwargs=sidecar.kwargs), classes).eval()
        load_state(path, self._net, expected_sha256=sidecar.sha256)
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (sidecar.mean, sidecar.std))
        self._runtime = choose_runtime(device="cpu", threads=threads, amp=False, channels_last=False, deterministic=True)

    def run(self, images_BHW3: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float64]:
        """What it gives for each image and class (B, C), in fp32.

        Args:
            images_BHW3: uint8 RGB at `size`.
            mean, std: not used; the sidecar has its own.

        Raises:
            ModelError: it fails, or gives NaN, infinity or another shape.
        """
        try:
            with applied(self._runtime), torch.inference_mode():
                pixels = torch.from_numpy(images_BHW3).permute(0, 3, 1, 2).to(torch.float32) / 255
                values: NDArray[np.float64] = self._net((pixels - self._mean) / self._std).double().numpy()
        except RuntimeError as error:
            raise ModelError(f"{self.name}: failed on a batch of {len(images_BHW3)}: {str(error)[:300]}") from error
        if values.shape != (len(images_BHW3), self.classes) or not np.isfinite(values).all():
            raise ModelError(f"{self.name}: gave {values.shape}, or NaN or infinity; nothing is made from it")
        return values
