"""Backbones: images to features. The only file that imports timm.

Shapes: B images, H x W pixels, D features, h x w feature map, N tokens.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from dermalyze.config.model import AttentionSpec, ModelSpec
from dermalyze.core.atomic import size_text
from dermalyze.core.machine import available_memory_bytes
from dermalyze.errors import ConfigError, MissingExtraError, ModelError, ResourceError, nearest
from dermalyze.models import torch_guard
from dermalyze.models.attention import add_attention
from dermalyze.models.backbones_cvt import Cvt
from dermalyze.models.custom_cnn import OWN, CustomNetwork, InputConfig
from dermalyze.models.feature_stages import CamTarget, Stage, child_groups, split_stages
from dermalyze.models.hub import hub_weights, no_missing_weights
from dermalyze.models.names import names, resolve
from dermalyze.models.weights import load_backbone_weights, read_sidecar

if TYPE_CHECKING:
    from types import ModuleType

OURS = {  # kwargs of timm.create_model that are set here, and where to say it instead
    "num_classes": "the head has the classes",
    "in_chans": "write model.channels",
    "pretrained": "write model.pretrained",
    "checkpoint_path": "write model.weights",
    "pretrained_cfg": "write model.weights",
    "pretrained_cfg_overlay": "write model.weights",
    "features_only": "the feature map is always there",
    "out_indices": "the last feature map is used",
    "cache_dir": "set HF_HOME",
}


class Backbone(nn.Module):
    """A network without classifier.

    Attributes:
        net: the network itself.
        width: features of a pooled image.
        map_width: channels of the feature map (differs from `width` where the network ends in a layer after pooling,
            as MobileNetV3 does).
        default_size, mean, std: see `InputConfig`.
        channels: 1 where the network sees the mean of the three in each. That is what a network of one channel computes whose
            first kernels are the sums of these, so that any weights serve.
    """

    def __init__(self, net: nn.Module, config: InputConfig, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.net = net
        self.map_width = int(cast(int, net.num_features))
        self.width = int(cast(int, getattr(net, "head_hidden_size", None) or net.num_features))
        self.default_size, self.mean, self.std = config.size, config.mean, config.std
        self.tap = nn.Identity()  # the features pass here, so that a hook can read them in any family
        self._attention: dict[str, int] = {}
        prefix = getattr(net, "num_prefix_tokens", None)
        last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        self._map_target = CamTarget(self.tap, None if prefix is None else int(prefix), last, self._token_grid)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (B, 3, H, W) to the feature map (B, D, h, w).

        Raises:
            ModelError: the network's features are no grid.
        """
        raw = self._raw(images)
        try:
            map_BDhw = self._map_target.as_map(raw, (images.shape[2], images.shape[3]))
        except (AttributeError, ValueError) as error:  # some networks give a list of maps
            raise ModelError(f"{type(self.net).__name__} has no map: {error}; use head linear or simple") from error
        if map_BDhw.shape[1] != self.map_width:
            raise ModelError(f"{type(self.net).__name__} has a map of {map_BDhw.shape[1]} channels, not {self.map_width}")
        return map_BDhw

    def embed(self, images: Tensor) -> Tensor:
        """Normalized images to features (B, D), pooled the network's own way."""
        return self._pool(self._raw(images))

    def embed_with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) as `embed`, and the feature map (B, D, h, w) of the same pass."""
        raw = self._raw(images)
        return self._pool(raw), self._map_target.as_map(raw, (images.shape[2], images.shape[3]))

    def pooled(self, map_BDhw: Tensor) -> Tensor:
        """The feature map to pooled features (B, D).

        Raises:
            ModelError: a transformer, which pools tokens that are not in the map; use `embed`.
        """
        if hasattr(self.net, "num_prefix_tokens"):
            raise ModelError(f"{type(self.net).__name__} pools tokens, not its map; use embed() instead of pooled()")
        return self._pool(map_BDhw.permute(0, 2, 3, 1) if self._map_target.channels_last else map_BDhw)

    def stages(self) -> list[Stage]:
        """The network's parts in depth order: the stem first, every parameter in exactly one.

        What layer-wise decay and gradual unfreezing act on. A part is what the network's family calls so: a stage of a
        convolutional network or of a Swin, a block of a ViT. Class token and position embedding belong to the stem; a
        closing norm to the last part.
        """
        groups: list[list[str]]
        try:
            matcher = self.net.group_matcher(coarse=True)  # type: ignore[operator]
            groups = [*_timm().models.group_parameters(self.net, matcher).values()]
        except (AttributeError, AssertionError):  # a few of timm's networks do not say
            groups = child_groups(self.net)
        for place, stage in self._attention.items():  # a block belongs to the stage that it stands behind
            moved = {name for names in groups for name in names if name.startswith(f"{place}.")}
            groups = [[name for name in names if name not in moved] for names in groups]
            groups[stage] += [name for name, _ in self.net.named_parameters() if name in moved]
        return split_stages(self.net, groups)

    def cam_target(self) -> CamTarget:
        """Where a class-activation map is read.

        The feature map itself. In a transformer whose class token alone is pooled nothing but that token of the last
        block's output has a gradient; there the input of the last attention (its norm) is read, where every token has one.
        """
        last = getattr(self.net, "blocks", [None])[-1]
        norm = getattr(last, "norm1", getattr(last, "layernorm_before", None))
        if norm is None or self._map_target.prefix_tokens == 0:
            return self._map_target
        return replace(self._map_target, module=norm)

    def add_attention(self, specs: Sequence[AttentionSpec]) -> None:
        """Put attention blocks behind stages, in place; see `attention.add_attention`.

        Raises:
            ConfigError: no such stage, or no convolutional network.
        """
        if self._map_target.channels_last:
            raise ConfigError(f"model.attention: {type(self.net).__name__} is a transformer and has attention; remove it")
        self._attention = add_attention(self.net, self.stages(), specs, features=self._raw)

    def _raw(self, images: Tensor) -> Tensor:
        if self.channels == 1:
            images = images.mean(dim=1, keepdim=True).expand_as(images)
        return cast(Tensor, self.tap(self.net.forward_features(images)))  # type: ignore[operator]

    def _pool(self, raw: Tensor) -> Tensor:
        return cast(Tensor, self.net.forward_head(raw, pre_logits=True))  # type: ignore[operator]

    def _token_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the tokens of an image of (H, W) pixels."""
        own, patches = getattr(self.net, "token_grid", None), getattr(self.net, "patch_embed", None)
        if own is not None:
            rows, columns = own(size)
        elif hasattr(patches, "dynamic_feat_size"):
            rows, columns = patches.dynamic_feat_size(size)  # type: ignore[union-attr]
        else:
            info = getattr(self.net, "feature_info", None) or [{"reduction": 1}]
            rows, columns = (-(-edge // int(info[-1]["reduction"])) for edge in size)
        return int(rows), int(columns)


NETWORKS: dict[str, type[CustomNetwork]] = {**OWN, "cvt": Cvt}
"""The networks that timm does not have."""


def create_backbone(spec: ModelSpec, *, load_weights: bool) -> Backbone:
    """The backbone of a spec.

    Args:
        spec: name, kwargs and where weights come from.
        load_weights: load what `spec.pretrained` or `spec.weights` names. False touches no weight file and no sidecar:
            the caller loads a checkpoint, which carries its own preprocessing; size, mean and std are the architecture's.

    Raises:
        ConfigError: unknown name or kwargs.
        ModelError: weights are refused or cannot be reached.
    """
    spec = _checked(spec)
    config = pretrained_cfg_of(spec) if load_weights else _architecture_config(spec)  # a sidecar is checked before building
    _require_memory(spec)
    hub_file = _hub_weights(spec.backbone) if load_weights and spec.pretrained else None
    net = _create(spec, hub_file)
    if load_weights and spec.weights is not None:
        load_backbone_weights(Path(spec.weights), net, spec)
    backbone = Backbone(net, config, spec.channels)
    if spec.attention:
        backbone.add_attention(spec.attention)
    return backbone


def pretrained_cfg_of(spec: ModelSpec) -> InputConfig:
    """Size, mean and std that a backbone expects: those of the weight file's sidecar, else of timm's `pretrained_cfg`.

    Size is the training size (`input_size`), not `test_input_size`. Reads no weights.

    Raises:
        ConfigError: unknown name or kwargs.
        ModelError: the sidecar is missing, damaged, or made for another network.
    """
    spec = _checked(spec)
    if spec.weights is None:
        return _architecture_config(spec)
    sidecar = read_sidecar(Path(spec.weights))
    sidecar.check(spec)
    return InputConfig(sidecar.size, sidecar.mean, sidecar.std)


def license_of(spec: ModelSpec) -> str | None:
    """License of the weights that `pretrained: true` takes, as timm states it; "unknown", or None where there are no weights.

    >>> license_of(ModelSpec(backbone="resnet18")), license_of(ModelSpec(backbone="tiny_cnn"))
    ('apache-2.0', None)
    """
    spec = _checked(spec)
    cfg = (
        None if spec.backbone in NETWORKS or "block_config" in spec.kwargs else _timm().models.get_pretrained_cfg(spec.backbone)
    )
    return (cfg.license or "unknown") if cfg and cfg.hf_hub_id else None


def _checked(spec: ModelSpec) -> ModelSpec:
    """The spec under timm's name, with a known name and kwargs of its own."""
    spec = resolve(spec)
    check_name(spec.backbone)
    check_kwargs(spec)
    return spec


def check_name(name: str) -> None:
    """Refuse a name that neither timm nor dermalyze knows.

    Raises:
        ConfigError: with the nearest names.

    >>> check_name("tiny_cn")
    Traceback (most recent call last):
    ...
    dermalyze.errors.ConfigError: model.backbone: 'tiny_cn' is unknown to timm; nearest: tiny_cnn, ...
    """
    if name in NETWORKS:
        return
    timm = _timm()
    if not timm.is_model(name):
        listed = [*timm.list_models(), *NETWORKS, *names().aliases, *names().variants]
        near = get_close_matches(name.lower(), listed, n=4, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ConfigError(f"model.backbone: {name!r} is unknown to timm{hint}")
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ConfigError(f"model.backbone: {architecture} has no weights {tag!r}{nearest(tag, tags)}; tags: {', '.join(tags)}")


def check_kwargs(spec: ModelSpec) -> None:
    """Refuse keyword arguments that dermalyze sets itself.

    Raises:
        ConfigError: with where to say it instead.
    """
    for key in spec.kwargs:
        if key in OURS:
            raise ConfigError(f"model.kwargs.{key} is set by dermalyze: {OURS[key]}; remove it")


def _timm() -> ModuleType:
    torch_guard.install()
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name not in ("timm", "torchvision"):
            raise
        raise MissingExtraError("a timm backbone", "train") from error
    return timm


def _architecture_config(spec: ModelSpec) -> InputConfig:
    if spec.backbone in NETWORKS:
        config = NETWORKS[spec.backbone].config
    else:
        cfg = _timm().models.get_pretrained_cfg(spec.backbone)
        _, height, width = cfg.input_size if cfg else (3, 224, 224)
        mean, std = (cfg.mean, cfg.std) if cfg else ((0.5,) * 3, (0.5,) * 3)
        config = InputConfig((height, width), _triple(mean), _triple(std))
    size = spec.kwargs.get("img_size", config.size)
    height, width = (size, size) if isinstance(size, int) else size
    return replace(config, size=(int(height), int(width)))


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _require_memory(spec: ModelSpec) -> None:
    """Refuse a network that memory does not hold, before it is built; its weights alone are counted, in fp32.

    Raises:
        ResourceError: with what is needed and what is free.
    """
    free = available_memory_bytes()
    if free is None or spec.backbone in NETWORKS or torch.get_default_device().type == "meta":
        return
    parameters = _parameters(spec.backbone, json.dumps(spec.kwargs, sort_keys=True, default=str))
    if (needed := 4 * parameters) > free:
        raise ResourceError(
            f"model.backbone: {spec.backbone} has {parameters / 1e6:,.0f} M parameters, {size_text(needed)}, and "
            f"{size_text(free)} of memory are free (training needs about four times the weights); choose a smaller one"
        )


@functools.lru_cache
def _parameters(backbone: str, kwargs: str) -> int:
    """Parameters of a network, counted without memory for them; 0 where it cannot be built so."""
    try:
        with torch.device("meta"):
            net = _create(ModelSpec(backbone=backbone, kwargs=json.loads(kwargs)))
    except (ConfigError, NotImplementedError):
        return 0  # what is wrong with it is said where it is really built
    return sum(parameter.numel() for parameter in net.parameters())


def create_classifier(spec: ModelSpec, classes: int) -> nn.Module:
    """A network of timm with timm's own classifier: normalized images (B, 3, H, W) to scores (B, C). Its weights are random.

    Args:
        spec: backbone and kwargs; the rest is not used.
        classes: C.

    Raises:
        ConfigError: no network of timm, or it refuses the kwargs.
    """
    spec = _checked(spec)
    if spec.backbone in NETWORKS:
        raise ConfigError(f"model.backbone: {spec.backbone} is no network of timm and has no classifier of its own")
    _require_memory(spec)
    return _create(spec, classes=classes)


def _create(spec: ModelSpec, hub_file: Path | None = None, *, classes: int = 0) -> nn.Module:
    """The network, with the hub's weights if a file is given; bare, unless classes are."""
    try:
        if spec.backbone in NETWORKS:
            return NETWORKS[spec.backbone](**spec.kwargs)
        with no_missing_weights(spec.backbone):
            overlay = None if hub_file is None else {"file": str(hub_file)}
            net: nn.Module = _timm().create_model(
                spec.backbone,
                pretrained=hub_file is not None,
                pretrained_cfg_overlay=overlay,
                num_classes=classes,
                **spec.kwargs,
            )
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError, NotImplementedError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in spec.kwargs.items()) or "none"
        raise ConfigError(f"model.backbone: {spec.backbone} refuses model.kwargs ({given}): {error}; correct them") from error
    if not hasattr(net, "forward_head") or not hasattr(net, "num_features"):
        raise ConfigError(f"model.backbone: {spec.backbone} has no forward_head; choose another timm model")
    return net


def _hub_weights(name: str) -> Path:
    cfg = None if name in NETWORKS else _timm().models.get_pretrained_cfg(name)
    near = f"tf_{name}" if name not in NETWORKS and _timm().models.is_model_pretrained(f"tf_{name}") else None
    return hub_weights(name, cfg.hf_hub_id if cfg else None, near)
