"""Networks that timm does not have, in timm's dialect.

Shapes: B images, H x W pixels, D features, h x w feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

from torch import Tensor, nn


@dataclass(frozen=True)
class InputConfig:
    """What a backbone was trained on.

    Attributes:
        size: (height, width), px.
        mean: of RGB in 0..1.
        std: of RGB in 0..1, above 0.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class OwnNetwork(nn.Module):
    """A network that timm does not have: it speaks timm's dialect (`forward_features`, `forward_head`, `num_features`).

    Attributes:
        config: the input it was made for.
    """

    config: ClassVar[InputConfig]

    def group_matcher(self, coarse: bool = True) -> Callable[[str], int]:
        """From the name of a parameter to its part of the network, 0 the stem."""
        raise NotImplementedError


class TinyCnn(OwnNetwork):
    """Four blocks of convolution, BatchNorm and ReLU: a network for demonstrations and tests, no weights exist.

    A stem of stride 2 and a halving before each later block make the map 1/16 of the image. 137,112 parameters with
    the default channels.

    Args:
        channels: of each block, four or any other number.
    """

    config = InputConfig((96, 96), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, channels: Sequence[int] = (24, 48, 96, 96)) -> None:
        super().__init__()
        layers = self._block(3, channels[0], kernel=5, stride=2)
        for edge_in, edge_out in pairwise(channels):
            layers += [nn.MaxPool2d(2), *self._block(edge_in, edge_out, kernel=3, stride=1)]
        self.layers = nn.Sequential(*layers)
        self.num_features = channels[-1]

    @staticmethod
    def _block(edge_in: int, edge_out: int, *, kernel: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(edge_in, edge_out, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return [conv, nn.BatchNorm2d(edge_out), nn.ReLU(inplace=True)]

    def group_matcher(self, coarse: bool = True) -> Callable[[str], int]:
        return lambda name: int(name.split(".")[1]) // 4  # convolution, norm, ReLU, pooling

    def forward_features(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.layers(images))

    def forward_head(self, map_BDhw: Tensor, pre_logits: bool = True) -> Tensor:
        return map_BDhw.mean(dim=(2, 3))


OWN: dict[str, type[OwnNetwork]] = {"tiny_cnn": TinyCnn}
