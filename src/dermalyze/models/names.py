"""The documents' names of networks, and what timm calls them."""

from __future__ import annotations

import re
from typing import Any

from dermalyze.config.model import ModelSpec
from dermalyze.errors import ConfigError, ModelError

NAMES: dict[str, str] = {
    **{f"resnet_{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"densenet_{depth}": f"densenet{depth}" for depth in (121, 169, 201, 264)},
    **{f"efficientnet_v2_{size}": f"tf_efficientnetv2_{size}" for size in "sml"},
    **{f"efficientnetv2_{size}": f"tf_efficientnetv2_{size[0]}" for size in ("small", "medium", "large")},
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    **{f"vit_{size}": f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")},
    "vit_huge": "vit_huge_patch14_224",  # on patches of 14, not of 16 as the document says
    **{f"swin_{size}": f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")},
    **{f"se_resnet{depth}": f"seresnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "clip_vit_b16": "vit_base_patch16_clip_224",
    "clip_vit_l14": "vit_large_patch14_clip_224",
    "siglip_vit_b16": "vit_base_patch16_siglip_224",
    **{f"dinov2_{size}": f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large")},
    **{f"dinov3_{size}": f"vit_{size}_patch16_dinov3" for size in ("small", "base", "large")},
}
"""A document's name to the one of timm, where timm has the network under another."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # timm's densenet264d has another stem and 73 M parameters; the paper's (Huang 2017, table 1) is this, and has no weights.
    "densenet264": ("densenet121", {"block_config": [6, 12, 64, 48]}),
    "cvt_13": ("cvt", {}),
    "cvt_21": ("cvt", {"depth": [1, 4, 16]}),
    "cvt_w24": ("cvt", {"depth": [2, 2, 20], "embed_dim": [192, 768, 1024], "num_heads": [3, 12, 16]}),
}
"""A network that is another one built with other numbers; no weights exist for it."""


def known_name(name: str) -> str:
    """The name under which a network is listed, in place of a document's.

    >>> known_name("ViT-Base"), known_name("DenseNet-264"), known_name("resnet18.a1_in1k")
    ('vit_base_patch16_224', 'densenet264', 'resnet18.a1_in1k')
    """
    if not re.fullmatch("[A-Za-z0-9_-]+", name):  # a tag, or something that no table holds
        return name
    key = name.lower().replace("-", "_")
    return NAMES.get(key, key)


def resolve(spec: ModelSpec) -> ModelSpec:
    """The spec with timm's name in place of a document's, in which capitals and `-` for `_` do not matter.

    Raises:
        ConfigError: kwargs that the name itself sets.
        ModelError: weights are asked for, and none exist.

    >>> [resolve(ModelSpec(backbone=name)).backbone for name in ("ViT-Base", "ResNet-50", "EfficientNet-B4")]
    ['vit_base_patch16_224', 'resnet50', 'efficientnet_b4']
    >>> resolve(ModelSpec(backbone="DenseNet-264")).kwargs
    {'block_config': [6, 12, 64, 48]}
    """
    name = known_name(spec.backbone)
    if name not in VARIANTS:
        return spec.model_copy(update={"backbone": name})
    backbone, kwargs = VARIANTS[name]
    if spec.pretrained:
        raise ModelError(
            f"model.pretrained: no weights of {spec.backbone} exist; write model.pretrained: false, or choose another backbone"
        )
    if twice := sorted(kwargs.keys() & spec.kwargs.keys()):
        raise ConfigError(f"model.kwargs: {', '.join(twice)} is what makes {spec.backbone}; remove it, or write {backbone}")
    return spec.model_copy(update={"backbone": backbone, "kwargs": {**kwargs, **spec.kwargs}})
