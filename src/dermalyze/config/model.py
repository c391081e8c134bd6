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


class ModelSpec(Spec):
    """A timm backbone by name, and a head."""

    replaced: ClassVar = {"freeze_backbone": "train.strategy: {kind: frozen}"}

    backbone: str = "tf_efficientnetv2_s"
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    pretrained: bool = Field(False, description="take timm's named weights from the hub; refused where it can't be reached")
    weights: str | None = Field(None, description="a local .safetensors file of backbone weights with its .json sidecar")
    head: HeadSpec = SimpleHead()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained: true and weights: FILE are both given; keep one")
        return self
