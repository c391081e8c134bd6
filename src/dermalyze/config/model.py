"""Specs of the network: backbone, head, weights."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dermalyze.config.base import Spec


class LinearHead(Spec):
    """Dropout and one linear layer on pooled features."""

    kind: Literal["linear"] = "linear"
    dropout: float = Field(0.0, ge=0, lt=1)


class SimpleHead(Spec):
    """Dropout, Linear 512, BatchNorm, ReLU, Dropout, Linear 256, BatchNorm, ReLU, Dropout, Linear classes."""

    kind: Literal["simple"] = "simple"
    dropout: float = Field(0.35, ge=0, lt=1)
    hidden: tuple[int, int] = (512, 256)


class AcrnnHead(Spec):
    """Conv1d 128 (kernel 3) over the flattened feature map in raster order, ReLU, LSTM 64, attention 16, Linear classes."""

    kind: Literal["acrnn"] = "acrnn"
    dropout: float = Field(0.0, ge=0, lt=1)
    channels: int = Field(128, ge=1)
    hidden: int = Field(64, ge=1)
    attention: int = Field(16, ge=1)


HeadSpec = Annotated[LinearHead | SimpleHead | AcrnnHead, Field(discriminator="kind")]


class _AttentionBlock(Spec):
    stage: int | None = Field(None, ge=0, description="behind which of the backbone's stages, 0 the stem; default: the last")


class SeAttention(_AttentionBlock):
    """Squeeze and excitation: a weight for each channel."""

    kind: Literal["se"] = "se"
    reduction: int = Field(16, ge=1)


class SpatialAttention(_AttentionBlock):
    """A weight for each place, from the mean and the maximum over channels."""

    kind: Literal["spatial"] = "spatial"
    kernel: Literal[3, 5, 7] = 7


class CbamAttention(_AttentionBlock):
    """A weight for each channel, then one for each place."""

    kind: Literal["cbam"] = "cbam"
    reduction: int = Field(16, ge=1)
    kernel: Literal[3, 5, 7] = 7


class SelfAttention(_AttentionBlock):
    """Every place looks at every other (the non-local block); begins as the identity."""

    kind: Literal["self_attention"] = "self_attention"
    reduction: int = Field(2, ge=1)


AttentionSpec = Annotated[SeAttention | SpatialAttention | CbamAttention | SelfAttention, Field(discriminator="kind")]


class ModelSpec(Spec):
    """A backbone by name, and a head."""

    replaced: ClassVar = {"freeze_backbone": "train.strategy: {kind: frozen}"}

    backbone: str = "tf_efficientnetv2_s"
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    channels: Literal[1, 3] = Field(3, description="1: the network sees the mean of the three colours, for grey modalities")
    pretrained: bool = Field(False, description="take timm's named weights from the hub; refused where it can't be reached")
    weights: str | None = Field(None, description="a local .safetensors file of backbone weights with its .json sidecar")
    attention: tuple[AttentionSpec, ...] = Field((), description="blocks behind stages of a convolutional backbone")
    head: HeadSpec = SimpleHead()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained: true and weights: FILE are both given; keep one")
        return self
