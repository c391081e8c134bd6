"""What a network costs and can do, counted without memory for its weights."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from dermalyze.config.model import ModelSpec
from dermalyze.errors import ModelError
from dermalyze.models.backbones import Backbone, create_backbone, license_of
from dermalyze.models.cards import Card
from dermalyze.models.names import canonical_name


def measure(spec: ModelSpec) -> Card:
    """Count a network that is built without memory for its weights, and passed an image without pixels.

    Args:
        spec: backbone and kwargs; the head and weights are not looked at.

    Raises:
        ConfigError: unknown backbone or kwargs.
        ModelError: it does not take its own size.

    >>> card = measure(ModelSpec(backbone="tiny_cnn"))
    >>> card.parameters, card.multiply_adds, card.width
    (137112, 19077120, 96)
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
        name=canonical_name(spec.backbone),
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        width=backbone.width,
        size=backbone.default_size,
        stages=len(backbone.stages()),
        license=license_of(spec),
        cam=cam,
        rollout=_rolls_out(backbone),
    )


def _rolls_out(backbone: Backbone) -> bool:
    """Whether attention can be multiplied from block to block: one kind of it in all blocks, and a class token from the first.

    ConViT has two kinds, and its class token joins late.
    """
    attention = {type(getattr(block, "attn", None)) for block in getattr(backbone.net, "blocks", [])}
    has_class = getattr(backbone.net, "cls_token", None) is not None
    return has_class and len(attention) == 1 and attention != {type(None)}
