"""What a network costs and can do, and the rows of the documents' model tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dermalyze.config.model import ModelSpec
from dermalyze.core.errors import ModelError
from dermalyze.model.backbones import Backbone, create_backbone, licence_of


@dataclass(frozen=True)
class Card:
    """A backbone in figures, without a head.

    Attributes:
        name: for `model.backbone`.
        parameters: count.
        multiply_adds: of one image at `size`: multiplications with addition, in convolutions and matrix products.
        width: features of an embedding.
        size: (height, width) that it was made for, px.
        stages: parts, stem included.
        licence: of the weights that `pretrained: true` takes; None: no such weights; "unknown": timm does not say.
        cam: it has a map to read a class activation from.
        rollout: it is a transformer with a class token from the first block on.
    """

    name: str
    parameters: int
    multiply_adds: int
    width: int
    size: tuple[int, int]
    stages: int
    licence: str | None
    cam: bool
    rollout: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "size": list(self.size)}


def measure(spec: ModelSpec) -> Card:
    """Count a network that is built without memory for its weights, and passed an image without pixels.

    Args:
        spec: backbone and kwargs; the head and weights are not looked at.

    Raises:
        ConfigError: unknown backbone or kwargs.
        ModelError: it does not take its own size.

    >>> card = measure(ModelSpec(backbone="tiny_cnn"))
    >>> card.parameters, card.multiply_adds, card.width
    (137112, 15676416, 96)
    """
    with torch.device("meta"), torch.inference_mode():
        backbone = create_backbone(spec, load_weights=False).eval()
        images = torch.zeros(1, 3, *backbone.default_size)
        with FlopCounterMode(display=False) as counter:
            try:
                backbone.embed(images)
            except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
                raise ModelError(f"{spec.backbone} cannot be counted: {error}; choose another backbone") from error
        try:
            backbone(images)
            cam = True
        except ModelError:
            cam = False
    return Card(
        name=spec.backbone,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        width=backbone.width,
        size=backbone.default_size,
        stages=len(backbone.stages()),
        licence=licence_of(spec),
        cam=cam,
        rollout=_rolls_out(backbone),
    )


def _rolls_out(backbone: Backbone) -> bool:
    """Whether attention can be multiplied from block to block: one kind of block, all tokens in each, a class token first."""
    blocks = getattr(backbone.net, "blocks", None)
    has_class = getattr(backbone.net, "cls_token", None) is not None
    return has_class and hasattr(backbone.net, "num_prefix_tokens") and all(hasattr(block, "attn") for block in blocks or [])
