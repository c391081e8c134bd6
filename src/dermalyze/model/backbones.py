"""Backbones: images to features. The only file that imports timm.

Shapes: B images, H x W pixels, D features, h x w feature map, N tokens.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.core import torch_guard
from dermalyze.core.errors import ConfigError, MissingExtraError, ModelError, nearest
from dermalyze.model.own import OWN, InputConfig
from dermalyze.model.parts import Stage, child_groups, split_stages
from dermalyze.model.weights import load_backbone_weights, read_sidecar, read_tensors

if TYPE_CHECKING:
    from types import ModuleType

OURS = {  # kwargs of timm.create_model that are set here, and where to say it instead
    "num_classes": "the head has the classes",
    "in_chans": "images have 3 channels",
    "pretrained": "write model.pretrained",
    "checkpoint_path": "write model.weights",
    "pretrained_cfg": "write model.weights",
    "pretrained_cfg_overlay": "write model.weights",
    "features_only": "the feature map is always there",
    "out_indices": "the last feature map is used",
    "cache_dir": "set HF_HOME",
}
HUB_FILE = "model.safetensors"
HUB_TIMEOUT_S = 10.0


class Backbone(nn.Module):
    """A network without classifier.

    Attributes:
        net: the network itself.
        width: features of a pooled image.
        map_width: channels of the feature map (differs from `width` where the network ends in a layer after pooling,
            as MobileNetV3 does).
        default_size, mean, std: see `InputConfig`.
    """

    def __init__(self, net: nn.Module, config: InputConfig) -> None:
        super().__init__()
        self.net = net
        self.map_width = int(cast(int, net.num_features))
        self.width = int(cast(int, getattr(net, "head_hidden_size", None) or net.num_features))
        self.default_size, self.mean, self.std = config.size, config.mean, config.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the feature map (B, D, h, w).

        Raises:
            ModelError: the network's features are no grid.
        """
        return self._grid(self._raw(images), images)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images to features (B, D), pooled the network's own way."""
        return self._pool(self._raw(images))

    def pooled(self, map_BDhw: Tensor) -> Tensor:
        """The feature map to pooled features (B, D).

        Raises:
            ModelError: a transformer, which pools tokens that are not in the map; use `embed`.
        """
        if hasattr(self.net, "num_prefix_tokens"):
            raise ModelError(f"{type(self.net).__name__} pools tokens, not its map; use embed() instead of pooled()")
        channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        return self._pool(map_BDhw.permute(0, 2, 3, 1) if channels_last else map_BDhw)

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
        return split_stages(self.net, groups)

    def _raw(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.net.forward_features(images))  # type: ignore[operator]

    def _pool(self, raw: Tensor) -> Tensor:
        return cast(Tensor, self.net.forward_head(raw, pre_logits=True))  # type: ignore[operator]

    def _grid(self, raw: Tensor, images: Tensor) -> Tensor:
        shape = tuple(raw.shape) if isinstance(raw, Tensor) else ()  # some networks give a list of maps
        if len(shape) == 4 and shape[1] == self.map_width:
            return raw
        if len(shape) == 4 and shape[3] == self.map_width:
            return raw.permute(0, 3, 1, 2)
        patches = getattr(self.net, "patch_embed", None)
        if len(shape) == 3 and hasattr(patches, "dynamic_feat_size"):
            tokens_BND = raw[:, int(cast(int, getattr(self.net, "num_prefix_tokens", 0))) :]
            rows, columns = patches.dynamic_feat_size(tuple(images.shape[-2:]))  # type: ignore[union-attr]
            if rows * columns == tokens_BND.shape[1] and shape[2] == self.map_width:
                return tokens_BND.transpose(1, 2).reshape(-1, self.map_width, rows, columns)
        raise ModelError(f"{type(self.net).__name__} gives features {shape}, which are no map; use head linear or simple")


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
    check_name(spec.backbone)
    check_kwargs(spec)
    if load_weights and spec.weights is not None:
        config = pretrained_cfg_of(spec)  # the sidecar is judged before the network is built
        net = _create(spec)
        load_backbone_weights(Path(spec.weights), net, spec)
        return Backbone(net, config)
    hub_file = _hub_weights(spec.backbone) if load_weights and spec.pretrained else None
    return Backbone(_create(spec, hub_file), _architecture_config(spec))


def pretrained_cfg_of(spec: ModelSpec) -> InputConfig:
    """Size, mean and std that a backbone expects: those of the weight file's sidecar, else of timm's `pretrained_cfg`.

    Size is the training size (`input_size`), not `test_input_size`. Reads no weights.

    Raises:
        ConfigError: unknown name or kwargs.
        ModelError: the sidecar is missing, damaged, or made for another network.
    """
    check_name(spec.backbone)
    check_kwargs(spec)
    if spec.weights is None:
        return _architecture_config(spec)
    sidecar = read_sidecar(Path(spec.weights))
    sidecar.check(spec)
    return InputConfig(sidecar.size, sidecar.mean, sidecar.std)


def check_name(name: str) -> None:
    """Refuse a name that neither timm nor this file knows.

    Raises:
        ConfigError: with the nearest names.

    >>> check_name("tiny_cn")
    Traceback (most recent call last):
    ...
    dermalyze.core.errors.ConfigError: model.backbone: 'tiny_cn' is unknown to timm; nearest: tiny_cnn, ...
    """
    if name in OWN:
        return
    timm = _timm()
    if not timm.is_model(name):
        near = get_close_matches(name.lower(), [*timm.list_models(), *OWN], n=4, cutoff=0.4)
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
    if spec.backbone in OWN:
        return OWN[spec.backbone].config
    cfg = _timm().models.get_pretrained_cfg(spec.backbone)
    _, height, width = cfg.input_size if cfg else (3, 224, 224)
    size = spec.kwargs.get("img_size", (height, width))
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = (cfg.mean, cfg.std) if cfg else ((0.5,) * 3, (0.5,) * 3)
    return InputConfig((int(height), int(width)), _triple(mean), _triple(std))


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _create(spec: ModelSpec, hub_file: Path | None = None) -> nn.Module:
    """The bare network, with the hub's weights if a file is given."""
    try:
        if spec.backbone in OWN:
            return OWN[spec.backbone](**spec.kwargs)
        with _no_missing_weights(spec.backbone):
            overlay = None if hub_file is None else {"file": str(hub_file)}
            net: nn.Module = _timm().create_model(
                spec.backbone, pretrained=hub_file is not None, pretrained_cfg_overlay=overlay, num_classes=0, **spec.kwargs
            )
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, NotImplementedError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in spec.kwargs.items()) or "none"
        raise ConfigError(f"model.backbone: {spec.backbone} refuses model.kwargs ({given}): {error}; correct them") from error
    if not hasattr(net, "forward_head") or not hasattr(net, "num_features"):
        raise ConfigError(f"model.backbone: {spec.backbone} has no forward_head; choose another timm model")
    return net


@contextlib.contextmanager
def _no_missing_weights(name: str) -> Iterator[None]:
    """Refuse a network that timm filled only in part: it says so in its log, and goes on with random numbers."""
    missing: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text.startswith("Missing keys") or "random init" in text:
                missing.append(text)

    logger, listener = logging.getLogger("timm.models._builder"), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
    if missing:
        raise ModelError(f"model.pretrained: the weights of {name} do not fill this network: {missing[0]}; remove model.kwargs")


def _hub_weights(name: str) -> Path:
    """The local path of a network's weights from the hub: its cache, else one download; only safetensors.

    Raises:
        ModelError: there are none, or the hub cannot be reached.
    """
    remedy = "give a local file with model.weights, or train from random weights with model.pretrained: false"
    cfg = None if name in OWN else _timm().models.get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        raise ModelError(f"model.pretrained: no weights of {name} are on timm's hub; {remedy}")
    import huggingface_hub as hub

    repository, _, revision = str(cfg.hf_hub_id).partition("@")
    at = revision or None
    try:
        cached = hub.try_to_load_from_cache(repository, HUB_FILE, revision=at)
        if isinstance(cached, str):
            path = Path(cached)
        else:  # ask once before the download, which would ask for half a minute
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, HUB_FILE, revision=at), timeout=HUB_TIMEOUT_S)
            path = Path(hub.hf_hub_download(repository, HUB_FILE, revision=at))
    except Exception as error:  # the hub's client raises errors of several libraries, other ones in each version
        if type(error).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
            problem = f"{repository} has no {HUB_FILE}, and pickles are not loaded"
        else:
            problem = (
                f"cannot reach the weights of {name} ({HUB_FILE} of {repository}) on the hub: {type(error).__name__}: {error}"
            )
        raise ModelError(f"model.pretrained: {problem}; {remedy}") from error
    read_tensors(path)
    return path
