"""The documents' names of networks, and what timm calls them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dermalyze.config.model import ModelSpec
from dermalyze.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Variant:
    """A network that is another one built with other numbers; no weights exist for it.

    Attributes:
        backbone: the other one.
        kwargs: the numbers.
        why: why no network of timm serves, where that surprises.
    """

    backbone: str
    kwargs: dict[str, Any]
    why: str | None = None


@dataclass(frozen=True)
class Names:
    """The content of `names.json`.

    Attributes:
        aliases: a document's name to the one of timm, where timm has the network under another. `vit_huge` is on patches of
            14, not of 16 as the document says.
        variants: by name.
    """

    aliases: dict[str, str]
    variants: dict[str, Variant]


@functools.cache
def names() -> Names:
    """What is listed, read once."""
    text = Path(__file__).with_name("names.json").read_text(encoding="utf-8")
    return TypeAdapter(Names).validate_json(text, strict=True)


def canonical_name(name: str) -> str:
    """The name under which a network is listed, in place of a document's.

    >>> canonical_name("ViT-Base"), canonical_name("DenseNet-264"), canonical_name("resnet18.a1_in1k")
    ('vit_base_patch16_224', 'densenet264', 'resnet18.a1_in1k')
    """
    if not re.fullmatch("[A-Za-z0-9_-]+", name):  # a tag, or something that no table holds
        return name
    key = name.lower().replace("-", "_")
    return names().aliases.get(key, key)


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
    name = canonical_name(spec.backbone)
    variant = names().variants.get(name)
    if variant is None:
        return spec.model_copy(update={"backbone": name})
    if spec.pretrained:
        raise ModelError(
            f"model.pretrained: no weights of {spec.backbone} exist; write model.pretrained: false, or choose another backbone"
        )
    if twice := sorted(variant.kwargs.keys() & spec.kwargs.keys()):
        raise ConfigError(
            f"model.kwargs: {', '.join(twice)} is what makes {spec.backbone}; remove it, or write {variant.backbone}"
        )
    return spec.model_copy(update={"backbone": variant.backbone, "kwargs": {**variant.kwargs, **spec.kwargs}})
