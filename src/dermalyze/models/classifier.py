"""The network: a backbone and a head.

Shapes: B samples, C classes, D features, M encoded metadata, h x w feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, cast

import torch
from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.core.runtime import out_of_memory
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import IMAGE, METADATA, Input, as_batch, network_inputs
from dermalyze.imaging.tabular import Encoder
from dermalyze.models.backbones import Backbone, create_backbone
from dermalyze.models.feature_stages import CamTarget, Stage
from dermalyze.models.fusion import FusedHead, build_fusion
from dermalyze.models.heads import ON_MAP, Head, build_head
from dermalyze.models.two_images import IMAGE_2, TwoImageBackbone, two_image_backbone


class Classifier(nn.Module):
    """Named inputs to logits (B, C): normalized images (B, 3, H, W), and what else the network takes.

    Attributes:
        backbone: images to features.
        head: features to logits.
        classes: C.
        held: modules that stay in evaluation mode after `.train()`, with their BatchNorm and dropout: those that a transfer
            strategy keeps frozen.
    """

    def __init__(self, backbone: Backbone | TwoImageBackbone, head: Head, *, classes: int) -> None:
        super().__init__()
        self.backbone, self.head, self.classes = backbone, head, classes
        self.held: tuple[nn.Module, ...] = ()

    @property
    def width(self) -> int:
        """Features of an embedding."""
        return self.backbone.map_width if self.head.takes == "map" else self.backbone.width

    def forward(self, inputs: Mapping[str, Tensor] | Tensor) -> Tensor:
        """Logits (B, C); see `forward_with_embedding`."""
        return self.forward_with_embedding(inputs)[0]

    def forward_with_embedding(self, inputs: Mapping[str, Tensor] | Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and the backbone's pooled features (B, D), which are of the images alone.

        Args:
            inputs: `image`, normalized (B, 3, H, W), and where the network takes them `image_2` with `present`, and
                `metadata`, encoded (B, M). What is not given is missing; images alone may come as a tensor.

        Pooled by the backbone where the head takes that; the mean of the map where the head takes the map (layers that
        some backbones have after pooling are then neither trained nor used).
        """
        inputs = as_batch(inputs)
        if self.head.takes == "map":
            map_BDhw = self.backbone(inputs[IMAGE])
            return self.classify(map_BDhw, inputs.get(METADATA)), map_BDhw.mean(dim=(2, 3))
        embedding = self.embed(inputs)
        return self.classify(embedding, inputs.get(METADATA)), embedding

    def classify(self, features: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Logits (B, C) of what the head takes: pooled features or the map, and encoded metadata.

        Raises:
            UsageError: metadata for a network that takes none.
        """
        if isinstance(self.head, FusedHead):
            return cast(Tensor, self.head(features, metadata))
        if metadata is not None:
            raise UsageError("this network takes no metadata; set model.metadata and train, or leave them out")
        return cast(Tensor, self.head(features))

    def features(self, image: Tensor) -> Tensor:
        """The feature map (B, D, h, w) of the first images (B, 3, H, W)."""
        return cast(Tensor, self.backbone(image))

    def embed(self, inputs: Mapping[str, Tensor] | Tensor) -> Tensor:
        """The backbone's pooled features (B, D), as in `forward_with_embedding`."""
        inputs = as_batch(inputs)
        if self.head.takes == "map":
            return self.features(inputs[IMAGE]).mean(dim=(2, 3))
        if isinstance(self.backbone, TwoImageBackbone):
            return self.backbone.embed(inputs)
        return self.backbone.embed(inputs[IMAGE])

    def stages(self) -> list[Stage]:
        """The backbone's parts in depth order; see `Backbone.stages`. The head is in none of them."""
        return self.backbone.stages()

    def cam_target(self) -> CamTarget:
        """Where a class-activation map is read; see `Backbone.cam_target`."""
        return self.backbone.cam_target()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.held:
            module.eval()
        return self


def build_classifier(spec: ModelSpec, classes: int, *, load_weights: bool, encoder: Encoder | None = None) -> Classifier:
    """The network of a spec; what is not loaded is drawn from torch's global generator.

    Args:
        spec: backbone, head, weights, metadata.
        classes: number of classes, 2 or more.
        load_weights: load what `pretrained` or `weights` names; False for a network whose checkpoint follows.
        encoder: of the metadata, fitted on the columns of `spec.metadata`; where the spec has none, None.

    Raises:
        ConfigError: unknown backbone or kwargs.
        ModelError: fewer than two classes, weights that are refused or out of reach, or an encoder of other columns.

    >>> model = build_classifier(ModelSpec(backbone="tiny_cnn"), 7, load_weights=False).eval()
    >>> model(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 7])
    """
    if classes < 2:
        raise ModelError(f"a classifier of {classes} class(es) makes no sense; 2 or more are needed")
    backbone: Backbone | TwoImageBackbone
    if spec.image_2 is not None:
        backbone = two_image_backbone(spec, load_weights=load_weights)
    else:
        backbone = create_backbone(spec, load_weights=load_weights)
    names = encoder.names if encoder is not None else ()
    columns = spec.metadata.columns if spec.metadata is not None else ()
    if names != columns:
        raise ModelError(f"the metadata encoder has columns {list(names)}, model.metadata names {list(columns)}; train again")

    def head() -> Head:
        return build_head(spec.head, pooled_width=backbone.width, map_width=backbone.map_width, classes=classes)

    if spec.metadata is None or encoder is None:
        return Classifier(backbone, head(), classes=classes)
    width = backbone.map_width if spec.head.kind in ON_MAP and spec.metadata.fusion.kind != "concat" else backbone.width
    fused = build_fusion(spec.metadata.fusion, head, width, classes, encoder.blank)
    return Classifier(backbone, fused, classes=classes)


def inputs_of(spec: ModelSpec, preprocessing: Preprocessing, encoder: Encoder | None) -> tuple[Input, ...]:
    """The named inputs of the network of a spec, as they are stored.

    Args:
        preprocessing: of its images.
        encoder: of its metadata.
    """
    optional = [IMAGE_2] if spec.image_2 is not None else []
    return network_inputs(preprocessing.image, optional=optional, metadata=0 if encoder is None else encoder.width)


def check_input(model: Classifier, height: int, width: int) -> None:
    """Try one black image, so that a size the network cannot take is refused before anything long begins.

    Raises:
        ModelError: the network refuses (height, width) pixels; with the nearest size that it takes.
    """
    if (error := _refusal(model, height, width)) is None:
        return
    own = model.backbone.default_size
    sizes = {own, *((max(step, round(height / step) * step), max(step, round(width / step) * step)) for step in (14, 16, 32))}
    by_distance = sorted(sizes, key=lambda size: (abs(size[0] - height) + abs(size[1] - width), size))
    near = next((size for size in by_distance if _refusal(model, *size) is None), own)
    remedy = f"set preprocess.size (its own size is {_px(own)}; the nearest it takes is {_px(near)})"
    if getattr(getattr(model.backbone.net, "patch_embed", None), "strict_img_size", False):
        remedy += f", or build it for this size with model.kwargs: {{img_size: [{height}, {width}]}}"
    raise ModelError(f"this network does not take {height}x{width} px: {error}; {remedy}") from error


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _refusal(model: Classifier, height: int, width: int) -> Exception | None:
    """Why the network does not take a black image of this size; None if it does. The model stays as it was."""
    parameter = next(model.parameters())
    images = torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            model.forward_with_embedding(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        return error
    finally:
        model.train(training)
    return None
