"""Specs of the network: backbone, head, weights, further inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dermalyze.config.base import Spec
from dermalyze.config.columns import why_no_input


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
    """A weight for each position, from the mean and the maximum over channels."""

    kind: Literal["spatial"] = "spatial"
    kernel: Literal[3, 5, 7] = 7


class CbamAttention(_AttentionBlock):
    """A weight for each channel, then one for each position."""

    kind: Literal["cbam"] = "cbam"
    reduction: int = Field(16, ge=1)
    kernel: Literal[3, 5, 7] = 7


class SelfAttention(_AttentionBlock):
    """Every position attends to every other (the non-local block); starts as the identity."""

    kind: Literal["self_attention"] = "self_attention"
    reduction: int = Field(2, ge=1)


AttentionSpec = Annotated[SeAttention | SpatialAttention | CbamAttention | SelfAttention, Field(discriminator="kind")]


class ConcatFusion(Spec):
    """Metadata to 128 and 64, beside the image's features, then 512 and the classes: in place of `model.head`."""

    kind: Literal["concat"] = "concat"
    dropout: float = Field(0.3, ge=0, lt=1)
    hide: float = Field(
        0.1, ge=0, lt=1, description="share of values hidden in training, so that the model learns from missing values"
    )


class FilmFusion(Spec):
    """Metadata scale and shift each of the image's features before the head; starts as the identity."""

    kind: Literal["film"] = "film"
    hide: float = Field(
        0.1, ge=0, lt=1, description="share of values hidden in training, so that the model learns from missing values"
    )


class LateFusion(Spec):
    """Class probabilities from metadata alone, divided by the class shares, added to the network's log-probabilities."""

    kind: Literal["late"] = "late"


FusionSpec = Annotated[ConcatFusion | FilmFusion | LateFusion, Field(discriminator="kind")]


class MetadataSpec(Spec):
    """Metadata of each sample, as an input beside the image."""

    columns: tuple[str, ...] = Field(
        ("age", "sex", "site"),
        min_length=1,
        description="manifest columns, numeric or categorical; never columns that reveal the label",
    )
    fusion: FusionSpec = LateFusion()
    accept: tuple[str, ...] = Field(
        (), description="columns to take although each alone predicts the label nearly perfectly, which is refused otherwise"
    )

    @field_validator("columns")
    @classmethod
    def _inputs(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        for column in columns:
            if (reason := why_no_input(column)) is not None:
                raise ValueError(f"'{column}' {reason} and is never a model's input; leave it out")
        if len({column.lower() for column in columns}) < len(columns):
            raise ValueError(f"{list(columns)} name a column twice; keep one")
        return columns

    @model_validator(mode="after")
    def _accepted(self) -> Self:
        if strangers := [column for column in self.accept if column not in self.columns]:
            raise ValueError(f"accept names {strangers}, not among columns {list(self.columns)}; correct it")
        return self


class _SecondImage(Spec):
    hide: float = Field(
        0.1, ge=0, lt=1, description="share of second images hidden in training, so that the model learns from missing ones"
    )


class SharedBackbone(_SecondImage):
    """One backbone for both images."""

    kind: Literal["shared"] = "shared"


class SeparateBackbones(_SecondImage):
    """A backbone for the first image, and another of the same kind for the second."""

    kind: Literal["separate"] = "separate"


Image2Spec = Annotated[SharedBackbone | SeparateBackbones, Field(discriminator="kind")]


class ModelSpec(Spec):
    """A backbone by name, and a head; further inputs beside the image, if asked for."""

    backbone: str = "tf_efficientnetv2_s"
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    channels: Literal[1, 3] = Field(3, description="1: the network sees the mean of the three channels, for gray modalities")
    pretrained: bool = Field(
        False, description="download timm's named weights from the hub; an error where it cannot be reached"
    )
    weights: str | None = Field(None, description="a local .safetensors file of backbone weights with its .json sidecar")
    attention: tuple[AttentionSpec, ...] = Field((), description="blocks behind stages of a convolutional backbone")
    head: HeadSpec = SimpleHead()
    metadata: MetadataSpec | None = Field(None, description="columns of the manifest as an input; null: images alone")
    image_2: Image2Spec | None = Field(
        None, description="a second image of each sample, such as one of another modality; null: one image per sample"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained: true and weights: FILE are both set; keep one")
        if self.image_2 is not None and self.head.kind == "acrnn":
            raise ValueError(
                "head acrnn reads one feature map, and two images have two; with model.image_2 take head linear or simple"
            )
        return self
