"""Dropout at inference: several passes of one network, only its dropout layers drawing.

The draws have addresses: (seed, pass, layer, image, place). Neither order, batch size nor the other images change them, so
the same command gives the same bytes. Gal & Ghahramani 2016, arXiv:1506.02142
"""

# Shapes: B samples, H height, W width, S passes, C classes.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dermalyze.errors import ConfigError, ModelError
from dermalyze.imaging.samples import IMAGE, METADATA, as_batch
from dermalyze.models.classifier import Classifier
from dermalyze.rng import DROPOUT, positions_of, uniforms

ELEMENTWISE, CHANNELWISE = (nn.Dropout,), (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class AddressedDropout(nn.Module):
    """A dropout layer whose draws depend on the image and the pass alone; inverted dropout, as torch's.

    Args:
        p: share of the values (or whole channels) that become 0; the rest grows by 1 / (1 - p).
        channelwise: draw once a channel.
        layer: number of this layer, from 0.
        layers: how many there are.
        seed: any integer.

    Attributes:
        positions: (B,) int64 of the images of the batch, from their names.
        number: of the pass.
    """

    positions: NDArray[np.int64]
    number: int

    def __init__(self, p: float, *, channelwise: bool, layer: int, layers: int, seed: int) -> None:
        super().__init__()
        self.p, self.channelwise, self.layer, self.layers, self.seed = p, channelwise, layer, layers, seed

    def forward(self, values: Tensor) -> Tensor:
        """`values` (B, ...), or (B k, ...) where a network cuts each image into k windows, image by image."""
        images = len(self.positions)
        if values.shape[0] % images:
            raise ModelError(f"mc_dropout: a dropout layer is given {tuple(values.shape)} for {images} images; use recipe tta")
        places = (values.shape[0] // images, *(values.shape[1:2] if self.channelwise else values.shape[1:]))
        drawn = uniforms(self.seed, self.number * self.layers + self.layer, self.positions, math.prod(places), stream=DROPOUT)
        kept = torch.from_numpy((drawn >= self.p).astype(np.float32)).reshape(values.shape[0], *places[1:])
        if self.channelwise:
            kept = kept.reshape(*kept.shape, *([1] * (values.dim() - 2)))
        return values * kept / (1 - self.p)


class DropoutSampler:
    """A network asked several times.

    Only `torch.nn.Dropout` layers (and those of whole channels) above 0 that acted in training draw; BatchNorm, stochastic
    depth and all else stay in evaluation mode. Where no layer of the backbone draws, it runs once for all passes.

    Args:
        model: fp32, on the CPU; what is in its `held` did not draw in training and does not here. Its dropout layers are
            replaced.
        seed: of the draws.
        passes: S, 2 or more.

    Raises:
        ConfigError: the network has no dropout that acts, so all passes would be equal.
    """

    def __init__(self, model: Classifier, *, seed: int, passes: int) -> None:
        held = {id(module) for whole in model.held for module in whole.modules()}
        found = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, ELEMENTWISE + CHANNELWISE) and module.p > 0 and id(module) not in held
        ]
        if not found:
            raise ConfigError(
                "mc_dropout: the network has no dropout, so that every pass would be the same; set model.head.dropout above 0 "
                "and train, or use recipe tta or an ensemble"
            )
        self.model, self.passes = model.eval(), passes
        self.layers = []
        for layer, (name, module) in enumerate(found):
            parent, _, own = name.rpartition(".")
            drawing = AddressedDropout(
                module.p, channelwise=isinstance(module, CHANNELWISE), layer=layer, layers=len(found), seed=seed
            )
            setattr(model.get_submodule(parent), own, drawing)
            self.layers.append(drawing)
        self.head_only = all(name.startswith("head.") for name, _ in found)

    def __call__(self, inputs: Mapping[str, Tensor] | Tensor, ids: Sequence[str]) -> NDArray[np.float32]:
        """Logits (B, S, C) of a batch as the network takes it, with normalized images (B, 3, H, W).

        Args:
            ids: image_id of each.

        Raises:
            ModelError: NaN or infinity from the network.
        """
        inputs, positions = as_batch(inputs), positions_of(ids)
        for layer in self.layers:
            layer.positions = positions
        with torch.inference_mode():
            features = self._features(inputs) if self.head_only else None
            logits = []
            for number in range(self.passes):
                for layer in self.layers:
                    layer.number = number
                now = self._features(inputs) if features is None else features
                logits.append(self.model.classify(now, inputs.get(METADATA)))
            samples_BSC: NDArray[np.float32] = torch.stack(logits, dim=1).numpy()
        if not np.isfinite(samples_BSC).all():
            raise ModelError("mc_dropout: the network gave NaN or infinity; no answer is made from it; train again")
        return samples_BSC

    def _features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.model.features(inputs[IMAGE]) if self.model.head.takes == "map" else self.model.embed(inputs)
