"""Attention blocks that stand behind a stage of a convolutional backbone; each gives a map of the shape it takes.

Shapes: B images, D channels, E inner channels, h x w feature map, N = h * w places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dermalyze.config.model import AttentionSpec
from dermalyze.errors import ConfigError
from dermalyze.models.feature_stages import Stage

TRIAL_PX = 64  # edge of the image that tells how many channels a stage gives


class Se(nn.Module):
    """A weight in 0..1 for each channel, from pooled channels; see `se`."""

    def __init__(self, channels: int, *, reduction: int, with_maximum: bool = False) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.layers = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))
        self.with_maximum = with_maximum

    def forward(self, map_BDhw: Tensor) -> Tensor:
        score_BD = self.layers(map_BDhw.mean(dim=(2, 3)))
        if self.with_maximum:
            score_BD = score_BD + self.layers(map_BDhw.amax(dim=(2, 3)))
        return map_BDhw * cast(Tensor, score_BD).sigmoid()[:, :, None, None]


class Spatial(nn.Module):
    """A weight in 0..1 for each place; see `spatial`."""

    def __init__(self, *, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, map_BDhw: Tensor) -> Tensor:
        summary_B2hw = torch.stack([map_BDhw.mean(dim=1), map_BDhw.amax(dim=1)], dim=1)
        return map_BDhw * cast(Tensor, self.norm(self.conv(summary_B2hw))).sigmoid()


class NonLocal(nn.Module):
    """Attention between all places, added to the map; see `self_attention`."""

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))

    def forward(self, map_BDhw: Tensor) -> Tensor:
        query_BEN, key_BEN, value_BEN = (layer(map_BDhw).flatten(2) for layer in (self.query, self.key, self.value))
        weights_BNN = (query_BEN.transpose(1, 2) @ key_BEN * query_BEN.shape[1] ** -0.5).softmax(dim=2)
        seen_BEN = value_BEN @ weights_BNN.transpose(1, 2)
        return map_BDhw + cast(Tensor, self.out(seen_BEN.reshape(-1, seen_BEN.shape[1], *map_BDhw.shape[2:])))


def se(channels: int, *, reduction: int) -> nn.Module:
    """Squeeze and excitation: each channel times a weight in 0..1.

        weight_D = sigmoid(Linear(relu(Linear(mean over places))))      D -> D / reduction -> D

    Untrained, a weight is about one half.

    >>> se(32, reduction=16)(torch.ones(1, 32, 2, 3)).shape
    torch.Size([1, 32, 2, 3])

    Hu et al. 2018, arXiv:1709.01507
    """
    return Se(channels, reduction=reduction)


def spatial(channels: int, *, kernel: int) -> nn.Module:
    """Each place times a weight in 0..1: the second half of `cbam`.

        weight_hw = sigmoid(BatchNorm(Conv(mean over channels, maximum over channels)))      2 -> 1 channel

    >>> spatial(32, kernel=7)(torch.ones(2, 32, 2, 3)).shape
    torch.Size([2, 32, 2, 3])

    Woo et al. 2018, arXiv:1807.06521
    """
    return Spatial(kernel=kernel)


def cbam(channels: int, *, reduction: int, kernel: int) -> nn.Module:
    """Channel attention from mean and maximum, which share their two layers, then `spatial`.

    >>> cbam(32, reduction=16, kernel=7)(torch.ones(2, 32, 2, 3)).shape
    torch.Size([2, 32, 2, 3])

    Woo et al. 2018, arXiv:1807.06521
    """
    return nn.Sequential(Se(channels, reduction=reduction, with_maximum=True), Spatial(kernel=kernel))


def self_attention(channels: int, *, reduction: int) -> nn.Module:
    """The non-local block (embedded Gaussian), scaled by the root of the inner width.

        map + Conv(softmax(query^T key / sqrt(E)) value)      the last convolution begins at zero: the identity

    Cost and memory grow with the square of the number of places: it belongs behind a late stage.

    >>> image = torch.randn(1, 8, 2, 3)
    >>> torch.equal(self_attention(8, reduction=2)(image), image)
    True

    Wang et al. 2018, arXiv:1711.07971
    """
    return NonLocal(channels, reduction=reduction)


ATTENTION: dict[str, Callable[..., nn.Module]] = {
    "se": se, "spatial": spatial, "cbam": cbam, "self_attention": self_attention,
}  # fmt: skip


def add_attention(
    net: nn.Module, stages: Sequence[Stage], specs: Sequence[AttentionSpec], *, features: Callable[[Tensor], Any]
) -> dict[str, int]:
    """Put blocks behind stages of a network, in place, in the order of the specs.

    Weights of the network are loaded before: afterwards the last module of such a stage has another name.

    Args:
        net: the network; changed.
        stages: its parts.
        specs: blocks, with the stage each stands behind; None: the last that gives a map.
        features: the network's pass to its last map, which is tried once with a small image to see what each stage gives.

    Returns:
        Name of each module that now holds a stage's last module and the blocks behind it, to its stage.

    Raises:
        ConfigError: there is no such stage, or what it gives is no map (B, D, h, w), as in a transformer.
    """
    names = {id(module): name for name, module in net.named_modules()}
    reached = _reached(net, stages, features)
    places: dict[str, int] = {}
    for spec in specs:
        stage = max(reached, default=0) if spec.stage is None else spec.stage
        if stage >= len(stages):
            raise ConfigError(
                f"model.attention: stage {stage} of a network of stages 0 (the stem) to {len(stages) - 1}; choose one of these"
            )
        if (last := reached.get(stage)) is None:
            raise ConfigError(
                f"model.attention: stage {stage} ({stages[stage].name}) of {type(net).__name__} gives no map of "
                "channels; attention stands behind stages of convolutional networks: remove it or choose another stage"
            )
        module, channels = last
        block = ATTENTION[spec.kind](channels, **spec.model_dump(exclude={"kind", "stage"}))
        wrapped = nn.Sequential(module, block)
        parent, _, child = names[id(module)].rpartition(".")
        setattr(net.get_submodule(parent), child, wrapped)
        names[id(wrapped)] = names[id(module)]
        reached[stage] = wrapped, channels
        places[names[id(module)]] = stage
    return places


def _reached(net: nn.Module, stages: Sequence[Stage], features: Callable[[Tensor], Any]) -> dict[int, tuple[nn.Module, int]]:
    """By stage its last module that gives a map on the way to the features, and the map's channels."""
    found: dict[int, tuple[nn.Module, int]] = {}

    def note(module: nn.Module, _: Any, output: Any, *, stage: int) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found[stage] = module, output.shape[1]
        else:
            found.pop(stage, None)

    parts = [(index, module) for index, stage in enumerate(stages) for module in stage.modules]
    hooks = [module.register_forward_hook(partial(note, stage=index)) for index, module in parts]
    training = net.training
    net.eval()
    parameter = next(net.parameters())
    try:
        with torch.inference_mode():
            features(torch.zeros(1, 3, TRIAL_PX, TRIAL_PX, device=parameter.device))
    except (AssertionError, RuntimeError, ValueError):  # a network of one size: no map is what the caller hears
        found.clear()
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return found
